// SPDX-License-Identifier: BSD-2-Clause
// An exchange's way to a connection (dial.h): the choice of a server, one of its connections or an attempt at
// a new one; when every server has what it may have, a place in the upstream's queue.
//
// A name that a script gave is resolved first, for each attempt anew; the cache is the resolver's.
#include "proxy/dial.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "proxy/address.h"
#include "proxy/announce.h"
#include "proxy/attempt.h"
#include "proxy/balance.h"
#include "proxy/places.h"
#include "proxy/pool.h"
#include "proxy/race.h"
#include "proxy/sticky.h"

#include <errno.h>
#include <string.h>

enum dialling_state {
    DIALLING_name,   // `name` is being resolved: `ask` is set
    DIALLING_race,   // for a connection: `race` is on; ask: of the name, for one more server
    DIALLING_queue,  // it is in its upstream's queue, with its timer running
};

// Belongs to its exchange (x->dialling).
struct dialling {
    enum dialling_state state;
    struct exchange *x;
    const struct named *name;  // that a script gave; NULL: none
    struct resolver_ask *ask;
    struct slice announced;  // on a new connection, of the client
    struct race race;
    struct list link;  // of the queue, or of its server's, if it is stuck
    bool stuck;        // it waits for the one server that its client sticks to
    struct timer timer;
    uint64_t began_us;
};

static struct slab dialling_slab = SLAB_INIT(sizeof(struct dialling), 64);

// Its bit in x->tried.
static uint64_t bit_of(const struct server *server) {
    return server->upstream->book ? address_bit(server) : server->bit;
}

// It waits for nothing any more.
static struct exchange *end(struct dialling *dialling) {
    struct exchange *x = dialling->x;
    x->dialling = NULL;
    slab_put(&dialling_slab, dialling);
    return x;
}

// ---- a connection -----------------------------------------------------------------------------------------

// why: of a TLS handshake; NULL: of the connection itself.
static void tell_failed(struct exchange *x, const struct server *server, int error, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    const char *upstream = server->upstream->conf->name;
    if (!log_limit_pass(&limit, 10, &suppressed))
        return;
    if (attempt_error_is_ours(error))
        log_error("upstream \"%s\": no connection to \"%s\" can be made: %s (request %s)", upstream, server->name,
                  strerror(-error), exchange_id(x));
    else if (why)
        log_error("upstream \"%s\": TLS with \"%s\" failed: %s (request %s)", upstream, server->name, why,
                  exchange_id(x));
    else
        log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)", upstream, server->name,
                  strerror(-error), exchange_id(x));
}

static void failed(struct exchange *x, const struct server *server, int error, const char *why) {
    bool timeout = error == -ETIMEDOUT;
    tell_failed(x, server, error, why);
    if (attempt_error_is_ours(error))
        exchange_dial_failed(x, false, 503, CLOSE_memory);
    else
        exchange_dial_failed(x, true, timeout ? 504 : 502,
                             timeout   ? CLOSE_upstream_timeout
                                 : why ? CLOSE_upstream_tls
                                       : CLOSE_upstream_connect);
}

// Notes which server is asked. One that passes may be gone when the exchange is logged.
static int note(struct exchange *x, struct server *server) {
    struct slice name = slice_of(server->name);
    x->tried |= bit_of(server);
    if (server->passing) {
        name = arena_copy(&x->arena, name);
        if (!name.at)
            return -ENOMEM;
    }
    x->server = server;
    x->upstream_name = name;
    return 0;
}

static const struct race_ops race_ops;

// name: that the server is an address of; NULL: none.
static void ask(struct exchange *x, struct server *server, const struct named *name) {
    struct slice announced = { 0 };
    int rc = note(x, server);
    if (rc == 0 && server->upstream->conf->proxy_protocol != PROXY_VERSION_NONE)
        rc = announce_client(x, server->upstream->conf, &announced);
    if (rc < 0) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    struct client_codec *client = pool_find(x, server, announced);
    x->fresh = false;
    if (client) {
        server_take_place(server);
        pool_serve(client, x);
        return;
    }
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    dialling->state = DIALLING_race;
    dialling->x = x;
    dialling->name = name;
    dialling->ask = NULL;
    dialling->announced = announced;
    race_init(&dialling->race, &race_ops);
    rc = race_begin(&dialling->race, server, announced);
    if (rc < 0) {
        slab_put(&dialling_slab, dialling);
        failed(x, server, rc, NULL);
        return;
    }
    x->dialling = dialling;
}

static struct dialling *of_race(struct race *race) {
    return container_of(race, struct dialling, race);
}

// The race is over, and with it what was asked for one more server.
static struct exchange *end_race(struct race *race) {
    struct dialling *dialling = of_race(race);
    if (dialling->ask)
        resolver_cancel(dialling->ask);
    return end(dialling);
}

static void race_made(struct race *race, struct server *server, struct client_codec *client, uint64_t began_us) {
    struct exchange *x = end_race(race);
    server->counts->wait_us += clock_us() - began_us;
    if (x->server != server && note(x, server) < 0)
        x->server = server;  // the log says the other's name
    pool_serve(client, x);
}

