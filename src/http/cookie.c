// SPDX-License-Identifier: BSD-2-Clause
// Cookie fields of requests (cookie.h).
#include "http/cookie.h"

#include <errno.h>
#include <string.h>

// Takes what stands before the next ";".
static struct slice take(struct slice *rest) {
    const char *end = memchr(rest->at, ';', rest->len);
    struct slice pair = slice_make(rest->at, end ? (size_t)(end - rest->at) : rest->len);
    *rest = slice_from(*rest, end ? pair.len + 1 : pair.len);
    return pair;
}

static bool split(struct slice pair, struct slice *ret_name, struct slice *ret_value) {
    const char *mark = pair.len > 0 ? memchr(pair.at, '=', pair.len) : NULL;
    if (!mark)
        return false;
    *ret_name = slice_trim(slice_make(pair.at, (size_t)(mark - pair.at)));
    *ret_value = slice_trim(slice_from(pair, (size_t)(mark - pair.at) + 1));
    if (ret_value->len >= 2 && ret_value->at[0] == '"' && ret_value->at[ret_value->len - 1] == '"')
        *ret_value = slice_make(ret_value->at + 1, ret_value->len - 2);
    return ret_name->len > 0;
}

bool cookie_next(struct slice *rest, struct slice *ret_name, struct slice *ret_value) {
    while (rest->len > 0)
        if (split(take(rest), ret_name, ret_value))
            return true;
    return false;
}

bool cookies_find(const struct headers *headers, struct slice wanted, struct slice *ret_value) {
    if (!(headers->seen & 1ull << HEADER_cookie))
        return false;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct slice rest = headers->at[i].value, name;
        if (headers->at[i].id != HEADER_cookie || headers->at[i].name.len == 0)
            continue;
        while (cookie_next(&rest, &name, ret_value))
            if (slice_eq(name, wanted))
                return true;
    }
    return false;
}

static bool is_of(struct slice pair, struct slice wanted) {
    struct slice name, value;
    return split(pair, &name, &value) && slice_eq(name, wanted);
}

// What is left of one field, at `to`.
static size_t without(struct slice rest, struct slice wanted, char *to) {
    size_t len = 0;
    while (rest.len > 0) {
        struct slice pair = slice_trim(take(&rest));
        if (pair.len == 0 || is_of(pair, wanted))
            continue;
        if (len > 0) {
            to[len++] = ';';
            to[len++] = ' ';
        }
        memcpy(to + len, pair.at, pair.len);
        len += pair.len;
    }
    return len;
}

static bool has(struct slice rest, struct slice wanted) {
    while (rest.len > 0)
        if (is_of(take(&rest), wanted))
            return true;
    return false;
}

int cookies_remove(struct headers *headers, struct arena *arena, struct slice wanted) {
    if (!(headers->seen & 1ull << HEADER_cookie))
        return 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->at[i];
        if (header->id != HEADER_cookie || header->name.len == 0 || !has(header->value, wanted))
            continue;
        // A ";" may become "; ".
        char *to = arena_alloc(arena, 2 * header->value.len);
        if (!to)
            return -ENOMEM;
        size_t len = without(header->value, wanted, to);
        header->value = slice_make(to, len);
        if (len == 0)
            header->name.len = 0;
    }
    return 0;
}
