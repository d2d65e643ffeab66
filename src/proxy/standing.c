// SPDX-License-Identifier: BSD-2-Clause
// The table of standing.h: open addressing over a window of places. A key never leaves its place but for
// another one, so that a search may end at the first place that was never used.
#include "proxy/standing.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

enum { WINDOW = 64 };

// Each process has its own: only the records are shared.
struct standings {
    uint64_t seed;
    unsigned char secret[STANDINGS_SECRET];
    size_t stride;     // bytes of a record
    unsigned places, workers;
    char *records;
};

const char *standing_admin_name(enum standing_admin admin) {
    static const char *const names[] = {
#define X(name, doc) #name,
        STANDING_ADMINS(X)
#undef X
    };
    return admin < sizeof names / sizeof *names ? names[admin] : "?";
}

const char *standing_state(const struct standing *standing, uint64_t now_ms) {
    uint32_t admin = atomic_load(&standing->admin);
    if (admin != ADMIN_up)
        return standing_admin_name((enum standing_admin)admin);
    if (atomic_load(&standing->check) == CHECK_down)
        return "unhealthy";
    return atomic_load(&standing->down_until_ms) > now_ms ? "failing" : "up";
}

const char *standing_check_name(enum standing_check check) {
    static const char *const names[] = {
#define X(name, doc) #name,
        STANDING_CHECKS(X)
#undef X
    };
    return check < sizeof names / sizeof *names ? names[check] : "?";
}

static struct standing *at(const struct standings *standings, unsigned place) {
    return (struct standing *)(uintptr_t)(standings->records + (size_t)place * standings->stride);
}

struct standings *standings_map(unsigned servers, unsigned workers) {
    size_t stride = sizeof(struct standing) + workers * sizeof(struct standing_counts);
    struct standings *standings = malloc(sizeof *standings);
    void *records = mmap(NULL, servers * stride, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!standings || records == MAP_FAILED) {
        if (records != MAP_FAILED)
            munmap(records, servers * stride);
        free(standings);
        return NULL;
    }
    *standings =
        (struct standings){ .stride = stride, .places = servers, .workers = workers, .records = records };
    // A seed that could not be had costs no more than a place: names come from the configuration and from DNS.
    (void)!getrandom(&standings->seed, sizeof standings->seed, GRND_NONBLOCK);
    if (getrandom(standings->secret, sizeof standings->secret, 0) != (ssize_t)sizeof standings->secret) {
        standings_unmap(standings);
        return NULL;
    }
    return standings;
}

const unsigned char *standings_secret(const struct standings *standings) {
    return standings->secret;
}

void standings_unmap(struct standings *standings) {
    if (!standings)
        return;
    munmap(standings->records, standings->places * standings->stride);
    free(standings);
}

static bool is_held(const struct standings *standings, const struct standing *standing) {
    for (unsigned i = 0; i < standings->workers; i++)
        if (atomic_load(&standing->counts[i].held) > 0)
            return true;
    return false;
}

void standings_bury(struct standings *standings, unsigned worker) {
    for (unsigned i = 0; i < standings->places; i++) {
        struct standing *standing = at(standings, i);
        if (atomic_load(&standing->key) == 0)
            continue;
        struct standing_counts *counts = &standing->counts[worker];
        counts->active = 0;
        counts->idle = 0;
        if (atomic_exchange(&counts->held, 0) > 0)
            atomic_store(&standing->left_ms, clock_ms());
    }
}

static void name(char *to, struct slice text) {
    size_t len = text.len < STANDING_NAME_MAX ? text.len : STANDING_NAME_MAX - 1;
    memcpy(to, text.at, len);
    to[len] = 0;
}

// Of somebody else's past.
static void reset(const struct standings *standings, struct standing *standing) {
    size_t skip = offsetof(struct standing, left_ms);
    memset((char *)standing + skip, 0, standings->stride - skip);
}

