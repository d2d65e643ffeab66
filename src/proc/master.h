// SPDX-License-Identifier: BSD-2-Clause
// The master process: owns what outlives a worker and a generation. master.c starts and ends it, workers.c
// keeps the workers alive, reload.c changes the generation, control.c answers moongatectl, report.c says how
// things are, inquiry.c asks the workers for what they alone know.
#ifndef MOONGATE_PROC_MASTER_H
#define MOONGATE_PROC_MASTER_H

#include "proc/control.h"
#include "proc/dicts.h"
#include "proc/heritage.h"
#include "proc/inquiry.h"
#include "proc/logs.h"
#include "proc/loop.h"
#include "proc/pidfile.h"
#include "proc/privileges.h"
#include "proc/reload.h"
#include "proc/sockets.h"
#include "proc/workers.h"

enum master_phase {
    MASTER_STARTING,  // the first workers load; a failure of any ends the start
    MASTER_RUNNING,   // all served once; from now on workers are replaced and reloads accepted
    MASTER_QUITTING,  // workers drain; no listening socket is left; the deadline timer runs
    MASTER_STOPPING,  // workers close everything; the deadline timer runs
    MASTER_OVER,      // no worker is left
};

struct master {
    enum master_phase phase;
    struct conf *conf;            // committed
    uint64_t generation;          // its number
    uint64_t last_generation;     // number of the last one that was tried
    int source_fd;                // the texts it was made of, for workers to come
    uint64_t started_ms, committed_wall_us;
    struct identity identity;
    struct heritage_worker *shared;
    struct standings *standings;
    struct worker *workers;
    unsigned worker_count;
    struct sockets sockets;
    struct logs logs;
    struct dicts dicts;
    struct control control;
    struct reload reload;
    struct inquiry inquiry;
    struct pidfile pidfile;
    struct watch signals;
    struct timer deadline;        // of the phase
    struct timer watchdog;
    struct timer ticket_rotation;
    uint64_t reloads, reload_failures, respawns, watchdog_kills;
    bool failed;                  // the start failed: `error` says why
    struct error error;
    void (*ready)(void *to);      // all workers serve
    void *ready_to;
};

struct master_options {
    const char *file;             // absolute path of the configuration
    const char *pid_file;         // NULL: none
    bool as_daemon;               // without a pid_file here, the directive's is written
    void (*ready)(void *to);      // called once when all workers serve
    void *ready_to;
};

// Runs moongate until it is told to end. 0, or negative errno with the reason why it could not start.
int master_run(const struct master_options *options, struct error *error) __attribute__((warn_unused_result));

// Called by workers.c.
void master_worker_serves(struct master *master);
void master_worker_gone(struct master *master);
// The start has failed (phase STARTING alone).
void master_start_failed(struct master *master, const char *why);
// Called by control.c and for signals.
void master_quit(struct master *master);
void master_stop(struct master *master);
// Another configuration is in use: what the master itself does by it begins anew.
void master_reconfigured(struct master *master);
int master_reopen(struct master *master, struct error *error) __attribute__((warn_unused_result));

#endif
