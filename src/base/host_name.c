// SPDX-License-Identifier: BSD-2-Clause
// The check of host_name.h.
#include "base/host_name.h"

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
