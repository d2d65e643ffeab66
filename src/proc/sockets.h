// SPDX-License-Identifier: BSD-2-Clause
// The master's listening sockets: one for each address and slot (SO_REUSEPORT), one for all slots for a unix
// address. They stay open here, so that the accept queue of a dead worker waits for its successor.
//
// Like logs.h and dicts.h: prepare() gets what a new configuration needs beyond what there is, offer() sends
// it to a worker, then commit() makes it the new state and lets go of what is no longer needed, or abort()
// undoes prepare().
#ifndef MOONGATE_PROC_SOCKETS_H
#define MOONGATE_PROC_SOCKETS_H

#include "base/error.h"
#include "base/list.h"
#include "conf/conf.h"
#include "proc/channel.h"

struct sockets {
    struct list list;   // struct socket_group, of sockets.c
    unsigned slots;
};

void sockets_init(struct sockets *sockets, unsigned slots);
void sockets_release(struct sockets *sockets);  // closes all; removes the files of unix sockets
// patient: waits up to a second for an address in use, in a process that has nothing else to do yet.
int sockets_prepare(struct sockets *sockets, const struct conf *conf, bool patient, struct error *error)
    __attribute__((warn_unused_result));
void sockets_commit(struct sockets *sockets, const struct conf *conf);
void sockets_abort(struct sockets *sockets);
// fresh_only: those that prepare() added.
void sockets_offer(const struct sockets *sockets, struct channel *channel, unsigned slot, bool fresh_only);

#endif
