// SPDX-License-Identifier: BSD-2-Clause
// A connection that a tls_hello hook sends elsewhere as it is: connected to the address, what was read of it goes
// first, then a relay has both. Called by client.c.
#ifndef MOONGATE_PROXY_DIVERT_H
#define MOONGATE_PROXY_DIVERT_H

#include "http/exchange.h"

// Takes the conn and what `read` holds. The site is held until it is over.
void divert_start(struct conn *client, struct queue *read, const struct addr *to, struct exchange_site *site,
                  uint64_t connect_timeout);

#endif
