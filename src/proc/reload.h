// SPDX-License-Identifier: BSD-2-Clause
// Changes the generation in all workers, or in none: read and check, try the scripts in a child, bind and
// open what is new, let one worker load it and then the others, and only when all are ready let all take it
// into use. It is over when all have.
#ifndef MOONGATE_PROC_RELOAD_H
#define MOONGATE_PROC_RELOAD_H

#include "base/timer.h"
#include "conf/conf.h"
#include "proc/loop.h"
#include "proc/trial.h"

struct master;
struct worker;

enum reload_state {
    RELOAD_IDLE,     // nothing below is set
    RELOAD_TRYING,   // conf and source are set; the trial runs
    RELOAD_LOADING,  // source_fd is set, resources are prepared; workers with `asked` owe READY or REFUSED
    RELOAD_COMMITTING,  // it cannot fail any more, the master has it; workers with `asked` owe COMMITTED
};

struct reload {
    enum reload_state state;
    bool again;              // asked for while one was under way: another follows it
    uint64_t generation;     // the number that it will have
    uint64_t began_ms;
    struct conf *conf;
    struct source *source;
    int source_fd;
    struct trial trial;
    struct watch watch;      // of the trial
    struct timer timeout;
};

void reload_init(struct reload *reload);
// The result goes to the log and to those who wait for it in control.c. When one is under way, another
// follows.
void reload_start(struct master *master);
// A worker that was asked has done it, or not, and why (it refused, or it died).
void reload_answered(struct worker *worker, bool ready, const char *why);
// The master ends.
void reload_cancel(struct master *master);

#endif
