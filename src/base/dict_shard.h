// SPDX-License-Identifier: BSD-2-Clause
// The inside of the shared dictionary of dict.h: how a region, its shards and their cells lie in memory. For
// the dict*.c files alone:
//   dict.c          the operations
//   dict_list.c     those on lists
//   dict_entry.c    what they are made of: finding, storing and dropping an entry of a locked shard
//   dict_rebuild.c  the lock, and what its next holder does when the last one died
//   dict_region.c   making and attaching a region
//   dict_verify.c   the figures of a dictionary and the check of every rule
//
// Every change is a row of steps of which one commits; the cells alone say what holds, all else (hash chains,
// order of use, free list, counts) is made anew from them by shard_lock(). The rules that make this work:
//   - a cell that a valid head reaches through `next` is not written until the head is free
//   - a head becomes valid with one store after all else of the entry is written, and free with one before
//   - of two valid heads with one key (a death between the two halves of a replacement) the later used counts
//   - what changes in place (a number, a token bucket, the stamp of use) is one aligned word
#ifndef MOONGATE_BASE_DICT_SHARD_H
#define MOONGATE_BASE_DICT_SHARD_H

#include "base/dict.h"

#include <pthread.h>

// Stands before each step that another process could find half done.
#ifdef DICT_FAULT
#define STEP()                                   \
    do {                                         \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        if (dict_fault)                          \
            dict_fault();                        \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
    } while (0)
#else
// A killed process has done every store before some instruction and none after it, so the compiler's order is
// all that must be kept.
#define STEP() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#endif

enum {
    CELL_SIZE = 128,
    HEAD_BYTES = 72,
    TAIL_BYTES = 120,
};

enum cell_state {
    STATE_FREE,    // on the free list, or about to be
    STATE_MAKING,  // a head that is not complete
    STATE_VALID,   // a complete head; the one state in which other fields mean something after a death
    STATE_TAIL,    // belongs to a head
};

struct head {
    uint32_t state, next;  // `next` of head and tail: the entry's next cell, or the next free one
    uint32_t hash, chain;  // the next head of the bucket
    uint32_t newer, older;
    uint64_t used;        // the shard's count of uses at the last one
    uint64_t expires_ms;  // 0: never
    uint64_t word;        // a double's bits, a boolean, when the bucket will be full (ns), a list's count
    uint32_t value_len;
    uint8_t kind, key_len;
    uint16_t unused;
    char bytes[HEAD_BYTES];  // the key, then text; goes on in the tails
};

struct tail {
    uint32_t state, next;
    char bytes[TAIL_BYTES];
};

union cell {
    struct head head;
    struct tail tail;
};
_Static_assert(sizeof(union cell) == CELL_SIZE, "a cell is two cache lines");

// Cells are numbered from 1; 0 is none.
struct shard {
    pthread_mutex_t lock;
    uint64_t uses;
    uint64_t soonest;      // no entry expires before this
    uint64_t lap_soonest;  // the same for what the hand has passed since its last lap began
    uint32_t hand;
    uint32_t fresh;  // cells from this on were never used
    uint32_t free_list, free_count;
    uint32_t newest, oldest;
    uint64_t entries, cells_used;
    uint64_t hits, misses, expired, evictions, recoveries;
};

struct region {
    char magic[8];
    uint32_t version, shard_count;
    uint64_t size, seed, shard_size;
    uint32_t bucket_count, cell_count, lock_size, cell_size;
};

enum {
    REGION_HEAD = 256,  // bytes before the first shard
    SHARD_HEAD = 256,
};
_Static_assert(sizeof(struct region) <= REGION_HEAD && sizeof(struct shard) <= SHARD_HEAD, "headers fit");

// ---- where things are ----

static inline struct shard *shard_at(const struct dict *dict, uint32_t number) {
    return (struct shard *)(void *)(dict->base + REGION_HEAD + number * dict->shard_size);
}

static inline uint32_t *bucket_at(const struct dict *dict, struct shard *shard, uint32_t hash) {
    return (uint32_t *)(void *)((char *)shard + SHARD_HEAD) + (hash & (dict->bucket_count - 1));
}

static inline union cell *cell_at(const struct dict *dict, struct shard *shard, uint32_t number) {
    size_t table = ((size_t)dict->bucket_count * sizeof(uint32_t) + CELL_SIZE - 1) / CELL_SIZE * CELL_SIZE;
    return (union cell *)(void *)((char *)shard + SHARD_HEAD + table) + (number - 1);
}

static inline struct head *head_at(const struct dict *dict, struct shard *shard, uint32_t number) {
    return &cell_at(dict, shard, number)->head;
}

static inline uint64_t hash_of(const struct dict *dict, struct slice key) {
    return slice_hash(key, dict->seed);
}

// The shard of a key with this hash; its bucket comes from the lower half.
static inline struct shard *shard_of(const struct dict *dict, uint64_t hash) {
    return shard_at(dict, (uint32_t)(hash >> 32) & (dict->shard_count - 1));
}

// ---- entries ----

static inline uint32_t cells_for(size_t bytes) {
    return bytes <= HEAD_BYTES ? 1 : 1 + (uint32_t)((bytes - HEAD_BYTES + TAIL_BYTES - 1) / TAIL_BYTES);
}

static inline uint32_t cells_of(const struct head *head) {
    return cells_for((size_t)head->key_len + head->value_len);
}

static inline uint64_t expiry_of(const struct head *head) {
    if (head->kind == DICT_bucket)
        return head->word / 1000000u + 1;  // a full bucket is as good as none
    return head->expires_ms ? head->expires_ms : UINT64_MAX;
}

// Takes the shard's lock, after its repair when the last holder died. -EIO when that is impossible.
int shard_lock(const struct dict *dict, struct shard *shard);
void shard_unlock(struct shard *shard);

// A shard must be locked for all of these but shard_open. Its entries are named by the numbers of their head
// cells.

// Whether the entry's key is this one.
bool entry_has_key(const struct dict *dict, struct shard *shard, uint32_t cell, struct slice key);
// Copies `len` bytes of key and value from `skip` on; false when the entry is shorter than it says.
bool entry_copy(const struct dict *dict, struct shard *shard, uint32_t cell, size_t skip, char *to,
                size_t len);
// The key, copied to `buffer`; empty when the entry is broken.
struct slice entry_key(const struct dict *dict, struct shard *shard, uint32_t cell,
                       char buffer[DICT_KEY_MAX]);

// The entry's head, 0 when there is none; one that has expired is dropped.
uint32_t entry_find(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                    uint64_t now_ms);
// Makes it the last used one.
void entry_touch(const struct dict *dict, struct shard *shard, uint32_t cell);
void entry_drop(const struct dict *dict, struct shard *shard, uint32_t cell);

// -EINVAL for an empty key, -ENAMETOOLONG; otherwise locks the key's shard, as shard_lock.
int shard_open(const struct dict *dict, struct slice key, struct shard **ret_shard, uint32_t *ret_hash);

struct content {
    enum dict_kind kind;
    uint64_t word;
    struct slice text;
    uint64_t expires_ms;
};
// Stores a new entry in place of any that the key has, and drops others until it has room. -ENOSPC.
int entry_store(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                const struct content *content, uint64_t now_ms);
// To be called when an entry's time of expiry was set.
void shard_note_expiry(struct shard *shard, const struct head *head);

#endif
