// SPDX-License-Identifier: BSD-2-Clause
// Which server of its upstream an exchange goes to: the algorithms of `balance`. Who may be asked at all is
// roster.h's, what a client's cookie says sticky.h's. Called by dial.c.
#ifndef MOONGATE_PROXY_BALANCE_H
#define MOONGATE_PROXY_BALANCE_H

#include "http/exchange.h"
#include "proxy/upstream.h"

// The server by the upstream's balance, of those that are on the roster; those of x->tried, and servers that
// are not well, only when there is no other. NULL when there is none: *ret_wait says whether one will become
// free, as those that it may be have max_active.
struct server *balance_choose(struct upstream *upstream, const struct exchange *x, bool *ret_wait);

// One more server to connect to, as `beside` takes long: another address of the same line with the other family, if
// there is one (RFC 8305, 4), else by the upstream's balance. None of x->tried, none that is not well, none for a
// client that sticks to `beside`: NULL then.
struct server *balance_rival(struct upstream *upstream, const struct exchange *x, const struct server *beside);

// One more server to ask, beside those of x->tried: one that has room, for which nobody waits. NULL when there is
// none.
struct server *balance_other(struct upstream *upstream, const struct exchange *x);

#endif
