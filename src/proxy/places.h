// SPDX-License-Identifier: BSD-2-Clause
// Places at a server (max_active), which all workers share: what each has under way is in its own part of the standing,
// and whoever wants a place adds that up. So a worker that dies gives back what it had when its part is buried, and
// nothing at all is looked at where max_active is not set.
//
// A worker cannot be told that another gave a place. Those who wait look again every few milliseconds, and say so in
// their part: as long as several workers want places of a server, each has its share of them, and what does not divide
// is theirs in turn. Called by balance.c and server.c; dial.c has the queue.
#ifndef MOONGATE_PROXY_PLACES_H
#define MOONGATE_PROXY_PLACES_H

#include <stdbool.h>

struct server;
struct upstream;

// Whether this worker may have no more of it now.
bool places_full(const struct server *server);
// Takes a place, for the server_take_place() that follows; what was claimed before and not taken is given back. False:
// another worker was faster.
bool places_claim(struct server *server) __attribute__((warn_unused_result));
// What server_take_place() counts: true when it was counted by the claim.
bool places_use_claim(struct server *server);
// Before the server goes, and when the upstream does.
void places_drop_claim(struct upstream *upstream);

void places_init(struct upstream *upstream);
// Somebody waits.
void places_watch(struct upstream *upstream);

#endif
