// SPDX-License-Identifier: BSD-2-Clause
// What the files of the HTTP/2 codec towards servers share: h2_client.c has the connection,
// h2_client_stream.c its streams, h2_client_events.c what nghttp2 says of both.
//
// nghttp2 calls back while it reads or writes; nothing of an exchange runs then. What happened to a stream is
// noted in it, the stream goes on the list `touched`, and its exchange runs when nghttp2 has returned
// (h2_client_run()). Nothing is sent at once either: all that is to be sent in a turn leaves together, in
// h2_client.c's flush().
#ifndef MOONGATE_HTTP_H2_CLIENT_IMPL_H
#define MOONGATE_HTTP_H2_CLIENT_IMPL_H

#include "base/list.h"
#include "http/h2_client.h"
#include "http/h2_response.h"
#include "http/h2_session.h"

enum stream_state {
    WAIT,    // no complete response head yet
    BODY,    // the response body is coming
    DONE,    // the response is complete
    FAILED,  // the exchange was told so, and has not let go yet
};

// A stream: one exchange.
struct h2_up {
    struct h2_body body;  // first: it is nghttp2's stream user data
    struct h2_client *client;
    struct exchange *x;
    int32_t id;  // 0: not submitted
    enum stream_state state;
    struct list link;     // of the client's streams
    struct list touched;  // something happened since its exchange ran
    struct list fed;      // its body got something since the last flush
    struct timer timer;
    struct h2_response reader;
    bool request_done;  // all of the request is in `body`
    bool paused;
    bool taken;     // a part of the body left since its exchange ran
    bool offered;   // an upgrade, which waits for the server's SETTINGS to be sent
    bool answered;  // a part of the response came
    bool left;      // the request's head was handed to the conn
    bool closed;    // nghttp2 has forgotten it
    bool reset;     // by the server
    unsigned interims;
    uint32_t held;         // bytes of the response for which the window was not given back
    uint64_t sent_before;  // conn->bytes_out when the head was handed over
    // What went wrong, when something did:
    enum close_reason failure;
    unsigned status;  // to answer the client
    enum upstream_progress progress;
};

enum client_state {
    SETTLING,  // the server's SETTINGS have not come
    OPEN,
    LEAVING,  // takes no more requests: GOAWAY came, or the ids are used up
    DEAD,     // the conn is gone; freed when the last exchange has let go
};

struct h2_client {
    struct h2_session session;  // first: it is nghttp2's user data
    struct client_codec public;
    const struct conf_upstream *conf;
    enum client_state state;
    struct list streams, touched, fed;
    struct ring_flush flusher;
    struct block *feeding;  // of the span that is being read
    unsigned busy;          // calls on the stack that go on using this object
    bool freed;             // by its owner, while busy
    bool settled;           // SETTINGS came: to be told
    uint32_t told_off;      // the error of a GOAWAY of ours that was sent; 0: none
    bool secure;
    bool spoiled;           // memory ran out inside nghttp2
    bool pinged;  // and nothing was heard since
    uint64_t heard_ms;
    uint64_t settle_by, ping_by, idle_by;  // on the monotonic clock; 0: not
};

enum { H2_LAST_ID = INT32_MAX - 1024 };  // the ids of streams are used up soon

static inline struct h2_client *h2_client_of(struct client_codec *client) {
    return container_of(client, struct h2_client, public);
}

// ---- h2_client.c

void h2_client_set_state(struct h2_client *client, enum client_state state);
// What there is to be sent leaves at the turn's end.
void h2_client_send_later(struct h2_client *client);
// Behind everything that has raised `busy`: the object goes when nothing on the stack uses it and its owner
// has let go.
void h2_client_leave(struct h2_client *client);

// ---- h2_client_stream.c

// The struct client_codec_ops.carry of the codec.
void h2_up_carry(struct client_codec *public, struct exchange *x, const struct conf_upstream *conf);
// Its exchange is to run.
void h2_up_touch(struct h2_up *stream);
// Notes the first thing that went wrong, and how far the request had come then.
void h2_up_note(struct h2_up *stream, unsigned status, enum close_reason reason);
// The server says that it has not looked at the request.
void h2_up_note_refused(struct h2_up *stream);
// What came is no response.
void h2_up_note_bad(struct h2_up *stream, const char *why);
void h2_up_set_timer(struct h2_up *stream);
// The server's SETTINGS have come: upgrades that waited for them are sent, or fail.
void h2_up_settled(struct h2_client *client);
// It agreed to an upgrade: the response becomes the 101 that clients of HTTP/1 and hooks know.
int h2_up_open_tunnel(struct h2_up *stream) __attribute__((warn_unused_result));
// Runs the exchanges of those that were touched. Nothing of nghttp2 may be on the stack. Any stream, and
// other ones of the client, may be gone afterwards.
void h2_client_run(struct h2_client *client);

// ---- h2_client_events.c

// NULL when memory is out.
nghttp2_session_callbacks *h2_client_callbacks(void);
void h2_client_taken(struct h2_session *session, struct h2_body *body);

#endif
