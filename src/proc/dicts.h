// SPDX-License-Identifier: BSD-2-Clause
// The shared dictionaries: memory files that the master makes and every worker maps. They go on over reloads
// and the deaths of workers. prepare, offer, commit, abort: as in sockets.h.
#ifndef MOONGATE_PROC_DICTS_H
#define MOONGATE_PROC_DICTS_H

#include "base/error.h"
#include "base/list.h"
#include "conf/conf.h"
#include "proc/channel.h"

struct dicts {
    struct list list;  // struct dict_file, of dicts.c
};

void dicts_init(struct dicts *dicts);
void dicts_release(struct dicts *dicts);
int dicts_prepare(struct dicts *dicts, const struct conf *conf, struct error *error)
    __attribute__((warn_unused_result));
void dicts_commit(struct dicts *dicts);
void dicts_abort(struct dicts *dicts);
void dicts_offer(const struct dicts *dicts, struct channel *channel, bool fresh_only);

#endif
