// SPDX-License-Identifier: BSD-2-Clause
// A dictionary's region: how it is divided, making one and attaching one. Called by the master that makes
// regions and by the workers that attach them.
#include "base/dict_shard.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    VERSION = 2,
    SHARDS_MAX = 16,
    SHARD_MIN = 262144,
};

static const char magic[8] = "mgdict\r\n";

static int geometry(size_t size, struct region *ret) {
    if (size < DICT_SIZE_MIN || size > (1ull << 38))
        return -EINVAL;
    size_t body = size - REGION_HEAD;
    uint32_t shards = SHARDS_MAX;
    while (shards > 1 && body / shards < SHARD_MIN)
        shards /= 2;
    size_t shard_size = body / shards / CELL_SIZE * CELL_SIZE;
    size_t cells = (shard_size - SHARD_HEAD - CELL_SIZE) / (CELL_SIZE + sizeof(uint32_t));
    uint32_t buckets = 1;
    while (buckets <= cells / 2)
        buckets *= 2;
    *ret = (struct region){
        .version = VERSION,
        .shard_count = shards,
        .size = size,
        .shard_size = shard_size,
        .bucket_count = buckets,
        .cell_count = (uint32_t)cells,
        .lock_size = sizeof(pthread_mutex_t),
        .cell_size = CELL_SIZE,
    };
    memcpy(ret->magic, magic, sizeof magic);
    return 0;
}

static void handle_init(struct dict *dict, void *base, const struct region *region) {
    // One value may take half a shard, so that storing it never empties the shard.
    size_t half = (size_t)HEAD_BYTES + (size_t)(region->cell_count / 2 - 1) * TAIL_BYTES - DICT_KEY_MAX;
    *dict = (struct dict){
        .base = base,
        .seed = region->seed,
        .shard_size = region->shard_size,
        .shard_count = region->shard_count,
        .bucket_count = region->bucket_count,
        .cell_count = region->cell_count,
        .value_max = half < DICT_VALUE_MAX ? (uint32_t)half : DICT_VALUE_MAX,
    };
}

int dict_format(void *at, size_t size, struct error *error) {
    struct region made;
    if (geometry(size, &made) < 0)
        return error_set(error, -EINVAL, "a dictionary of %zu bytes: expected at least %d", size,
                         DICT_SIZE_MIN);
    if ((uintptr_t)at % 8 != 0)
        return error_set(error, -EINVAL, "a dictionary's memory is not aligned to 8 bytes");
    if (getrandom(&made.seed, sizeof made.seed, GRND_NONBLOCK) != (ssize_t)sizeof made.seed) {
        // Early in the boot: guessable, but better than a constant.
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        made.seed =
            ((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec) * 0x9e3779b97f4a7c15u ^ (uintptr_t)&now;
    }
    memset(at, 0, REGION_HEAD);
    struct dict dict;
    handle_init(&dict, at, &made);
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc == 0)
        rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (uint32_t i = 0; rc == 0 && i < made.shard_count; i++) {
        struct shard *shard = shard_at(&dict, i);
        memset((char *)shard, 0, SHARD_HEAD + made.bucket_count * sizeof(uint32_t));
        shard->fresh = shard->hand = 1;
        shard->soonest = shard->lap_soonest = UINT64_MAX;
        rc = pthread_mutex_init(&shard->lock, &attr);
    }
    pthread_mutexattr_destroy(&attr);
    if (rc != 0)
        return error_set(error, -rc, "cannot make a lock that processes share: %s", strerror(rc));
    memcpy(at, &made, sizeof made);
    return 0;
}

int dict_attach(struct dict *dict, void *at, size_t size, struct error *error) {
    struct region want, have;
    if (geometry(size, &want) < 0 || (uintptr_t)at % 8 != 0)
        return error_set(error, -EINVAL, "%zu bytes cannot be a dictionary: expected at least %d, aligned",
                         size, DICT_SIZE_MIN);
    memcpy(&have, at, sizeof have);
    if (memcmp(have.magic, magic, sizeof magic) != 0)
        return error_set(error, -EINVAL, "the memory holds no dictionary");
    if (have.version != want.version || have.lock_size != want.lock_size || have.cell_size != want.cell_size)
        return error_set(error, -EINVAL, "the dictionary is of version %u: expected %u", have.version,
                         want.version);
    if (have.size != size)
        return error_set(error, -EINVAL, "the dictionary has %llu bytes: expected %zu",
                         (unsigned long long)have.size, size);
    want.seed = have.seed;
    if (memcmp(&have, &want, sizeof have) != 0)
        return error_set(error, -EINVAL, "the dictionary's header contradicts its size");
    handle_init(dict, at, &have);
    return 0;
}
