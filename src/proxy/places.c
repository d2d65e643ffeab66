// SPDX-License-Identifier: BSD-2-Clause
// Adds up what workers have of a server, and shares what there is among those who want it (places.h).
#include "proxy/places.h"

#include "base/clock.h"
#include "proxy/upstream.h"

enum {
    LOOK_AGAIN_MS = 2,
    WANTED_MS = 10,  // whoever has not said so for so long wants none any more
    TURN_MS = 8,
};

static bool shared(const struct server *server) {
    return server->upstream->standings && standing_is_shared(server->standing);
}

// Of this worker alone: what all others leave to it, or its share while others want some.
static bool none_left(const struct server *server, uint64_t mine) {
    const struct upstream *upstream = server->upstream;
    uint64_t most = upstream->conf->max_active, now = clock_ms();
    if (!shared(server))
        return mine >= most;
    struct standing_demand demand;
    standing_demand(upstream->standings, server->standing, upstream->worker, now - WANTED_MS, &demand);
    uint64_t workers = demand.wanting + 1, turn = (demand.wanting_before + now / TURN_MS) % workers;
    uint64_t share = most / workers + (turn < most % workers);
    bool none = mine + demand.active >= most || (demand.wanting > 0 && mine >= share);
    if (none)
        atomic_store_explicit(&server->counts->wanted_ms, now, memory_order_relaxed);
    return none;
}

bool places_full(const struct server *server) {
    return none_left(server, server->counts->active);
}

void places_drop_claim(struct upstream *upstream) {
    struct server *server = upstream->claimed;
    upstream->claimed = NULL;
    if (server)
        server->counts->active--;
}

bool places_claim(struct server *server) {
    struct upstream *upstream = server->upstream;
    places_drop_claim(upstream);
    if (upstream->conf->max_active == 0 || !shared(server))
        return true;
    server->counts->active++;
    upstream->claimed = server;
    // Of two that do so at the same time at least one sees the other's.
    atomic_thread_fence(memory_order_seq_cst);
    if (!none_left(server, server->counts->active - 1))
        return true;
    places_drop_claim(upstream);
    return false;
}

bool places_use_claim(struct server *server) {
    if (server->upstream->claimed != server)
        return false;
    server->upstream->claimed = NULL;
    return true;
}

static void look(struct timer *timer) {
    struct upstream *upstream = container_of(timer, struct upstream, places_timer);
    if (upstream->waiting_count == 0)
        return;
    ring_flush_later(&upstream->waker);
    timer_start(timer, LOOK_AGAIN_MS);
}

void places_init(struct upstream *upstream) {
    timer_init(&upstream->places_timer, look);
}

void places_watch(struct upstream *upstream) {
    if (upstream->conf->max_active > 0 && upstream->standings && !timer_running(&upstream->places_timer))
        timer_start(&upstream->places_timer, LOOK_AGAIN_MS);
}
