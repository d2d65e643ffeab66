// SPDX-License-Identifier: BSD-2-Clause
// The connections of a server that carry exchanges or wait for some: which of them takes the next one, and
// how long idle ones are kept. Called by dial.c and attempt.c.
#ifndef MOONGATE_PROXY_POOL_H
#define MOONGATE_PROXY_POOL_H

#include "http/client_codec.h"
#include "proxy/upstream.h"

// One with room for this request: of those that carry some the first, so that the last ones become idle and
// end, else the newest idle one. NULL when there is none.
struct client_codec *pool_find(struct exchange *x, struct server *server, struct slice announced);
// Gives it the exchange, which has a place of the server.
void pool_serve(struct client_codec *client, struct exchange *x);
// It carries nothing, and may carry something.
void pool_put(struct client_codec *client);
void pool_drop(struct client_codec *client, enum close_reason reason);
// Whether one that is there could take one more.
bool pool_has_room(const struct server *server);
void pool_release(struct server *server);  // closes those that are idle

// For the callbacks of clients, whose owner is the server.
void pool_released(struct client_codec *client, enum client_released how);
void pool_lost(struct client_codec *client);
void pool_roomier(struct client_codec *client);

#endif
