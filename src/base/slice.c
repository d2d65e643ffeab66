// SPDX-License-Identifier: BSD-2-Clause
// The few operations on slices that are too long for the header. No allocation, no locale.
#include "base/slice.h"

#include <errno.h>

struct slice slice_trim(struct slice s) {
    while (s.len > 0 && (s.at[0] == ' ' || s.at[0] == '\t'))
        s.at++, s.len--;
    while (s.len > 0 && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

bool slice_next_element(struct slice *rest, struct slice *ret_element) {
    while (rest->len > 0) {
        size_t end = 0;
        bool quoted = false;
        for (; end < rest->len && (quoted || rest->at[end] != ','); end++) {
            if (rest->at[end] == '"')
                quoted = !quoted;
            else if (quoted && rest->at[end] == '\\' && end + 1 < rest->len)
                end++;
        }
        struct slice element = slice_trim(slice_make(rest->at, end));
        *rest = slice_from(*rest, end + 1);
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

int slice_to_u64(struct slice s, uint64_t *ret_value) {
    uint64_t value = 0;
    if (s.len == 0)
        return -EINVAL;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (unsigned)(s.at[i] - '0'), &value))
            return -ERANGE;
    }
    *ret_value = value;
    return 0;
}

// Eight bytes a step, multiply and fold: quick and well spread for short keys. Where a peer could choose
// colliding keys, the seed is random per process.
uint64_t slice_hash(struct slice s, uint64_t seed) {
    const uint64_t k = 0x9e3779b97f4a7c15u;
    uint64_t h = seed ^ (s.len * k);
    const char *p = s.at;
    size_t left = s.len;
    for (; left >= 8; p += 8, left -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        __uint128_t product = (__uint128_t)(h ^ word) * (k ^ seed);
        h = (uint64_t)product ^ (uint64_t)(product >> 64);
        h += k;
    }
    uint64_t tail = 0;
    if (left > 0)
        memcpy(&tail, p, left);
    __uint128_t product = (__uint128_t)(h ^ tail ^ k) * 0xd6e8feb86659fd93u;
    h = (uint64_t)product ^ (uint64_t)(product >> 64);
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

unsigned slice_utf8_length(struct slice s) {
    const unsigned char *at = (const unsigned char *)s.at;
    if (s.len == 0)
        return 0;
    unsigned char first = at[0];
    unsigned want = 0;
    if (first >= 0xc2 && first <= 0xdf)
        want = 2;
    else if (first >= 0xe0 && first <= 0xef)
        want = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        want = 4;
    if (want == 0 || want > s.len)
        return 0;
    for (unsigned i = 1; i < want; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) ||  // overlong; surrogates
        (first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f))    // overlong; beyond U+10FFFF
        return 0;
    return want;
}
