// SPDX-License-Identifier: BSD-2-Clause
// Which server of its upstream an exchange goes to. Called by dial.c.
#ifndef MOONGATE_PROXY_BALANCE_H
#define MOONGATE_PROXY_BALANCE_H

#include "http/exchange.h"
#include "proxy/upstream.h"

// The next server by the upstream's balance; those of x->tried only when there is no other. NULL when those
// that it may be have max_active, or there is none: one of them will become free, or come.
struct server *balance_choose(struct upstream *upstream, const struct exchange *x);

#endif
