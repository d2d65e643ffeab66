// SPDX-License-Identifier: BSD-2-Clause
// Conns over a socket pair, and what stands between them and the wire: a toy layer that changes every byte by
// one and says the end with a zero byte.
#include "base/clock.h"
#include "base/counters.h"
#include "net/conn.h"
#include "net/conn_layer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BIG = 1 << 20 };

static struct conn *conn;
static int peer;
static char got[BIG];
static size_t got_len;
static int ended, end_error, broken, written, freed;
static size_t least_waiting, most_sealed;
static bool pause_at_data;

static void on_data(struct conn *c, struct span span) {
    memcpy(got + got_len, span.at, span.len);
    got_len += span.len;
    block_unref(span.block);
    if (pause_at_data)
        conn_pause(c);
}

static void on_ended(struct conn *c, int error) {
    (void)c;
    ended++;
    end_error = error;
}

static void on_written(struct conn *c) {
    written++;
    if (conn_waiting(c) < least_waiting)
        least_waiting = conn_waiting(c);
}

static void on_broken(struct conn *c, int error) {
    (void)c, (void)error;
    broken++;
}

static const struct conn_handler handler = {
    .data = on_data, .ended = on_ended, .written = on_written, .broken = on_broken
};

static void toy_received(struct conn *c, struct span span) {
    struct block *block = block_new(span.len);
    uint32_t n = 0;
    while (n < span.len && span.at[n]) {
        block->base[n] = (char)(span.at[n] - 1);
        n++;
    }
    bool end = n < span.len;
    block_unref(span.block);
    conn_deliver(c, (struct span){ block, block->base, n });
    if (end)
        conn_deliver_end(c, 0);
}

static void toy_ended(struct conn *c, int error) {
    conn_deliver_end(c, error ? error : -ECONNRESET);
}

static int toy_seal(struct conn *c, size_t most) {
    struct span span;
    while (c->layer->sealed < most && queue_take(&c->out, &span)) {
        char *to = queue_reserve(&c->layer->wire, span.len);
        for (uint32_t i = 0; i < span.len; i++)
            to[i] = (char)(span.at[i] + 1);
        queue_wrote(&c->layer->wire, span.len);
        c->layer->sealed += span.len;
        block_unref(span.block);
    }
    if (c->layer->sealed > most_sealed)
        most_sealed = c->layer->sealed;
    return 0;
}

static void toy_shutdown(struct conn *c) {
    cr_assert_eq(queue_copy(&c->layer->wire, "", 1), 0);
}

static void toy_freed(struct conn *c) {
    free(c->layer);
    freed++;
}

static const struct conn_layer_ops toy = {
    .received = toy_received,
    .ended = toy_ended,
    .broken = conn_deliver_broken,
    .seal = toy_seal,
    .shutdown = toy_shutdown,
    .freed = toy_freed,
};

static void begin(bool with_layer) {
    struct error error;
    int pair[2];
    cr_assert_eq(ring_init(&(struct ring_options){ 256, 1 << 20 }, &error), 0, "%s", error.text);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    conn = conn_accepted(pair[0], &handler, NULL);
    peer = pair[1];
    cr_assert_eq(fcntl(peer, F_SETFL, O_NONBLOCK), 0);
    least_waiting = SIZE_MAX;
    if (with_layer)
        conn_set_layer(conn, malloc(sizeof(struct conn_layer)), &toy);
    conn_read(conn);
}

static void turns(int n) {
    while (n-- > 0)
        cr_assert_geq(ring_turn(2), 0);
}

static void finish(void) {
    if (conn)
        conn_close(conn, CLOSE_none);
    for (int i = 0; conn_count() > 0 && i < 1000; i++)
        turns(1);
    cr_assert_eq(conn_count(), 0);
    close(peer);
    ring_release();
}

static void put(const char *text) {
    cr_assert_eq(queue_copy(&conn->out, text, strlen(text)), 0);
    conn_flush(conn);
}

static void peer_reads(const char *expected, size_t len) {
    char text[64] = "";
    ssize_t n = read(peer, text, sizeof text);
    cr_assert_eq(n, (ssize_t)len, "%zd", n);
    cr_assert_eq(memcmp(text, expected, len), 0, "\"%s\"", text);
}

Test(conn, plain_bytes_pass_as_they_are) {
    begin(false);
    put("abc");
    cr_assert_eq(conn_waiting(conn), 3);
    turns(2);
    cr_assert_eq(conn_waiting(conn), 0);
    cr_assert_eq(written, 1);
    peer_reads("abc", 3);
    cr_assert_eq(write(peer, "xyz", 3), 3);
    turns(2);
    cr_assert_eq(got_len, 3);
    cr_assert_eq(memcmp(got, "xyz", 3), 0);
    finish();
}

