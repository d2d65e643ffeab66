// SPDX-License-Identifier: BSD-2-Clause
// One address (server.h): its places and what its failures mean. The choice is balance.c's, connections are
// pool.c's and attempt.c's.
#include "proxy/server.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "proxy/check.h"
#include "proxy/outlier.h"
#include "proxy/places.h"
#include "proxy/sticky.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HTTP1_MS = 600000 };

static int find_standing(struct server *server) {
    static struct log_limit limit;
    uint32_t suppressed;
    const struct upstream *upstream = server->upstream;
    if (upstream->standings) {
        char addr[ADDR_TEXT_MAX];
        struct slice text = slice_make(addr, addr_print(&server->addr, addr));
        server->standing =
            standing_hold(upstream->standings, upstream->worker, slice_of(upstream->conf->name), text);
        if (server->standing) {
            server->counts = &server->standing->counts[upstream->worker];
            return 0;
        }
        if (log_limit_pass(&limit, 1, &suppressed))
            log_warn("upstream \"%s\": what is known of server \"%s\" is not shared by the workers: more servers "
                     "than upstream_servers",
                     upstream->conf->name, server->name);
    }
    server->standing = standing_private();
    if (!server->standing)
        return -ENOMEM;
    server->counts = &server->standing->counts[0];
    return 0;
}

struct server *server_new(struct upstream *upstream, const struct conf_server *line, const struct addr *addr,
                          const char *name) {
    size_t len = name ? strlen(name) + 1 : 0;
    struct server *server = calloc(1, sizeof *server + len);
    if (!server)
        return NULL;
    server->line = line;
    server->upstream = upstream;
    server->addr = *addr;
    server->weight = line->weight;
    server->level = server_level(line, 0);
    server->name = line->name;
    if (name)
        server->name = memcpy(server->text, name, len);
    server->passing = name || upstream->book;
    list_init(&server->link);
    list_init(&server->idle);
    list_init(&server->busy);
    list_init(&server->attempts);
    list_init(&server->stuck);
    char text[ADDR_TEXT_MAX];
    server->key = slice_hash(slice_make(text, addr_print(addr, text)), 0);
    server->token = sticky_token(upstream, slice_of(text));
    if (find_standing(server) < 0) {
        free(server);
        return NULL;
    }
    atomic_store_explicit(&server->standing->configured_weight, (uint32_t)server->weight, memory_order_relaxed);
    return server;
}

void server_free(struct server *server) {
    if (!server)
        return;
    if (standing_is_shared(server->standing))
        standing_leave(server->standing, server->upstream->worker);
    else
        free(server->standing);
    free(server);
}

bool server_unused(const struct server *server) {
    return server->active == 0 && server->shared == 0 && list_empty(&server->attempts) &&
        list_empty(&server->busy) && list_empty(&server->idle);
}

void server_wake(struct server *server) {
    if (server->upstream->waiting_count > 0)
        ring_flush_later(&server->upstream->waker);
}

void server_take_place(struct server *server) {
    server->active++;
    server->upstream->active++;
    server->counts->active += !places_use_claim(server);
    outlier_asked(server);
}

void server_give_place(struct server *server) {
    server->active--;
    server->upstream->active--;
    server->counts->active--;
    if (server->removed)
        upstream_tidy_later(server->upstream);
    server_wake(server);
}

void server_failed(struct server *server) {
    server->counts->connect_errors++;
    outlier_no_connection(server);
}

void server_succeeded(struct server *server) {
    server->counts->connects++;
    outlier_connected(server);
}

bool server_is_down(const struct server *server) {
    const struct conf_health *health = server->upstream->conf->health;
    if (health && check_says_down(server, health))
        return true;
    return outlier_is_ejected(server);
}

bool server_requires_http1(struct server *server) {
    const struct upstream *upstream = server->upstream;
    if (upstream->conf->protocol != PROTOCOL_AUTO || !upstream->tls)
        return false;
    if (!server_wants_http1(server)) {
        counters->upstream_http1_required++;
        log_warn("upstream \"%s\": server \"%s\" requires HTTP/1.1: HTTP/2 is not offered to it for %u minutes",
                 upstream->conf->name, server->name, HTTP1_MS / 60000);
    }
    server->http1_until_ms = clock_ms() + HTTP1_MS;
    return true;
}

bool server_wants_http1(const struct server *server) {
    return server->http1_until_ms > clock_ms();
}
