// SPDX-License-Identifier: BSD-2-Clause
// Reads the clocks for clock.h.
#include "base/clock.h"

#include <time.h>

struct clock_now clock_cached;

static uint64_t read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void clock_update(void) {
    clock_cached.mono_ns = read_clock(CLOCK_MONOTONIC);
    clock_cached.wall_us = read_clock(CLOCK_REALTIME) / 1000u;
}

uint64_t clock_us_now(void) {
    return read_clock(CLOCK_MONOTONIC) / 1000u;
}
