// SPDX-License-Identifier: BSD-2-Clause
// The worker's life: makes its ring, becomes unprivileged, turns it, ends. What the master orders is carried
// out in orders.c; what a connection does is proxy's and http's.
#include "proc/worker.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/timer.h"
#include "net/conn.h"
#include "net/datagram.h"
#include "proc/orders.h"
#include "proxy/client.h"
#include "tls/tickets.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    RING_ENTRIES = 4096,
    CLOSE_GRACE_MS = 1000,  // for last completions after everything was closed
    LOG_GRACE_MS = 2000,    // for what the access logs still hold
    PUBLISH_EVERY_MS = 250,
    IDLE_TURN_MS = 1000,
    SHORT_TURN_MS = 250,  // while connections, descriptors or memory are short
    ENDING_TURN_MS = 10,
};

// Signals are the master's. A terminal sends SIGINT to all, systemd SIGTERM: orders come through the channel
// all the same.
static void ignore_signals(void) {
    static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE };
    sigset_t none;
    for (unsigned i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

// Whatever the master has open (other workers' sockets and channels, clients of the control socket) must not
// live on here.
static void close_others(const struct heritage *heritage) {
    int low = heritage->channel, high = heritage->error_fd;
    if (high < 0)
        high = low;
    if (low > high) {
        int swap = low;
        low = high;
        high = swap;
    }
    if (low > 3)
        (void)close_range(3, (unsigned)low - 1, 0);
    if (high > low + 1)
        (void)close_range((unsigned)low + 1, (unsigned)high - 1, 0);
    (void)close_range((unsigned)high + 1, ~0u, 0);
}

_Noreturn static void give_up(struct worker_self *self, const struct error *error) {
    (void)channel_send(&self->channel, MESSAGE_REFUSED, 0, error->text, -1);
    exit(1);
}

static void drained(struct timer *timer) {
    struct worker_self *self = container_of(timer, struct worker_self, deadline);
    worker_close_all(self);
}

static void gave_up_waiting(struct timer *timer) {
    struct worker_self *self = container_of(timer, struct worker_self, deadline);
    if (self->phase == WORKER_CLOSING && counters->scripts_active > 0)
        log_warn("hooks, timers and tasks of scripts did not end in time: %llu are given up",
                 (unsigned long long)counters->scripts_active);
    if (self->phase == WORKER_CLOSING && conn_count() > 0)
        log_warn("%u connections did not close in time", conn_count());
    self->phase = WORKER_OVER;
}

void worker_quit(struct worker_self *self) {
    if (self->phase != WORKER_SERVING)
        return;
    uint64_t patience = self->current ? self->current->conf->drain_timeout : 0;
    log_debug("draining %u connections", clients_count());
    self->phase = WORKER_DRAINING;
    worker_take(self, NULL);
    clients_drain(true);
    timer_init(&self->deadline, drained);
    timer_start(&self->deadline, patience);
}

void worker_close_all(struct worker_self *self) {
    if (self->phase >= WORKER_CLOSING)
        return;
    worker_take(self, NULL);
    self->phase = WORKER_CLOSING;
    clients_close_all();
    timer_stop(&self->deadline);
    timer_init(&self->deadline, gave_up_waiting);
    timer_start(&self->deadline, CLOSE_GRACE_MS);
}

// One step towards the end, when nothing of the present phase is left.
static void wind_down(struct worker_self *self) {
    if (self->phase == WORKER_DRAINING || self->phase == WORKER_CLOSING) {
        if (conn_count() > 0 || datagram_count() > 0 || !list_empty(&self->listeners) || !generation_none())
            return;
        self->phase = WORKER_LOGGING;
        access_log_flush_all();
        timer_stop(&self->deadline);
        timer_init(&self->deadline, gave_up_waiting);
        timer_start(&self->deadline, LOG_GRACE_MS);
    }
    if (self->phase == WORKER_LOGGING && access_log_idle())
        self->phase = WORKER_OVER;
}

static void publish(struct worker_self *self) {
    struct heritage_worker *shared = self->heritage->shared;
    atomic_store_explicit(&shared->beat_ns, clock_cached.mono_ns, memory_order_relaxed);
    atomic_store_explicit(&shared->connections, clients_count(), memory_order_relaxed);
    generation_publish(shared);
    if (clock_ms() < self->published_ms + PUBLISH_EVERY_MS)
        return;
    self->published_ms = clock_ms();
    shared->lua_bytes = generation_lua_bytes();
    if (self->phase == WORKER_SERVING && self->current)
        admission_measure(&self->admission, self->current->conf);
}

static void turn(struct worker_self *self) {
    // An idle worker turns often enough for the watchdog to see that it lives. Not everything that a worker
    // awaits while it changes or ends comes as a completion of its own.
    uint64_t limit = self->confirm ? 1 : self->phase == WORKER_SERVING ? IDLE_TURN_MS : ENDING_TURN_MS;
    if (limit > SHORT_TURN_MS && admission_short(&self->admission))
        limit = SHORT_TURN_MS;
    uint64_t watchdog = self->current ? self->current->conf->watchdog : self->heritage->watchdog_ms;
    uint64_t wait = watchdog ? watchdog / 4 : limit;
    int code = ring_turn(wait > limit ? limit : wait);
    if (code < 0) {
        log_crit("the ring broke: %s", strerror(-code));
        exit(1);
    }
    generation_reap();
    if (self->phase == WORKER_SERVING && self->current)
        admission_turn(&self->admission, self->current->conf);
    publish(self);
    orders_confirm(self);
    if (self->channel.queued && channel_flush(&self->channel) == -EPIPE)
        worker_close_all(self);
    wind_down(self);
}

_Noreturn void worker_main(const struct heritage *heritage) {
    static struct worker_self self;
    struct error error;
    char role[24];

    ignore_signals();
    timer_forget();
    close_others(heritage);
    snprintf(role, sizeof role, "worker %u", heritage->index);
    log_identify(role);
    access_log_set_worker(heritage->index);
    counters = &heritage->shared->counters;
    tickets_seal();

    self.heritage = heritage;
    list_init(&self.listeners);
    list_init(&self.offers);
    timer_init(&self.deadline, drained);
    channel_init(&self.channel, heritage->channel);
    cpu_pin(heritage->cpu);
    // The ring first: newer kernels count the rings of an unprivileged user's processes, all together, against
    // RLIMIT_MEMLOCK.
    const struct ring_options options = { .entries = RING_ENTRIES, .receive_bytes = heritage->receive_bytes };
    if (ring_init(&options, &error) < 0)
        give_up(&self, &error);
    if (identity_assume(heritage->identity, heritage->master, &error) < 0)
        give_up(&self, &error);

    if (metrics_attach(&self.metrics, heritage->shared->metrics, METRICS_SIZE, METRIC_SERIES_MAX) < 0) {
        (void)error_set(&error, -ENOMEM, "no memory for metrics");
        give_up(&self, &error);
    }

    admission_start(&self.admission, &self.listeners);
    orders_start(&self);
    while (self.phase != WORKER_OVER)
        turn(&self);
    orders_end(&self);
    admission_end(&self.admission);
    ring_release();
    log_debug("ends");
    exit(0);
}
