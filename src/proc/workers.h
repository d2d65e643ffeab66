// SPDX-License-Identifier: BSD-2-Clause
// The master's side of the workers: forks them, hands them what they need, replaces those that die, kills
// those that hang.
#ifndef MOONGATE_PROC_WORKERS_H
#define MOONGATE_PROC_WORKERS_H

#include "base/timer.h"
#include "proc/channel.h"
#include "proc/loop.h"

#include <sys/types.h>

struct master;

//  X(name, documentation)
#define WORKER_STATES(X) \
    X(down, "no process; the respawn timer runs, unless the master ends") \
    X(starting, "a process that was told to load the committed generation and has not taken it into use") \
    X(serving, "a generation is in use") \
    X(ending, "it was told to quit or stop, or killed: its end is awaited")

enum worker_state {
#define X(name, doc) WORKER_IS_##name,
    WORKER_STATES(X)
#undef X
};

struct worker {
    struct master *master;
    unsigned index;          // its slot
    int cpu;                 // -1: any
    enum worker_state state;
    pid_t pid;               // 0 when down
    struct channel channel;
    struct watch watch;
    uint64_t told;           // generation of its last LOAD
    bool asked;              // a reload waits for its answer
    bool hung;               // the watchdog killed it
    uint64_t started_ms;
    uint64_t restarts;       // processes that this slot has lost
    unsigned quick_deaths;   // in a row
    struct timer respawn;
};

int workers_init(struct master *master, unsigned count) __attribute__((warn_unused_result));
void workers_release(struct master *master);
void workers_start(struct master *master);
// Children have ended.
void workers_reap(struct master *master);
// MESSAGE_QUIT or MESSAGE_STOP to all; none is started any more.
void workers_end(struct master *master, enum message_type how);
void workers_kill(struct master *master);
bool workers_all(const struct master *master, enum worker_state state);
const char *worker_state_name(enum worker_state state);

// Sends a worker all that a generation needs (or only what is fresh), then LOAD.
void worker_load(struct worker *worker, uint64_t generation, const char *file, int source_fd,
                 bool fresh_only);
void worker_send(struct worker *worker, enum message_type type, uint64_t number);
// Output may wait in its channel: call after sending through it directly.
void worker_watch_channel(struct worker *worker);

#endif
