// SPDX-License-Identifier: BSD-2-Clause
// Queues of spans against a plain buffer, counted references, and what is copied out of scarce blocks.
#include "base/block.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static int scarce_alive;

static void release_scarce(struct block *block) {
    scarce_alive--;
    free(block->base);
    free(block);
}

// Stands for a receive buffer of the ring.
static struct block *scarce_new(uint32_t size) {
    struct block *block = calloc(1, sizeof *block);
    *block = (struct block){
        .base = malloc(size), .size = size, .refs = 1, .scarce = true, .release = release_scarce
    };
    scarce_alive++;
    return block;
}

static char *bytes_of(const struct queue *queue) {
    char *all = malloc(queue->bytes + 1);
    size_t n = 0;
    for (struct piece *piece = queue->head; piece; piece = piece->next) {
        memcpy(all + n, piece->span.at, piece->span.len);
        n += piece->span.len;
    }
    cr_assert_eq(n, queue->bytes);
    all[n] = 0;
    return all;
}

static void check_bytes(const struct queue *queue, const char *expected, size_t len) {
    cr_assert_eq(queue->bytes, len);
    cr_assert_eq(queue_empty(queue), len == 0);
    char *all = bytes_of(queue);
    cr_assert_eq(memcmp(all, expected, len), 0);
    free(all);
}

Test(block, sizes_are_at_least_what_was_asked) {
    static const size_t sizes[] = {
        0, 1, BLOCK_SMALL, BLOCK_SMALL + 1, BLOCK_LARGE, BLOCK_LARGE + 1, 1 << 20
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct block *block = block_new(sizes[i]);
        cr_assert(block && block->size >= sizes[i] && block->refs == 1 && block->used == 0);
        memset(block->base, 1, block->size);
        block_ref(block);
        block_unref(block);
        block_unref(block);
    }
    cr_assert_null(block_new(SIZE_MAX));
    cr_assert_null(block_new(UINT32_MAX));
}

Test(block, random_use_of_two_queues_agrees_with_plain_buffers) {
    enum { MOST = 300000 };
    static char expected[2][MOST * 2], scratch[70000];
    struct queue queues[2];
    size_t lens[2] = { 0 };
    queue_init(&queues[0]);
    queue_init(&queues[1]);
    for (int turn = 0; turn < 6000; turn++) {
        unsigned q = (unsigned)(rnd() % 2);
        struct queue *queue = &queues[q];
        size_t n = rnd() % (rnd() % 10 ? 3000 : sizeof scratch);
        bool room = lens[q] + n < MOST;
        memset(scratch, (int)('a' + rnd() % 26), n);
        switch (rnd() % 9) {
        case 0:
        case 1:
            if (!room)
                break;
            cr_assert_eq(queue_copy(queue, scratch, n), 0);
            memcpy(expected[q] + lens[q], scratch, n);
            lens[q] += n;
            break;
        case 2:
        case 3: {
            if (!room)
                break;
            struct block *block = rnd() % 2 ? scarce_new(sizeof scratch) : block_new(n);
            memcpy(block->base, scratch, n);
            if (!block->scarce)
                block->used = (uint32_t)n;
            struct span span = { block, block->base, (uint32_t)n };
            cr_assert_eq(rnd() % 3 && n > 0 ? queue_put_whole(queue, span) : queue_put(queue, span), 0);
            memcpy(expected[q] + lens[q], scratch, n);
            lens[q] += n;
            break;
        }
        case 4: {
            n %= BLOCK_LARGE;
            if (!room)
                break;
            char *at = queue_reserve(queue, n);
            cr_assert_not_null(at);
            n = n ? rnd() % n : 0;
            memcpy(at, scratch, n);
            queue_wrote(queue, n);
            memcpy(expected[q] + lens[q], scratch, n);
            lens[q] += n;
            break;
        }
        case 5: {
            size_t drop = lens[q] ? rnd() % (lens[q] + 1) : 0;
            queue_drop(queue, drop);
            memmove(expected[q], expected[q] + drop, lens[q] - drop);
            lens[q] -= drop;
            break;
        }
        case 6: {  // a span goes from one queue to the other
            struct span span;
            struct slice view;
            if (lens[!q] + sizeof scratch > MOST || !queue_peek(queue, &view))
                break;
            cr_assert(queue_take(queue, &span));
            cr_assert_eq(span.len, view.len);
            memcpy(expected[!q] + lens[!q], span.at, span.len);
            lens[!q] += span.len;
            memmove(expected[q], expected[q] + span.len, lens[q] - span.len);
            lens[q] -= span.len;
            cr_assert_eq(queue_put(&queues[!q], span), 0);
            break;
        }
        case 7:
            cr_assert_eq(queue_unpin(queue), 0);
            for (struct piece *piece = queue->head; piece; piece = piece->next)
                cr_assert_not(piece->span.block->scarce);
            break;
        default:
            if (rnd() % 20 || lens[0] + lens[1] > MOST)
                break;
            queue_move(&queues[!q], queue);
            memcpy(expected[!q] + lens[!q], expected[q], lens[q]);
            lens[!q] += lens[q];
            lens[q] = 0;
        }
        check_bytes(&queues[0], expected[0], lens[0]);
        check_bytes(&queues[1], expected[1], lens[1]);
    }
    queue_release(&queues[0]);
    queue_release(&queues[1]);
    cr_assert_eq(scarce_alive, 0);
}

