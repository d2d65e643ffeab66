// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1.1 towards upstream servers: carries one exchange at a time over a conn that may live in a pool in
// between. Made and kept by proxy/dial.c.
#ifndef MOONGATE_HTTP_H1_CLIENT_H
#define MOONGATE_HTTP_H1_CLIENT_H

#include "http/exchange.h"

struct h1_client {
    struct conn *conn;
    struct list link;   // the pool's
    void *owner;
    uint64_t requests;  // carried so far
    uint64_t idle_ms;   // for how long its server will keep it, as the last response said; UINT64_MAX: unsaid
};

struct h1_client_callbacks {
    // Its exchange is over. reusable: it may wait in a pool; otherwise h1_client_free() it.
    void (*released)(struct h1_client *client, bool reusable);
    // Its conn ended while it carried no exchange: h1_client_free() it.
    void (*lost)(struct h1_client *client);
};

// Takes the conn, which is connected. NULL when memory is out (the conn is closed).
struct h1_client *h1_client_new(struct conn *conn, const struct conf_upstream *conf,
                                const struct h1_client_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));
void h1_client_free(struct h1_client *client, enum close_reason reason);
// Starts a time-out after which an idle client is `lost`.
void h1_client_idle(struct h1_client *client, uint64_t ms);
// Gives it an exchange: exchange_dialled() is called with it.
void h1_client_carry(struct h1_client *client, struct exchange *x, const struct conf_upstream *conf);

#endif
