// SPDX-License-Identifier: BSD-2-Clause
// The choice among the servers of an upstream (balance.h).
#include "proxy/balance.h"

#include "proxy/attempt.h"

#include <limits.h>

static bool full(const struct server *server) {
    uint64_t most = server->upstream->conf->max_active;
    return (most > 0 && server->active >= most) || !attempt_has_room(server);
}

// Whether it may be asked at all; with `all` set it was tried, or failed lately, perhaps.
static bool may_be_asked(const struct server *server, uint64_t tried, bool all) {
    return server_admin(server) == ADMIN_up && (all || (!(tried & server->bit) && !server_is_down(server)));
}

// Of those that may be asked.
static unsigned lowest_level(const struct upstream *upstream, uint64_t tried, bool all) {
    unsigned level = UINT_MAX;
    for (unsigned i = 0; i < upstream->server_count && level > 0; i++)
        if (upstream->servers[i]->level < level && may_be_asked(upstream->servers[i], tried, all))
            level = upstream->servers[i]->level;
    return level;
}

// Smooth weighted round robin: each candidate gains its weight, the one with most is chosen and pays the sum.
// *ret_full is set when one had to be left out because it has max_active.
static struct server *round_robin(struct upstream *upstream, uint64_t tried, bool all, bool *ret_full) {
    struct server *best = NULL;
    int64_t total = 0;
    unsigned level = lowest_level(upstream, tried, all);
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct server *server = upstream->servers[i];
        if (server->level != level || !may_be_asked(server, tried, all))
            continue;
        if (full(server)) {
            *ret_full = true;
            continue;
        }
        server->current_weight += (int64_t)server_weight(server);
        total += (int64_t)server_weight(server);
        if (!best || server->current_weight > best->current_weight)
            best = server;
    }
    if (best)
        best->current_weight -= total;
    return best;
}

struct server *balance_choose(struct upstream *upstream, const struct exchange *x, bool *ret_wait) {
    *ret_wait = false;
    struct server *server = round_robin(upstream, x->tried, false, ret_wait);
    // A good one that is busy is worth waiting for; one that failed is not asked instead.
    return server || *ret_wait ? server : round_robin(upstream, x->tried, true, ret_wait);
}
