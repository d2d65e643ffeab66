// SPDX-License-Identifier: BSD-2-Clause
// moongatectl set server: what an operator wants of one server, for all workers at once. Called by control.c.
#ifndef MOONGATE_PROC_SERVERS_H
#define MOONGATE_PROC_SERVERS_H

#include "base/error.h"

struct master;

// words: "UPSTREAM/ADDRESS weight N", "... weight default", "... up", "... drain" or "... down"; ADDRESS may be *
// for all of the upstream. What was done, or what is wrong, is in *result.
int servers_set(struct master *master, const char *words, struct error *result) __attribute__((warn_unused_result));

#endif
