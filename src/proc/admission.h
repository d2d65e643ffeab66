// SPDX-License-Identifier: BSD-2-Clause
// Whether a worker takes new connections: at the limit of connections, without descriptors, at memory_limit.
// What is idle is closed first, then new ones wait in the listeners' queues; each shortage is told once when
// it begins and once when it is over. Asked by worker.c in each turn and by orders.c for each connection.
//
// To add a shortage: a row here, shortage_press() where it shows.
#ifndef MOONGATE_PROC_ADMISSION_H
#define MOONGATE_PROC_ADMISSION_H

#include "base/timer.h"
#include "conf/conf.h"

//  X(name, what the log calls it)
#define SHORTAGES(X) \
    X(connections, "limit of connections") \
    X(descriptors, "shortage of descriptors or kernel memory") \
    X(memory, "limit of memory")

enum shortage_kind {
#define X(name, text) SHORTAGE_##name,
    SHORTAGES(X)
#undef X
    SHORTAGE_COUNT
};

struct shortage {
    uint64_t begun_ms, pressed_ms;  // told at; last felt at. 0: there is none
    uint64_t shed, refused;         // the counters when it began
};

struct admission {
    struct list *listeners;   // the worker's
    uint64_t descriptors;     // for connections, and sockets of scripts
    uint64_t sockets_most;    // of these at most so many for sockets of scripts
    bool paused;              // listeners do not accept
    struct timer retry;       // while exhausted: then it is tried anyhow
    bool exhausted;           // accepting failed, listeners are paused until there is hope
    unsigned exhausted_at;    // conns when it failed: hope when there are fewer
    int memory_fd;            // /proc/self/statm
    uint64_t over_since_ms;   // beyond memory_limit since; 0: not
    struct shortage shortages[SHORTAGE_COUNT];
};

// In the worker, when it has its descriptors and its user.
void admission_start(struct admission *admission, struct list *listeners);
void admission_end(struct admission *admission);
// A connection was accepted: false when it was refused and closed. admission_taken() when a frontend has it.
bool admission_let_in(struct admission *admission, const struct conf *conf, int fd);
void admission_taken(struct admission *admission, const struct conf *conf);
// After each turn in which the worker serves: pauses listeners and lets them go on.
void admission_turn(struct admission *admission, const struct conf *conf);
// Whether there is a shortage: the worker turns more often then.
bool admission_short(const struct admission *admission);
// Now and then: looks at the worker's memory.
void admission_measure(struct admission *admission, const struct conf *conf);

#endif
