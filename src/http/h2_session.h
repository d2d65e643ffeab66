// SPDX-License-Identifier: BSD-2-Clause
// HTTP/2 on nghttp2, as far as both sides share it: memory, frames made only while the connection takes them,
// DATA without a copy, heads as lists of fields. h2_client.c (and its counterpart towards clients) begin with
// a struct h2_session, which is nghttp2's user data, and with a struct h2_body for each stream, which is the
// stream's.
#ifndef MOONGATE_HTTP_H2_SESSION_H
#define MOONGATE_HTTP_H2_SESSION_H

#include "http/message.h"
#include "net/conn.h"

#include <nghttp2/nghttp2.h>

// A body on its way out. Bytes leave `queue` when the peer's windows and the connection let them.
struct h2_body {
    struct queue queue;
    bool ended;                      // nothing will be put on the queue any more
    bool deferred;                   // nghttp2 does not ask for it: h2_body_more() makes it
    const struct headers *trailers;  // sent behind it when it has ended, if there are any; NULL: none
    struct arena *arena;             // for the trailers
};

struct h2_session {
    nghttp2_session *ng;
    struct conn *conn;
    // A part of the body was taken. Called inside h2_session_send(): note it, do nothing to the session.
    void (*taken)(struct h2_session *session, struct h2_body *body);
};

enum { H2_WAITING_MAX = 128 * 1024 };  // of a conn's output, beyond which no more frames are made

// nghttp2's allocator: our own memory, so that its failures are tried as everybody's are.
extern nghttp2_mem h2_memory;

// The callbacks that both sides share are set; a codec adds its own.
void h2_session_set_callbacks(nghttp2_session_callbacks *callbacks);
// Makes what frames there are, as long as conn_waiting() is small. Negative errno: the session is broken.
int h2_session_send(struct h2_session *session) __attribute__((warn_unused_result));

// Instead of nghttp2_session_del(), for a session in which memory ran out: when that happens in the middle of a
// body nghttp2 1.52 frees its item and keeps a pointer to it, which would be freed again. Such a session is left
// alone, within bounds.
void h2_session_abandon(nghttp2_session *ng);

// For nghttp2_submit_request() and its like: reads the struct h2_body that is the stream's user data.
extern const nghttp2_data_provider h2_body_provider;
// Something came, or the end did.
void h2_body_more(struct h2_session *session, int32_t stream, struct h2_body *body);

// A head to be sent. Text must live until it is submitted; nghttp2 copies it then.
struct h2_fields {
    nghttp2_nv *at;
    size_t count, room;
    struct arena *arena;
};
// The name must be in lower case and live for ever. All return -ENOMEM when memory is out.
int h2_fields_add(struct h2_fields *fields, struct slice name, struct slice value)
    __attribute__((warn_unused_result));
// All fields but those that belong to a connection or frame a message (RFC 9113, 8.2.2), Content-Length and
// Host: what of them is to be sent is the codec's to say.
int h2_fields_add_all(struct h2_fields *fields, const struct headers *headers)
    __attribute__((warn_unused_result));
int h2_fields_add_number(struct h2_fields *fields, struct slice name, uint64_t number)
    __attribute__((warn_unused_result));

#endif
