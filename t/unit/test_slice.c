// SPDX-License-Identifier: BSD-2-Clause
// Views of bytes: comparing, cutting, lists of elements, numbers, hashes.
#include "base/slice.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static const struct slice nothing;  // at == NULL

Test(slice, comparing_with_and_without_case) {
    cr_assert(slice_eq(SLICE_LIT("abc"), slice_of("abc")));
    cr_assert_not(slice_eq(SLICE_LIT("abc"), SLICE_LIT("abC")));
    cr_assert_not(slice_eq(SLICE_LIT("abc"), SLICE_LIT("ab")));
    cr_assert(slice_eq(SLICE_LIT("a\0b"), SLICE_LIT("a\0b")));
    cr_assert_not(slice_eq(SLICE_LIT("a\0b"), SLICE_LIT("a\0c")));
    cr_assert(slice_ieq(SLICE_LIT("Content-Length"), SLICE_LIT("content-LENGTH")));
    cr_assert_not(slice_ieq(SLICE_LIT("[abc"), SLICE_LIT("{abc")));
    cr_assert(slice_starts(SLICE_LIT("abc"), SLICE_LIT("ab")));
    cr_assert_not(slice_starts(SLICE_LIT("a"), SLICE_LIT("ab")));
    cr_assert(slice_istarts(SLICE_LIT("Bearer x"), SLICE_LIT("bearer ")));
    cr_assert_not(slice_istarts(SLICE_LIT("Bear"), SLICE_LIT("bearer")));
}

Test(slice, no_bytes_at_all_are_harmless) {
    struct slice element;
    uint64_t value;
    cr_assert_eq(slice_of(NULL).len, 0);
    cr_assert(slice_eq(nothing, SLICE_LIT("")));
    cr_assert(slice_ieq(nothing, nothing));
    cr_assert(slice_starts(nothing, nothing));
    cr_assert(slice_starts(SLICE_LIT("a"), nothing));
    cr_assert(slice_istarts(SLICE_LIT("a"), nothing));
    cr_assert_eq(slice_from(nothing, 0).len, 0);
    cr_assert_eq(slice_from(nothing, 5).len, 0);
    cr_assert_eq(slice_trim(nothing).len, 0);
    struct slice rest = nothing;
    cr_assert_not(slice_next_element(&rest, &element));
    cr_assert_eq(slice_to_u64(nothing, &value), -EINVAL);
    cr_assert_eq(slice_hash(nothing, 7), slice_hash(SLICE_LIT(""), 7));
}

Test(slice, cutting_never_leaves_the_slice) {
    struct slice s = SLICE_LIT("abcdef");
    cr_assert(slice_eq(slice_from(s, 2), SLICE_LIT("cdef")));
    cr_assert_eq(slice_from(s, 6).len, 0);
    cr_assert_eq(slice_from(s, 7).len, 0);
    cr_assert_eq(slice_from(s, SIZE_MAX).at, s.at + 6);
    cr_assert(slice_eq(slice_trim(SLICE_LIT(" \t a b\t ")), SLICE_LIT("a b")));
    cr_assert_eq(slice_trim(SLICE_LIT(" \t ")).len, 0);
    cr_assert(slice_eq(slice_trim(SLICE_LIT("\r\n")), SLICE_LIT("\r\n")));
}

static void check_elements(const char *list, const char *joined) {
    struct slice rest = slice_of(list), element;
    char got[256] = "";
    while (slice_next_element(&rest, &element))
        sprintf(got + strlen(got), "<%.*s>", SLICE_ARG(element));
    cr_assert_str_eq(got, joined);
}

Test(slice, elements_of_a_list) {
    check_elements("a, b ,c", "<a><b><c>");
    check_elements("", "");
    check_elements(" , ,, ", "");
    check_elements(",a,", "<a>");
    check_elements("a=\"x, y\", b", "<a=\"x, y\"><b>");
    check_elements("a=\"x\\\", y\", b", "<a=\"x\\\", y\"><b>");
    check_elements("a=\"x, y", "<a=\"x, y>");  // never closed: one element
    check_elements("\"\\", "<\"\\>");
    check_elements("a\\,b", "<a\\><b>");
}

Test(slice, numbers_are_digits_and_nothing_else) {
    static const char *const bad[] = { "", "+1", "-1", " 1", "1 ", "0x10", "1.0", "١" };
    uint64_t value = 99;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(slice_to_u64(slice_of(bad[i]), &value), -EINVAL, "\"%s\" was read", bad[i]);
    cr_assert_eq(slice_to_u64(SLICE_LIT("18446744073709551616"), &value), -ERANGE);
    cr_assert_eq(slice_to_u64(SLICE_LIT("99999999999999999999999999"), &value), -ERANGE);
    cr_assert_eq(value, 99);
    cr_assert_eq(slice_to_u64(SLICE_LIT("18446744073709551615"), &value), 0);
    cr_assert_eq(value, UINT64_MAX);
    cr_assert_eq(slice_to_u64(SLICE_LIT("007"), &value), 0);
    cr_assert_eq(value, 7);
}

Test(slice, hashes_spread_and_depend_on_the_seed) {
    enum { COUNT = 1 << 16 };
    static unsigned char low[COUNT], high[COUNT];
    unsigned low_used = 0, high_used = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        char key[24];
        struct slice s = slice_make(key, (size_t)sprintf(key, "10.0.%u.%u", i >> 8, i & 255));
        uint64_t hash = slice_hash(s, 42);
        cr_assert_neq(hash, slice_hash(s, 43));
        low_used += !low[hash % COUNT]++;
        high_used += !high[hash >> 48]++;
    }
    // A random function hits 1 - 1/e of the places: 41427.
    cr_assert(low_used > 41000 && low_used < 41900, "%u", low_used);
    cr_assert(high_used > 41000 && high_used < 41900, "%u", high_used);
    cr_assert_neq(slice_hash(SLICE_LIT("a"), 1), slice_hash(SLICE_LIT("a\0"), 1));
    cr_assert_neq(slice_hash(SLICE_LIT("12345678"), 1), slice_hash(SLICE_LIT("12345678\0"), 1));
}
