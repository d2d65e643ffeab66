// SPDX-License-Identifier: BSD-2-Clause
// Who may be asked (roster.h).
#include "proxy/roster.h"

#include "base/clock.h"
#include "base/log.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

enum {
    LOOK_AT_ONCE = 8,      // servers that are looked over in a millisecond, at most
    RING_REMAKE_MS = 500,  // a table is some milliseconds of work
    SHARE_ONE = 40,        // the share of a weight of one
    SHARE_LEAST = 4,       // of it, at the begin of slow_start
};

int roster_make_room(struct roster *roster, unsigned servers) {
    if (servers <= roster->room)
        return 0;
    struct roster_place *places = realloc(roster->places, servers * sizeof *places);
    if (!places)
        return -ENOMEM;
    roster->places = places;
    struct ring_member *members = realloc(roster->ring.members, servers * sizeof *members);
    if (!members)
        return -ENOMEM;
    roster->ring.members = members;
    roster->room = servers;
    return 0;
}

void roster_release(struct roster *roster) {
    free(roster->places);
    hash_ring_release(&roster->ring);
}

static uint64_t share_of(const struct server *server, uint64_t slow_start) {
    uint64_t parts = SHARE_ONE;
    uint64_t since = atomic_load_explicit(&server->standing->up_since_ms, memory_order_relaxed);
    if (slow_start > 0 && since > 0) {
        // Another process's clock may be a turn ahead.
        uint64_t now = clock_ms(), passed = now > since ? now - since : 0;
        if (passed < slow_start)
            parts = passed * SHARE_ONE / slow_start;
        if (parts < SHARE_LEAST)
            parts = SHARE_LEAST;
    }
    return server_weight(server) * parts;
}

// The level whose turn it is: the first in which one may be asked; UINT_MAX: none. *ret_panic: none is well in
// any, so it is the first with one that no operator has taken out. *ret_top: the first of all.
static unsigned find_level(const struct upstream *upstream, bool *ret_panic, unsigned *ret_top) {
    unsigned well = UINT_MAX, any = UINT_MAX;
    *ret_top = UINT_MAX;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        const struct server *server = upstream->servers[i];
        if (server->level < *ret_top)
            *ret_top = server->level;
        if (server->level >= well || server_admin(server) != ADMIN_up)
            continue;
        if (server->level < any)
            any = server->level;
        if (!server_is_down(server))
            well = server->level;
    }
    *ret_panic = well == UINT_MAX;
    return *ret_panic ? any : well;
}

// Whether fewer are well than `panic` says.
static bool too_few(const struct upstream *upstream, unsigned level) {
    uint64_t all = 0, well = 0;
    if (upstream->conf->panic == 0)
        return false;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        const struct server *server = upstream->servers[i];
        if (server->level == level && server_admin(server) == ADMIN_up) {
            all++;
            well += !server_is_down(server);
        }
    }
    return well * 100 < all * upstream->conf->panic;
}

// Whom it is the turn of, when that has changed.
static void tell(const struct upstream *upstream, enum roster_turn now) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (upstream->roster.state == now || !log_limit_pass(&limit, 10, &suppressed))
        return;
    const char *name = upstream->conf->name;
    switch (now) {
    case ROSTER_FIRST:
        log_notice("upstream \"%s\": servers of the first level are well enough to be asked again", name);
        break;
    case ROSTER_LOWER:
        log_warn("upstream \"%s\": backup servers are asked now: none of the others may be", name);
        break;
    case ROSTER_PANIC:
        log_warn("upstream \"%s\": too few servers are well: health is not looked at until there are more", name);
        break;
    case ROSTER_NONE:
        log_warn("upstream \"%s\": no server may be asked", name);
        break;
    }
}

// ---- the ring ---------------------------------------------------------------------------------------------

// Whether it is of these servers; *ret_same_shares: and of these shares.
static bool ring_is_of(const struct upstream *upstream, unsigned level, bool *ret_same_shares) {
    const struct hash_ring *ring = &upstream->roster.ring;
    unsigned n = 0;
    *ret_same_shares = true;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        const struct server *server = upstream->servers[i];
        if (server->level != level || n == RING_MEMBERS_MAX)
            continue;
        if (n >= ring->count || ring->members[n].server != server || ring->members[n].key != server->key)
            return false;
        if (ring->members[n++].share != server->share)
            *ret_same_shares = false;
    }
    return n == ring->count;
}

static void keep_ring(struct upstream *upstream, unsigned level) {
    struct hash_ring *ring = &upstream->roster.ring;
    static struct log_limit limit;
    uint32_t suppressed;
    bool same_shares, same = ring_is_of(upstream, level, &same_shares);
    if (ring->slots && same && (same_shares || clock_ms() < ring->again_ms))
        return;
    ring->count = 0;
    for (unsigned i = 0; i < upstream->server_count && ring->count < RING_MEMBERS_MAX; i++) {
        struct server *server = upstream->servers[i];
        if (server->level == level)
            ring->members[ring->count++] =
                (struct ring_member){ .server = server, .key = server->key, .share = server->share };
    }
    ring->again_ms = clock_ms() + RING_REMAKE_MS;
    if (hash_ring_make(ring) < 0 && log_limit_pass(&limit, 1, &suppressed))
        log_error("upstream \"%s\": no memory for the table of \"balance hash\"", upstream->conf->name);
}

// ---- the whole --------------------------------------------------------------------------------------------

static void look_over(struct upstream *upstream) {
    struct roster *roster = &upstream->roster;
    const struct conf_upstream *conf = upstream->conf;
    bool sees_others =
        upstream->standings && (conf->balance == BALANCE_LEAST_CONN || conf->balance == BALANCE_RANDOM2);
    bool panic;
    unsigned top, level = find_level(upstream, &panic, &top);
    panic = panic || too_few(upstream, level);
    enum roster_turn turn_of = level == UINT_MAX ? ROSTER_NONE
        : panic                                  ? ROSTER_PANIC
        : level > top                            ? ROSTER_LOWER
                                                 : ROSTER_FIRST;
    if (upstream->server_count > 0)
        tell(upstream, turn_of);
    roster->state = turn_of;
    roster->panic = panic;
    roster->doubted = false;
    roster->count = 0;
    roster->total = 0;
    roster->even = true;
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct server *server = upstream->servers[i];
        server->share = share_of(server, conf->slow_start);
        server->listed =
            server->level == level && server_admin(server) == ADMIN_up && (panic || !server_is_down(server));
        if (!server->listed)
            continue;
        if (sees_others)
            server->elsewhere = standing_active_elsewhere(upstream->standings, server->standing, upstream->worker);
        roster->total += server->share;
        roster->even = roster->even && server->share * (roster->count + 1) == roster->total;
        roster->places[roster->count++] =
            (struct roster_place){ .server = server, .share = server->share, .end = roster->total };
    }
    if (conf->balance == BALANCE_HASH)
        keep_ring(upstream, level);
    uint64_t pause = upstream->server_count / LOOK_AT_ONCE;
    roster->until_ms = clock_ms() + (pause < 1 ? 1 : pause < ROSTER_LOOK_MAX_MS ? pause : ROSTER_LOOK_MAX_MS);
}

const struct roster *roster_look(struct upstream *upstream) {
    struct roster *roster = &upstream->roster;
    if (roster->doubted || roster->count == 0 || clock_ms() >= roster->until_ms)
        look_over(upstream);
    return roster;
}
