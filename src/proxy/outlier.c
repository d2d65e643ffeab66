// SPDX-License-Identifier: BSD-2-Clause
// When a server is ejected, for how long, and how it comes back (outlier.h).
//
//   well ------ failures in a row, a rate, a latency ------> ejected, for time * how often it was of late
//   ejected --- that is over ------------------------------> on trial: a request now and then
//   on trial -- the next failure --------------------------> ejected again
//   on trial -- the next success --------------------------> well
#include "proxy/outlier.h"

#include "base/counters.h"
#include "base/log.h"
#include "proxy/upstream.h"

#include <stdio.h>
#include <stdlib.h>

// Latencies that differ by less are alike.
enum { ALIKE_US = 5000 };

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

static const struct conf_eject *eject_of(const struct server *server) {
    return &server->upstream->conf->eject;
}

// ---- ejections --------------------------------------------------------------------------------------------

// Whether one more may be. Whoever cannot be connected to is of no use, however many there are.
static bool may_eject(const struct server *server, enum standing_eject why) {
    const struct upstream *upstream = server->upstream;
    uint64_t count = upstream->server_count, others = 0, now = clock_ms();
    if (why == EJECT_connect)
        return true;
    if (count < 2)
        return false;
    for (unsigned i = 0; i < count; i++)
        others += upstream->servers[i] != server && GET(upstream->servers[i]->standing->down_until_ms) > now;
    uint64_t most = count * eject_of(server)->max_ejected / 100;
    if (most == 0 && eject_of(server)->max_ejected > 0)
        most = 1;
    return others < most;
}

static void eject(struct server *server, enum standing_eject why, const char *text) {
    const struct conf_eject *conf = eject_of(server);
    struct standing *standing = server->standing;
    uint64_t until = GET(standing->down_until_ms), now = clock_ms();
    if (until > now)
        return;
    if (!may_eject(server, why)) {
        counters->ejections_withheld++;
        return;
    }
    // It was well for long enough for what was before to be forgotten.
    uint32_t count = GET(standing->ejections);
    if (until + conf->most < now && GET(standing->trial) == EJECT_none)
        count = 0;
    uint64_t time = conf->time * ++count;
    if (time >= conf->most) {
        time = conf->most;
        count--;
    }
    // Of several workers that see the same one counts it.
    if (!atomic_compare_exchange_strong(&standing->down_until_ms, &until, now + time))
        return;
    SET(standing->ejections, count);
    SET(standing->trial, why);
    counters->ejections++;
    log_warn("upstream \"%s\": server \"%s\" is ejected for %llu ms: %s", server->upstream->conf->name, server->name,
             (unsigned long long)time, text);
}

// It has answered. What was asked before it was ejected for a rate or a latency may still be on its way.
static void end_trial(struct server *server) {
    struct standing *standing = server->standing;
    uint32_t trial = GET(standing->trial);
    if (trial >= EJECT_rate && GET(standing->down_until_ms) > clock_ms())
        return;
    if (trial == EJECT_none || !atomic_compare_exchange_strong(&standing->trial, &trial, EJECT_none))
        return;
    SET(standing->down_until_ms, clock_ms());
    SET(standing->up_since_ms, clock_ms());
    log_notice("upstream \"%s\": server \"%s\" answers again", server->upstream->conf->name, server->name);
    server_wake(server);
}

// One more failure of a kind: at `most` in a row, or on trial, it is ejected. Two workers may count the same moment
// as one: that is fine.
static void count_failure(struct server *server, _Atomic uint32_t *row, uint64_t most, enum standing_eject why,
                          const char *what) {
    char text[96];
    uint32_t count = GET(*row);
    if (most == 0)
        return;
    if (count < most)
        SET(*row, ++count);
    if (count < most && GET(server->standing->trial) == EJECT_none)
        return;
    snprintf(text, sizeof text, "%s", what);
    if (GET(server->standing->trial) == EJECT_none)
        snprintf(text, sizeof text, "%u %s in a row", count, what);
    eject(server, why, text);
}

void outlier_no_connection(struct server *server) {
    count_failure(server, &server->standing->failures, eject_of(server)->connect, EJECT_connect,
                  "connections that could not be made");
}

