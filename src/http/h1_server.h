// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1.0 and 1.1 towards clients: turns a conn into exchanges, one after the other. Made by proxy/client.c
// for each connection that speaks it; knows nothing of routes.
#ifndef MOONGATE_HTTP_H1_SERVER_H
#define MOONGATE_HTTP_H1_SERVER_H

#include "http/codec.h"

// Takes the conn. NULL when memory is out (the conn is closed). Drained while it is busy it says `Connection:
// close` with the response.
struct server_codec *h1_server_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));

#endif
