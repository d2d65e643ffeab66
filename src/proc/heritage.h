// SPDX-License-Identifier: BSD-2-Clause
// What a worker inherits from the master when it is forked: everything it knows before the first message
// arrives.
//
// Glossary of src/proc/
//   master      reads configurations, binds, opens, forks, answers moongatectl; never on the data path
//   worker      a process with a ring; knows only this struct and what comes through its channel (channel.h)
//   generation  one loaded configuration (generation.h), numbered by the master
//   committed   the generation that is in use everywhere; the one that a new worker loads
//   slot        a worker's index: its core, sockets and shared memory outlive its process
//
// To add something that workers share: a field in struct heritage_worker when one worker writes it, else a
// dictionary.
#ifndef MOONGATE_PROC_HERITAGE_H
#define MOONGATE_PROC_HERITAGE_H

#include "base/counters.h"
#include "base/error.h"
#include "base/metrics.h"
#include "proc/privileges.h"
#include "script/script.h"

#include <stdatomic.h>
#include <sys/types.h>

enum { HERITAGE_GENERATIONS = 8 };

// One for each slot, in shared memory: written by the worker in that slot (the master writes between two of
// them).
struct heritage_worker {
    struct counters counters;
    struct script_probe probe;
    _Atomic uint64_t beat_ns;      // CLOCK_MONOTONIC at the end of the last turn: the watchdog's measure
    _Atomic uint64_t connections;  // client connections open
    _Atomic uint64_t lua_bytes;    // memory of all its Lua states
    struct {
        _Atomic uint64_t id;       // 0: unused
        _Atomic uint64_t exchanges;
    } generations[HERITAGE_GENERATIONS];  // those alive, newest first; more than fit are not shown
    char metrics[METRICS_SIZE] __attribute__((aligned(64)));  // base/metrics.h
} __attribute__((aligned(4096)));

struct heritage {
    unsigned index;                  // the slot
    int cpu;                         // to run on, -1: any
    int channel;                     // the worker's end
    int error_fd;                    // of the error log, -1: syslog or standard error
    pid_t master;
    const struct identity *identity; // whom to become
    uint64_t receive_bytes;
    uint64_t watchdog_ms;
    struct heritage_worker *shared;
    struct standings *standings;     // proxy/standing.h
};

// Memory for `count` slots, shared with all processes forked later. NULL when memory is out.
struct heritage_worker *heritage_map(unsigned count) __attribute__((warn_unused_result));
void heritage_unmap(struct heritage_worker *slots, unsigned count);
// The slot's worker is dead: what counted its living things goes to zero, the sums stay.
void heritage_bury(struct heritage_worker *slot);

#endif
