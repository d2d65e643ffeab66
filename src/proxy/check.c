// SPDX-License-Identifier: BSD-2-Clause
// When servers are checked, by whom, and what follows (check.h). What a check does is probe.c's affair.
//
// All workers have a timer for each server and look at standing->next_check_ms when it fires. All but the one
// that moved it on wait for the next time; should that one die, they find the next time all the same.
#include "proxy/check.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "conf/value.h"
#include "proxy/probe.h"
#include "proxy/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

struct checks {
    struct probe_kit kit;
};

struct check {
    struct server *server;
    struct timer timer;  // idle: when to look; busy: when it has taken too long
    bool busy;
    uint32_t seen;       // state in which this worker saw the server last
    struct probe probe;
    struct check_run *run;  // in place of the probe, while a function of a script is asked; NULL: none is
};

// What is known of a server that nobody has checked for so many intervals says nothing any more.
enum { FORGET_AFTER = 10 };

static uint64_t random_below(uint64_t limit) {
    static uint64_t state;
    if (state == 0 && getrandom(&state, sizeof state, GRND_NONBLOCK) != sizeof state)
        state = clock_cached.mono_ns;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return limit > 0 ? (state >> 32) % limit : 0;
}

static const struct conf_health *health_of(const struct check *check) {
    return check->server->upstream->conf->health;
}

static void wait_for_next(struct check *check) {
    struct standing *standing = check->server->standing;
    uint64_t next = atomic_load_explicit(&standing->next_check_ms, memory_order_relaxed), now = clock_ms();
    uint32_t state = atomic_load_explicit(&standing->check, memory_order_relaxed);
    if (state != check->seen)
        server_wake(check->server);
    check->seen = state;
    timer_start(&check->timer, next > now ? next - now : 0);
}

// ---- what came of a check ---------------------------------------------------------------------------------

static void set_state(struct server *server, enum standing_check state, const char *why) {
    struct standing *standing = server->standing;
    const struct conf_health *health = server->upstream->conf->health;
    bool was_down = check_says_down(server, health);
    atomic_store_explicit(&standing->check_since_ms, clock_ms(), memory_order_relaxed);
    if (was_down && state == CHECK_up)
        atomic_store_explicit(&standing->up_since_ms, clock_ms(), memory_order_relaxed);
    atomic_store_explicit(&standing->check, state, memory_order_relaxed);
    if (was_down == (state == CHECK_down))
        return;
    counters->health_changes++;
    if (state == CHECK_down)
        log_warn("upstream \"%s\": server \"%s\" is down: %s (check)", server->upstream->conf->name, server->name,
                 why);
    else
        log_notice("upstream \"%s\": server \"%s\" is up (check)", server->upstream->conf->name, server->name);
}

static void judge(struct server *server, bool good, const char *why) {
    struct standing *standing = server->standing;
    const struct conf_health *health = server->upstream->conf->health;
    enum standing_check state = atomic_load_explicit(&standing->check, memory_order_relaxed);
    int32_t run = atomic_load_explicit(&standing->check_run, memory_order_relaxed);
    if (good)
        run = run > 0 ? run + (run < INT32_MAX) : 1;
    else
        run = run < 0 ? run - (run > INT32_MIN) : -1;
    if (!good) {
        counters->health_check_failures++;
        // Reports may read it at the same time: the last byte stays 0.
        snprintf(standing->check_why, sizeof standing->check_why, "%s", why);
    }
    atomic_store_explicit(&standing->check_run, run, memory_order_relaxed);
    atomic_store_explicit(&standing->checked_ms, clock_ms(), memory_order_relaxed);
    bool first = state == CHECK_unknown;
    if (good && state != CHECK_up && (first || run >= (int32_t)health->rise))
        set_state(server, CHECK_up, NULL);
    else if (!good && state != CHECK_down && -run >= (int32_t)health->fall)
        set_state(server, CHECK_down, why);
}

static void over(struct check *check, enum probe_result result, const char *why) {
    log_debug("upstream \"%s\": check of \"%s\": %s", check->server->upstream->conf->name, check->server->name,
              result == PROBE_GOOD ? "good" : why);
    check->busy = false;
    timer_stop(&check->timer);
    if (result != PROBE_NOTHING)
        judge(check->server, result == PROBE_GOOD, why);
    wait_for_next(check);
}

static void probed(struct probe *probe, enum probe_result result, const char *why) {
    over(container_of(probe, struct check, probe), result, why);
}

static void script_said(void *owner, bool good, const char *why) {
    struct check *check = owner;
    check->run = NULL;
    over(check, good ? PROBE_GOOD : PROBE_BAD, why);
}

