// SPDX-License-Identifier: BSD-2-Clause
// What both sides of HTTP/2 share: nghttp2's memory, which is kept by size, and heads as lists of fields.
#include "http/h2_session.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252u;
static size_t rnd(size_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static void fill(unsigned char *at, size_t len, unsigned with) {
    memset(at, (int)(with & 255), len);
}

static void check(const unsigned char *at, size_t len, unsigned with) {
    for (size_t i = 0; i < len; i++)
        cr_assert_eq(at[i], with & 255);
}

Test(h2_session, memory_of_all_sizes_grows_shrinks_and_is_reused) {
    enum { PIECES = 300, STEPS = 50000 };
    static struct {
        unsigned char *at;
        size_t len;
    } pieces[PIECES];
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rnd(PIECES);
        size_t len = rnd(4) ? rnd(530) : rnd(5000);
        if (pieces[i].at)
            check(pieces[i].at, pieces[i].len, i);
        if (!pieces[i].at && rnd(2)) {
            pieces[i].at = h2_memory.calloc(len, 1, NULL);
            cr_assert_not_null(pieces[i].at);
            check(pieces[i].at, len, 0);
        } else if (pieces[i].at && rnd(2)) {
            h2_memory.free(pieces[i].at, NULL);
            pieces[i].at = NULL;
            pieces[i].len = 0;
            continue;
        } else {
            size_t same = len < pieces[i].len ? len : pieces[i].len;
            pieces[i].at = h2_memory.realloc(pieces[i].at, len, NULL);
            cr_assert_not_null(pieces[i].at);
            check(pieces[i].at, same, i);
        }
        cr_assert_eq((uintptr_t)pieces[i].at % 16, 0);
        pieces[i].len = len;
        fill(pieces[i].at, len, i);
    }
    for (unsigned i = 0; i < PIECES; i++)
        h2_memory.free(pieces[i].at, NULL);
}

Test(h2_session, memory_that_cannot_be_had) {
    cr_assert_null(h2_memory.malloc(SIZE_MAX, NULL));
    cr_assert_null(h2_memory.malloc(SIZE_MAX - 8, NULL));
    cr_assert_null(h2_memory.calloc(SIZE_MAX / 2, 3, NULL));
    char *at = h2_memory.malloc(100, NULL);
    cr_assert_not_null(at);
    at[99] = 'x';
    cr_assert_null(h2_memory.realloc(at, SIZE_MAX - 8, NULL));
    cr_assert_eq(at[99], 'x');
    h2_memory.free(at, NULL);
}

static void check_field(const struct h2_fields *fields, size_t i, const char *name, const char *value,
                        uint8_t flags) {
    const nghttp2_nv *nv = &fields->at[i];
    cr_assert(slice_eq(slice_make((char *)nv->name, nv->namelen), slice_of(name)));
    cr_assert(slice_eq(slice_make((char *)nv->value, nv->valuelen), slice_of(value)));
    cr_assert_eq(nv->flags, flags);
}

// A name that nghttp2 need not copy must outlive the exchange, and is in lower case whoever wrote it.
Test(h2_session, fields_in_lower_case_and_secrets_that_are_not_indexed) {
    struct arena arena;
    struct headers headers = { 0 };
    arena_init(&arena);
    struct h2_fields fields = { .arena = &arena };
    cr_assert_eq(headers_add(&headers, &arena, SLICE_LIT("Content-Type"), SLICE_LIT("a/b")), 0);
    cr_assert_eq(headers_add(&headers, &arena, SLICE_LIT("Set-Cookie"), SLICE_LIT("c")), 0);
    cr_assert_eq(headers_add(&headers, &arena, SLICE_LIT("X-Own"), SLICE_LIT("d")), 0);
    cr_assert_eq(headers_add(&headers, &arena, SLICE_LIT("Transfer-Encoding"), SLICE_LIT("chunked")), 0);
    cr_assert_eq(h2_fields_add_number(&fields, SLICE_LIT("content-length"), UINT64_MAX), 0);
    cr_assert_eq(h2_fields_add_number(&fields, SLICE_LIT("content-length"), 0), 0);
    cr_assert_eq(h2_fields_add_all(&fields, &headers), 0);
    cr_assert_eq(fields.count, 5);
    check_field(&fields, 0, "content-length", "18446744073709551615", NGHTTP2_NV_FLAG_NO_COPY_NAME);
    check_field(&fields, 1, "content-length", "0", NGHTTP2_NV_FLAG_NO_COPY_NAME);
    check_field(&fields, 2, "content-type", "a/b", NGHTTP2_NV_FLAG_NO_COPY_NAME);
    check_field(&fields, 3, "set-cookie", "c", NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
    check_field(&fields, 4, "x-own", "d", NGHTTP2_NV_FLAG_NONE);
    cr_assert_eq((const char *)fields.at[2].name, header_name_of(HEADER_content_type).at);
    arena_release(&arena);
}
