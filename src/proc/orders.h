// SPDX-License-Identifier: BSD-2-Clause
// What the master orders a worker to do (channel.h's table), and the worker's own record, shared by worker.c
// and orders.c only.
#ifndef MOONGATE_PROC_ORDERS_H
#define MOONGATE_PROC_ORDERS_H

#include "base/dict.h"
#include "net/listener.h"
#include "proc/admission.h"
#include "proc/channel.h"
#include "proc/generation.h"
#include "proc/heritage.h"
#include "ring/ring.h"

enum { WORKER_DICTS = 64 };

enum worker_phase {
    WORKER_SERVING,   // from the start: accepts once a generation is in use
    WORKER_DRAINING,  // told to quit: nothing is accepted, connections end; the deadline timer runs
    WORKER_CLOSING,   // everything was closed; last completions are awaited; the deadline timer runs
    WORKER_LOGGING,   // no connection is left; access logs are being written; the deadline timer runs
    WORKER_OVER,      // the loop ends
};

struct worker_self {
    const struct heritage *heritage;
    struct channel channel;
    struct op channel_poll;
    enum worker_phase phase;
    struct timer deadline;         // of the phase
    struct timer removed;          // connections of removed listeners have until then (drain_timeout)
    struct generation *current;    // in use; NULL before the first COMMIT and once draining
    struct generation *loading;    // its init hooks run; the master has no answer yet
    struct generation *loaded;     // answered READY, waits for COMMIT or ABORT
    struct list listeners;         // struct listener, those that are stopping included
    struct list offers;            // sockets that came for the next generation
    struct script_dict dicts[WORKER_DICTS];
    struct dict attached[WORKER_DICTS];
    unsigned dict_count;
    struct metrics metrics;        // of scripts, in the heritage
    uint64_t confirm;              // COMMITTED is due for it once no listener is stopping; 0: none
    unsigned confirm_turns;        // since then: the last closed socket has left with a turn's submissions
    struct admission admission;    // whether listeners accept
    uint64_t published_ms;
    int error_fd;                  // the error log's file, -1: none
};

// Listens to the channel.
void orders_start(struct worker_self *self);
void orders_end(struct worker_self *self);
// After each turn: answers COMMITTED when it is due.
void orders_confirm(struct worker_self *self);

// Takes a generation into use (NULL: none): listeners start and stop, connections of those that are gone
// drain.
void worker_take(struct worker_self *self, struct generation *generation);
void worker_quit(struct worker_self *self);
void worker_close_all(struct worker_self *self);

#endif
