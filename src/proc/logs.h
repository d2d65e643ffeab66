// SPDX-License-Identifier: BSD-2-Clause
// The log files that the master opens, as the user who started it, and hands to the workers: access logs by
// path, and the error log. prepare, offer, commit, abort: as in sockets.h.
#ifndef MOONGATE_PROC_LOGS_H
#define MOONGATE_PROC_LOGS_H

#include "base/error.h"
#include "base/list.h"
#include "conf/conf.h"
#include "proc/channel.h"

struct logs {
    struct list list;           // access logs: struct log_file, of logs.c
    struct log_file *error;     // the error log, NULL: syslog or standard error
    struct log_file *error_fresh;
    const struct conf *conf;    // committed: target and level of the error log
};

void logs_init(struct logs *logs);
void logs_release(struct logs *logs);
int logs_prepare(struct logs *logs, const struct conf *conf, struct error *error)
    __attribute__((warn_unused_result));
// This process logs to the new error log from now on; logs_offer_error() tells the workers.
void logs_commit(struct logs *logs, const struct conf *conf);
void logs_abort(struct logs *logs);
void logs_offer(const struct logs *logs, struct channel *channel, bool fresh_only);
void logs_offer_error(const struct logs *logs, struct channel *channel);
int logs_error_fd(const struct logs *logs);  // -1: none
// Opens all of them anew, by name; what cannot be opened goes on as it was, and the first such is told.
int logs_reopen(struct logs *logs, struct error *error) __attribute__((warn_unused_result));

#endif
