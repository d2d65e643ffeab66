// SPDX-License-Identifier: BSD-2-Clause
// The hash table behind peers.h. Its seed is drawn at random: clients choose their addresses.
#include "net/peers.h"

#include "base/clock.h"
#include "base/slab.h"

#include <errno.h>
#include <sys/random.h>

enum { BUCKETS = 4096, KEY_BYTES = 16, V6_PREFIX = 8 };

struct peer {
    struct peer *next;
    uint64_t count;
    unsigned bucket;
    uint8_t key[KEY_BYTES];
};

static struct slab peer_slab = SLAB_INIT(sizeof(struct peer), 256);
static struct peer *buckets[BUCKETS];
static unsigned known;

unsigned peers_count(void) {
    return known;
}

static bool key_of(const struct addr *addr, uint8_t key[KEY_BYTES]) {
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    if (!addr_key(addr, key))
        return false;
    if (memcmp(key, mapped, sizeof mapped) != 0)
        memset(key + V6_PREFIX, 0, KEY_BYTES - V6_PREFIX);
    return true;
}

static unsigned bucket_of(const uint8_t key[KEY_BYTES]) {
    static uint64_t seed;
    if (!seed && getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed = clock_cached.mono_ns | 1;
    return (unsigned)(slice_hash(slice_make((const char *)key, KEY_BYTES), seed) % BUCKETS);
}

int peers_enter(const struct addr *addr, uint64_t most, struct peer **ret_peer) {
    uint8_t key[KEY_BYTES];
    if (!key_of(addr, key)) {
        *ret_peer = NULL;
        return 0;
    }
    unsigned bucket = bucket_of(key);
    struct peer *peer = buckets[bucket];
    while (peer && memcmp(peer->key, key, KEY_BYTES) != 0)
        peer = peer->next;
    if (peer && peer->count >= most)
        return -EDQUOT;
    if (!peer) {
        peer = slab_get(&peer_slab);
        if (!peer)
            return -ENOMEM;
        *peer = (struct peer){ .next = buckets[bucket], .bucket = bucket };
        memcpy(peer->key, key, KEY_BYTES);
        buckets[bucket] = peer;
        known++;
    }
    peer->count++;
    *ret_peer = peer;
    return 0;
}

void peers_leave(struct peer *peer) {
    if (!peer || --peer->count > 0)
        return;
    struct peer **at = &buckets[peer->bucket];
    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    known--;
    slab_put(&peer_slab, peer);
}
