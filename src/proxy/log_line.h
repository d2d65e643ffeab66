// SPDX-License-Identifier: BSD-2-Clause
// A line of the access log while it is printed, and how a value of each kind looks in the place where it
// stands: quoted, bare or JSON. No byte of a peer leaves it that could forge a line or a field. Below the
// variables (log_variables.c), which say what a value is; compiled formats (log_format.c) say where it
// stands.
#ifndef MOONGATE_PROXY_LOG_LINE_H
#define MOONGATE_PROXY_LOG_LINE_H

#include "http/exchange.h"

enum log_place {
    PLACE_BARE,    // in an own format outside quotes: a space would end the field, so it is escaped too
    PLACE_QUOTED,  // between quotes
    PLACE_JSON,    // a JSON value
};

struct log_line;

// A variable in a format.
struct log_item {
    struct slice literal;  // stands before the value
    void (*put)(struct log_line *line);
    enum log_place place;
    enum header_id id;  // of a header variable
    struct slice name;  // and its field's name when the id is HEADER_OTHER
};

// A line being printed. Once something did not fit, nothing more does.
struct log_line {
    char *at, *end;
    bool full;
    size_t limit;
    struct exchange *x;
    const struct log_item *item;
};

static inline bool line_has_room(struct log_line *line, size_t len) {
    if (__builtin_expect((size_t)(line->end - line->at) >= len, 1))
        return true;
    line->full = true;
    line->end = line->at;
    return false;
}

static inline void line_raw(struct log_line *line, const char *at, size_t len) {
    if (line_has_room(line, len)) {
        memcpy(line->at, at, len);
        line->at += len;
    }
}

static inline void line_char(struct log_line *line, char c) {
    if (line_has_room(line, 1))
        *line->at++ = c;
}

void line_digits(struct log_line *line, uint64_t value);

// Part of a value: a peer's bytes, escaped for the place. Between line_open() and line_close().
void line_part(struct log_line *line, struct slice text);
void line_open(struct log_line *line);
void line_close(struct log_line *line);

// Whole values.
void line_absent(struct log_line *line);
// A peer's or an operator's text; an empty one counts as absent.
void line_text(struct log_line *line, struct slice text);
// Text that moongate made: nothing in it needs to be escaped anywhere.
void line_safe(struct log_line *line, const char *at, size_t len);
void line_number(struct log_line *line, uint64_t value);
void line_flag(struct log_line *line, bool value);
void line_fraction(struct log_line *line, uint64_t whole, unsigned fraction, unsigned digits);
// A duration between two moments in microseconds, 0 being "has not happened".
void line_seconds(struct log_line *line, uint64_t from, uint64_t to);

// Writes exactly `digits` digits to memory of the caller's.
void line_print_padded(char *at, unsigned value, unsigned digits);

#endif
