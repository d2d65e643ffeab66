// SPDX-License-Identifier: BSD-2-Clause
// Prints values as log_line.h says: what is escaped, and how, in each place. Called by log_variables.c.
#include "proxy/log_line.h"

#include <string.h>

static const char pairs[201] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

void line_print_padded(char *at, unsigned value, unsigned digits) {
    for (; digits >= 2; digits -= 2, value /= 100)
        memcpy(at + digits - 2, pairs + value % 100 * 2, 2);
    if (digits)
        *at = (char)('0' + value % 10);
}

void line_digits(struct log_line *line, uint64_t value) {
    char text[20], *at = text + sizeof text;
    for (; value >= 100; value /= 100)
        memcpy(at -= 2, pairs + value % 100 * 2, 2);
    if (value >= 10)
        memcpy(at -= 2, pairs + value * 2, 2);
    else
        *--at = (char)('0' + value);
    line_raw(line, at, (size_t)(text + sizeof text - at));
}

enum { ESCAPED_MAX = 6 };  // the longest that one byte becomes: \u001f

// Copies or escapes what stands at the front; returns how many bytes of it that were. The caller saw to the
// room: ESCAPED_MAX, whatever it is.
static size_t print_escaped(char **to, const unsigned char *at, size_t len, enum log_place place) {
    static const char hex[] = "0123456789ABCDEF";
    unsigned char c = at[0];
    bool plain = c > 0x20 && c < 0x7f && c != '"' && c != '\\';
    if (plain || (c == ' ' && place != PLACE_BARE)) {
        *(*to)++ = (char)c;
        return 1;
    }
    if (place != PLACE_JSON) {
        memcpy(*to, (char[]){ '\\', 'x', hex[c >> 4], hex[c & 15] }, 4);
        *to += 4;
        return 1;
    }
    if (c == '"' || c == '\\') {
        memcpy(*to, (char[]){ '\\', (char)c }, 2);
        *to += 2;
        return 1;
    }
    unsigned sequence = c < 0x80 ? 1 : slice_utf8_length(slice_make((const char *)at, len));
    if (sequence == 0) {
        memcpy(*to, "\\ufffd", 6);
        *to += 6;
        return 1;
    }
    if (c < 0x80 || (c == 0xc2 && at[1] < 0xa0)) {  // controls of both sets: a terminal obeys the second, too
        unsigned char code = c < 0x80 ? c : at[1];
        memcpy(*to, (char[]){ '\\', 'u', '0', '0', hex[code >> 4], hex[code & 15] }, 6);
        *to += 6;
        return sequence;
    }
    memcpy(*to, at, sequence);
    *to += sequence;
    return sequence;
}

// Whether none of eight bytes needs a look: all from `floor` to 0x7e, no quote and no backslash. Eight at
// once, by the borrow into each byte's highest bit.
static bool all_plain(uint64_t bytes, unsigned floor) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\', del = bytes ^ ones * 0x7f;
    uint64_t found = bytes | ((bytes - ones * floor) & ~bytes) | ((quote - ones) & ~quote) |
        ((backslash - ones) & ~backslash) | ((del - ones) & ~del);
    return (found & tops) == 0;
}

void line_part(struct log_line *line, struct slice text) {
    const enum log_place place = line->item->place;
    const unsigned floor = place == PLACE_BARE ? 0x21 : 0x20;
    const unsigned char *at = (const unsigned char *)text.at;
    size_t len = text.len < line->limit ? text.len : line->limit;
    while (len > 0) {
        // The last bytes' UTF-8 sequence may be cut by the limit; then it counts as broken.
        uint64_t bytes;
        if (len >= sizeof bytes && (size_t)(line->end - line->at) >= sizeof bytes) {
            memcpy(&bytes, at, sizeof bytes);
            if (all_plain(bytes, floor)) {
                memcpy(line->at, &bytes, sizeof bytes);
                line->at += sizeof bytes, at += sizeof bytes, len -= sizeof bytes;
                continue;
            }
        }
        for (const unsigned char *stop = at + (len < sizeof bytes ? len : sizeof bytes); at < stop;) {
            if (!line_has_room(line, ESCAPED_MAX))
                return;
            size_t passed = print_escaped(&line->at, at, len, place);
            at += passed, len -= passed;
        }
    }
    if (text.len > line->limit)
        line_raw(line, "...", 3);
}

void line_open(struct log_line *line) {
    if (line->item->place == PLACE_JSON)
        line_char(line, '"');
}

void line_close(struct log_line *line) {
    line_open(line);
}

void line_absent(struct log_line *line) {
    if (line->item->place == PLACE_JSON)
        line_raw(line, "null", 4);
    else
        line_char(line, '-');
}

void line_text(struct log_line *line, struct slice text) {
    if (text.len == 0) {
        line_absent(line);
        return;
    }
    line_open(line);
    line_part(line, text);
    line_close(line);
}

void line_safe(struct log_line *line, const char *at, size_t len) {
    line_open(line);
    line_raw(line, at, len);
    line_close(line);
}

void line_number(struct log_line *line, uint64_t value) {
    line_digits(line, value);
}

void line_flag(struct log_line *line, bool value) {
    if (line->item->place == PLACE_JSON)
        line_raw(line, value ? "true" : "false", value ? 4 : 5);
    else
        line_raw(line, value ? "yes" : "no", value ? 3 : 2);
}

void line_fraction(struct log_line *line, uint64_t whole, unsigned fraction, unsigned digits) {
    char text[8] = ".";
    line_print_padded(text + 1, fraction, digits);
    line_digits(line, whole);
    line_raw(line, text, digits + 1);
}

void line_seconds(struct log_line *line, uint64_t from, uint64_t to) {
    if (from == 0 || to == 0) {
        line_absent(line);
        return;
    }
    uint64_t us = to > from ? to - from : 0;
    line_fraction(line, us / 1000000, (unsigned)(us % 1000000), 6);
}
