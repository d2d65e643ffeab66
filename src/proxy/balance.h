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

#endif
