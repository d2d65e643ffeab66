// SPDX-License-Identifier: BSD-2-Clause
// Loads a configuration's scripts in a child process that is thrown away: what a script does while it is
// loaded (fail, crash, never end) then costs nobody anything. It runs as the workers' user, with dictionaries
// of its own. Used by moongate -t and before each reload.
#ifndef MOONGATE_PROC_TRIAL_H
#define MOONGATE_PROC_TRIAL_H

#include "base/error.h"
#include "conf/conf.h"
#include "proc/privileges.h"

struct source;

struct trial {
    pid_t pid;   // 0: none runs
    int fd;      // readable when there is something for trial_read()
    size_t len;
    struct error error;
};

int trial_start(struct trial *trial, const struct conf *conf, struct source *source,
                const struct identity *identity,
                struct error *error) __attribute__((warn_unused_result));
// -EAGAIN: it still runs. Else it is over: 0, or another negative errno with the reason.
int trial_read(struct trial *trial, struct error *error) __attribute__((warn_unused_result));
void trial_kill(struct trial *trial);
// Starts one and waits for its end.
int trial_run(const struct conf *conf, struct source *source, const struct identity *identity,
              struct error *error)
    __attribute__((warn_unused_result));
// How long one may take, in milliseconds.
uint64_t trial_patience(const struct conf *conf);

#endif