Test(conn, a_layer_changes_what_passes_both_ways) {
    begin(true);
    put("abc");
    put("def");
    cr_assert_eq(conn_waiting(conn), 6);
    turns(2);
    cr_assert_eq(conn_waiting(conn), 0);
    cr_assert_eq(written, 1);
    peer_reads("bcdefg", 6);
    cr_assert_eq(write(peer, "bcd", 3), 3);
    turns(2);
    cr_assert_eq(got_len, 3);
    cr_assert_eq(memcmp(got, "abc", 3), 0);
    finish();
    cr_assert_eq(freed, 1);
}

Test(conn, bulk_is_sealed_in_bounded_parts_and_nothing_is_lost) {
    begin(true);
    char *text = malloc(BIG), *back = malloc(BIG);
    for (int i = 0; i < BIG; i++)
        text[i] = (char)(i % 100);
    for (int at = 0; at < BIG; at += 4096)
        cr_assert_eq(queue_copy(&conn->out, text + at, 4096), 0);
    conn_flush(conn);
    turns(2);
    cr_assert_gt(conn_waiting(conn), 0, "the peer reads nothing yet");
    cr_assert_leq(most_sealed, 192 << 10);
    size_t had = 0;
    for (int i = 0; had < BIG && i < 10000; i++) {
        ssize_t n = read(peer, back + had, BIG - had);
        had += n > 0 ? (size_t)n : 0;
        turns(1);
    }
    cr_assert_eq(had, BIG);
    for (int i = 0; i < BIG; i++)
        cr_assert_eq(back[i], (char)(text[i] + 1), "at %d", i);
    cr_assert_eq(conn_waiting(conn), 0);
    cr_assert_eq(least_waiting, 0);
    free(text);
    free(back);
    finish();
}

Test(conn, a_layers_own_output_leaves_and_is_not_the_owners) {
    begin(true);
    cr_assert_eq(queue_copy(&conn->layer->wire, "hello", 5), 0);
    conn_flush(conn);
    turns(2);
    peer_reads("hello", 5);
    cr_assert_eq(written, 0);
    finish();
}

Test(conn, a_layers_own_output_that_waits_does_not_make_the_receiver_slow) {
    begin(true);
    char *text = calloc(1, BIG);
    cr_assert_eq(queue_copy(&conn->layer->wire, text, BIG), 0);
    conn_flush(conn);
    turns(3);
    cr_assert_gt(conn->layer->wire.bytes, 0, "the peer reads nothing");
    cr_assert_eq(conn_waiting(conn), 0);
    cr_assert_not(conn->slow);
    free(text);
    finish();
}

Test(conn, the_layers_end_is_the_end_and_the_wires_end_is_an_error) {
    begin(true);
    cr_assert_eq(write(peer, "b\0b", 3), 3);
    turns(2);
    cr_assert_eq(got_len, 1);
    cr_assert_eq(ended, 1);
    cr_assert_eq(end_error, 0);
    cr_assert(conn_ended(conn));
    conn_read(conn);
    cr_assert_eq(write(peer, "b", 1), 1);
    close(peer);
    turns(3);
    cr_assert_eq(ended, 1, "the end is told once");
    cr_assert_eq(got_len, 1);
    finish();

    got_len = 0;
    ended = 0;
    begin(true);
    cr_assert_eq(write(peer, "b", 1), 1);
    close(peer);
    turns(3);
    cr_assert_eq(got_len, 1);
    cr_assert_eq(ended, 1);
    cr_assert_eq(end_error, -ECONNRESET);
    finish();
}

Test(conn, finishing_says_the_end_once_behind_all_output) {
    begin(true);
    put("abc");
    conn_finish(conn, CLOSE_none, 0);
    conn = NULL;
    turns(4);
    peer_reads("bcd", 4);
    char byte;
    cr_assert_eq(read(peer, &byte, 1), 0);
    finish();
    cr_assert_eq(freed, 1);
}

Test(conn, shutting_down_says_the_end_and_reads_on) {
    begin(true);
    put("abc");
    conn_shutdown(conn);
    turns(3);
    peer_reads("bcd", 4);
    char byte;
    cr_assert_eq(read(peer, &byte, 1), 0);
    cr_assert_eq(write(peer, "bcd", 3), 3);
    turns(2);
    cr_assert_eq(got_len, 3);
    conn_finish(conn, CLOSE_none, 0);
    conn = NULL;
    turns(2);
    finish();
}

Test(conn, closing_says_nothing) {
    begin(true);
    conn_close(conn, CLOSE_none);
    conn = NULL;
    turns(2);
    char byte;
    cr_assert_eq(read(peer, &byte, 1), 0);
    finish();
}
