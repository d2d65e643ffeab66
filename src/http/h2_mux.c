// SPDX-License-Identifier: BSD-2-Clause
// The connection of h2_mux.h: bytes in through nghttp2 in shares of a turn, events out, frames made at the
// ring's flush, windows given back.
#include "http/h2_mux.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/list.h"
#include "base/log.h"

#include <errno.h>

enum {
    PENDING_MAX = 64 * 1024,  // received and not parsed, when reading stops
    PIECE = 16 * 1024,        // parsed before events are told
    PREFACE = 24,             // bytes (RFC 9113, 3.4)
    FRAME_HEAD = 9,
    TURN_BYTES = 256 * 1024,  // of one connection, whoever else waits
    HOLD_TURNS = 16,          // at most, and no longer than
    HOLD_US = 2000,           // nor when there is more than
    HOLD_BYTES = 16 * 1024,
};

struct h2_mux *h2_mux_of(struct h2_session *session) {
    return container_of(session, struct h2_mux, session);
}

static struct h2_stream *stream_of(nghttp2_session *ng, int32_t id) {
    return nghttp2_session_get_stream_user_data(ng, id);
}

// ---- nghttp2's callbacks ----------------------------------------------------------------------------------

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *at, size_t len,
                   void *user) {
    (void)flags;
    struct h2_mux *mux = h2_mux_of(user);
    struct h2_stream *stream = stream_of(ng, id);
    struct queue *to = stream ? mux->ops->body(stream, len) : NULL;
    if (!to)
        return nghttp2_session_consume(ng, id, len) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    stream->unread += (uint32_t)len;
    block_ref(mux->feeding);
    if (queue_put(to, (struct span){ mux->feeding, (char *)(uintptr_t)at, (uint32_t)len }) < 0) {
        h2_mux_fail(mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    h2_stream_note(stream, H2_DATA);
    return 0;
}

static int on_closed(nghttp2_session *ng, int32_t id, uint32_t error, void *user) {
    (void)user;
    struct h2_stream *stream = stream_of(ng, id);
    if (!stream)
        return 0;
    stream->closed = true;
    stream->error = error;
    stream->mux->ops->closed(stream);
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    h2_stream_note(stream, H2_CLOSED);
    return 0;
}

void h2_mux_callbacks(nghttp2_session_callbacks *callbacks) {
    h2_session_set_callbacks(callbacks);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_closed);
}

static void taken(struct h2_session *session, struct h2_body *body) {
    struct h2_stream *stream = container_of(body, struct h2_stream, body);
    size_t left = stream->queued - body->queue.bytes;
    stream->sent += left;
    stream->queued -= left;
    h2_mux_of(session)->queued -= left;
    const struct exchange *x = stream->x;
    if (x && x->step == EXCHANGE_relay && stream->queued <= x->settings->buffer_low)
        h2_stream_note(stream, H2_ROOM);
}

// ---- frames out -------------------------------------------------------------------------------------------

static void make_frames(struct h2_mux *mux) {
    if (mux->spoiled)
        return;  // what was being made is neither whole nor gone
    size_t before = mux->queued;
    mux->inside = true;
    int rc = h2_session_send(&mux->session);
    mux->inside = false;
    if (mux->queued < before)
        list_splice(&mux->events, &mux->held);
    mux->spoiled |= rc == -ENOMEM;
    if (rc < 0 && !mux->failed) {
        mux->failed = true;
        mux->error = NGHTTP2_INTERNAL_ERROR;
        mux->reason = rc == -ENOMEM ? CLOSE_memory : CLOSE_internal;
    }
}

static bool finished(const struct h2_mux *mux) {
    return !nghttp2_session_want_read(mux->session.ng) && !nghttp2_session_want_write(mux->session.ng);
}

// Whether frames wait for those of other responses: a send costs as much as a small request. Only while the worker
// goes on without a pause anyway, so that nothing waits for want of work, and the less the fewer are to come.
static bool hold_back(struct h2_mux *mux) {
    if (list_linked(&mux->holding.link))
        return true;
    if (mux->held_turns == 0)
        mux->held_us = clock_us();
    unsigned turns = mux->unanswered < HOLD_TURNS ? mux->unanswered : HOLD_TURNS;
    if (mux->failed || mux->held_turns >= turns || mux->queued >= HOLD_BYTES ||
        clock_us() - mux->held_us >= HOLD_US || !ring_others_wait()) {
        mux->held_turns = 0;
        return false;
    }
    mux->held_turns++;
    ring_go_on_later(&mux->holding);
    return true;
}

static void stop_holding(struct ring_later *later) {
    h2_mux_flush(container_of(later, struct h2_mux, holding));
}

static void flush(struct ring_flush *flusher) {
    struct h2_mux *mux = container_of(flusher, struct h2_mux, flusher);
    if (!hold_back(mux))
        make_frames(mux);
    // Streams that ended with these frames or have room, or the connection.
    bool told = list_empty(&mux->events) || list_linked(&mux->later.link);
    if (mux->failed || !told || finished(mux))
        h2_mux_advance(mux);
}

void h2_mux_flush(struct h2_mux *mux) {
    ring_flush_later(&mux->flusher);
}

void h2_mux_fail(struct h2_mux *mux, uint32_t error, enum close_reason reason) {
    if (mux->failed)
        return;
    mux->failed = true;
    mux->error = error;
    mux->reason = reason;
    nghttp2_session_terminate_session(mux->session.ng, error);
    if (!mux->inside)
        h2_mux_flush(mux);
}

// ---- bytes in, events out ---------------------------------------------------------------------------------

static void go_on_later(struct h2_mux *mux) {
    counters->turns_shared++;
    ring_go_on_later(&mux->later);
}

static void tell_events(struct h2_mux *mux) {
    while (mux->session.conn && !mux->failed && !list_empty(&mux->events)) {
        struct h2_stream *stream = container_of(mux->events.next, struct h2_stream, event_link);
        // The last request that came: what waits to be parsed may take it back.
        if (stream->events & H2_HEAD && stream->id == mux->newest && !queue_empty(&mux->pending)) {
            if (mux->events.prev == &stream->event_link)
                break;
            list_remove(&stream->event_link);
            list_push_back(&mux->events, &stream->event_link);
            continue;
        }
        enum h2_wait wait = stream->events & H2_CLOSED ? H2_NO_WAIT : mux->ops->wait(stream);
        if (wait == H2_NEXT_TURN) {
            go_on_later(mux);
            break;
        }
        if (wait == H2_LESS_OUTPUT) {
            list_remove(&stream->event_link);
            list_push_back(&mux->held, &stream->event_link);
            continue;
        }
        unsigned events = stream->events;
        stream->events = 0;
        list_remove(&stream->event_link);
        mux->ops->event(stream, events);
    }
}

static uint32_t error_of(ssize_t rc) {
    switch (rc) {
    case NGHTTP2_ERR_FLOODED:
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case NGHTTP2_ERR_NOMEM:
        return NGHTTP2_INTERNAL_ERROR;
    default:
        return NGHTTP2_PROTOCOL_ERROR;
    }
}

static void feed(struct h2_mux *mux, const uint8_t *at, size_t len) {
    ssize_t rc = nghttp2_session_mem_recv(mux->session.ng, at, len);
    mux->spoiled |= rc == NGHTTP2_ERR_NOMEM;
    if (rc < 0)
        h2_mux_fail(mux, error_of(rc), rc == NGHTTP2_ERR_NOMEM ? CLOSE_memory : CLOSE_bad_request);
}

// What a frame takes of the share, apart from its bytes: small frames cost more than the few bytes that they
// are. Header blocks are charged by length as well, since a byte may stand for a field; what the owner does
// with each field it charges itself.
static uint32_t cost_of(const nghttp2_frame_hd *frame) {
    enum { BLOCK_BYTES = 8 };
    switch (frame->type) {
    case NGHTTP2_HEADERS:
        return 12 + (uint32_t)frame->length / BLOCK_BYTES;  // a stream begins, most often
    case NGHTTP2_SETTINGS:
        return 8 + (uint32_t)frame->length / 2;  // tables change their size
    case NGHTTP2_CONTINUATION:
        return 2 + (uint32_t)frame->length / BLOCK_BYTES;
    case NGHTTP2_DATA:
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_PING:
        return 4;
    default:
        return 2;
    }
}

static bool share_used(const struct h2_mux *mux) {
    return mux->turn_bytes >= TURN_BYTES || mux->turn_cost >= mux->turn_share;
}

// Frame by frame: what a frame may do depends on what the one before it did, and nghttp2 does not tell of
// all. Returns how many bytes were parsed: all, but for a share that was used up or a failure.
static uint32_t parse_frames(struct h2_mux *mux, const uint8_t *at, uint32_t len) {
    const uint8_t *begin = at;
    while (len > 0 && !mux->failed && (mux->frame_left > 0 || mux->turn_cost < mux->turn_share)) {
        uint32_t n;
        if (mux->frame_left > 0) {
            n = len < mux->frame_left ? len : mux->frame_left;
            mux->frame_left -= n;
            feed(mux, at, n);
        } else {
            n = FRAME_HEAD - mux->head_len;
            n = len < n ? len : n;
            memcpy(mux->head + mux->head_len, at, n);
            mux->head_len += (uint8_t)n;
            if (mux->head_len == FRAME_HEAD) {
                const uint8_t *head = mux->head;
                nghttp2_frame_hd frame = { .length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2],
                                           .type = head[3],
                                           .flags = head[4],
                                           .stream_id = (int32_t)((uint32_t)(head[5] & 0x7f) << 24 |
                                                                  (uint32_t)head[6] << 16 |
                                                                  (uint32_t)head[7] << 8 | head[8]) };
                mux->head_len = 0;
                mux->frame_left = (uint32_t)frame.length;
                mux->turn_cost += cost_of(&frame);
                if (mux->ops->frame(mux, &frame) == 0)
                    feed(mux, head, FRAME_HEAD);
            }
        }
        at += n;
        len -= n;
    }
    return (uint32_t)(at - begin);
}

