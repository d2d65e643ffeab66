// SPDX-License-Identifier: BSD-2-Clause
// A slice is a view of bytes that somebody else owns: it is valid for as long as the owner says, is not
// terminated by NUL and may hold any byte. All text inside moongate travels as slices.
#ifndef MOONGATE_BASE_SLICE_H
#define MOONGATE_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *at;
    size_t len;
};

// For printf: printf("%.*s", SLICE_ARG(name))
#define SLICE_ARG(s) (int)(s).len, (s).at
#define SLICE_LIT(text) ((struct slice){ "" text, sizeof(text) - 1 })

static inline struct slice slice_of(const char *text) {
    return (struct slice){ text, text ? strlen(text) : 0 };
}

static inline struct slice slice_make(const char *at, size_t len) {
    return (struct slice){ at, len };
}

static inline bool slice_eq(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

// ASCII case is ignored.
static inline bool slice_ieq(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || strncasecmp(a.at, b.at, a.len) == 0);
}

static inline bool slice_starts(struct slice s, struct slice prefix) {
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.at, prefix.at, prefix.len) == 0);
}

static inline bool slice_istarts(struct slice s, struct slice prefix) {
    return s.len >= prefix.len && (prefix.len == 0 || strncasecmp(s.at, prefix.at, prefix.len) == 0);
}

static inline struct slice slice_from(struct slice s, size_t offset) {
    size_t skip = offset < s.len ? offset : s.len;
    return skip == 0 ? s : slice_make(s.at + skip, s.len - skip);
}

// Removes spaces and tabs on both ends (OWS of RFC 9110, 5.6.3).
struct slice slice_trim(struct slice s);

// Takes the next element of a comma-separated list (RFC 9110, 5.6.1) off the front of *rest, trimmed; commas
// inside quoted strings do not separate. False at the end of the list; empty elements are passed over.
bool slice_next_element(struct slice *rest, struct slice *ret_element);

// Decimal digits only, no sign, no space; -EINVAL when there is anything else or nothing, -ERANGE on
// overflow.
int slice_to_u64(struct slice s, uint64_t *ret_value) __attribute__((warn_unused_result));

// The length (2 to 4) of the UTF-8 sequence at the front (RFC 3629), 0 when it is none; ASCII is none either.
unsigned slice_utf8_length(struct slice s);

uint64_t slice_hash(struct slice s, uint64_t seed);

#endif