static void race_failed(struct race *race, struct server *server, int error, const char *why, bool last) {
    struct exchange *x = of_race(race)->x;
    if (last) {
        failed(end_race(race), server, error, why);
    } else {
        tell_failed(x, server, error, why);
        x->server = race_server(race);
    }
}

// To the same server, where it has room; else as if it had just come.
static void race_again(struct race *race, struct server *server) {
    const struct named *name = of_race(race)->name;
    struct exchange *x = end_race(race);
    if (!server->removed && attempt_has_room(server)) {
        ask(x, server, name);
    } else {
        x->tried &= ~bit_of(server);
        dial(x);
    }
}

// One more server beside those that it waits for already, unless that has an idle connection.
static void ask_beside(struct dialling *dialling, struct server *server) {
    struct exchange *x = dialling->x;
    if ((x->tried & bit_of(server)) || note(x, server) < 0)
        return;
    struct client_codec *client = pool_find(x, server, dialling->announced);
    if (client) {
        server_take_place(server);
        race_end(&dialling->race, true);
        end_race(&dialling->race);
        pool_serve(client, x);
        return;
    }
    int rc = race_begin(&dialling->race, server, dialling->announced);
    if (rc < 0) {
        tell_failed(x, server, rc, NULL);
        x->server = race_server(&dialling->race);
    }
    if (attempt_error_is_ours(rc))
        x->tried &= ~bit_of(server);  // it was not: its turn comes again
}

static void resolve(struct dialling *dialling);

static void race_late(struct race *race) {
    struct dialling *dialling = of_race(race);
    struct exchange *x = dialling->x;
    if (dialling->name) {
        if (!dialling->ask)
            resolve(dialling);
        return;
    }
    struct server *server = balance_rival(x->upstream, x, race_server(race));
    if (server)
        ask_beside(dialling, server);
}

static const struct race_ops race_ops = {
    .made = race_made, .failed = race_failed, .again = race_again, .late = race_late
};

// ---- the queue --------------------------------------------------------------------------------------------

static struct exchange *unqueue(struct dialling *dialling) {
    timer_stop(&dialling->timer);
    list_remove(&dialling->link);
    dialling->x->upstream->waiting_count--;
    dialling->x->upstream->stuck_count -= dialling->stuck;
    counters->upstream_waiting--;
    return end(dialling);
}

static void refuse(struct exchange *x, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": no server is free: %s (request %s)", x->upstream->conf->name, why,
                 exchange_id(x));
    exchange_dial_failed(x, false, 503, CLOSE_upstream_busy);
}

// Nothing was sent: a route hook may know of another upstream.
static void refuse_all(struct exchange *x) {
    static struct log_limit limit;
    uint32_t suppressed;
    counters->upstream_none++;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": no server may be asked: moongatectl show upstreams says why (request %s)",
                 x->upstream->conf->name, exchange_id(x));
    exchange_dial_failed(x, true, 503, CLOSE_upstream_none);
}

static void waited_too_long(struct timer *timer) {
    struct dialling *dialling = container_of(timer, struct dialling, timer);
    counters->upstream_queue_timeouts++;
    refuse(unqueue(dialling), "queue_timeout has passed");
}

// stuck: the server that its client sticks to; NULL: any will do.
static void wait(struct exchange *x, struct server *stuck) {
    struct upstream *upstream = x->upstream;
    struct dialling *dialling =
        upstream->waiting_count < upstream->conf->queue ? slab_get(&dialling_slab) : NULL;
    if (!dialling) {
        counters->upstream_queue_full++;
        refuse(x, "the queue is full");
        return;
    }
    dialling->state = DIALLING_queue;
    dialling->x = x;
    dialling->began_us = clock_us();
    timer_init(&dialling->timer, waited_too_long);
    timer_start(&dialling->timer, upstream->conf->queue_timeout);
    dialling->stuck = stuck != NULL;
    list_push_back(stuck ? &stuck->stuck : &upstream->waiting, &dialling->link);
    upstream->stuck_count += dialling->stuck;
    upstream->waiting_count++;
    places_watch(upstream);
    counters->upstream_waiting++;
    counters->upstream_waited++;
    x->dialling = dialling;
}

static struct dialling *first_of(const struct list *list) {
    return list_empty(list) ? NULL : container_of(list->next, struct dialling, link);
}

// Whether it waits no more.
static bool serve(struct dialling *dialling) {
    bool wait;
    struct upstream *upstream = dialling->x->upstream;
    struct server *server = balance_choose(upstream, dialling->x, &wait);
    if (server) {
        server->counts->wait_us += clock_us() - dialling->began_us;
        ask(unqueue(dialling), server, NULL);
    } else if (!wait && upstream->unresolved == 0) {
        refuse_all(unqueue(dialling));
    } else {
        return false;
    }
    return true;
}

