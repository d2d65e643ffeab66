// SPDX-License-Identifier: BSD-2-Clause
// A server: one address that requests of an upstream can go to. What is balanced, checked, pooled and shown.
// A line of the configuration (struct conf_server) that is an address has one; one that is a name has as many
// as the name has addresses, and they come and go (upstream_add(), upstream_remove()).
//
// A server that was removed is asked no more, and goes when nothing is on it, at a turn's end. So a pointer to
// it is good for as long as the holder has a place of it (server_take_place()), an attempt or a connection.
#ifndef MOONGATE_PROXY_SERVER_H
#define MOONGATE_PROXY_SERVER_H

#include "base/addr.h"
#include "base/list.h"
#include "conf/conf.h"
#include "proxy/standing.h"

struct upstream;
struct check;

// What this worker has seen of it in the window of its upstream; outlier.c's.
struct outlier_window {
    uint64_t requests, errors;  // answered, and of these with 500 or more
    uint64_t timed, us;         // those whose time says something, and their times' sum
};

enum { LEVEL_BACKUP = 1 << 16 };  // behind all priorities of SRV records

struct server {
    struct list link;         // of those that were removed
    const struct conf_server *line;  // of the configuration, or of an address that a script gave
    struct upstream *upstream;
    struct addr addr;
    const char *name;         // as the line has it, or the address of a name; lives as long as the server
    bool passing;             // it may go before the generation does: names of it are copied for the log
    bool removed;             // of the upstream no more
    uint64_t weight;
    unsigned level;           // asked while none of a lower level may be: LEVEL_BACKUP of backups
    uint64_t key;             // of its address: its place in hash rings, the same everywhere
    uint64_t token;           // what clients that stick to it call it; 0: nothing
    uint64_t share;           // roster.c's: its weight, less during slow_start
    uint32_t elsewhere;       // roster.c's: requests of other workers on it, a moment ago
    bool listed;              // it is on the roster
    uint64_t bit;             // among those of x->tried; beyond 64 servers some share one
    struct standing *standing;
    struct standing_counts *counts;  // this worker's
    struct list idle;         // pool.c's: clients (http/client_codec.h), newest first
    unsigned idle_count;
    struct list busy;         // pool.c's: clients that carry something and can carry more
    struct list stuck;        // dial.c's: exchanges that wait for this one, as their clients stick to it
    struct list attempts;     // attempt.c's: connections that are being made
    unsigned shared;          // connections that carry several exchanges, made or being made
    uint64_t kept_ms;         // pool.c's: how long it kept the idle connection that it closed last
    uint64_t keep_ms;         // and what connections are kept for because of that, until learn_again_ms
    uint64_t learn_again_ms;
    bool speaks_http1;        // over TLS it chose HTTP/1.1 the last time
    uint64_t http1_until_ms;  // it wants to be asked by HTTP/1.1 alone until then
    int64_t current_weight;   // balance.c's: smooth weighted round robin
    uint64_t trial_ms;        // outlier.c's: while it is on trial this worker asks it for nothing before
    struct outlier_window window;
    struct check *check;      // check.c's; NULL: it is not checked
    unsigned active;          // exchanges on it or connecting to it, and tunnels
    char text[];              // `name` of a passing one
};

// name: NULL for a server that is its line's address. NULL when memory is out. By upstream.c.
struct server *server_new(struct upstream *upstream, const struct conf_server *line, const struct addr *addr,
                          const char *name) __attribute__((warn_unused_result));
// Of one with that priority, or one whose line was another's: the line says whether it is a backup.
static inline unsigned server_level(const struct conf_server *line, unsigned level) {
    return level % LEVEL_BACKUP + (line->backup ? LEVEL_BACKUP : 0);
}
void server_free(struct server *server);  // nothing may be on it; NULL is allowed
bool server_unused(const struct server *server);

// An exchange or a tunnel on it: counts for max_active. Who waits for a place is served at the turn's end.
void server_take_place(struct server *server);
void server_give_place(struct server *server);
// A place may have become free, or the server may be asked again.
void server_wake(struct server *server);

// What connecting to it came to.
void server_failed(struct server *server);
void server_succeeded(struct server *server);
// Failed lately, or its checks say so: to be asked only when there is no other.
bool server_is_down(const struct server *server);

// It has said that it will not be asked by HTTP/2 (HTTP_1_1_REQUIRED). Whether further connections to it speak
// HTTP/1.1: for ten minutes, where the protocol is not the operator's word but what comes of the handshake.
bool server_requires_http1(struct server *server);
bool server_wants_http1(const struct server *server);

// What operators and scripts want of it.
static inline enum standing_admin server_admin(const struct server *server) {
    return (enum standing_admin)atomic_load_explicit(&server->standing->admin, memory_order_relaxed);
}
static inline uint64_t server_weight(const struct server *server) {
    uint32_t weight = atomic_load_explicit(&server->standing->weight, memory_order_relaxed);
    return weight > 0 ? weight : server->weight;
}

#endif
