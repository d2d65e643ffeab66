// SPDX-License-Identifier: BSD-2-Clause
// Reads the names of host_name.h.
#include "base/host_name.h"

#include <string.h>

enum { HOST_NAME_LONGEST = 253 };

bool host_name_valid(struct slice text) {
    bool digits = true;
    size_t label = 0;
    if (text.len > 0 && text.at[text.len - 1] == '.')
        text.len--;
    if (text.len == 0 || text.len > HOST_NAME_LONGEST - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            digits = true;
            continue;
        }
        bool digit = c >= '0' && c <= '9';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!digit && !letter && c != '-' && c != '_')
            return false;
        digits = digits && digit;
        if (++label > 63)
            return false;
    }
    return label > 0 && !digits;
}

bool host_name_split(struct slice text, struct slice *ret_name, uint16_t *ret_port) {
    const char *colon = text.len > 0 ? memchr(text.at, ':', text.len) : NULL;
    unsigned port = 0;
    if (!colon)
        return false;
    struct slice name = slice_make(text.at, (size_t)(colon - text.at));
    size_t digits = text.len - name.len - 1;
    for (size_t i = 0; i < digits && digits <= 5; i++) {
        char c = colon[1 + i];
        if (c < '0' || c > '9')
            return false;
        port = port * 10 + (unsigned)(c - '0');
    }
    if (digits > 5 || port == 0 || port > 65535 || !host_name_valid(name))
        return false;
    *ret_name = name;
    *ret_port = (uint16_t)port;
    return true;
}