static void begin(struct check *check) {
    const struct upstream *upstream = check->server->upstream;
    if (health_of(check)->kind != HEALTH_SCRIPT) {
        probe_begin(&check->probe, &upstream->checks->kit, check->server, probed);
        return;
    }
    if (upstream->check_script)
        check->run = upstream->check_script->begin(upstream->scripts, check->server, script_said, check);
    if (!check->run)
        over(check, PROBE_NOTHING, "memory is out");
}

static void give_up(struct check *check) {
    if (check->run)
        check->server->upstream->check_script->end(check->run);
    else
        probe_end(&check->probe);
    check->run = NULL;
}

// ---- when -------------------------------------------------------------------------------------------------

static void due(struct timer *timer) {
    struct check *check = container_of(timer, struct check, timer);
    const struct conf_health *health = health_of(check);
    char text[STANDING_WHY_MAX], time[VALUE_TEXT_MAX];
    if (check->busy) {
        give_up(check);
        snprintf(text, sizeof text, "no answer within %s", value_print(health->timeout, VALUE_TIME, time));
        over(check, PROBE_BAD, text);
        return;
    }
    struct standing *standing = check->server->standing;
    uint64_t now = clock_ms(), next = atomic_load_explicit(&standing->next_check_ms, memory_order_relaxed);
    if (next > now || !atomic_compare_exchange_strong(&standing->next_check_ms, &next,
                                                      now + health->every + random_below(health->jitter + 1))) {
        wait_for_next(check);
        return;
    }
    check->busy = true;
    counters->health_checks++;
    timer_start(&check->timer, health->timeout);
    begin(check);
}

// The first check of a server comes within `jitter`; one that is known goes on as it did.
static void find_time(struct check *check) {
    struct standing *standing = check->server->standing;
    const struct conf_health *health = health_of(check);
    uint64_t now = clock_ms(), next = atomic_load(&standing->next_check_ms);
    if (next + FORGET_AFTER * health->every < now &&
        atomic_compare_exchange_strong(&standing->next_check_ms, &next, now + random_below(health->jitter + 1))) {
        atomic_store_explicit(&standing->check, CHECK_unknown, memory_order_relaxed);
        atomic_store_explicit(&standing->check_run, 0, memory_order_relaxed);
    }
    // Of a configuration that checked it less often.
    next = atomic_load(&standing->next_check_ms);
    if (next > now + health->every + health->jitter)
        (void)!atomic_compare_exchange_strong(&standing->next_check_ms, &next, now + health->every);
}

// ---- life -------------------------------------------------------------------------------------------------

void check_begin(struct server *server) {
    if (!server->upstream->checks || server->check)
        return;
    struct check *check = calloc(1, sizeof *check);
    if (!check) {
        log_error("upstream \"%s\": no memory to check server \"%s\"", server->upstream->conf->name, server->name);
        return;
    }
    check->server = server;
    server->check = check;
    timer_init(&check->timer, due);
    find_time(check);
    check->seen = atomic_load_explicit(&server->standing->check, memory_order_relaxed);
    wait_for_next(check);
}

void check_end(struct server *server) {
    struct check *check = server->check;
    if (!check)
        return;
    server->check = NULL;
    timer_stop(&check->timer);
    if (check->busy)
        give_up(check);
    free(check);
}

// Of a configuration that had `health`.
static void forget_all(struct upstream *upstream) {
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct standing *standing = upstream->servers[i]->standing;
        if (atomic_load_explicit(&standing->check, memory_order_relaxed) == CHECK_unknown)
            continue;
        atomic_store(&standing->check, CHECK_unknown);
        atomic_store(&standing->next_check_ms, 0);
    }
}

void checks_go(struct upstream *upstream, const struct conf_settings *settings) {
    if (upstream->checks)
        return;
    if (!upstream->conf->health) {
        forget_all(upstream);
        return;
    }
    upstream->checks = malloc(sizeof *upstream->checks);
    if (!upstream->checks) {
        log_error("upstream \"%s\": no memory to check its servers", upstream->conf->name);
        return;
    }
    probe_kit_init(&upstream->checks->kit, upstream->conf, settings);
    for (unsigned i = 0; i < upstream->server_count; i++)
        check_begin(upstream->servers[i]);
}

void checks_stop(struct upstream *upstream) {
    if (!upstream->checks)
        return;
    for (unsigned i = 0; i < upstream->server_count; i++)
        check_end(upstream->servers[i]);
    free(upstream->checks);
    upstream->checks = NULL;
}
