// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1.0 and 1.1 towards clients: turns a conn into exchanges, one after the other. Made by proxy/client.c
// for each accepted connection; knows nothing of routes.
#ifndef MOONGATE_HTTP_H1_SERVER_H
#define MOONGATE_HTTP_H1_SERVER_H

#include "http/exchange.h"

struct h1_server;

struct h1_server_callbacks {
    // The site of the next exchange; NULL: take no more requests.
    struct exchange_site *(*site)(void *owner);
    // It waits for its next request (true; not told for the first one), or begins one. May be NULL.
    void (*idle)(void *owner, bool idle);
    // Requests are to be refused with 503: memory is short. May be NULL.
    bool (*overloaded)(void *owner);
    // The codec is gone, its conn too (or in other hands).
    void (*gone)(void *owner);
};

// Takes the conn. NULL when memory is out (the conn is closed).
struct h1_server *h1_server_new(struct conn *conn, const struct h1_server_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));
// Takes no further request: an idle connection closes now, a busy one after its exchange, with `Connection:
// close`. One that has not brought its first request yet has a moment for it.
void h1_server_drain(struct h1_server *server);
// Closes it if it waits for a request; false when it does not.
bool h1_server_shed(struct h1_server *server);
// Ends everything at once.
void h1_server_close(struct h1_server *server, enum close_reason reason);

#endif