void outlier_no_answer(struct server *server) {
    count_failure(server, &server->standing->unanswered, eject_of(server)->consecutive, EJECT_answer,
                  "requests without an answer");
}

// Answered with 500 or more, whether that matters or not.
static void judge_error(struct server *server) {
    count_failure(server, &server->standing->errors, eject_of(server)->errors, EJECT_error,
                  "answers with a status of 500 or more");
}

void outlier_connected(struct server *server) {
    struct standing *standing = server->standing;
    if (GET(standing->failures) != 0)
        SET(standing->failures, 0);
    if (GET(standing->trial) == EJECT_connect)
        end_trial(server);
}

void outlier_asked(struct server *server) {
    if (GET(server->standing->trial) != EJECT_none)
        server->trial_ms = clock_ms() + eject_of(server)->time;
}

// ---- rates and latencies ----------------------------------------------------------------------------------

static int by_value(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

// Of the peers that were asked often enough in this window; 0: there is none.
static uint64_t median_of_peers(const struct server *server) {
    const struct upstream *upstream = server->upstream;
    uint64_t *means = malloc(upstream->server_count * sizeof *means), median = 0;
    unsigned count = 0;
    for (unsigned i = 0; means && i < upstream->server_count; i++) {
        const struct server *peer = upstream->servers[i];
        if (peer != server && peer->window.timed >= eject_of(server)->requests)
            means[count++] = peer->window.us / peer->window.timed;
    }
    if (count > 0) {
        qsort(means, count, sizeof *means, by_value);
        median = means[(count - 1) / 2];
    }
    free(means);
    return median;
}

static void judge_latency(struct server *server) {
    const struct conf_eject *conf = eject_of(server);
    char text[96];
    if (server->window.timed < conf->requests)
        return;
    uint64_t mean = server->window.us / server->window.timed, median = median_of_peers(server);
    if (median == 0 || mean <= median * conf->latency || mean < median + ALIKE_US)
        return;
    snprintf(text, sizeof text, "it took %.1f ms for an answer, its peers %.1f ms", (double)mean / 1000,
             (double)median / 1000);
    eject(server, EJECT_latency, text);
}

// The window of an upstream is over.
static void judge_window(struct upstream *upstream) {
    for (unsigned i = 0; i < upstream->server_count && upstream->conf->eject.latency > 0; i++)
        judge_latency(upstream->servers[i]);
    for (unsigned i = 0; i < upstream->server_count; i++)
        upstream->servers[i]->window = (struct outlier_window){ 0 };
    upstream->window_ends_ms = clock_ms() + upstream->conf->eject.window;
}

static void judge_rate(struct server *server) {
    const struct conf_eject *conf = eject_of(server);
    const struct outlier_window *window = &server->window;
    char text[96];
    if (GET(server->standing->trial) != EJECT_rate &&
        (window->requests < conf->requests || window->errors * 100 < window->requests * conf->rate))
        return;
    snprintf(text, sizeof text, "%llu of %llu requests were answered with a status of 500 or more",
             (unsigned long long)window->errors, (unsigned long long)window->requests);
    eject(server, EJECT_rate, text);
    server->window = (struct outlier_window){ 0 };
}

void outlier_outrun(struct server *server, uint64_t us) {
    if (eject_of(server)->latency == 0)
        return;
    if (clock_ms() >= server->upstream->window_ends_ms)
        judge_window(server->upstream);
    server->window.timed++;
    server->window.us += us;
}

void outlier_answered(struct server *server, unsigned status, uint64_t us) {
    const struct conf_eject *conf = eject_of(server);
    struct standing *standing = server->standing;
    bool bad = status >= 500 && (conf->rate > 0 || conf->errors > 0);
    if (GET(standing->unanswered) != 0)
        SET(standing->unanswered, 0);
    if (bad)
        judge_error(server);
    else if (GET(standing->errors) != 0)
        SET(standing->errors, 0);
    if (!bad && GET(standing->trial) != EJECT_none)
        end_trial(server);
    if (conf->rate == 0 && conf->latency == 0)
        return;
    if (clock_ms() >= server->upstream->window_ends_ms)
        judge_window(server->upstream);
    server->window.requests++;
    if (us > 0) {
        server->window.timed++;
        server->window.us += us;
    }
    if (bad && conf->rate > 0) {
        server->window.errors++;
        judge_rate(server);
    }
}
