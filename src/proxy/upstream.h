// SPDX-License-Identifier: BSD-2-Clause
// An upstream: servers, the choice among them, and the pool of idle connections of this worker. Belongs to
// one generation. The exchange asks by way of its site (frontend.c); dial.c makes or finds the connection.
#ifndef MOONGATE_PROXY_UPSTREAM_H
#define MOONGATE_PROXY_UPSTREAM_H

#include "base/list.h"
#include "conf/conf.h"
#include "net/conn.h"

struct server {
    const struct conf_server *conf;
    struct upstream *upstream;
    struct list idle;         // pooled clients (http/client_codec.h), newest first
    unsigned idle_count;
    struct list busy;         // dial.c's: clients that carry something and can carry more
    struct list attempts;     // dial.c's: connections that are being made
    unsigned shared;          // connections that carry several exchanges, made or being made
    bool speaks_http1;        // over TLS it chose HTTP/1.1 the last time
    int64_t current_weight;   // smooth weighted round robin
    unsigned active;          // exchanges on it or connecting to it, and tunnels
    uint64_t down_until_ms;   // after two failed connects: not chosen before, unless there is no other
    unsigned failures;        // to connect, in a row
    uint64_t requests, connects, connect_errors;
};

struct upstream {
    struct list link;         // of its generation, or of its book
    struct address_book *book;  // that it may leave when it is not in use; NULL: of the configuration
    struct named *named;      // address.c's: a name to be resolved before each attempt; NULL: none
    unsigned users;           // exchanges that have chosen it
    const struct conf_upstream *conf;
    struct tls_client *tls;   // NULL: connections are plain
    unsigned server_count;
    unsigned idle_count;      // over all servers
    struct list waiting;      // dial.c's: exchanges for which no server is free, in order
    unsigned waiting_count;
    struct ring_flush waker;  // dial.c's: serves those who wait, when a server became free
    struct server servers[];
};

struct upstream *upstream_new(const struct conf_upstream *conf) __attribute__((warn_unused_result));
// Closes idle connections. No exchange may use it any more.
void upstream_free(struct upstream *upstream);
// The next server by the upstream's balance; servers whose bit is set in `tried` only when there is no other.
// NULL when those that it may be have max_active: one of them will become free.
struct server *upstream_choose(struct upstream *upstream, uint64_t tried);
// What connecting to it came to.
void server_failed(struct server *server);
void server_succeeded(struct server *server);

#endif
