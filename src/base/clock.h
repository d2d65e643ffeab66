// SPDX-License-Identifier: BSD-2-Clause
// The time, read once a loop turn and then from memory: the ring calls clock_update() after each wait.
#ifndef MOONGATE_BASE_CLOCK_H
#define MOONGATE_BASE_CLOCK_H

#include <stdint.h>

struct clock_now {
    uint64_t mono_ns;  // CLOCK_MONOTONIC
    uint64_t wall_us;  // microseconds since 1970, UTC
};
extern struct clock_now clock_cached;

void clock_update(void);

// Monotonic milliseconds as of this turn.
static inline uint64_t clock_ms(void) {
    return clock_cached.mono_ns / 1000000u;
}
// Monotonic microseconds as of this turn: what a request is timed with. A turn is short, and reading the
// clock at each step of each request would cost more than parsing it.
static inline uint64_t clock_us(void) {
    return clock_cached.mono_ns / 1000u;
}
// Monotonic microseconds read afresh (a vDSO call): for durations that end within a turn.
uint64_t clock_us_now(void);
// Microseconds since 1970 read afresh.
uint64_t clock_wall_us_now(void);

// For tests of scripts (script/test_world.c): from here on the clock shows `wall_us` and moves only when told
// to.
void clock_stand(uint64_t wall_us);
void clock_advance(uint64_t us);

#endif
