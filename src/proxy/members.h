// SPDX-License-Identifier: BSD-2-Clause
// The members of an upstream that a name stands for: a `server` line with a name, or with a service, has as
// many servers as the resolver says, and is asked for again when that answer's time ends. What comes is added,
// what went is removed, what stayed keeps its connections. Called by upstream.c; servers are upstream.c's.
#ifndef MOONGATE_PROXY_MEMBERS_H
#define MOONGATE_PROXY_MEMBERS_H

#include "net/resolver.h"
#include "proxy/upstream.h"

enum { MEMBERS_MAX = 256 };  // of one line

// For one line; the resolver lives at least as long as the upstream. It begins with the servers that the same
// line had before, if any. -ENOMEM.
int members_new(struct upstream *upstream, const struct conf_server *line,
                const struct upstream_options *options)
    __attribute__((warn_unused_result));
// All lines are there: asks for the first time. Until a line's first answer it counts as unresolved.
void members_go(struct upstream *upstream);
// The generation gets no new requests: lines that were answered are asked for no more.
void members_retire(struct upstream *upstream);
// Before the upstream goes. Its servers are left.
void members_release(struct upstream *upstream);

#endif
