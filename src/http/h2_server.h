// SPDX-License-Identifier: BSD-2-Clause
// HTTP/2 towards clients (RFC 9113): turns a conn into exchanges, many at a time. Made by proxy/client.c for
// each connection whose ALPN or first bytes (preface.h) say so; knows nothing of routes.
//
// Where to look
//   h2_session.c  what both sides share: frames and bodies out, fields
//   h2_mux.c      streams, shares of a turn, windows, events
//   h2_request.c  requests as they come: fields, RFC 9113's rules, limits of a head, what frames may come
//   when h2_guard.c    floods h2_server.c   the connection's life, time-outs, responses
//
// What an error costs
//   malformed       a request that RFC 9113, 8.1.1 calls so, a length that the content does not have: the
//   stream
//                   is reset with PROTOCOL_ERROR. What HTTP/1 answers 400, 413, 414, 431, 501 is answered so
//   the protocol's  errors of connections end it with GOAWAY; what it carried is over
//   a flood         GOAWAY with ENHANCE_YOUR_CALM
//   ours            a response that cannot be completed: the stream is reset with INTERNAL_ERROR
//   time            a request that comes too slowly is answered 408; a response that nobody takes is reset
//   with
//                   CANCEL; a connection that takes nothing is closed
#ifndef MOONGATE_HTTP_H2_SERVER_H
#define MOONGATE_HTTP_H2_SERVER_H

#include "http/codec.h"

// Takes the conn. NULL when memory is out (the conn is closed). Drained while it is busy it says so with
// GOAWAY, twice: what the client has sent by the time it answers a PING in between is served.
struct server_codec *h2_server_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));

#endif