struct standing *standing_hold(struct standings *standings, unsigned worker, struct slice upstream,
                               struct slice server) {
    uint64_t key = slice_hash(server, slice_hash(upstream, standings->seed)) | 1;
    unsigned home = (unsigned)(key >> 1) % standings->places;
    unsigned window = standings->places < WINDOW ? standings->places : WINDOW;
    for (;;) {
        struct standing *oldest = NULL;
        uint64_t seen = 0;
        for (unsigned i = 0; i < window; i++) {
            struct standing *standing = at(standings, (home + i) % standings->places);
            uint64_t found = atomic_load(&standing->key);
            if (found == key) {
                atomic_fetch_add(&standing->counts[worker].held, 1);
                // Somebody may have taken the place for another just now.
                if (atomic_load(&standing->key) == key)
                    return standing;
                atomic_fetch_sub(&standing->counts[worker].held, 1);
                found = atomic_load(&standing->key);
            }
            if (found == 0 || (!is_held(standings, standing) &&
                               (!oldest || atomic_load(&standing->left_ms) < atomic_load(&oldest->left_ms)))) {
                oldest = standing;
                seen = found;
            }
            if (found == 0)
                break;
        }
        if (!oldest)
            return NULL;
        if (!atomic_compare_exchange_strong(&oldest->key, &seen, key))
            continue;
        if (seen != 0)
            reset(standings, oldest);
        name(oldest->upstream, upstream);
        name(oldest->server, server);
        atomic_fetch_add(&oldest->counts[worker].held, 1);
        return oldest;
    }
}

void standing_leave(struct standing *standing, unsigned worker) {
    atomic_store(&standing->left_ms, clock_ms());
    atomic_fetch_sub(&standing->counts[worker].held, 1);
}

struct standing *standing_private(void) {
    struct standing *standing = NULL;
    size_t bytes = sizeof *standing + sizeof standing->counts[0];
    if (posix_memalign((void **)&standing, 64, bytes) != 0)
        return NULL;
    memset(standing, 0, bytes);
    return standing;
}

void standing_sum(const struct standings *standings, const struct standing *standing,
                  struct standing_counts *ret_sum) {
    *ret_sum = (struct standing_counts){ 0 };
    for (unsigned i = 0; i < standings->workers; i++) {
#define X(name, doc) ret_sum->name += standing->counts[i].name;
        STANDING_COUNTS(X)
#undef X
    }
}

static void copy(char *to, const char *from, size_t size) {
    memcpy(to, from, size - 1);
    to[size - 1] = 0;
}

bool standings_read(const struct standings *standings, unsigned *position, struct standing_report *ret_report) {
    while (*position < standings->places) {
        struct standing *standing = at(standings, (*position)++);
        if (atomic_load(&standing->key) == 0 || !is_held(standings, standing))
            continue;
        ret_report->standing = standing;
        copy(ret_report->upstream, standing->upstream, sizeof ret_report->upstream);
        copy(ret_report->server, standing->server, sizeof ret_report->server);
        copy(ret_report->check_why, standing->check_why, sizeof ret_report->check_why);
        ret_report->state = standing_state(standing, clock_ms());
        ret_report->admin = standing_admin_name((enum standing_admin)standing->admin);
        ret_report->check = standing_check_name((enum standing_check)standing->check);
        standing_sum(standings, standing, &ret_report->sum);
        return true;
    }
    return false;
}

uint32_t standing_active_elsewhere(const struct standings *standings, const struct standing *standing,
                                   unsigned worker) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < standings->workers; i++)
        if (i != worker)
            sum += *(const volatile uint64_t *)&standing->counts[i].active;
    return (uint32_t)sum;
}

void standing_demand(const struct standings *standings, const struct standing *standing, unsigned worker,
                     uint64_t since_ms, struct standing_demand *ret_demand) {
    struct standing_demand demand = { 0 };
    for (unsigned i = 0; i < standings->workers; i++) {
        const struct standing_counts *counts = &standing->counts[i];
        if (i == worker)
            continue;
        bool wants = atomic_load_explicit(&counts->wanted_ms, memory_order_relaxed) >= since_ms;
        demand.active += *(const volatile uint64_t *)&counts->active;
        demand.wanting += wants;
        demand.wanting_before += wants && i < worker;
    }
    *ret_demand = demand;
}
