// SPDX-License-Identifier: BSD-2-Clause
// epoll(7) and timers for the master (loop.h). One event a turn: a handler may then free any watch.
#include "proc/loop.h"

#include "base/clock.h"
#include "base/timer.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <unistd.h>

static int poller = -1;

int loop_init(void) {
    clock_update();
    poller = epoll_create1(EPOLL_CLOEXEC);
    return poller < 0 ? -errno : 0;
}

void loop_release(void) {
    if (poller >= 0)
        close(poller);
    poller = -1;
}

int watch_add(struct watch *watch, int fd, uint32_t events,
              void (*ready)(struct watch *watch, uint32_t events)) {
    struct epoll_event event = { .events = events, .data.ptr = watch };
    watch->fd = -1;
    watch->ready = ready;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    watch->fd = fd;
    return 0;
}

void watch_change(struct watch *watch, uint32_t events) {
    struct epoll_event event = { .events = events, .data.ptr = watch };
    if (watch->fd >= 0)
        (void)epoll_ctl(poller, EPOLL_CTL_MOD, watch->fd, &event);
}

void watch_remove(struct watch *watch) {
    if (watch->fd >= 0)
        (void)epoll_ctl(poller, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->fd = -1;
}

void loop_turn(void) {
    struct epoll_event event;
    uint64_t wait = timer_next_ms();
    int n = epoll_wait(poller, &event, 1, wait > INT_MAX ? -1 : (int)wait);
    clock_update();
    timer_run();
    // A timer may have removed the watch that was ready: epoll is asked again, which costs nothing here.
    if (n == 1 && epoll_wait(poller, &event, 1, 0) == 1) {
        struct watch *watch = event.data.ptr;
        watch->ready(watch, event.events);
    }
}
