// SPDX-License-Identifier: BSD-2-Clause
// Values of value.h: called by the parser to read, by -T and --defaults to print, by error texts for bounds.
#include "conf/value.h"

#include <errno.h>
#include <inttypes.h>

struct suffix {
    const char *text;
    uint64_t factor;
};

// Largest first, for printing.
static const struct suffix size_suffixes[] = {
    { "g", 1u << 30 }, { "m", 1u << 20 }, { "k", 1u << 10 }, { "", 1 }
};
static const struct suffix time_suffixes[] = {
    { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
};
static const struct suffix number_suffixes[] = { { "", 1 } };

static const struct suffix *suffixes_of(enum value_unit unit, size_t *ret_count) {
    switch (unit) {
    case VALUE_SIZE:
        *ret_count = sizeof size_suffixes / sizeof *size_suffixes;
        return size_suffixes;
    case VALUE_TIME:
        *ret_count = sizeof time_suffixes / sizeof *time_suffixes;
        return time_suffixes;
    default:
        *ret_count = 1;
        return number_suffixes;
    }
}

int value_parse(struct slice text, enum value_unit unit, uint64_t *ret_value) {
    size_t digits = 0, count;
    while (digits < text.len && text.at[digits] >= '0' && text.at[digits] <= '9')
        digits++;
    const struct suffix *suffixes = suffixes_of(unit, &count);
    struct slice rest = slice_from(text, digits);
    uint64_t factor = 0, value;
    if (rest.len == 0)
        factor = unit == VALUE_TIME ? 1000 : 1;
    for (size_t i = 0; i < count && !factor; i++) {
        if (slice_ieq(rest, slice_of(suffixes[i].text)))
            factor = suffixes[i].factor;
    }
    if (!factor)
        return -EINVAL;
    int err = slice_to_u64(slice_make(text.at, digits), &value);
    if (err)
        return err;
    if (__builtin_mul_overflow(value, factor, &value))
        return -ERANGE;
    *ret_value = value;
    return 0;
}

const char *value_print(uint64_t value, enum value_unit unit, char text[VALUE_TEXT_MAX]) {
    size_t count;
    const struct suffix *suffix = suffixes_of(unit, &count);
    if (value == 0)
        return memcpy(text, "0", 2);
    while (value % suffix->factor != 0)
        suffix++;
    snprintf(text, VALUE_TEXT_MAX, "%" PRIu64 "%s", value / suffix->factor, suffix->text);
    return text;
}

static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
        (c != 0 && strchr("_-./:=+,@%*~!?()[]<>|^&", c));
}

void value_print_word(FILE *out, const char *word) {
    bool plain = *word != 0;
    for (const char *c = word; *c && plain; c++)
        plain = is_plain(*c);
    if (plain) {
        fputs(word, out);
        return;
    }
    fputc('"', out);
    for (const char *c = word; *c; c++) {
        switch (*c) {
        case '\n':
            fputs("\\n", out);
            break;
        case '\r':
            fputs("\\r", out);
            break;
        case '\t':
            fputs("\\t", out);
            break;
        case '$':
            fputs(c[1] == '{' ? "\\$" : "$", out);
            break;
        case '"':
        case '\\':
            fputc('\\', out);
            // fall through
        default:
            fputc(*c, out);
        }
    }
    fputc('"', out);
}
