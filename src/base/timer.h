// SPDX-License-Identifier: BSD-2-Clause
// The one timer wheel of a process: hierarchical, one millisecond a tick, setting and stopping in constant
// time. The ring (in the master: loop.c) asks for the next deadline and calls timer_run() each turn.
#ifndef MOONGATE_BASE_TIMER_H
#define MOONGATE_BASE_TIMER_H

#include "base/list.h"

#include <stdint.h>

// Embedded in its owner, who must stop it before it goes. fired() may start the timer again or free the
// owner.
struct timer {
    struct list link;
    uint64_t expires_ms;  // on the monotonic clock
    uint8_t level, slot;  // where it hangs, for the wheel alone
    void (*fired)(struct timer *timer);
};

void timer_init(struct timer *timer, void (*fired)(struct timer *timer));
// Starts or moves the timer to `delay_ms` from this turn's time; at least one tick.
void timer_start(struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timer *timer);

static inline bool timer_running(const struct timer *timer) {
    return list_linked(&timer->link);
}

// Fires what is due at clock_ms().
void timer_run(void);
// In a process that was just forked: forgets all timers of its parent.
void timer_forget(void);
// Milliseconds until the next timer may be due (never later than it is), UINT64_MAX when none runs.
uint64_t timer_next_ms(void);

#endif
