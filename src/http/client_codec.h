// SPDX-License-Identifier: BSD-2-Clause
// What proxy/dial.c knows of whatever carries exchanges to a server over a connection: one of these for each
// connection, embedded in the codec's own object. To add a protocol towards servers: fill in the operations
// and struct upstream_ops (exchange.h); dial.c makes it for a connection that speaks the protocol.
#ifndef MOONGATE_HTTP_CLIENT_CODEC_H
#define MOONGATE_HTTP_CLIENT_CODEC_H

#include "http/exchange.h"

struct client_codec;

struct client_codec_ops {
    // Gives it an exchange: exchange_dialled() is called with it, or exchange_dial_failed().
    void (*carry)(struct client_codec *client, struct exchange *x, const struct conf_upstream *conf);
    // How many exchanges it may be given beside those that it carries.
    unsigned (*room)(const struct client_codec *client);
    // It waits in a pool from now on: after so many milliseconds it is `lost`.
    void (*idle)(struct client_codec *client, uint64_t ms);
    void (*free)(struct client_codec *client, enum close_reason reason);
};

// How an exchange was let go of.
enum client_released {
    CLIENT_REUSABLE,  // it may carry others
    CLIENT_SPENT,     // it may not: to be freed with its last exchange
    CLIENT_TUNNEL,    // its conn left for a tunnel: to be freed
};

struct client_codec_callbacks {
    // An exchange of it is over; client->streams says how many it has left.
    void (*released)(struct client_codec *client, enum client_released how);
    // Its conn ended while it carried no exchange: it is to be freed.
    void (*lost)(struct client_codec *client);
    // Only one that carries several at a time: the server has said how many it takes, or negative errno: it
    // broke before that. Called once; the exchange that it was made for needs not wait for it.
    void (*settled)(struct client_codec *client, int error);
    // And: the server will not be asked by this protocol (HTTP_1_1_REQUIRED); from within the codec's reading,
    // where nothing may be done at once. Whether its further connections speak HTTP/1.1.
    bool (*http1_required)(struct client_codec *client);
    // And: there is more room than before.
    void (*roomier)(struct client_codec *client);
};

struct client_codec {
    const struct client_codec_ops *ops;
    const struct client_codec_callbacks *callbacks;
    void *owner;        // of the callbacks
    struct conn *conn;  // NULL: it has none any more
    bool many;          // it can carry several exchanges at a time
    bool settling;      // the owner's: `settled` is still to come
    struct list link;   // the owner's
    struct slice announced;  // the owner's: what the connection began with; empty: nothing
    unsigned streams;   // exchanges that it carries
    uint64_t requests;  // carried so far
    uint64_t idle_since_ms;  // the owner's: when it was pooled last, 0: it never was
    uint64_t idle_ms;   // for how long its server will keep it, as the last response said; UINT64_MAX: unsaid
};

// It may have been closed by its server in the meantime, as that had no word on it yet, or has had the last.
static inline bool client_codec_is_old(const struct client_codec *client) {
    return client->requests > 0 || client->idle_since_ms > 0;
}

#endif
