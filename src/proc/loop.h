// SPDX-License-Identifier: BSD-2-Clause
// The master's loop: descriptors that are watched, and the timer wheel. (Workers turn a ring instead.)
#ifndef MOONGATE_PROC_LOOP_H
#define MOONGATE_PROC_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

// Embedded in its owner, who removes it before closing the descriptor.
struct watch {
    int fd;
    // events: EPOLLIN and friends. May remove and free any watch.
    void (*ready)(struct watch *watch, uint32_t events);
};

int loop_init(void) __attribute__((warn_unused_result));
// In a forked child: closes what the parent's loop had, without touching its watches.
void loop_release(void);

int watch_add(struct watch *watch, int fd, uint32_t events,
              void (*ready)(struct watch *watch, uint32_t events))
    __attribute__((warn_unused_result));
void watch_change(struct watch *watch, uint32_t events);
// Harmless when it is not watched (fd -1).
void watch_remove(struct watch *watch);

// Handles one event or the timers that are due.
void loop_turn(void);

#endif
