// SPDX-License-Identifier: BSD-2-Clause
// A connection that a tls_hello hook sends elsewhere as it is: connected to the address, or to one of those that
// the name stands for and route_allow lets in; what was read of it goes first, then a relay has both. Called by client.c.
#ifndef MOONGATE_PROXY_DIVERT_H
#define MOONGATE_PROXY_DIVERT_H

#include "base/error.h"
#include "http/exchange.h"
#include "net/resolver.h"

// Whether a text is one to divert to: "192.0.2.1:443", "unix:/path" and the like, or "name.example:443".
int divert_check(struct slice to, struct error *error) __attribute__((warn_unused_result));
// Takes the conn and what `read` holds. The site is held until it is over, and the resolver
// with its generation. connect_timeout of `how` is for all of it: the name and its addresses, which are connected to
// beside each other by its connect_stagger.
void divert_start(struct conn *client, struct queue *read, const char *to, struct exchange_site *site,
                  struct resolver *resolver, const struct conf_upstream *how);

#endif
