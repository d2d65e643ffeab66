// SPDX-License-Identifier: BSD-2-Clause
// The servers of an upstream and the choice among them. Connections are dial.c's.
#include "proxy/upstream.h"

#include "base/clock.h"
#include "base/log.h"
#include "proxy/dial.h"
#include "tls/client.h"

#include <stdlib.h>

enum { DOWN_MS = 1000, FAILURES_MAX = 5 };

struct upstream *upstream_new(const struct conf_upstream *conf) {
    struct upstream *upstream = calloc(1, sizeof *upstream + conf->server_count * sizeof(struct server));
    if (!upstream)
        return NULL;
    list_init(&upstream->link);
    dial_init(upstream);
    upstream->conf = conf;
    for (const struct conf_server *server = conf->servers; server; server = server->next) {
        struct server *to = &upstream->servers[upstream->server_count++];
        to->conf = server;
        to->upstream = upstream;
        dial_init_server(to);
    }
    return upstream;
}

void upstream_free(struct upstream *upstream) {
    if (!upstream)
        return;
    dial_release(upstream);
    tls_client_unref(upstream->tls);
    list_remove(&upstream->link);
    free(upstream);
}

static bool full(const struct server *server) {
    uint64_t most = server->upstream->conf->max_active;
    return (most > 0 && server->active >= most) || !dial_has_room(server);
}

// Smooth weighted round robin: each candidate gains its weight, the one with most is chosen and pays the sum.
// *ret_full is set when one had to be left out because it has max_active.
static struct server *round_robin(struct upstream *upstream, uint64_t tried, bool all, bool *ret_full) {
    struct server *best = NULL;
    int64_t total = 0;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct server *server = &upstream->servers[i];
        if (!all && ((i < 64 && tried >> i & 1) || server->down_until_ms > clock_ms()))
            continue;
        if (full(server)) {
            *ret_full = true;
            continue;
        }
        server->current_weight += (int64_t)server->conf->weight;
        total += (int64_t)server->conf->weight;
        if (!best || server->current_weight > best->current_weight)
            best = server;
    }
    if (best)
        best->current_weight -= total;
    return best;
}

struct server *upstream_choose(struct upstream *upstream, uint64_t tried) {
    bool none_free = false;
    if (upstream->server_count == 1)
        return full(&upstream->servers[0]) ? NULL : &upstream->servers[0];
    struct server *server = round_robin(upstream, tried, false, &none_free);
    // A good one that is busy is worth waiting for; one that failed is not asked instead.
    return server || none_free ? server : round_robin(upstream, tried, true, &none_free);
}

void server_failed(struct server *server) {
    server->connect_errors++;
    if (server->failures < FAILURES_MAX)
        server->failures++;
    // The first failure may be chance; from the second on it is left alone for a while, longer each time.
    if (server->failures >= 2)
        server->down_until_ms = clock_ms() + (DOWN_MS << (server->failures - 2));
}

void server_succeeded(struct server *server) {
    if (server->failures >= 2)
        log_notice("upstream \"%s\": server \"%s\" answers again", server->upstream->conf->name,
                   server->conf->name);
    server->failures = 0;
    server->down_until_ms = 0;
}
