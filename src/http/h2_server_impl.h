// SPDX-License-Identifier: BSD-2-Clause
// Inside HTTP/2 towards clients: what h2_server.c (the connection, its time-outs, the responses) and
// h2_request.c (what comes, and whether it may) share. Nobody else includes it.
#ifndef MOONGATE_HTTP_H2_SERVER_IMPL_H
#define MOONGATE_HTTP_H2_SERVER_IMPL_H

#include "base/pace.h"
#include "http/codec.h"
#include "http/h2_guard.h"
#include "http/h2_mux.h"

enum h2_draining {
    H2_TAKING,    // new requests are taken
    H2_WARNED,    // the first GOAWAY was sent; what the client has sent until it answers the PING is taken
    H2_DRAINING,  // the second one: what comes now is not
};

enum { H2_RECENT = 64 };

struct h2_server {
    struct server_codec codec;
    struct h2_mux mux;
    const struct server_callbacks *callbacks;
    void *owner;
    struct exchange_site *site;  // of the last request, held while there are streams: those that the client
                                 // sends before it knows that the listener is gone are served by it
    enum h2_draining draining;
    bool bounding;        // much of the output waits: responses are read in small parts
    bool half_closed;     // the client sends no more
    bool idle;            // no stream; its owner was told
    bool sending;         // output waits, and conn->pace watches it
    uint16_t turn_begun;  // requests begun in `turn`
    uint32_t turn;
    uint32_t busy_ms;  // how often to look while there are streams
    uint32_t keepalive_ms, header_ms, linger_ms;
    uint64_t keepalive_requests, linger_max;
    uint64_t requests;
    uint64_t answered;  // in full, and the client took it
    struct conf_http2 limits;  // a copy: the generation that it is from may go
    struct h2_guard guard;
    struct h2_request *reading;  // whose head is coming
    uint64_t reading_ms;         // since when
    unsigned continuations;      // of that head
    int32_t last_id;             // the highest that a request had
    int32_t final_id;            // with H2_DRAINING: higher ones are passed over
    uint32_t
        recent[H2_RECENT];  // ids of streams that ended last; RESET: by us, so that frames may be under way
    unsigned recent_at;
};

// One request with its response.
struct h2_request {
    struct h2_stream stream;  // first
    struct h2_server *server;
    size_t head_bytes;  // of fields and trailers, as they would be in HTTP/1
    unsigned field_count;
    uint16_t status;  // not 0: it is refused with this
    const char *why;
    enum close_reason reason;  // why it was reset
    bool malformed;            // reset, not answered (RFC 9113, 8.1.1)
    bool has_host;
    bool taken_back;  // the client reset it
    bool bodiless;    // the head ended it
    bool started;     // the exchange was
    bool ended;       // the client's side ended
    bool tunnelled;   // counted as a tunnel
    bool paused;      // the exchange wants no more of the body
    bool skip_body;   // no content goes with the response
    bool answered;    // the response head was submitted
    struct slice scheme;
    struct slice protocol;  // :protocol of an extended CONNECT (RFC 8441)
    struct queue early;     // content that came before the server agreed to it
    struct pace body_pace, send_pace;
    struct pace_limits send_limits;
    char code[3];  // digits of the status
};

static inline struct h2_server *h2_server_of(struct h2_mux *mux) {
    return container_of(mux, struct h2_server, mux);
}
static inline struct h2_request *h2_request_of(struct h2_stream *stream) {
    return container_of(stream, struct h2_request, stream);
}

// ---- h2_request.c

void h2_request_callbacks(nghttp2_session_callbacks *callbacks);
// h2_mux_ops
int h2_request_frame(struct h2_mux *mux, const nghttp2_frame_hd *head);
void h2_request_closed(struct h2_stream *stream);
// The head is complete: looks at it as a whole. 0; or it is refused (status and why are set), or malformed.
int h2_request_check(struct h2_request *request) __attribute__((warn_unused_result));

// ---- h2_server.c

// A stream begins. NULL: it is refused, and was reset.
struct h2_request *h2_server_begin(struct h2_server *server, int32_t id);
// The client has answered our PING.
void h2_server_pinged(struct h2_server *server);

#endif
