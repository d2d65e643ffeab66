// SPDX-License-Identifier: BSD-2-Clause
// Connections to servers: the newest idle one of the pool, or a new one within connect_timeout; when every
// server has max_active, a place in the upstream's queue. A server's pool holds the most lately used first,
// which is also the one least likely to have been closed; its upstream's `keepalive` bounds all of a worker's
// idle ones.
//
// What must not be sent twice gets a pooled connection only after a look at the socket (conn_quiet): an end
// that has come in this turn is noticed by that and not by a lost request. One that comes later is answered
// 502.
#include "proxy/dial.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_client.h"

#include <errno.h>
#include <string.h>

// Belongs to its exchange (x->dialling). Either it waits in its upstream's queue, its timer running (server
// and conn are NULL), or it connects (it owns conn and a place of the server).
struct dialling {
    struct exchange *x;
    struct server *server;
    struct conn *conn;
    struct list link;
    struct timer timer;
};

static struct slab dialling_slab = SLAB_INIT(sizeof(struct dialling), 64);

static const struct client_codec_callbacks client_callbacks;

static void take_place(struct server *server) {
    server->active++;
}

// Those who wait are served at the turn's end: whoever gives a place may be deep in another exchange.
static void give_place(struct server *server) {
    server->active--;
    if (!list_empty(&server->upstream->waiting))
        ring_flush_later(&server->upstream->waker);
}

void dial_tunnel_ended(struct server *server) {
    give_place(server);
}

static void drop(struct client_codec *client, enum close_reason reason) {
    struct server *server = client->owner;
    if (list_linked(&client->link)) {
        server->idle_count--;
        server->upstream->idle_count--;
        counters->upstream_idle--;
    }
    client->ops->free(client, reason);
}

static void released(struct client_codec *client, bool reusable) {
    struct server *server = client->owner;
    struct upstream *upstream = server->upstream;
    if (client->conn)  // else it left for a tunnel, which keeps its place
        give_place(server);
    uint64_t idle = upstream->conf->keepalive_idle;
    if (idle > client->idle_ms)
        idle = client->idle_ms;
    if (!reusable || upstream->conf->keepalive == 0 || idle == 0) {
        drop(client, CLOSE_none);
        return;
    }
    if (upstream->idle_count >= upstream->conf->keepalive) {
        // Full: the one unused for longest goes, of this server if it has any.
        if (list_empty(&server->idle)) {
            drop(client, CLOSE_none);
            return;
        }
        drop(container_of(server->idle.prev, struct client_codec, link), CLOSE_keepalive_timeout);
    }
    list_push_front(&server->idle, &client->link);
    server->idle_count++;
    upstream->idle_count++;
    counters->upstream_idle++;
    client->ops->idle(client, idle);
}

static void lost(struct client_codec *client) {
    drop(client, CLOSE_upstream_closed);
}

static const struct client_codec_callbacks client_callbacks = { .released = released, .lost = lost };

// What this process lacks says nothing of the server.
static bool is_ours(int error) {
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

static void failed(struct exchange *x, struct server *server, int error) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (is_ours(error)) {
        if (log_limit_pass(&limit, 10, &suppressed))
            log_error("upstream \"%s\": no connection to \"%s\" can be made: %s (request %s)",
                      server->upstream->conf->name, server->conf->name, strerror(-error), exchange_id(x));
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    bool timeout = error == -ETIMEDOUT;
    counters->upstream_connect_errors++;
    server_failed(server);
    if (log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)",
                  server->upstream->conf->name, server->conf->name, strerror(-error), exchange_id(x));
    exchange_dial_failed(x, true, timeout ? 504 : 502,
                         timeout ? CLOSE_upstream_timeout : CLOSE_upstream_connect);
}

// Ends the attempt, whether it waits or connects; a reason closes the conn and gives the place back.
static struct exchange *end(struct dialling *dialling, enum close_reason reason) {
    struct exchange *x = dialling->x;
    x->dialling = NULL;
    if (!dialling->server) {
        list_remove(&dialling->link);
        timer_stop(&dialling->timer);
        x->upstream->waiting_count--;
        counters->upstream_waiting--;
    } else if (reason != CLOSE_none) {
        conn_close(dialling->conn, reason);
        give_place(dialling->server);
    }
    slab_put(&dialling_slab, dialling);
    return x;
}

