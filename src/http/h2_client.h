// SPDX-License-Identifier: BSD-2-Clause
// HTTP/2 towards upstream servers: many exchanges at a time over one conn, each a stream. Made and kept by
// proxy/dial.c for a conn on which HTTP/2 was agreed upon.
//
// What it does with what servers send; t/system/test_h2_upstream_cases.py has it case by case
//   no response       what breaks the rules of one stream (h2_response.h and nghttp2 say) is 502, or cuts the
//                     client off when its head has left; what breaks the connection's is so for all its streams
//   REFUSED_STREAM,   the server has not looked at the request: it may be sent again, whatever it is. So it is
//   GOAWAY            with the streams above a GOAWAY's last one; those below go on, new ones go elsewhere
//   RST_STREAM        else: the request may have been acted upon; a response that has begun is cut off. After
//                     a whole response it is in order, whatever its code
//   1xx, 204, 304,    as in HTTP/1 (h1_client.h)
//   HEAD, 205
//   an early answer   is passed on at once, and the rest of the request goes on while it lasts; at its end the
//                     stream is reset, nothing else
//   an upgrade        to WebSocket is a CONNECT with :protocol (RFC 8441), which waits for the server's
//                     SETTINGS; its 2xx is the 101 that clients of HTTP/1 and hooks know. Others, and a server
//                     that does not offer it: 501
//   silence           after http2_ping a PING must be answered within connect_timeout
//
// Windows: the connection's is given back at once, a stream's when the exchange has passed its bytes on. So a
// slow client stalls its own stream alone, and http2_window bounds what waits for it here.
#ifndef MOONGATE_HTTP_H2_CLIENT_H
#define MOONGATE_HTTP_H2_CLIENT_H

#include "http/client_codec.h"

// Takes the conn, which is connected. NULL when memory is out (the conn is closed). `secure`: the requests'
// scheme is https.
struct client_codec *h2_client_new(struct conn *conn, const struct conf_upstream *conf, bool secure,
                                   const struct client_codec_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));

#endif