Test(block, short_pieces_join_and_long_ones_do_not) {
    struct queue queue;
    queue_init(&queue);
    cr_assert_eq(queue_copy(&queue, "head ", 5), 0);
    struct block *block = scarce_new(100);
    memcpy(block->base, "body", 4);
    cr_assert_eq(queue_put(&queue, (struct span){ block, block->base, 4 }), 0);
    cr_assert_eq(scarce_alive, 0);  // copied behind the head, given back at once
    struct iovec vectors[4];
    size_t bytes;
    cr_assert_eq(queue_vectors(&queue, vectors, 4, &bytes), 1);
    cr_assert(bytes == 9 && memcmp(vectors[0].iov_base, "head body", 9) == 0);
    block = scarce_new(3000);
    memset(block->base, 'x', 3000);
    cr_assert_eq(queue_put(&queue, (struct span){ block, block->base, 3000 }), 0);
    cr_assert_eq(scarce_alive, 1);
    cr_assert_eq(queue_copy(&queue, "tail", 4), 0);  // never into the receive buffer
    cr_assert_eq(queue_vectors(&queue, vectors, 4, &bytes), 3);
    cr_assert_eq(bytes, 9 + 3000 + 4);
    cr_assert_eq(queue_vectors(&queue, vectors, 2, &bytes), 2);
    cr_assert_eq(bytes, 9 + 3000);
    queue_drop(&queue, 9 + 2999);
    cr_assert_eq(scarce_alive, 1);
    queue_drop(&queue, 1);
    cr_assert_eq(scarce_alive, 0);
    queue_release(&queue);
    cr_assert(queue_empty(&queue));
}

Test(block, two_holders_of_one_block_do_not_write_over_each_other) {
    struct queue a, b;
    queue_init(&a);
    queue_init(&b);
    cr_assert_eq(queue_copy(&a, "shared", 6), 0);
    struct span span = a.head->span;
    block_ref(span.block);
    cr_assert_eq(queue_put_whole(&b, span), 0);
    cr_assert_eq(queue_copy(&a, "-one", 4), 0);
    cr_assert_eq(queue_copy(&b, "-two", 4), 0);
    check_bytes(&a, "shared-one", 10);
    check_bytes(&b, "shared-two", 10);
    queue_release(&a);
    check_bytes(&b, "shared-two", 10);
    queue_release(&b);
}

Test(block, a_span_goes_back_to_the_front) {
    struct queue queue;
    struct span span;
    queue_init(&queue);
    cr_assert_eq(queue_copy(&queue, "one", 3), 0);
    cr_assert(queue_take(&queue, &span));
    cr_assert_eq(queue_unget(&queue, span), 0);
    cr_assert_eq(queue_copy(&queue, "-two", 4), 0);
    check_bytes(&queue, "one-two", 7);
    struct block *block = scarce_new(10);
    memcpy(block->base, "zero-", 5);
    cr_assert_eq(queue_unget(&queue, (struct span){ block, block->base, 5 }), 0);
    check_bytes(&queue, "zero-one-two", 12);
    queue_release(&queue);
    cr_assert_eq(scarce_alive, 0);
}

Test(block, room_that_was_reserved_and_not_used_is_nothing) {
    struct queue queue;
    struct iovec vector;
    size_t bytes;
    queue_init(&queue);
    cr_assert_not_null(queue_reserve(&queue, 100));
    cr_assert(queue_empty(&queue));
    cr_assert_eq(queue_vectors(&queue, &vector, 1, &bytes), 0);
    struct slice view;
    cr_assert_not(queue_peek(&queue, &view));
    struct span span;
    cr_assert_not(queue_take(&queue, &span));
    cr_assert_eq(queue_copy(&queue, "x", 1), 0);
    check_bytes(&queue, "x", 1);
    queue_release(&queue);
}

Test(block, a_part_moves_and_a_cut_span_lives_on_both_sides) {
    struct queue from, to;
    queue_init(&from);
    queue_init(&to);
    struct block *block = scarce_new(2000);
    memset(block->base, 'a', 2000);
    cr_assert_eq(queue_put(&from, (struct span){ block, block->base, 2000 }), 0);
    cr_assert_eq(queue_copy(&from, "tail", 4), 0);
    cr_assert_eq(queue_move_part(&to, &from, 1500), 0);
    cr_assert_eq(to.bytes, 1500);
    cr_assert_eq(from.bytes, 504);
    cr_assert_eq(queue_move_part(&to, &from, 0), 0);
    cr_assert_eq(queue_move_part(&to, &from, 504), 0);
    cr_assert(queue_empty(&from));
    queue_drop(&to, 2000);
    check_bytes(&to, "tail", 4);
    queue_release(&to);
    cr_assert_eq(scarce_alive, 0);
}

Test(block, small_spans_that_move_join_what_was_written_before) {
    struct queue from, to;
    struct iovec vectors[2];
    size_t bytes;
    queue_init(&from);
    queue_init(&to);
    struct block *block = scarce_new(100);
    memset(block->base, 'b', 100);
    cr_assert_eq(queue_put(&from, (struct span){ block, block->base, 100 }), 0);
    cr_assert_eq(queue_copy(&to, "head", 4), 0);
    cr_assert_eq(queue_move_part(&to, &from, 100), 0);
    cr_assert_eq(scarce_alive, 0);
    cr_assert_eq(queue_vectors(&to, vectors, 2, &bytes), 1);
    cr_assert_eq(bytes, 104);
    queue_drop(&to, 4);
    char whole[100];
    memset(whole, 'b', sizeof whole);
    check_bytes(&to, whole, sizeof whole);
    queue_release(&to);
}
