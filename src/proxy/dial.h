// SPDX-License-Identifier: BSD-2-Clause
// Getting an exchange a connection to a server of its upstream: one that is there or a new one, at once or in
// its turn. Called by frontend.c.
#ifndef MOONGATE_PROXY_DIAL_H
#define MOONGATE_PROXY_DIAL_H

#include "http/exchange.h"
#include "proxy/upstream.h"

// x->upstream is set. exchange_dialled() or exchange_dial_failed() follows, perhaps at once. x->server is good
// until the exchange lets go of its connection.
void dial(struct exchange *x);
// To that server. Likewise.
void dial_to(struct exchange *x, struct server *server);
void dial_cancel(struct exchange *x);

// For upstream.c alone.
void dial_init(struct upstream *upstream);
void dial_removed(struct server *server);  // who waits for this one waits for any

#endif