static void parse(struct h2_mux *mux) {
    struct span span;
    if (!queue_take(&mux->pending, &span))
        return;
    uint32_t len = span.len < PIECE ? span.len : PIECE;
    size_t queued = nghttp2_session_get_outbound_queue_size(mux->session.ng);
    mux->feeding = span.block;
    mux->inside = true;
    len = parse_frames(mux, (const uint8_t *)span.at, len);
    mux->inside = false;
    mux->feeding = NULL;
    mux->turn_bytes += len;
    span.at += len;
    span.len -= len;
    if (span.len == 0)
        block_unref(span.block);
    else if (queue_unget(&mux->pending, span) < 0)
        h2_mux_fail(mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    // Streams that nghttp2 resets are not to begin, and count against their connection, only when the frames
    // are made.
    if (!mux->failed && nghttp2_session_get_outbound_queue_size(mux->session.ng) > queued)
        make_frames(mux);
}

static void look_for_end(struct h2_mux *mux) {
    if (mux->failed) {
        make_frames(mux);
        mux->ops->over(mux, mux->error, mux->reason);
    } else if (finished(mux)) {
        mux->ops->over(mux, NGHTTP2_NO_ERROR, CLOSE_none);
    }
}

void h2_mux_advance(struct h2_mux *mux) {
    if (mux->busy > 0)
        return;
    h2_mux_enter(mux);
    uint32_t turn = (uint32_t)counters->ring_turns;
    if (mux->turn != turn) {
        mux->turn = turn;
        mux->turn_bytes = mux->turn_cost = 0;
        mux->turn_share = mux->ops->share(mux);
    }
    bool more;
    do {
        if (!list_linked(&mux->later.link) && !share_used(mux))
            parse(mux);  // first: what is begun below may have been taken back by now
        tell_events(mux);
        more = mux->session.conn && !mux->failed && !queue_empty(&mux->pending);
        if (more && share_used(mux))
            go_on_later(mux);
    } while (more && !list_linked(&mux->later.link));
    if (mux->session.conn)
        look_for_end(mux);
    struct conn *conn = mux->session.conn;
    if (conn) {
        if (mux->pending.bytes < PENDING_MAX)
            conn_read(conn);
        else
            conn_pause(conn);
        if (!queue_empty(&mux->pending) && queue_unpin(&mux->pending) < 0)
            log_warn("conn %llu: no memory to copy input out of receive buffers",
                     (unsigned long long)conn->id);
        if (nghttp2_session_want_write(mux->session.ng))
            h2_mux_flush(mux);
    }
    h2_mux_leave(mux);
}

static void go_on(struct ring_later *later) {
    h2_mux_advance(container_of(later, struct h2_mux, later));
}

void h2_mux_received(struct h2_mux *mux, struct span span) {
    if (queue_put_whole(&mux->pending, span) < 0)
        h2_mux_fail(mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    h2_mux_advance(mux);
}

// ---- streams ----------------------------------------------------------------------------------------------

void h2_stream_init(struct h2_stream *stream, struct h2_mux *mux, int32_t id) {
    *stream = (struct h2_stream){ .mux = mux, .id = id };
    list_push_back(&mux->streams, &stream->link);
    list_init(&stream->event_link);
    mux->stream_count++;
    nghttp2_session_set_stream_user_data(mux->session.ng, id, stream);
}

void h2_stream_release(struct h2_stream *stream) {
    struct h2_mux *mux = stream->mux;
    h2_stream_taken(stream);
    if (!stream->closed)
        nghttp2_session_set_stream_user_data(mux->session.ng, stream->id, NULL);
    mux->queued -= stream->queued;
    mux->stream_count--;
    queue_release(&stream->body.queue);
    arena_release(&stream->arena);
    list_remove(&stream->link);
    list_remove(&stream->event_link);
}

void h2_stream_note(struct h2_stream *stream, unsigned events) {
    stream->events |= (uint8_t)events;
    if (events & H2_HEAD)
        stream->mux->newest = stream->id;
    if (events & H2_CLOSED)
        list_remove(&stream->event_link);  // it may be held
    if (!list_linked(&stream->event_link))
        list_push_back(&stream->mux->events, &stream->event_link);
    if (!stream->mux->inside)
        h2_mux_flush(stream->mux);
}

void h2_stream_reset(struct h2_stream *stream, uint32_t error) {
    struct h2_mux *mux = stream->mux;
    if (stream->closed)
        return;
    if (nghttp2_submit_rst_stream(mux->session.ng, NGHTTP2_FLAG_NONE, stream->id, error) != 0)
        h2_mux_fail(mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    h2_mux_flush(mux);
}

static int copy_trailers(struct h2_stream *stream, const struct headers *trailers) {
    for (uint32_t i = 0; i < trailers->count; i++) {
        const struct header *header = &trailers->at[i];
        if (header->name.len == 0)
            continue;
        struct slice name = arena_copy(&stream->arena, header->name);
        struct slice value = arena_copy(&stream->arena, header->value);
        if (!name.at || !value.at || headers_add(&stream->trailers, &stream->arena, name, value) < 0)
            return -ENOMEM;
    }
    stream->body.trailers = &stream->trailers;
    stream->body.arena = &stream->arena;
    return 0;
}

int h2_stream_write(struct h2_stream *stream, struct queue *body, bool ended,
                    const struct headers *trailers) {
    struct h2_mux *mux = stream->mux;
    if (stream->closed) {
        queue_release(body);
        return 0;
    }
    if (ended && trailers->count > 0 && copy_trailers(stream, trailers) < 0)
        return -ENOMEM;
    mux->queued += body->bytes;
    stream->queued += body->bytes;
    queue_move(&stream->body.queue, body);
    stream->body.ended |= ended;
    h2_body_more(&mux->session, stream->id, &stream->body);
    h2_mux_flush(mux);
    return 0;
}

void h2_stream_taken(struct h2_stream *stream) {
    struct h2_mux *mux = stream->mux;
    uint32_t unread = stream->unread;
    if (unread == 0)
        return;
    stream->unread = 0;
    if (nghttp2_session_consume(mux->session.ng, stream->id, unread) != 0)
        h2_mux_fail(mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    h2_mux_flush(mux);
}

// ---- life -------------------------------------------------------------------------------------------------

void h2_mux_init(struct h2_mux *mux, struct conn *conn, const struct h2_mux_ops *ops) {
    *mux = (struct h2_mux){ .session = { .conn = conn, .taken = taken }, .ops = ops };
    list_init(&mux->streams);
    list_init(&mux->events);
    list_init(&mux->held);
    mux->frame_left = PREFACE;
    list_init(&mux->later.link);
    mux->later.run = go_on;
    list_init(&mux->flusher.link);
    list_init(&mux->holding.link);
    mux->holding.run = stop_holding;
    mux->flusher.flush = flush;
}

void h2_mux_release(struct h2_mux *mux) {
    if (mux->spoiled)
        h2_session_abandon(mux->session.ng);
    else
        nghttp2_session_del(mux->session.ng);
    mux->session.ng = NULL;
    queue_release(&mux->pending);
    list_remove(&mux->later.link);
    list_remove(&mux->flusher.link);
    list_remove(&mux->holding.link);
}
