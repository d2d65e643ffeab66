// SPDX-License-Identifier: BSD-2-Clause
// How many connections each client has with this worker: by IPv4 address, or by the first 64 bits of an IPv6
// address, which one household or machine has. An address is known only while it has a connection that is
// counted, so the table is bounded by the directive `connections`.
#ifndef MOONGATE_NET_PEERS_H
#define MOONGATE_NET_PEERS_H

#include "base/addr.h"

struct peer;

// Counts one connection more of the client. -EDQUOT when it has `most` already, -ENOMEM. *ret_peer is NULL
// where there is no IP address (unix sockets): such clients are not told apart.
int peers_enter(const struct addr *addr, uint64_t most, struct peer **ret_peer)
    __attribute__((warn_unused_result));
void peers_leave(struct peer *peer);  // one less; NULL is allowed
unsigned peers_count(void);           // addresses that are known

#endif
