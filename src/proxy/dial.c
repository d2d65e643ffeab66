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
#include "proxy/pool.h"
#include "proxy/sticky.h"

#include <errno.h>
#include <string.h>

// Belongs to its exchange (x->dialling). It waits until a name is resolved, for an attempt with a place of the
// server, or in its upstream's queue with its timer running (name and waiter.attempt are NULL).
struct dialling {
    struct exchange *x;
    const struct named *name;  // with its ask
    struct resolver_ask *ask;
    struct waiter waiter;
    struct list link;
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
static void failed(struct exchange *x, struct server *server, int error, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    const char *upstream = server->upstream->conf->name;
    if (attempt_error_is_ours(error)) {
        if (log_limit_pass(&limit, 10, &suppressed))
            log_error("upstream \"%s\": no connection to \"%s\" can be made: %s (request %s)", upstream,
                      server->name, strerror(-error), exchange_id(x));
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    bool timeout = error == -ETIMEDOUT;
    if (why && log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": TLS with \"%s\" failed: %s (request %s)", upstream, server->name, why,
                  exchange_id(x));
    else if (!why && log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)", upstream, server->name,
                  strerror(-error), exchange_id(x));
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

static const struct waiter_ops waiter_ops;

static void ask(struct exchange *x, struct server *server) {
    if (note(x, server) < 0) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    struct slice announced = { 0 };
    int rc = 0;
    if (server->upstream->conf->proxy_protocol != PROXY_VERSION_NONE)
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
    *dialling = (struct dialling){ .x = x, .waiter.ops = &waiter_ops, .began_us = clock_us() };
    dialling->waiter.announced = announced;
    rc = attempt_join(server, &dialling->waiter);
    if (rc < 0) {
        slab_put(&dialling_slab, dialling);
        failed(x, server, rc, NULL);
        return;
    }
    server_take_place(server);
    x->dialling = dialling;
}

static struct dialling *of_waiter(struct waiter *waiter) {
    return container_of(waiter, struct dialling, waiter);
}

static void waiter_made(struct waiter *waiter, struct client_codec *client) {
    struct dialling *dialling = of_waiter(waiter);
    ((struct server *)client->owner)->counts->wait_us += clock_us() - dialling->began_us;
    pool_serve(client, end(dialling));
}

static void waiter_failed(struct waiter *waiter, struct server *server, int error, const char *why) {
    server_give_place(server);
    failed(end(of_waiter(waiter)), server, error, why);
}

// To the same server, where it has room; else as if it had just come.
static void waiter_again(struct waiter *waiter, struct server *server) {
    struct exchange *x = end(of_waiter(waiter));
    server_give_place(server);
    if (!server->removed && attempt_has_room(server)) {
        ask(x, server);
    } else {
        x->tried &= ~bit_of(server);
        dial(x);
    }
}

static const struct waiter_ops waiter_ops = {
    .made = waiter_made, .failed = waiter_failed, .again = waiter_again
};

// ---- the queue --------------------------------------------------------------------------------------------

static struct exchange *unqueue(struct dialling *dialling) {
    timer_stop(&dialling->timer);
    list_remove(&dialling->link);
    dialling->x->upstream->waiting_count--;
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

static void wait(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    struct dialling *dialling =
        upstream->waiting_count < upstream->conf->queue ? slab_get(&dialling_slab) : NULL;
    if (!dialling) {
        counters->upstream_queue_full++;
        refuse(x, "the queue is full");
        return;
    }
    *dialling = (struct dialling){ .x = x, .began_us = clock_us() };
    timer_init(&dialling->timer, waited_too_long);
    timer_start(&dialling->timer, upstream->conf->queue_timeout);
    list_push_back(&upstream->waiting, &dialling->link);
    upstream->waiting_count++;
    counters->upstream_waiting++;
    counters->upstream_waited++;
    x->dialling = dialling;
}

static void wake(struct ring_flush *flush) {
    struct upstream *upstream = container_of(flush, struct upstream, waker);
    while (!list_empty(&upstream->waiting)) {
        struct dialling *first = container_of(upstream->waiting.next, struct dialling, link);
        bool wait;
        struct server *server = balance_choose(upstream, first->x, &wait);
        if (server) {
            server->counts->wait_us += clock_us() - first->began_us;
            ask(unqueue(first), server);
        } else if (wait || upstream->unresolved > 0) {
            return;
        } else {
            refuse_all(unqueue(first));
        }
    }
}

void dial_init(struct upstream *upstream) {
    list_init(&upstream->waiting);
    list_init(&upstream->waker.link);
    upstream->waker.flush = wake;
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

static void resolved(void *owner, const struct resolver_answer *answer) {
    struct dialling *dialling = owner;
    const struct named *name = dialling->name;
    struct error error;
    struct exchange *x = end(dialling);
    if (answer->count == 0) {
        bool late = answer->failure == DNS_timeout;
        bool ours = answer->failure == DNS_busy || answer->failure == DNS_memory;
        name_failed(x, answer->text, late ? 504 : ours ? 503 : 502, CLOSE_upstream_name);
        return;
    }
    struct server *server = address_choose(name, answer, x->settings->route_allow, x->tried, &error);
    if (server)
        ask(x, server);
    else
        name_failed(x, error.text, 502, CLOSE_upstream_denied);
}

static void resolve(struct exchange *x, const struct named *name) {
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    *dialling = (struct dialling){ .x = x, .name = name };
    x->dialling = dialling;
    struct resolver_ask *pending =
        resolver_ask(name->book->resolver, name->host, AF_UNSPEC, resolved, dialling);
    if (pending)  // else it was told already, and is gone
        dialling->ask = pending;
}

// ---- from outside -----------------------------------------------------------------------------------------

void dial(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    if (upstream->named) {
        resolve(x, upstream->named);
        return;
    }
    if (sticky_read(x) < 0) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    // Nobody overtakes those who wait, not even when a place was given a moment ago.
    bool later = true;
    struct server *server =
        list_empty(&upstream->waiting) ? balance_choose(upstream, x, &later) : NULL;
    if (server)
        ask(x, server);
    else if (later || upstream->unresolved > 0)
        wait(x);
    else
        refuse_all(x);
}

void dial_cancel(struct exchange *x) {
    struct dialling *dialling = x->dialling;
    if (dialling->name) {
        resolver_cancel(dialling->ask);
        end(dialling);
    } else if (dialling->waiter.attempt) {
        struct server *server = x->server;
        attempt_leave(&dialling->waiter);
        server_give_place(server);
        end(dialling);
    } else {
        unqueue(dialling);
    }
}
