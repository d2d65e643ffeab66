// SPDX-License-Identifier: BSD-2-Clause
// Getting an exchange a connection to a server of its upstream: from the pool or by connecting; and keeping
// the pool. Called by frontend.c.
#ifndef MOONGATE_PROXY_DIAL_H
#define MOONGATE_PROXY_DIAL_H

#include "http/exchange.h"
#include "proxy/upstream.h"

// x->upstream is set. exchange_dialled() or exchange_dial_failed() follows, perhaps at once.
void dial(struct exchange *x);
void dial_cancel(struct exchange *x);
// A tunnel to the server has ended: until then it counts for max_active.
void dial_tunnel_ended(struct server *server);

// For upstream.c alone.
// Whether one more exchange could be given to the server now or as soon as a connection is made.
bool dial_has_room(const struct server *server);
void dial_init_server(struct server *server);
void dial_init(struct upstream *upstream);
void dial_release(struct upstream *upstream);  // closes idle connections; nobody may wait any more

#endif
