// SPDX-License-Identifier: BSD-2-Clause
// Attempts beside each other (race.h): when the next one begins, who has won, and what that says of the others.
#include "proxy/race.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"

#include <errno.h>

static struct race_leg *leg_of(struct waiter *waiter) {
    return container_of(waiter, struct race_leg, waiter);
}

// It is live no more, and has left its attempt. The place is the caller's.
static struct server *retire(struct race_leg *leg) {
    struct server *server = leg->server;
    leg->server = NULL;
    if (--leg->race->live == 0)
        timer_stop(&leg->race->timer);
    return server;
}

void race_end(struct race *race, bool lost) {
    enum { TICK_US = 1000 };  // that the timer may be early by
    uint64_t stagger_us = lost ? race->conf->connect_stagger * 1000 : 0;
    for (unsigned i = 0; i < race->begun; i++) {
        struct race_leg *leg = &race->legs[i];
        if (!leg->server)
            continue;
        if (lost && clock_us() - leg->began_us + TICK_US >= stagger_us)
            attempt_give_up(&leg->waiter);
        else
            attempt_leave(&leg->waiter);
        server_give_place(retire(leg));
    }
}

static void leg_made(struct waiter *waiter, struct client_codec *client) {
    struct race_leg *leg = leg_of(waiter);
    struct race *race = leg->race;
    uint64_t began_us = leg->began_us;
    struct server *server = retire(leg);
    race_end(race, true);
    race->ops->made(race, server, client, began_us);
}

static void leg_failed(struct waiter *waiter, struct server *server, int error, const char *why) {
    struct race_leg *leg = leg_of(waiter);
    struct race *race = leg->race;
    server_give_place(retire(leg));
    if (clock_ms() >= race->ends_ms)
        race_end(race, true);
    bool last = race->live == 0;
    race->ops->failed(race, server, error, why, last);
    if (!last && race->begun < RACE_LEGS)
        race->ops->late(race);
}

static void leg_again(struct waiter *waiter, struct server *server) {
    struct race_leg *leg = leg_of(waiter);
    struct race *race = leg->race;
    server_give_place(retire(leg));
    race_end(race, true);
    race->ops->again(race, server);
}

static const struct waiter_ops leg_ops = { .made = leg_made, .failed = leg_failed, .again = leg_again };

// Until the next server may be asked too, or the end.
static void start_timer(struct race *race) {
    uint64_t now = clock_ms(), left = race->ends_ms > now ? race->ends_ms - now : 0;
    uint64_t stagger = race->conf->connect_stagger;
    timer_start(&race->timer, race->begun < RACE_LEGS && stagger > 0 && stagger < left ? stagger : left);
}

// One whose server was reached is waited for: what it does since (TLS) another may take as long for.
static bool is_reached(const struct race *race) {
    for (unsigned i = 0; i < race->begun; i++)
        if (race->legs[i].server && attempt_is_connected(&race->legs[i].waiter))
            return true;
    return false;
}

static void fired(struct timer *timer) {
    struct race *race = container_of(timer, struct race, timer);
    if (clock_ms() < race->ends_ms) {
        start_timer(race);
        if (!is_reached(race))
            race->ops->late(race);
        return;
    }
    struct server *server = race_server(race);
    race_end(race, true);  // the server is good to the turn's end
    race->ops->failed(race, server, -ETIMEDOUT, NULL, true);
}

struct server *race_server(const struct race *race) {
    struct server *server = NULL;
    for (unsigned i = 0; i < race->begun; i++)
        if (race->legs[i].server)
            server = race->legs[i].server;
    return server;
}

void race_init(struct race *race, const struct race_ops *ops) {
    race->ops = ops;
    race->begun = race->live = 0;
    timer_init(&race->timer, fired);
}

int race_begin(struct race *race, struct server *server, struct slice announced) {
    if (!check_soft(race->begun < RACE_LEGS))
        return -ENOSPC;
    struct race_leg *leg = &race->legs[race->begun];
    *leg = (struct race_leg){
        .waiter = { .ops = &leg_ops, .announced = announced }, .race = race, .began_us = clock_us()
    };
    int rc = attempt_join(server, &leg->waiter);
    if (rc < 0)
        return rc;
    server_take_place(server);
    leg->server = server;
    race->live++;
    if (race->begun++ == 0) {
        race->conf = server->upstream->conf;
        race->ends_ms = clock_ms() + race->conf->connect_timeout;
    } else {
        counters->upstream_raced++;
    }
    start_timer(race);
    return 0;
}
