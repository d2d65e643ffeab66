// SPDX-License-Identifier: BSD-2-Clause
// The pool of pool.h. A server's list of idle connections has the most lately used first, which is also the
// one least likely to have been closed; its upstream's `keepalive` bounds all of a worker's idle ones.
//
// What must not be sent twice gets a pooled connection only after a look at the socket (conn_quiet): an end
// that has come in this turn is noticed by that and not by a lost request. One that comes later is answered
// 502.
#include "proxy/pool.h"

#include "base/clock.h"
#include "base/counters.h"

#include <stdlib.h>

// A server that closes connections sooner than so does not do it because they are idle.
enum { KEPT_LEAST_MS = 500, LEARNED_FOR_MS = 600000 };

static bool pooled(const struct client_codec *client) {
    return list_linked(&client->link) && client->streams == 0;
}

static void count_idle(struct server *server, int change) {
    server->idle_count += (unsigned)change;
    server->counts->idle += (uint64_t)change;
    server->upstream->idle_count += (unsigned)change;
    counters->upstream_idle += (uint64_t)change;
}

static void unpool(struct client_codec *client) {
    list_remove(&client->link);
    count_idle(client->owner, -1);
}

void pool_drop(struct client_codec *client, enum close_reason reason) {
    struct server *server = client->owner;
    if (pooled(client))
        unpool(client);
    if (client->many) {
        server->shared--;
        server_wake(server);
    }
    free((char *)client->announced.at);
    client->ops->free(client, reason);
    if (server->removed)
        upstream_tidy_later(server->upstream);
}

// The server closed one that was idle for so long. Twice about the same is its time-out: ours is to be a
// little shorter, for a while, as the server may be configured anew.
static void learn(struct server *server, uint64_t kept) {
    uint64_t shorter = kept < server->kept_ms ? kept : server->kept_ms;
    uint64_t longer = kept < server->kept_ms ? server->kept_ms : kept;
    server->kept_ms = kept;
    if (shorter < KEPT_LEAST_MS || longer - shorter > longer / 8)
        return;
    server->keep_ms = shorter - shorter / 8;
    server->learn_again_ms = clock_ms() + LEARNED_FOR_MS;
}

static uint64_t keep_for(const struct server *server, const struct client_codec *client) {
    uint64_t idle = server->upstream->conf->keepalive_idle;
    if (idle > client->idle_ms)
        idle = client->idle_ms;
    if (server->keep_ms > 0 && idle > server->keep_ms && clock_ms() < server->learn_again_ms)
        idle = server->keep_ms;
    return idle;
}

void pool_put(struct client_codec *client) {
    struct server *server = client->owner;
    struct upstream *upstream = server->upstream;
    uint64_t idle = keep_for(server, client);
    if (upstream->conf->keepalive == 0 || idle == 0 || server->removed) {
        pool_drop(client, CLOSE_none);
        return;
    }
    if (upstream->idle_count >= upstream->conf->keepalive) {
        // Full: the one unused for longest goes, of this server if it has any.
        if (list_empty(&server->idle)) {
            pool_drop(client, CLOSE_none);
            return;
        }
        pool_drop(container_of(server->idle.prev, struct client_codec, link), CLOSE_keepalive_timeout);
    }
    client->idle_since_ms = clock_ms();
    list_push_front(&server->idle, &client->link);
    count_idle(server, 1);
    client->ops->idle(client, idle);
}

// One that began with the same announcement (announce.h): mostly with none. Those of HTTP/2 are left alone when
// the server wants HTTP/1.1.
static struct client_codec *roomy(const struct server *server, const struct list *clients,
                                  struct slice announced) {
    list_each(link, clients) {
        struct client_codec *client = container_of(link, struct client_codec, link);
        if (!client->settling && client->ops->room(client) > 0 &&
            !(client->many && server_wants_http1(server)) && slice_eq(client->announced, announced))
            return client;
    }
    return NULL;
}

bool pool_has_room(const struct server *server) {
    const struct slice none = { 0 };
    return roomy(server, &server->idle, none) || roomy(server, &server->busy, none);
}

struct client_codec *pool_find(struct exchange *x, struct server *server, struct slice announced) {
    struct client_codec *client = roomy(server, &server->busy, announced);
    if (client)
        return client;
    while ((client = roomy(server, &server->idle, announced))) {
        if (x->fresh && !client->many)  // a pooled one has failed it
            return NULL;
        if (!x->req.idempotent && !conn_quiet(client->conn)) {
            pool_drop(client, CLOSE_upstream_closed);
            continue;
        }
        return client;
    }
    return NULL;
}

void pool_serve(struct client_codec *client, struct exchange *x) {
    struct server *server = client->owner;
    server->counts->requests++;
    server->counts->reused += client_codec_is_old(client);
    if (pooled(client))
        unpool(client);
    if (client->many && !list_linked(&client->link))
        list_push_back(&server->busy, &client->link);
    client->ops->carry(client, x, server->upstream->conf);
}

void pool_released(struct client_codec *client, enum client_released how) {
    struct server *server = client->owner;
    if (how != CLIENT_TUNNEL)  // else the tunnel keeps the place
        server_give_place(server);
    if (client->streams > 0)
        return;
    list_remove(&client->link);
    if (how != CLIENT_REUSABLE)
        pool_drop(client, CLOSE_none);
    else if (!client->settling)  // else it waits for its first streams
        pool_put(client);
}

void pool_lost(struct client_codec *client) {
    uint64_t kept = clock_ms() - client->idle_since_ms;
    if (pooled(client) && kept < keep_for(client->owner, client))  // else it was our own time-out
        learn(client->owner, kept);
    pool_drop(client, CLOSE_upstream_closed);
}

void pool_roomier(struct client_codec *client) {
    server_wake(client->owner);
}

void pool_release(struct server *server) {
    while (!list_empty(&server->idle))
        pool_drop(container_of(server->idle.next, struct client_codec, link), CLOSE_drain);
}
