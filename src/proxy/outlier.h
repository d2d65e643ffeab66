// SPDX-License-Identifier: BSD-2-Clause
// Passive health (`eject`): what requests and connections come to says whether a server is well. One that fails
// again and again, or is far worse than its peers, is ejected for a while, longer each time, and then on trial:
// one request at a time until one succeeds. Called by server.c, attempt.c and frontend.c.
//
// While a server is well nothing that workers share is written: a rate or a latency is what each worker has seen
// for itself. An ejection holds for all.
#ifndef MOONGATE_PROXY_OUTLIER_H
#define MOONGATE_PROXY_OUTLIER_H

#include "base/clock.h"
#include "proxy/server.h"

struct upstream;

// A connection could not be made, or was.
void outlier_no_connection(struct server *server);
void outlier_connected(struct server *server);
// A request was answered with that status; us: how long that took, 0: not to be judged.
void outlier_answered(struct server *server, unsigned status, uint64_t us);
// Another server has answered in its place, after us without an answer: it takes at least so long.
void outlier_outrun(struct server *server, uint64_t us);
// A request was not answered, by a fault of the server.
void outlier_no_answer(struct server *server);

// Whether it is to be left alone now.
static inline bool outlier_is_ejected(const struct server *server) {
    const struct standing *standing = server->standing;
    uint64_t until = atomic_load_explicit(&standing->down_until_ms, memory_order_relaxed);
    if (until == 0)
        return false;
    uint64_t now = clock_ms();
    return until > now ||
        (now < server->trial_ms && atomic_load_explicit(&standing->trial, memory_order_relaxed));
}
// It is being asked for something: if it is on trial, nothing more for a while.
void outlier_asked(struct server *server);

#endif
