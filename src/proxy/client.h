// SPDX-License-Identifier: BSD-2-Clause
// The accepted connections of a worker, over all their exchanges and generations: taken in here, led through the
// connect hook to a codec, and ended when there is no room or their listener goes.
#ifndef MOONGATE_PROXY_CLIENT_H
#define MOONGATE_PROXY_CLIENT_H

#include "proxy/frontend.h"

// A connection was accepted on `listener_name` (takes fd). The connection asks frontend_current() for each of
// its exchanges.
void client_accept(struct frontend *frontend, const char *listener_name, int fd);

// Which frontend serves a listener now; filled in by the worker. NULL: the listener was removed, the
// connection drains.
extern struct frontend *(*frontend_current)(const char *listener_name);

// All client connections of the worker: those idle, or whose listener is gone (or all: everything = true),
// are told to end: idle ones at once, others with `Connection: close` after their exchange.
void clients_drain(bool everything);
// Closes the client that has been waiting for its next request for longest; or else for its first one, but
// not in its first second. False when there is none.
bool clients_shed(void);
bool clients_may_shed(void);   // whether there is one
extern bool clients_refusing;  // requests are answered 503: memory is short. Set by the worker
// Closes what is left of connections whose listener is gone, tunnels too, at once.
void clients_close_removed(void);
// Closes all that is left, at once.
void clients_close_all(void);
unsigned clients_count(void);

#endif
