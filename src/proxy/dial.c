// SPDX-License-Identifier: BSD-2-Clause
// Connections to servers: the newest idle one of the pool, or a new one within connect_timeout. A server's
// pool holds the most lately used first; its upstream's `keepalive` bounds all of a worker's idle ones.
#include "proxy/dial.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_client.h"

#include <errno.h>
#include <string.h>

// A connect under way: owns its conn, belongs to its exchange (x->dialling).
struct dialling {
    struct exchange *x;
    struct server *server;
    struct conn *conn;
};

static struct slab dialling_slab = SLAB_INIT(sizeof(struct dialling), 64);

static const struct h1_client_callbacks client_callbacks;

static void drop(struct h1_client *client, enum close_reason reason) {
    struct server *server = client->owner;
    if (list_linked(&client->link)) {
        server->idle_count--;
        server->upstream->idle_count--;
        counters->upstream_idle--;
    }
    h1_client_free(client, reason);
}

static void released(struct h1_client *client, bool reusable) {
    struct server *server = client->owner;
    struct upstream *upstream = server->upstream;
    server->active--;
    if (!reusable || upstream->conf->keepalive == 0) {
        drop(client, CLOSE_none);
        return;
    }
    if (upstream->idle_count >= upstream->conf->keepalive) {
        // Full: the one unused for longest goes, of this server if it has any.
        if (list_empty(&server->idle)) {
            drop(client, CLOSE_none);
            return;
        }
        drop(container_of(server->idle.prev, struct h1_client, link), CLOSE_keepalive_timeout);
    }
    list_push_front(&server->idle, &client->link);
    server->idle_count++;
    upstream->idle_count++;
    counters->upstream_idle++;
    h1_client_idle(client, upstream->conf->keepalive_idle);
}

static void lost(struct h1_client *client) {
    drop(client, CLOSE_upstream_closed);
}

static const struct h1_client_callbacks client_callbacks = { .released = released, .lost = lost };

void dial_close_idle(struct server *server) {
    while (!list_empty(&server->idle))
        drop(container_of(server->idle.next, struct h1_client, link), CLOSE_drain);
}

static void failed(struct exchange *x, struct server *server, int error) {
    static struct log_limit limit;
    uint32_t suppressed;
    bool timeout = error == -ETIMEDOUT;
    counters->upstream_connect_errors++;
    server_failed(server);
    if (log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)",
                  server->upstream->conf->name, server->conf->name, strerror(-error), exchange_id(x));
    // Nothing of the request was sent: any method may go to the next server.
    bool again = x->attempt < server->upstream->conf->tries;
    exchange_dial_failed(x, again, timeout ? 504 : 502,
                         timeout ? CLOSE_upstream_timeout : CLOSE_upstream_connect);
}

// Ends the attempt; the conn, if still there, is closed.
static struct exchange *end(struct dialling *dialling, enum close_reason reason) {
    struct exchange *x = dialling->x;
    x->dialling = NULL;
    if (reason != CLOSE_none)
        conn_close(dialling->conn, reason);
    slab_put(&dialling_slab, dialling);
    return x;
}

static void serve(struct exchange *x, struct server *server, struct h1_client *client) {
    server->active++;
    server->requests++;
    h1_client_carry(client, x, server->upstream->conf);
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
    struct h1_client *client = h1_client_new(conn, server->upstream->conf, &client_callbacks, server);
    if (!client)
        exchange_dial_failed(x, false, 503, CLOSE_memory);
    else
        serve(x, server, client);
}

static void timed_out(struct conn *conn) {
    struct dialling *dialling = conn->owner;
    struct server *server = dialling->server;
    failed(end(dialling, CLOSE_upstream_timeout), server, -ETIMEDOUT);
}

// Only timeout can be called while a conn connects.
static const struct conn_handler dialling_handler = { .timeout = timed_out };

void dial(struct exchange *x) {
    struct server *server = upstream_choose(x->upstream, x->tried);
    unsigned index = (unsigned)(server - x->upstream->servers);
    if (index < 64)
        x->tried |= 1ull << index;
    x->upstream_name = slice_of(server->conf->name);
    if (!list_empty(&server->idle)) {
        struct h1_client *client = container_of(server->idle.next, struct h1_client, link);
        list_remove(&client->link);
        server->idle_count--;
        server->upstream->idle_count--;
        counters->upstream_idle--;
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
    *dialling = (struct dialling){ x, server, conn };
    x->dialling = dialling;
    timer_start(&conn->timer, server->upstream->conf->connect_timeout);
}

void dial_cancel(struct exchange *x) {
    end(x->dialling, CLOSE_client_closed);
}
