// SPDX-License-Identifier: BSD-2-Clause
// Active health: the servers of upstreams with `health` are checked again and again, each by one worker at a
// time. Whoever moves standing->next_check_ms on when it has come does the check; what came of it stands in the
// standing, so that a reload or a worker's death changes nothing. Called by upstream.c and proc/.
#ifndef MOONGATE_PROXY_CHECK_H
#define MOONGATE_PROXY_CHECK_H

#include "proxy/server.h"

struct check;
struct check_run;

// Checks by functions of scripts (`health script`); script/health.c fills it in, by way of proc/.
struct check_script {
    // done() is called once, not at once, unless end() comes first; the run is gone then. NULL when memory is out.
    struct check_run *(*begin)(void *scripts, const struct server *server,
                               void (*done)(void *owner, bool good, const char *why), void *owner);
    void (*end)(struct check_run *run);
};

// The configuration is in use from now on: servers, those that come later too, are checked until checks_stop().
void checks_go(struct upstream *upstream, const struct conf_settings *settings);
void checks_stop(struct upstream *upstream);

// For upstream.c: a server came, one goes.
void check_begin(struct server *server);
void check_end(struct server *server);

// Whether checks say that it must not be asked.
static inline bool check_says_down(const struct server *server, const struct conf_health *health) {
    uint32_t state = atomic_load_explicit(&server->standing->check, memory_order_relaxed);
    return state == CHECK_down || (state == CHECK_unknown && health->start_down);
}

#endif
