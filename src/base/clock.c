// SPDX-License-Identifier: BSD-2-Clause
// Reads the clocks for clock.h.
#include "base/clock.h"

#include <stdbool.h>
#include <time.h>

struct clock_now clock_cached;
static bool standing;

static uint64_t read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void clock_update(void) {
    if (standing)
        return;
    clock_cached.mono_ns = read_clock(CLOCK_MONOTONIC);
    clock_cached.wall_us = read_clock(CLOCK_REALTIME) / 1000u;
}

uint64_t clock_us_now(void) {
    return standing ? clock_us() : read_clock(CLOCK_MONOTONIC) / 1000u;
}

uint64_t clock_wall_us_now(void) {
    return standing ? clock_cached.wall_us : read_clock(CLOCK_REALTIME) / 1000u;
}

void clock_stand(uint64_t wall_us) {
    enum { FIRST_SECOND = 1000000 };  // far enough from 0 for whatever subtracts from it
    if (!standing)
        clock_cached.mono_ns = FIRST_SECOND * 1000000000ull;
    standing = true;
    clock_cached.wall_us = wall_us;
}

void clock_advance(uint64_t us) {
    clock_cached.mono_ns += us * 1000u;
    clock_cached.wall_us += us;
}
