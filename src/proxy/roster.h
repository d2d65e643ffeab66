// SPDX-License-Identifier: BSD-2-Clause
// The roster of an upstream: which of its servers may be asked now, and how large the share of each is. The
// rules of levels (backup servers), of panic and of slow start are here and nowhere else; balance.c chooses
// among those that are on it.
//
// Health, weights and what operators want change in memory that other processes write to (standing.h), and
// with time. So the roster is not told: it is looked over anew when it is older than a moment, which is the
// longer the more servers there are and never longer than ROSTER_LOOK_MAX_MS, and at once when somebody who is
// on it turns out not to be fit (roster_doubt()), or servers come and go.
#ifndef MOONGATE_PROXY_ROSTER_H
#define MOONGATE_PROXY_ROSTER_H

#include "proxy/hash_ring.h"

#include <stdbool.h>
#include <stdint.h>

enum { ROSTER_LOOK_MAX_MS = 100 };

struct upstream;
struct server;

enum roster_turn {
    ROSTER_FIRST,  // servers of the first level that are well
    ROSTER_LOWER,  // none of these: those of a level below
    ROSTER_PANIC,  // all of a level, well or not
    ROSTER_NONE,   // nobody: operators want it so, or there is none
};

struct roster_place {
    struct server *server;
    uint64_t share;       // weight, in parts of SHARE_ONE
    uint64_t end;         // sum of the shares up to it
};

struct roster {
    struct roster_place *places;  // in the order of the configuration
    unsigned count;
    unsigned room;        // as many as the upstream may have servers
    enum roster_turn state;  // whose turn it is
    uint64_t total;       // of shares
    bool even;            // all shares are the same
    bool panic;           // state is ROSTER_PANIC or ROSTER_NONE: health is not looked at
    bool doubted;
    uint64_t until_ms;    // looked over anew then
    unsigned turn;        // balance.c's: where the next round begins
    uint64_t random;      // balance.c's
    struct hash_ring ring;  // of all servers of the level, well or not; with `balance hash` alone
};

// Room for so many servers. -ENOMEM.
int roster_make_room(struct roster *roster, unsigned servers) __attribute__((warn_unused_result));
void roster_release(struct roster *roster);
// Servers came, went or changed: what it says is no more to be relied on.
static inline void roster_doubt(struct roster *roster) {
    roster->doubted = true;
}
// Of the upstream, as of now.
const struct roster *roster_look(struct upstream *upstream);

#endif
