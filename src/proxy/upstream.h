// SPDX-License-Identifier: BSD-2-Clause
// An upstream: its servers, which may change while it is in use, and those who wait for one. Belongs to one
// generation. The exchange asks by way of its site (frontend.c); dial.c gets it a connection.
//
// Glossary
//   line      one `server` directive (struct conf_server): an address, or a name that has several
//   server    one address that requests go to (server.h)
//   standing  what all workers know of a server, beyond reloads (standing.h)
//   attempt   a connection that is being made (attempt.h); several for one exchange are a race (race.h)
//   client    a connection that carries exchanges (http/client_codec.h); the pool has the idle ones (pool.h)
// Arrows between the files: dial -> balance -> race -> attempt -> pool -> server; upstream.c makes and ends all.
#ifndef MOONGATE_PROXY_UPSTREAM_H
#define MOONGATE_PROXY_UPSTREAM_H

#include "base/timer.h"
#include "proxy/budget.h"
#include "proxy/roster.h"
#include "proxy/server.h"
#include "ring/ring.h"

struct checks;
struct check_script;

struct upstream {
    struct list link;         // of its generation, or of its book
    struct address_book *book;  // that it may leave when it is not in use; NULL: of the configuration
    struct named *named;      // address.c's: a name to be resolved before each attempt; NULL: none
    unsigned users;           // exchanges that have chosen it
    const struct conf_upstream *conf;
    struct standings *standings;  // shared; NULL: its servers are nobody else's
    unsigned worker;          // whose counts in them are ours
    struct tls_client *tls;   // NULL: connections are plain
    struct server **servers;  // those that may be chosen; the order is that of the configuration
    unsigned server_count;
    uint64_t *tokens;         // of those, in the same order
    unsigned active;          // exchanges on all of them
    struct roster roster;     // who of them may be asked now
    struct list removed;      // struct server: those that may not, until nothing is on them
    unsigned idle_count;      // over all servers
    struct members *members;  // members.c's: its lines that are names
    struct resolver_guide *guide;  // of these; NULL: none
    unsigned unresolved;      // lines of names that were never answered: a server may come yet
    struct list waiting;      // dial.c's: exchanges for which no server is free, in order
    unsigned waiting_count;   // and of those that wait for one server (server->stuck)
    unsigned stuck_count;     // these alone
    struct ring_flush waker;  // dial.c's: serves those who wait, when a server became free
    struct server *claimed;   // places.c's: a place of it is taken, and not used yet
    struct timer places_timer;  // places.c's: runs while somebody waits for a place
    struct timer warmer;      // warm.c's
    struct ring_flush tidier; // frees removed servers
    struct budget budget;     // of this worker
    uint64_t window_ends_ms;  // outlier.c's: of what servers are judged by
    struct checks *checks;    // check.c's; NULL: servers are not checked
    const struct check_script *check_script;  // of its generation's scripts; NULL: there are none
    void *scripts;
};

struct upstream_options {
    struct address_book *book;
    struct standings *standings;
    unsigned worker;
    const struct upstream *before;  // the same one of the generation in use: names are what they were there until
                                    // they are answered; NULL: none
    struct resolver *resolver;  // for lines that are names; NULL: they are servers, whatever they stand for (tests)
};

// With the servers of all lines that are addresses.
struct upstream *upstream_new(const struct conf_upstream *conf, const struct upstream_options *options)
    __attribute__((warn_unused_result));
// Once: asks for the lines that are names, of the guide first (NULL: of none), which lives as long as it is in use.
void upstream_resolve(struct upstream *upstream, struct resolver_guide *guide);
// Its configuration is in use from now on: servers are checked, connections kept ready; until it is no more.
void upstream_go(struct upstream *upstream, const struct conf_settings *settings);
void upstream_stop(struct upstream *upstream);
// Closes idle connections. No exchange may use it any more.
void upstream_free(struct upstream *upstream);
// One more server, of a line; name: NULL for the line's own address. NULL when memory is out.
struct server *upstream_add(struct upstream *upstream, const struct conf_server *line, const struct addr *addr,
                            const char *name) __attribute__((warn_unused_result));
// It is chosen no more: idle connections are closed, and what is under way goes on.
void upstream_remove(struct server *server);
// For server.c and pool.c: something left a removed server.
void upstream_tidy_later(struct upstream *upstream);

#endif
