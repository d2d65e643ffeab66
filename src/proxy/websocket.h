// SPDX-License-Identifier: BSD-2-Clause
// The part of WebSocket's opening handshake (RFC 6455, 4) that HTTP/2 does without (RFC 8441, 5) and a server
// or a client of HTTP/1 asks for: the proxy is its other side then. Filled into exchange_site by frontend.c.
#ifndef MOONGATE_PROXY_WEBSOCKET_H
#define MOONGATE_PROXY_WEBSOCKET_H

#include "http/exchange.h"

// Puts a Sec-WebSocket-Key of our own into the request. Negative errno.
int websocket_offer(struct exchange *x) __attribute__((warn_unused_result));
// Whether the response's Sec-WebSocket-Accept is the answer to it.
bool websocket_accepted(const struct exchange *x);
// Answers the client's key in the response. -EINVAL when it sent none, -ENOMEM.
int websocket_accept(struct exchange *x) __attribute__((warn_unused_result));

#endif
