// SPDX-License-Identifier: BSD-2-Clause
// The streams of one HTTP/2 connection towards a client: what comes is taken in shares of a turn, told to the
// owner (h2_server.c) as events, and answered by frames that are made once a turn. What a stream means is the
// owner's affair.
//
// Glossary
//   event    something came for a stream's exchange. nghttp2's callbacks only note it; the owner is told when
//            nghttp2 is not on the stack, so that anything may happen then: submit, reset, end the connection
//   share    what one connection may have of a turn: bytes read, the cost of frames, events told. The rest waits
//            for the next one
//   frames   are made when the ring flushes and while little of the output waits: they leave in few sends, and
//            the body of a stream that nobody reads stays where it can be counted
//   holding  a busy worker makes them once in a few turns, while more responses are to come
//   window   is given back by h2_stream_taken() alone, when the exchange took the bytes on: so a connection
//            holds no more than its window, and a stream that is not read stalls no other
#ifndef MOONGATE_HTTP_H2_MUX_H
#define MOONGATE_HTTP_H2_MUX_H

#include "http/exchange.h"
#include "http/h2_session.h"

enum h2_event {
    H2_HEAD = 1,     // the head is complete
    H2_DATA = 2,     // bytes were put on the queue that the owner's body() named
    H2_END = 4,      // the peer's side ended in order; trailers, if any, are complete
    H2_ROOM = 8,     // little of our body waits any more
    H2_CLOSED = 16,  // nghttp2 has forgotten the stream, for stream->error; it is the last
};

struct h2_mux;
struct h2_stream;

enum h2_wait { H2_NO_WAIT, H2_NEXT_TURN, H2_LESS_OUTPUT };

struct h2_mux_ops {
    // Events of a stream (bits of h2_event). The stream may be gone afterwards, the connection ended.
    void (*event)(struct h2_stream *stream, unsigned events);
    // Whether the stream's events have to wait: for the next turn's share, or until less output waits.
    enum h2_wait (*wait)(struct h2_stream *stream);
    // A frame begins, before nghttp2 sees it. -1: the connection has failed.
    int (*frame)(struct h2_mux *mux, const nghttp2_frame_hd *head);
    // What frames may cost in this turn (turn_cost): asked once a turn.
    uint32_t (*share)(const struct h2_mux *mux);
    // nghttp2 forgets the stream. Inside nghttp2: H2_CLOSED follows.
    void (*closed)(struct h2_stream *stream);
    // The queue that takes content of the peer's DATA, NULL: it is thrown away. Inside nghttp2.
    struct queue *(*body)(struct h2_stream *stream, size_t len);
    // The connection must end, with this of nghttp2_error_code, which the peer was told as far as it reads.
    void (*over)(struct h2_mux *mux, uint32_t error, enum close_reason reason);
    // The owner has taken the conn away (h2_mux_leave_conn()) and nothing on the stack uses the mux any more.
    void (*gone)(struct h2_mux *mux);
};

struct h2_mux {
    struct h2_session session;  // nghttp2's user data
    const struct h2_mux_ops *ops;
    struct list streams;  // all h2_streams
    unsigned stream_count;
    struct list events;    // streams with events, in the order in which these came
    struct list held;      // streams with events that wait for less output
    struct queue pending;  // received, not parsed
    uint32_t frame_left;   // bytes of the frame's payload, or of the preface, still to come
    uint8_t head[9];       // of the frame that begins
    uint8_t head_len;
    struct block *feeding;    // of the span that is being parsed
    struct ring_later later;  // goes on: this turn's share was used up
    struct ring_flush flusher;
    struct ring_later holding;  // frames wait for more of them: see hold_back()
    unsigned held_turns;        // that they have waited
    uint64_t held_us;           // since when
    unsigned unanswered;        // requests whose response is not complete yet; the owner counts them
    size_t queued;              // bytes of all streams' bodies that wait
    int32_t newest;             // the stream whose head came last
    uint32_t turn;              // in which the next was counted
    uint32_t turn_bytes;        // parsed
    uint32_t turn_cost;         // of the frames among them, in tenths of a microsecond, more or less; the
                                // owner adds what it does with a field
    uint32_t turn_share;        // what that may be
    uint32_t error;             // of the connection, once it has failed
    enum close_reason reason;   // and why
    unsigned busy;              // calls on the stack that go on using this object
    bool failed;                // nothing more is read; over() is due when the frames are made
    bool spoiled;               // memory ran out inside nghttp2
    bool inside;                // nghttp2 is on the stack
};

struct h2_stream {
    struct h2_body body;  // ours, as it goes out; first: nghttp2's user data
    struct h2_mux *mux;
    int32_t id;
    uint32_t error;      // with H2_CLOSED
    struct exchange *x;  // NULL: none, or it is over
    struct list link, event_link;
    struct headers trailers;  // copied: the exchange is over before they leave
    struct arena arena;       // of the trailers
    size_t queued;            // of body.queue, as counted in mux->queued
    uint64_t sent;            // bytes of the body that became frames
    uint32_t unread;          // bytes of the peer's body whose window has not been given back
    uint8_t events;
    bool closed;  // nghttp2 has forgotten it: nothing may be submitted
};

void h2_mux_callbacks(nghttp2_session_callbacks *callbacks);
// session.ng is the owner's to make then, with &mux->session as its user data. Reads nothing by itself.
void h2_mux_init(struct h2_mux *mux, struct conn *conn, const struct h2_mux_ops *ops);
// Frees nghttp2's half and what waits; the streams are the owner's to end before.
void h2_mux_release(struct h2_mux *mux);
struct h2_mux *h2_mux_of(struct h2_session *session);

// Whoever calls what may end the connection brackets it: gone() comes no earlier than with the last leave.
static inline void h2_mux_enter(struct h2_mux *mux) {
    mux->busy++;
}
static inline void h2_mux_leave(struct h2_mux *mux) {
    if (--mux->busy == 0 && !mux->session.conn)
        mux->ops->gone(mux);
}

// Takes the span: parses as far as this turn's share allows and tells events.
void h2_mux_received(struct h2_mux *mux, struct span span);
// Goes on with what waits.
void h2_mux_advance(struct h2_mux *mux);
// Something was submitted, or there is room: frames are made before the ring waits.
void h2_mux_flush(struct h2_mux *mux);
// The connection ends with GOAWAY for an error of the peer; over() follows, not at once. Inside a callback of
// nghttp2 return NGHTTP2_ERR_CALLBACK_FAILURE next.
void h2_mux_fail(struct h2_mux *mux, uint32_t error, enum close_reason reason);

void h2_stream_init(struct h2_stream *stream, struct h2_mux *mux, int32_t id);
// What waits of it is dropped, its unread window given back.
void h2_stream_release(struct h2_stream *stream);
void h2_stream_note(struct h2_stream *stream, unsigned events);
// Resets it, unless it is closed: H2_CLOSED follows.
void h2_stream_reset(struct h2_stream *stream, uint32_t error);
// Moves all of `body` to the stream's output and its end if `ended`, with the trailers, which are copied.
int h2_stream_write(struct h2_stream *stream, struct queue *body, bool ended, const struct headers *trailers)
    __attribute__((warn_unused_result));
// The exchange took on what came so far: the peer may send as much again.
void h2_stream_taken(struct h2_stream *stream);

#endif
