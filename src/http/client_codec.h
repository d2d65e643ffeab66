// SPDX-License-Identifier: BSD-2-Clause
// What proxy/dial.c knows of whatever carries exchanges to a server over a connection: one of these for each
// connection, embedded in the codec's own object. To add a protocol towards servers: fill in the operations
// and struct upstream_ops (exchange.h); dial.c makes it for a connection that speaks the protocol.
#ifndef MOONGATE_HTTP_CLIENT_CODEC_H
#define MOONGATE_HTTP_CLIENT_CODEC_H

#include "http/exchange.h"

struct client_codec;

struct client_codec_ops {
    // Gives it an exchange: exchange_dialled() is called with it.
    void (*carry)(struct client_codec *client, struct exchange *x, const struct conf_upstream *conf);
    // It waits in a pool from now on: after so many milliseconds it is `lost`.
    void (*idle)(struct client_codec *client, uint64_t ms);
    void (*free)(struct client_codec *client, enum close_reason reason);
};

struct client_codec_callbacks {
    // An exchange of it is over. reusable: it may wait in a pool; otherwise it is to be freed.
    void (*released)(struct client_codec *client, bool reusable);
    // Its conn ended while it carried no exchange: it is to be freed.
    void (*lost)(struct client_codec *client);
};

struct client_codec {
    const struct client_codec_ops *ops;
    const struct client_codec_callbacks *callbacks;
    void *owner;        // of the callbacks
    struct conn *conn;  // NULL: it left for a tunnel
    struct list link;   // the pool's
    uint64_t requests;  // carried so far
    uint64_t idle_ms;   // for how long its server will keep it, as the last response said; UINT64_MAX: unsaid
};

#endif