// The exchange has a place of the server.
static void serve(struct exchange *x, struct server *server, struct client_codec *client) {
    server->requests++;
    client->ops->carry(client, x, server->upstream->conf);
}

static void connected(struct conn *conn, int error) {
    struct dialling *dialling = conn->owner;
    struct server *server = dialling->server;
    if (error < 0) {
        failed(end(dialling, CLOSE_upstream_connect), server, error);
        return;
    }
    struct exchange *x = end(dialling, CLOSE_none);
    timer_stop(&conn->timer);
    counters->upstream_connects++;
    server->connects++;
    server_succeeded(server);
    struct client_codec *client = h1_client_new(conn, server->upstream->conf, &client_callbacks, server);
    if (client) {
        serve(x, server, client);
        return;
    }
    give_place(server);
    exchange_dial_failed(x, false, 503, CLOSE_memory);
}

static void timed_out(struct conn *conn) {
    struct dialling *dialling = conn->owner;
    struct server *server = dialling->server;
    failed(end(dialling, CLOSE_upstream_timeout), server, -ETIMEDOUT);
}

// Only timeout can be called while a conn connects.
static const struct conn_handler dialling_handler = { .timeout = timed_out };

// The newest idle connection that may carry this request, NULL when there is none.
static struct client_codec *take_idle(struct exchange *x, struct server *server) {
    if (x->fresh)
        return NULL;
    while (!list_empty(&server->idle)) {
        struct client_codec *client = container_of(server->idle.next, struct client_codec, link);
        if (!x->req.idempotent && !conn_quiet(client->conn)) {
            drop(client, CLOSE_upstream_closed);
            continue;
        }
        list_remove(&client->link);
        server->idle_count--;
        server->upstream->idle_count--;
        counters->upstream_idle--;
        return client;
    }
    return NULL;
}

static void ask(struct exchange *x, struct server *server) {
    unsigned index = (unsigned)(server - x->upstream->servers);
    if (index < 64)
        x->tried |= 1ull << index;
    x->server = server;
    x->upstream_name = slice_of(server->conf->name);
    struct client_codec *client = take_idle(x, server);
    x->fresh = false;
    if (client) {
        take_place(server);
        serve(x, server, client);
        return;
    }
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    struct conn *conn = conn_connect(&server->conf->addr, connected, &dialling_handler, dialling);
    if (!conn) {
        int error = errno;
        slab_put(&dialling_slab, dialling);
        failed(x, server, -error);
        return;
    }
    take_place(server);
    *dialling = (struct dialling){ .x = x, .server = server, .conn = conn };
    x->dialling = dialling;
    timer_start(&conn->timer, server->upstream->conf->connect_timeout);
}

// ---- the queue --------------------------------------------------------------------------------------------

static void refuse(struct exchange *x, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": no server is free: %s (request %s)", x->upstream->conf->name, why,
                 exchange_id(x));
    exchange_dial_failed(x, false, 503, CLOSE_upstream_busy);
}

static void waited_too_long(struct timer *timer) {
    struct dialling *dialling = container_of(timer, struct dialling, timer);
    counters->upstream_queue_timeouts++;
    refuse(end(dialling, CLOSE_none), "queue_timeout has passed");
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
    *dialling = (struct dialling){ .x = x };
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
        struct server *server = upstream_choose(upstream, first->x->tried);
        if (!server)
            return;
        ask(end(first, CLOSE_none), server);
    }
}

void dial(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    // Nobody overtakes those who wait, not even when a place was given a moment ago.
    struct server *server = list_empty(&upstream->waiting) ? upstream_choose(upstream, x->tried) : NULL;
    if (server)
        ask(x, server);
    else
        wait(x);
}

void dial_cancel(struct exchange *x) {
    end(x->dialling, CLOSE_client_closed);
}

void dial_init(struct upstream *upstream) {
    list_init(&upstream->waiting);
    list_init(&upstream->waker.link);
    upstream->waker.flush = wake;
}

void dial_release(struct upstream *upstream) {
    for (unsigned i = 0; i < upstream->server_count; i++)
        while (!list_empty(&upstream->servers[i].idle))
            drop(container_of(upstream->servers[i].idle.next, struct client_codec, link), CLOSE_drain);
    list_remove(&upstream->waker.link);
}
