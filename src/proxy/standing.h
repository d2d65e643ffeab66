// SPDX-License-Identifier: BSD-2-Clause
// What all workers know of a server: whether operators and checks let it be asked, how it failed lately, what
// it was asked. One record for each address of each upstream, in memory that the master maps before it forks:
// it outlives workers and reloads. Servers (server.h) hold records; the master reads them for reports.
//
// Nothing here is locked. A record is found by its key, a hash of upstream and address: claiming a place is
// one compare-and-swap of the key, so a worker that dies in the middle of anything leaves nothing half done
// that another would wait for. Fields are atomic; what several of them say together may be a moment apart.
// Each worker writes its counts to a part of its own.
//
// To add something that workers share of a server: a field in struct standing. To add a count: a row in
// STANDING_COUNTS.
#ifndef MOONGATE_PROXY_STANDING_H
#define MOONGATE_PROXY_STANDING_H

#include "base/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { STANDING_NAME_MAX = 128 };  // of the names kept for reports; longer ones are cut

//  X(name, documentation): what operators and scripts want of a server
#define STANDING_ADMINS(X) \
    X(up, "it is asked, if it is well") \
    X(drain, "it is asked for nothing new but by clients that stick to it") \
    X(down, "it is asked for nothing")

enum standing_admin {
#define X(name, doc) ADMIN_##name,
    STANDING_ADMINS(X)
#undef X
};
const char *standing_admin_name(enum standing_admin admin);

//  X(name, documentation): what its checks (`health`) say
#define STANDING_CHECKS(X) \
    X(unknown, "it was not checked yet") \
    X(up, "it is well") \
    X(down, "it is not")

enum standing_check {
#define X(name, doc) CHECK_##name,
    STANDING_CHECKS(X)
#undef X
};
const char *standing_check_name(enum standing_check check);

enum { STANDING_WHY_MAX = 96 };

// What a server was ejected for (outlier.h).
enum standing_eject { EJECT_none, EJECT_connect, EJECT_answer, EJECT_rate, EJECT_latency, EJECT_error };

//  X(name, documentation)
#define STANDING_COUNTS(X) \
    X(active, "requests and tunnels on it now, connections that are being made for one included") \
    X(idle, "idle connections kept") \
    X(requests, "requests that were given to it") \
    X(reused, "of these: on a connection that had served before, or was kept ready") \
    X(wait_us, "microseconds that these waited for a connection, all together") \
    X(connects, "connections made") \
    X(connect_us, "microseconds that making them took, TLS included, all together") \
    X(connect_errors, "connections that could not be made")

// Of one worker: nobody else writes it.
struct standing_counts {
    _Atomic uint32_t held;  // struct servers of the worker that point here
    _Atomic uint64_t wanted_ms;  // when it last wanted a place and there was none (places.h)
#define X(name, doc) uint64_t name;
    STANDING_COUNTS(X)
#undef X
} __attribute__((aligned(64)));

struct standing {
    _Atomic uint64_t key;             // 0: the place was never used
    _Atomic uint64_t left_ms;         // when the last server of a worker let go of it
    char upstream[STANDING_NAME_MAX]; // for reports
    char server[STANDING_NAME_MAX];
    _Atomic uint32_t admin;           // enum standing_admin
    _Atomic uint32_t weight;          // in place of the configured one; 0: as configured
    _Atomic uint32_t configured_weight;  // as a worker last read it
    _Atomic uint64_t up_since_ms;     // when it became well again; 0: it always was
    _Atomic uint32_t failures;        // to connect, in a row
    _Atomic uint64_t down_until_ms;   // not chosen before, unless there is no other
    _Atomic uint32_t unanswered;      // requests in a row, by its fault
    _Atomic uint32_t errors;          // answers in a row with a status of 500 or more
    _Atomic uint32_t trial;           // enum standing_eject: it was ejected for that, and has not answered since
    _Atomic uint32_t ejections;       // of late
    _Atomic uint32_t check;           // enum standing_check; check.c's, as all of the following
    _Atomic int32_t check_run;        // checks in a row that went well, or, negative, did not
    _Atomic uint64_t next_check_ms;   // who moves it on when it has come does the check
    _Atomic uint64_t checked_ms;      // the last one's end; 0: there was none
    _Atomic uint64_t check_since_ms;  // when `check` became what it is
    char check_why[STANDING_WHY_MAX]; // what was wrong the last time that something was; for reports
    struct standing_counts counts[] __attribute__((aligned(64)));  // one for each worker
};

// In a word, at a monotonic time: "up" when it may be asked, else why not.
const char *standing_state(const struct standing *standing, uint64_t now_ms);
static inline uint32_t standing_weight(const struct standing *standing) {
    uint32_t weight = atomic_load_explicit(&standing->weight, memory_order_relaxed);
    return weight > 0 ? weight : atomic_load_explicit(&standing->configured_weight, memory_order_relaxed);
}

struct standings;

enum { STANDINGS_SECRET = 16 };

// Places for so many servers, shared with all processes forked later. NULL when memory is out.
struct standings *standings_map(unsigned servers, unsigned workers) __attribute__((warn_unused_result));
void standings_unmap(struct standings *standings);
// Random bytes (STANDINGS_SECRET), the same in all processes from the master's start to its end.
const unsigned char *standings_secret(const struct standings *standings);
// The worker is dead: it holds nothing, and nothing is under way with it.
void standings_bury(struct standings *standings, unsigned worker);
// The record of an address of an upstream, found or made, held by the worker until standing_leave(). NULL when
// all places are held. One that nobody holds keeps its place, and what is known of it, until the place is
// needed.
struct standing *standing_hold(struct standings *standings, unsigned worker, struct slice upstream,
                               struct slice server) __attribute__((warn_unused_result));
void standing_leave(struct standing *standing, unsigned worker);
// One that is nobody else's, with counts for worker 0 alone; free() ends it. NULL when memory is out.
struct standing *standing_private(void) __attribute__((warn_unused_result));

static inline bool standing_is_shared(const struct standing *standing) {
    return atomic_load_explicit(&standing->key, memory_order_relaxed) != 0;
}

// The sum of what its workers have counted.
void standing_sum(const struct standings *standings, const struct standing *standing,
                  struct standing_counts *ret_sum);

// Requests on it of other workers than this: each is read from another's cache line.
uint32_t standing_active_elsewhere(const struct standings *standings, const struct standing *standing,
                                   unsigned worker);

// What workers but this have of its places, and who wants some: those who said so at `since_ms` or later.
struct standing_demand {
    uint64_t active;
    unsigned wanting, wanting_before;  // the latter: of the workers that come before this
};
void standing_demand(const struct standings *standings, const struct standing *standing, unsigned worker,
                     uint64_t since_ms, struct standing_demand *ret_demand);

// A copy for reports and orders. Whatever a worker that has gone wrong may have written, texts end and words are
// words.
struct standing_report {
    struct standing *standing;
    char upstream[STANDING_NAME_MAX], server[STANDING_NAME_MAX], check_why[STANDING_WHY_MAX];
    const char *state, *admin, *check;
    struct standing_counts sum;
};
// The next record that a worker holds from *position (0: the first) on; false when there is none.
bool standings_read(const struct standings *standings, unsigned *position, struct standing_report *ret_report);

#endif
