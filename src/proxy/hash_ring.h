// SPDX-License-Identifier: BSD-2-Clause
// Consistent hashing: a table of slots, each of which belongs to one member. A key's slot is found by its hash,
// so that a choice costs the same for any number of members. Knows nothing of requests and of health: who asks
// a member that may not be asked goes on to the slots behind, whose members are as good as random. For balance.c.
//
// Whose a slot is follows from the members alone, each of which draws its slots in an order of its own, at
// times that grow the slower the larger its share is: a slot belongs to whoever draws it first. So what one
// that goes had is divided among all others by their shares, and nothing else moves; likewise for one that
// comes, and for changes of shares. Everybody with the same members has the same table.
#ifndef MOONGATE_PROXY_HASH_RING_H
#define MOONGATE_PROXY_HASH_RING_H

#include <stdbool.h>
#include <stdint.h>

enum { RING_BITS = 16, RING_SLOTS = 1 << RING_BITS, RING_MEMBERS_MAX = RING_SLOTS - 1 };

struct server;

struct ring_member {
    struct server *server;
    uint64_t key;        // says in which order it draws
    uint64_t share;
    uint32_t drawn;      // while the table is made
};

struct hash_ring {
    struct ring_member *members;  // those the table is of, those behind are spare
    uint16_t *slots;              // whose each is; NULL: not made yet
    unsigned count;
    uint64_t again_ms;            // not made anew before, when only shares have changed
};

void hash_ring_release(struct hash_ring *ring);
// From its members: some milliseconds of work, however many they are. -ENOMEM the first time.
int hash_ring_make(struct hash_ring *ring) __attribute__((warn_unused_result));

// The slot of a key with this hash, and whose the one `step` behind it is. There is a table, and a member.
static inline unsigned hash_ring_slot(uint64_t hash) {
    return (unsigned)(hash >> (64 - RING_BITS));
}
static inline struct server *hash_ring_at(const struct hash_ring *ring, unsigned slot, unsigned step) {
    return ring->members[ring->slots[(slot + step) % RING_SLOTS]].server;
}

#endif
