// SPDX-License-Identifier: BSD-2-Clause
// The arithmetic of pace.h.
#include "base/pace.h"

#include "base/clock.h"

void pace_begin(struct pace *pace, uint64_t at) {
    pace->window_ms = pace->moved_ms = clock_ms();
    pace->window_at = pace->moved_at = at;
}

uint64_t pace_next_ms(const struct pace *pace, const struct pace_limits *limits) {
    uint64_t next = limits->stall_ms / 4;
    if (limits->rate > 0) {
        uint64_t age = clock_ms() - pace->window_ms;
        uint64_t left = age < limits->grace_ms ? limits->grace_ms - age : 0;
        if (left < next)
            next = left;
    }
    return next > 0 ? next : 1;
}

enum pace_verdict pace_look(struct pace *pace, const struct pace_limits *limits, uint64_t at) {
    uint64_t now = clock_ms();
    if (at != pace->moved_at) {
        pace->moved_at = at;
        pace->moved_ms = now;
    } else if (now - pace->moved_ms >= limits->stall_ms) {
        return PACE_STALLED;
    }
    uint64_t age = now - pace->window_ms;
    if (limits->rate == 0 || age < limits->grace_ms)
        return PACE_GOOD;
    int64_t moved = (int64_t)(at - pace->window_at);
    if (moved != 0 && moved < (int64_t)(limits->rate * age / 1000))
        return PACE_SLOW;
    pace->window_ms = now;
    pace->window_at = at;
    return PACE_GOOD;
}
