// SPDX-License-Identifier: BSD-2-Clause
// Clients that stay with a server (`sticky cookie`): the first response sets a cookie, the requests behind it
// bring it along. Its value is a token, a keyed digest of the server's address: it shows nothing of that, is
// the same in all workers and after a reload, and need not be kept anywhere. A token is no credential: a
// client that makes one up gets a server that it might have got anyway.
#ifndef MOONGATE_PROXY_STICKY_H
#define MOONGATE_PROXY_STICKY_H

#include "http/exchange.h"
#include "proxy/upstream.h"

// Of the server with that address; 0 when the upstream is not sticky.
uint64_t sticky_token(const struct upstream *upstream, struct slice addr);
// Once for each upstream that an exchange has chosen, before a server of it is: takes note of what the
// client's cookie says, and the cookie out of the request. -ENOMEM.
int sticky_read(struct exchange *x) __attribute__((warn_unused_result));
// The server that the client sticks to (x->sticky is not 0), also when it drains. NULL when there is none of
// that name, or it may not be asked, or was tried for this request: then it is balanced.
struct server *sticky_find(struct upstream *upstream, const struct exchange *x);
// x->server has answered: a client that did not name it is told to from now on. -ENOMEM.
int sticky_answered(struct exchange *x) __attribute__((warn_unused_result));

#endif