// The first of those who stick to a server, for each server; only such as came no later than `other`, if there is one.
static bool serve_stuck(struct upstream *upstream, const struct dialling *other) {
    bool served = false;
    uint64_t latest_us = other ? other->began_us : UINT64_MAX;
    for (unsigned i = 0; i < upstream->server_count && upstream->stuck_count > 0; i++) {
        struct dialling *stuck = first_of(&upstream->servers[i]->stuck);
        if (stuck && stuck->began_us <= latest_us)
            served |= serve(stuck);
    }
    return served;
}

// In the order in which they came, except that those who stick to a server that is full hold up nobody else.
static void wake(struct ring_flush *flush) {
    struct upstream *upstream = container_of(flush, struct upstream, waker);
    for (;;) {
        struct dialling *first = first_of(&upstream->waiting);
        if (!serve_stuck(upstream, first) && !(first && serve(first)) && !(first && serve_stuck(upstream, NULL)))
            return;
    }
}

void dial_init(struct upstream *upstream) {
    list_init(&upstream->waiting);
    list_init(&upstream->waker.link);
    upstream->waker.flush = wake;
}

void dial_removed(struct server *server) {
    struct upstream *upstream = server->upstream;
    for (struct dialling *stuck; (stuck = first_of(&server->stuck)) != NULL;) {
        list_remove(&stuck->link);
        list_push_back(&upstream->waiting, &stuck->link);
        stuck->stuck = false;
        upstream->stuck_count--;
    }
    server_wake(server);
}

// ---- names that scripts gave ------------------------------------------------------------------------------

// Nothing was sent: a route hook may know of another server.
static void name_failed(struct exchange *x, const char *why, unsigned status, enum close_reason reason) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("no server \"%s\": %s (request %s)", x->upstream->conf->name, why, exchange_id(x));
    exchange_dial_failed(x, status != 503, status, reason);
}

// Beside others: nothing is said of what does not come to anything.
static void resolved_beside(struct dialling *dialling, const struct resolver_answer *answer) {
    struct error error;
    struct exchange *x = dialling->x;
    struct server *server = NULL;
    if (answer->count > 0)
        server = address_choose(dialling->name, answer, x->settings->route_allow, x->tried,
                                &race_server(&dialling->race)->addr, &error);
    if (server)
        ask_beside(dialling, server);
}

static void resolved(void *owner, const struct resolver_answer *answer) {
    struct dialling *dialling = owner;
    const struct named *name = dialling->name;
    struct error error;
    dialling->ask = NULL;
    if (dialling->state == DIALLING_race) {
        resolved_beside(dialling, answer);
        return;
    }
    struct exchange *x = end(dialling);
    if (answer->count == 0) {
        bool late = answer->failure == DNS_timeout;
        bool ours = answer->failure == DNS_busy || answer->failure == DNS_memory;
        name_failed(x, answer->text, late ? 504 : ours ? 503 : 502,
                    answer->failure == DNS_refused ? CLOSE_upstream_denied : CLOSE_upstream_name);
        return;
    }
    struct server *server = address_choose(name, answer, x->settings->route_allow, x->tried, NULL, &error);
    if (server)
        ask(x, server, name);
    else
        name_failed(x, error.text, 502, CLOSE_upstream_denied);
}

static void resolve(struct dialling *dialling) {
    const struct named *name = dialling->name;
    const struct exchange *x = dialling->x;
    struct resolver_ask *pending = resolver_ask(name->book->resolver, x->unguided ? NULL : x->site->guide, name->host,
                                                AF_UNSPEC, resolved, dialling);
    if (pending)  // else it was told already, and may be gone
        dialling->ask = pending;
}

static void dial_name(struct exchange *x) {
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    dialling->state = DIALLING_name;
    dialling->x = x;
    dialling->name = x->upstream->named;
    dialling->ask = NULL;
    x->dialling = dialling;
    resolve(dialling);
}

// ---- from outside -----------------------------------------------------------------------------------------

void dial_to(struct exchange *x, struct server *server) {
    ask(x, server, NULL);
}

void dial(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    if (x->second) {  // its server has no room after all, and it does not wait
        exchange_dial_failed(x, false, 503, CLOSE_upstream_busy);
        return;
    }
    if (upstream->named) {
        dial_name(x);
        return;
    }
    if (sticky_read(x) < 0) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    // Nobody overtakes those who wait for the same, not even when a place was given back a moment ago.
    bool later = true;
    struct server *stuck = x->sticky ? sticky_find(upstream, x) : NULL, *server = NULL;
    if (list_empty(&upstream->waiting) && (!stuck || list_empty(&stuck->stuck)))
        server = balance_choose(upstream, x, &later);
    if (server && list_empty(&server->stuck)) {
        ask(x, server, NULL);
    } else if (server || later || upstream->unresolved > 0) {
        ring_flush_later(&upstream->waker);
        wait(x, stuck);
    } else {
        refuse_all(x);
    }
}

void dial_cancel(struct exchange *x) {
    struct dialling *dialling = x->dialling;
    switch (dialling->state) {
    case DIALLING_name:
        resolver_cancel(dialling->ask);
        end(dialling);
        break;
    case DIALLING_race:
        race_end(&dialling->race, false);
        end_race(&dialling->race);
        break;
    case DIALLING_queue:
        unqueue(dialling);
        break;
    }
}
