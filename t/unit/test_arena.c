// SPDX-License-Identifier: BSD-2-Clause
// Arenas and the slabs below them: alignment, growth, appending in place, sizes that cannot be had.
#include "base/arena.h"
#include "base/slab.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

Test(arena, pieces_are_aligned_and_do_not_overlap) {
    enum { PIECES = 2000 };
    static struct {
        unsigned char *at;
        size_t len;
    } pieces[PIECES];
    for (int round = 0; round < 3; round++) {
        struct arena arena;
        arena_init(&arena);
        for (unsigned i = 0; i < PIECES; i++) {
            pieces[i].len = rnd() % (rnd() % 100 ? 100 : 20000);
            pieces[i].at = arena_alloc(&arena, pieces[i].len);
            cr_assert(pieces[i].at && (uintptr_t)pieces[i].at % 8 == 0);
            memset(pieces[i].at, (int)(i & 255), pieces[i].len);
        }
        for (unsigned i = 0; i < PIECES; i++)
            for (size_t n = 0; n < pieces[i].len; n++)
                cr_assert(pieces[i].at[n] == (i & 255));
        arena_release(&arena);
        arena_release(&arena);
        cr_assert_eq(arena.total, 0);
    }
}

Test(arena, the_edge_of_a_chunk) {
    for (size_t len = 4040; len < 4110; len++) {
        struct arena arena;
        arena_init(&arena);
        char *at = arena_alloc(&arena, len), *next = arena_zalloc(&arena, 1);
        cr_assert(at && next && *next == 0);
        memset(at, 'x', len);
        cr_assert_eq(*next, 0);
        arena_release(&arena);
    }
}

Test(arena, what_is_joined_lives_as_long) {
    struct arena to, from;
    size_t totals = 0;
    for (unsigned of_to = 0; of_to < 4; of_to++)
        for (unsigned of_from = 0; of_from < 4; of_from++) {
            char *at[2] = { NULL, NULL }, *more;
            arena_init(&to);
            arena_init(&from);
            for (unsigned i = 0; i < of_to; i++)
                memset(at[0] = arena_alloc(&to, 3000), 'a', 3000);
            for (unsigned i = 0; i < of_from; i++)
                memset(at[1] = arena_alloc(&from, 3000), 'b', 3000);
            totals = to.total + from.total;
            arena_join(&to, &from);
            cr_assert(to.total == totals && from.total == 0 && !from.chunks);
            memset(more = arena_alloc(&to, 500), 'c', 500);  // where there was room before
            cr_assert(to.total == totals || totals == 0);
            arena_release(&from);
            for (unsigned i = 0; i < 2; i++)
                cr_assert(!at[i] || (at[i][0] == (i ? 'b' : 'a') && at[i][2999] == at[i][0]));
            arena_release(&to);
            cr_assert_eq(to.total, 0);
        }
}

Test(arena, sizes_that_cannot_be_had_are_refused) {
    struct arena arena;
    arena_init(&arena);
    for (size_t less = 0; less < 24; less++)
        cr_assert_null(arena_alloc(&arena, SIZE_MAX - less), "SIZE_MAX - %zu", less);
    cr_assert_not_null(arena_alloc(&arena, 10));
    for (size_t less = 0; less < 24; less++)
        cr_assert_null(arena_alloc(&arena, SIZE_MAX - less), "SIZE_MAX - %zu", less);
    cr_assert_not_null(arena_alloc(&arena, 0));
    arena_release(&arena);
}

Test(arena, copies_end_with_nul) {
    struct arena arena;
    arena_init(&arena);
    struct slice copy = arena_copy(&arena, SLICE_LIT("a\0b"));
    cr_assert(slice_eq(copy, SLICE_LIT("a\0b")));
    cr_assert_eq(copy.at[3], 0);
    copy = arena_copy(&arena, slice_make(NULL, 0));
    cr_assert(copy.at && copy.len == 0 && copy.at[0] == 0);
    cr_assert_str_eq(arena_strdup(&arena, "hello"), "hello");
    cr_assert_str_eq(arena_printf(&arena, "%s-%d-%0*d", "x", 5, 5000, 7) + 5000, "0007");
    arena_release(&arena);
}

Test(arena, appending_grows_in_place_or_moves) {
    struct arena arena;
    arena_init(&arena);
    struct slice text = { 0 };
    static char expected[100000];
    size_t len = 0;
    while (len < sizeof expected - 400) {
        char piece[400];
        size_t n = rnd() % sizeof piece;
        memset(piece, (int)('a' + rnd() % 26), n);
        cr_assert_eq(arena_append(&arena, &text, piece, n), 0);
        memcpy(expected + len, piece, n);
        len += n;
        if (rnd() % 5 == 0)
            cr_assert_not_null(arena_zalloc(&arena, rnd() % 50));  // so that the text is not the newest piece
    }
    cr_assert(slice_eq(text, slice_make(expected, len)));
    arena_release(&arena);
    struct slice alone = { 0 };
    cr_assert_eq(arena_append(&arena, &alone, NULL, 0), 0);
    cr_assert_eq(alone.len, 0);
    const char *before = NULL;
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(arena_append(&arena, &alone, "0123456789", 10), 0);
        cr_assert(!before || before == alone.at);
        before = alone.at;
    }
    arena_release(&arena);
}

Test(slab, counts_and_gives_back_what_is_too_much) {
    struct slab slab = SLAB_INIT(64, 3);
    void *objects[10];
    for (int i = 0; i < 10; i++) {
        objects[i] = slab_get(&slab);
        memset(objects[i], i, 64);
    }
    cr_assert_eq(slab.used_count, 10);
    for (int i = 0; i < 10; i++)
        slab_put(&slab, objects[i]);
    cr_assert_eq(slab.used_count, 0);
    cr_assert_leq(slab.free_count, 3);
    slab_put(&slab, NULL);
    slab_trim(&slab);
    cr_assert_eq(slab.free_count, 0);
    objects[0] = slab_get(&slab);
    cr_assert_not_null(objects[0]);
    slab_put(&slab, objects[0]);
    slab_trim(&slab);
}
