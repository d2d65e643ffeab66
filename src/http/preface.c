// SPDX-License-Identifier: BSD-2-Clause
// The first bytes of a connection, for preface.h: compared as they come, then handed on to the codec that
// they choose.
#include "http/preface.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/slab.h"
#include "http/h1_server.h"
#include "http/h2_server.h"

struct preface {
    struct server_codec codec;
    struct conn *conn;
    const struct server_callbacks *callbacks;
    void *owner;
    struct queue seen;     // part of the preface so far
    uint64_t deadline_ms;  // of the first request's head
    bool draining;
};

enum { FIRST_REQUEST_MS = 1000 };  // as in h1_server.c

static struct slab preface_slab = SLAB_INIT(sizeof(struct preface), 512);
static const struct slice preface = SLICE_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

static void preface_free(struct preface *self) {
    queue_release(&self->seen);
    slab_put(&preface_slab, self);
}

static void end(struct preface *self, enum close_reason reason, bool at_once) {
    struct conn *conn = self->conn;
    const struct server_callbacks *callbacks = self->callbacks;
    void *owner = self->owner;
    preface_free(self);
    if (at_once)
        conn_close(conn, reason);
    else
        conn_finish(conn, reason, 0);
    callbacks->gone(owner);
}

static void hand_over(struct preface *self, bool h2) {
    struct preface left = *self;
    struct conn *conn = self->conn;
    queue_init(&self->seen);
    preface_free(self);
    struct server_codec *codec = h2 ? h2_server_new(conn, left.callbacks, left.owner)
                                    : h1_server_new(conn, left.callbacks, left.owner);
    if (!codec) {
        queue_release(&left.seen);
        left.callbacks->gone(left.owner);
        return;
    }
    left.callbacks->chosen(left.owner, codec);
    uint64_t now = clock_ms();
    timer_start(&conn->timer, left.deadline_ms > now ? left.deadline_ms - now : 1);
    if (left.draining)
        codec->ops->drain(codec);
    struct span span;
    // The handler may end the conn with any of them, or give it to another.
    while (queue_take(&left.seen, &span)) {
        if (conn->state == CONN_OPEN)
            conn->handler->data(conn, span);
        else
            block_unref(span.block);
    }
}

static void on_data(struct conn *conn, struct span span) {
    struct preface *self = conn->owner;
    size_t before = self->seen.bytes, more = preface.len - before;
    if (more > span.len)
        more = span.len;
    bool same = memcmp(span.at, preface.at + before, more) == 0;
    if (same) {
        const struct exchange_site *site = self->callbacks->site(self->owner);
        same = !site || site->settings->http2.on;
    }
    if (queue_put_whole(&self->seen, span) < 0 || queue_unpin(&self->seen) < 0) {
        end(self, CLOSE_memory, true);
        return;
    }
    if (!same || before + more == preface.len)
        hand_over(self, same);
}

static void on_ended(struct conn *conn, int error) {
    end(conn->owner, error ? CLOSE_client_reset : CLOSE_client_closed, error != 0);
}

static void on_written(struct conn *conn) {
    (void)conn;  // nothing is
}

static void on_broken(struct conn *conn, int error) {
    (void)error;
    end(conn->owner, CLOSE_client_reset, true);
}

static void on_timeout(struct conn *conn) {
    struct preface *self = conn->owner;
    if (!queue_empty(&self->seen))
        hand_over(self, false);  // HTTP/1 answers 408 to such a beginning
    else
        end(self, self->draining ? CLOSE_drain : CLOSE_header_timeout, !self->draining);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

static void drain(struct server_codec *codec) {
    struct preface *self = container_of(codec, struct preface, codec);
    if (self->draining)
        return;
    self->draining = true;
    timer_start(&self->conn->timer, FIRST_REQUEST_MS);
}

static bool shed(struct server_codec *codec) {
    struct preface *self = container_of(codec, struct preface, codec);
    if (!queue_empty(&self->seen))
        return false;
    end(self, CLOSE_shed, false);
    return true;
}

static void close_now(struct server_codec *codec, enum close_reason reason) {
    end(container_of(codec, struct preface, codec), reason, true);
}

static const struct server_codec_ops codec_ops = { .drain = drain, .shed = shed, .close = close_now };

struct server_codec *preface_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner) {
    struct exchange_site *site = callbacks->site(owner);
    struct preface *self = site ? slab_get(&preface_slab) : NULL;
    if (!self) {
        conn_close(conn, site ? CLOSE_memory : CLOSE_drain);
        return NULL;
    }
    *self = (struct preface){ .codec.ops = &codec_ops, .conn = conn, .callbacks = callbacks, .owner = owner };
    self->deadline_ms = clock_ms() + site->settings->header_timeout;
    conn_adopt(conn, &handler, self);
    timer_start(&conn->timer, site->settings->header_timeout);
    conn_read(conn);
    return &self->codec;
}
