// SPDX-License-Identifier: BSD-2-Clause
// Looks once a second whether a server has fewer idle connections, or ones on their way, than are to be kept
// ready, and begins what is missing (warm.h). A server that fails is left alone as it is by requests.
#include "proxy/warm.h"

#include "proxy/attempt.h"

enum { EVERY_MS = 1000 };

static void warm(struct server *server) {
    uint64_t wanted = server->upstream->conf->keepalive_warm;
    uint64_t there = server->idle_count + attempt_count(server);
    uint64_t room = server->upstream->conf->keepalive;
    room -= server->upstream->idle_count < room ? server->upstream->idle_count : room;
    if (server_admin(server) != ADMIN_up || server_is_down(server))
        return;
    for (; there < wanted && room > 0; there++, room--)
        attempt_prepare(server);
}

static void look(struct timer *timer) {
    struct upstream *upstream = container_of(timer, struct upstream, warmer);
    for (unsigned i = 0; i < upstream->server_count; i++)
        warm(upstream->servers[i]);
    timer_start(timer, EVERY_MS);
}

void warm_init(struct upstream *upstream) {
    timer_init(&upstream->warmer, look);
}

void warm_start(struct upstream *upstream) {
    if (upstream->conf->keepalive_warm > 0)
        timer_start(&upstream->warmer, 1);
}

void warm_stop(struct upstream *upstream) {
    timer_stop(&upstream->warmer);
}
