// SPDX-License-Identifier: BSD-2-Clause
// The servers of an upstream, and how they come and go (upstream.h).
#include "proxy/upstream.h"

#include "proxy/attempt.h"
#include "proxy/check.h"
#include "proxy/dial.h"
#include "proxy/members.h"
#include "proxy/places.h"
#include "proxy/pool.h"
#include "proxy/warm.h"
#include "tls/client.h"

#include <errno.h>
#include <stdlib.h>

static void tidy(struct ring_flush *flush) {
    struct upstream *upstream = container_of(flush, struct upstream, tidier);
    list_each(link, &upstream->removed) {
        struct server *server = container_of(link, struct server, link);
        if (server_unused(server)) {
            list_remove(&server->link);
            server_free(server);
        }
    }
}

void upstream_tidy_later(struct upstream *upstream) {
    ring_flush_later(&upstream->tidier);
}

struct upstream *upstream_new(const struct conf_upstream *conf, const struct upstream_options *options) {
    struct upstream *upstream = calloc(1, sizeof *upstream);
    if (!upstream)
        return NULL;
    list_init(&upstream->link);
    list_init(&upstream->removed);
    warm_init(upstream);
    places_init(upstream);
    list_init(&upstream->tidier.link);
    upstream->tidier.flush = tidy;
    upstream->conf = conf;
    upstream->book = options->book;
    upstream->standings = options->standings;
    upstream->worker = options->worker;
    dial_init(upstream);
    for (const struct conf_server *line = conf->servers; line; line = line->next)
        if (line->kind != SERVER_ADDRESS && options->resolver
                ? members_new(upstream, line, options) < 0
                : !upstream_add(upstream, line, &line->addr, NULL)) {
            upstream_free(upstream);
            return NULL;
        }
    return upstream;
}

void upstream_resolve(struct upstream *upstream, struct resolver_guide *guide) {
    upstream->guide = guide;
    members_go(upstream);
}

void upstream_go(struct upstream *upstream, const struct conf_settings *settings) {
    checks_go(upstream, settings);
    warm_start(upstream);
}

void upstream_stop(struct upstream *upstream) {
    checks_stop(upstream);
    warm_stop(upstream);
    members_retire(upstream);
}

static void release(struct server *server) {
    list_remove(&server->link);
    check_end(server);
    attempts_release(server);
    pool_release(server);
    server_free(server);
}

void upstream_free(struct upstream *upstream) {
    if (!upstream)
        return;
    upstream_stop(upstream);
    timer_stop(&upstream->places_timer);
    places_drop_claim(upstream);
    members_release(upstream);
    for (unsigned i = 0; i < upstream->server_count; i++)
        release(upstream->servers[i]);
    list_each(link, &upstream->removed) release(container_of(link, struct server, link));
    free(upstream->servers);
    free(upstream->tokens);
    roster_release(&upstream->roster);
    tls_client_unref(upstream->tls);
    list_remove(&upstream->waker.link);
    list_remove(&upstream->tidier.link);
    list_remove(&upstream->link);
    free(upstream);
}

// The smallest that no other has.
static uint64_t free_bit(const struct upstream *upstream) {
    uint64_t used = 0;
    for (unsigned i = 0; i < upstream->server_count; i++)
        used |= upstream->servers[i]->bit;
    return ~used ? ~used & -~used : 1ull << upstream->server_count % 64;
}

static int make_room(struct upstream *upstream, unsigned servers) {
    struct server **more = realloc(upstream->servers, servers * sizeof(struct server *));
    if (!more)
        return -ENOMEM;
    upstream->servers = more;
    uint64_t *tokens = realloc(upstream->tokens, servers * sizeof *tokens);
    if (!tokens)
        return -ENOMEM;
    upstream->tokens = tokens;
    return roster_make_room(&upstream->roster, servers);
}

struct server *upstream_add(struct upstream *upstream, const struct conf_server *line, const struct addr *addr,
                            const char *name) {
    unsigned count = upstream->server_count;
    if ((count & (count - 1)) == 0 && make_room(upstream, count > 0 ? 2 * count : 1) < 0)  // it grows by doubling
        return NULL;
    struct server *server = server_new(upstream, line, addr, name);
    if (!server)
        return NULL;
    server->bit = free_bit(upstream);
    upstream->tokens[upstream->server_count] = server->token;
    upstream->servers[upstream->server_count++] = server;
    check_begin(server);
    roster_doubt(&upstream->roster);
    server_wake(server);
    return server;
}

void upstream_remove(struct server *server) {
    struct upstream *upstream = server->upstream;
    unsigned at = 0;
    while (upstream->servers[at] != server)
        at++;
    upstream->server_count--;
    for (; at < upstream->server_count; at++) {
        upstream->servers[at] = upstream->servers[at + 1];
        upstream->tokens[at] = upstream->tokens[at + 1];
    }
    roster_doubt(&upstream->roster);
    places_drop_claim(upstream);
    server->removed = true;
    check_end(server);
    dial_removed(server);
    list_push_back(&upstream->removed, &server->link);
    pool_release(server);
    upstream_tidy_later(upstream);
}
