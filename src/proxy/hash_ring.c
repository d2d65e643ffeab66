// SPDX-License-Identifier: BSD-2-Clause
// The table of hash_ring.h. Each member draws all slots in an order of its own. The n-th draw of a member with
// the share s of all is at the time T(n) / s, where T(n) is how long the n-th of RING_SLOTS exponentially
// distributed times takes on average: so each member is first at a slot with the probability s. Times go in
// windows, all members through one before the next, until no slot is free: what is drawn later cannot be
// first. That takes about ln(RING_SLOTS) draws for each slot, by whomever.
#include "proxy/hash_ring.h"

#include <errno.h>
#include <stdlib.h>

// One process makes one table at a time.
static float first[RING_SLOTS];  // when each slot was drawn first
static float times[RING_SLOTS];  // T(n)

static void make_times(void) {
    double sum = 0;
    if (times[RING_SLOTS - 1] > 0)
        return;
    for (unsigned n = 0; n < RING_SLOTS; n++) {
        sum += 1.0 / (RING_SLOTS - n);
        times[n] = (float)sum;
    }
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// What makes an order out of a key: a permutation of 16 bits, of steps that can each be undone.
struct order {
    uint32_t add, mul[3], xor[2];
};

static struct order order_of(uint64_t key) {
    uint64_t a = mix(key + 0x9e3779b97f4a7c15u), b = mix(key ^ a);
    return (struct order){
        .add = a & 0xffff,
        .mul = { (a >> 16 & 0xffff) | 1, (a >> 32 & 0xffff) | 1, (b & 0xffff) | 1 },
        .xor = { a >> 48 & 0xffff, b >> 16 & 0xffff },
    };
}

static inline uint32_t draw(const struct order *order, uint32_t n) {
    uint32_t x = (n + order->add) * order->mul[0] & 0xffff;
    x = ((x ^ x >> 8) ^ order->xor[0]) * order->mul[1] & 0xffff;
    x = ((x ^ x >> 7) ^ order->xor[1]) * order->mul[2] & 0xffff;
    return x ^ x >> 9;
}

// A member's draws up to the end of a window.
static unsigned draw_until(struct hash_ring *ring, unsigned index, float share, float end) {
    struct ring_member *member = &ring->members[index];
    struct order order = order_of(member->key);
    unsigned taken = 0;
    uint32_t n = member->drawn;
    for (; n < RING_SLOTS && times[n] <= end * share; n++) {
        uint32_t slot = draw(&order, n);
        float at = times[n] / share;
        if (at > first[slot] ||
            (at == first[slot] && ring->members[ring->slots[slot]].key <= member->key))
            continue;
        taken += first[slot] >= 1e30f;
        first[slot] = at;
        ring->slots[slot] = (uint16_t)index;
    }
    member->drawn = n;
    return taken;
}

int hash_ring_make(struct hash_ring *ring) {
    uint64_t total = 0;
    if (!ring->slots)
        ring->slots = malloc(RING_SLOTS * sizeof *ring->slots);
    if (!ring->slots)
        return -ENOMEM;
    make_times();
    for (unsigned i = 0; i < RING_SLOTS; i++) {
        first[i] = 2e30f;
        ring->slots[i] = 0;
    }
    for (unsigned i = 0; i < ring->count; i++) {
        ring->members[i].drawn = 0;
        total += ring->members[i].share;
    }
    unsigned taken = 0;
    for (float end = 1; taken < RING_SLOTS && ring->count > 0; end += 1)
        for (unsigned i = 0; i < ring->count; i++)
            taken += draw_until(ring, i, (float)ring->members[i].share / (float)total, end);
    return 0;
}

void hash_ring_release(struct hash_ring *ring) {
    free(ring->members);
    free(ring->slots);
}
