// SPDX-License-Identifier: BSD-2-Clause
// The lock of a shard. Whoever takes it from a holder that died makes hash chains, order of use, free list
// and counts anew from the cells before going on: after that every rule of dict_shard.h holds.
#include "base/dict_shard.h"

#include <errno.h>
#include <string.h>

// Marks the tails of a head as its own. False, with nothing marked, when they are not all there for it.
static bool claim_tails(const struct dict *dict, struct shard *shard, uint32_t cell) {
    struct head *head = head_at(dict, shard, cell);
    uint32_t tails = cells_of(head) - 1, at = head->next, claimed = 0;
    if (head->value_len > dict->value_max || head->kind > DICT_list)
        return false;
    while (claimed < tails && at > 0 && at < shard->fresh &&
           cell_at(dict, shard, at)->tail.state == STATE_FREE) {
        cell_at(dict, shard, at)->tail.state = STATE_TAIL;
        at = cell_at(dict, shard, at)->tail.next;
        claimed++;
    }
    if (claimed == tails)
        return true;
    for (at = head->next; claimed > 0; claimed--) {
        cell_at(dict, shard, at)->tail.state = STATE_FREE;
        at = cell_at(dict, shard, at)->tail.next;
    }
    return false;
}

static void unclaim(const struct dict *dict, struct shard *shard, uint32_t cell) {
    struct head *head = head_at(dict, shard, cell);
    uint32_t at = head->next;
    head->state = STATE_FREE;
    STEP();
    for (uint32_t tails = cells_of(head) - 1; tails > 0; tails--) {
        cell_at(dict, shard, at)->tail.state = STATE_FREE;
        at = cell_at(dict, shard, at)->tail.next;
    }
}

// Hangs a valid head into its bucket, or settles which of two with one key stays. Returns whether the head
// stays.
static bool relink(const struct dict *dict, struct shard *shard, uint32_t cell) {
    char buffer[DICT_KEY_MAX];
    struct head *head = head_at(dict, shard, cell);
    struct slice key = entry_key(dict, shard, cell, buffer);
    if (key.len == 0 || (uint32_t)hash_of(dict, key) != head->hash)
        return false;
    uint32_t *link = bucket_at(dict, shard, head->hash);
    for (; *link; link = &head_at(dict, shard, *link)->chain) {
        struct head *other = head_at(dict, shard, *link);
        if (other->hash != head->hash || !entry_has_key(dict, shard, *link, key))
            continue;
        if (other->used > head->used)
            return false;
        uint32_t loser = *link;
        *link = other->chain;
        unclaim(dict, shard, loser);
        break;
    }
    uint32_t *bucket = bucket_at(dict, shard, head->hash);
    head->chain = *bucket;
    *bucket = cell;
    return true;
}

// Joins two lists (through `older`, newest first) into one.
static uint32_t merge(const struct dict *dict, struct shard *shard, uint32_t a, uint32_t b) {
    uint32_t first = 0, *end = &first;
    while (a && b) {
        uint32_t *newer = head_at(dict, shard, a)->used >= head_at(dict, shard, b)->used ? &a : &b;
        *end = *newer;
        end = &head_at(dict, shard, *newer)->older;
        *newer = *end;
    }
    *end = a ? a : b;
    return first;
}

// The order of use, sorted anew: lists of 1, 2, 4, ... heads are joined as they come up.
static void reorder(const struct dict *dict, struct shard *shard) {
    uint32_t lists[32] = { 0 }, all = 0;
    for (uint32_t cell = 1; cell < shard->fresh; cell++) {
        struct head *head = head_at(dict, shard, cell);
        if (head->state != STATE_VALID)
            continue;
        head->older = 0;
        uint32_t list = cell;
        int i = 0;
        for (; i < 31 && lists[i]; i++) {
            list = merge(dict, shard, lists[i], list);
            lists[i] = 0;
        }
        lists[i] = lists[i] ? merge(dict, shard, lists[i], list) : list;
    }
    for (int i = 0; i < 32; i++)
        all = merge(dict, shard, all, lists[i]);
    shard->newest = all;
    shard->oldest = 0;
    for (uint32_t cell = all; cell; cell = head_at(dict, shard, cell)->older) {
        head_at(dict, shard, cell)->newer = shard->oldest;
        shard->oldest = cell;
    }
}

// Makes all but the cells anew. Dying here is harmless: the next one begins again.
static void shard_rebuild(const struct dict *dict, struct shard *shard) {
    if (shard->fresh < 1 || shard->fresh > dict->cell_count + 1)
        shard->fresh = dict->cell_count + 1;
    memset(bucket_at(dict, shard, 0), 0, dict->bucket_count * sizeof(uint32_t));
    STEP();
    for (uint32_t cell = 1; cell < shard->fresh; cell++) {
        struct tail *tail = &cell_at(dict, shard, cell)->tail;
        if (tail->state != STATE_VALID)
            tail->state = STATE_FREE;
    }
    STEP();
    uint64_t uses = shard->uses;
    for (uint32_t cell = 1; cell < shard->fresh; cell++) {
        struct head *head = head_at(dict, shard, cell);
        if (head->state != STATE_VALID)
            continue;
        if (!claim_tails(dict, shard, cell))
            head->state = STATE_FREE;
        else if (!relink(dict, shard, cell))
            unclaim(dict, shard, cell);
        else if (head->used > uses)
            uses = head->used;
        STEP();
    }
    reorder(dict, shard);
    STEP();
    shard->uses = uses;
    shard->free_list = shard->free_count = 0;
    shard->entries = shard->cells_used = 0;
    for (uint32_t cell = 1; cell < shard->fresh; cell++) {
        struct tail *tail = &cell_at(dict, shard, cell)->tail;
        if (tail->state == STATE_FREE) {
            tail->next = shard->free_list;
            shard->free_list = cell;
            shard->free_count++;
        } else if (tail->state == STATE_VALID) {
            shard->entries++;
            shard->cells_used += cells_of(head_at(dict, shard, cell));
        }
    }
    shard->hand = 1;
    shard->soonest = 0;  // unknown: the hand finds out
    shard->lap_soonest = UINT64_MAX;
    shard->recoveries++;
}

int shard_lock(const struct dict *dict, struct shard *shard) {
    int rc = pthread_mutex_lock(&shard->lock);
    if (__builtin_expect(rc == 0, 1))
        return 0;
    if (rc != EOWNERDEAD)
        return -EIO;
    shard_rebuild(dict, shard);
    pthread_mutex_consistent(&shard->lock);
    return 0;
}

void shard_unlock(struct shard *shard) {
    STEP();
    pthread_mutex_unlock(&shard->lock);
}
