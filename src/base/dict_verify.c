// SPDX-License-Identifier: BSD-2-Clause
// Looking at a whole dictionary: its figures, its keys, and the check of every rule of dict_shard.h.
#include "base/dict_shard.h"

#include <errno.h>

int dict_get_stats(struct dict *dict, struct dict_stats *ret_stats) {
    struct dict_stats stats = { .capacity = (uint64_t)dict->cell_count * CELL_SIZE * dict->shard_count };
    for (uint32_t i = 0; i < dict->shard_count; i++) {
        struct shard *shard = shard_at(dict, i);
        int rc = shard_lock(dict, shard);
        if (rc < 0)
            return rc;
        stats.entries += shard->entries;
        stats.bytes += shard->cells_used * CELL_SIZE;
        stats.hits += shard->hits;
        stats.misses += shard->misses;
        stats.expired += shard->expired;
        stats.evictions += shard->evictions;
        stats.recoveries += shard->recoveries;
        shard_unlock(shard);
    }
    *ret_stats = stats;
    return 0;
}

int dict_keys(struct dict *dict, struct slice prefix, uint32_t most, uint64_t now_ms, char *buffer,
              bool *ret_more) {
    uint32_t count = 0;
    *ret_more = false;
    for (uint32_t i = 0; i < dict->shard_count && !*ret_more; i++) {
        struct shard *shard = shard_at(dict, i);
        int rc = shard_lock(dict, shard);
        if (rc < 0)
            return rc;
        for (uint32_t cell = shard->newest; cell; cell = head_at(dict, shard, cell)->older) {
            char bytes[DICT_KEY_MAX];
            if (expiry_of(head_at(dict, shard, cell)) <= now_ms)
                continue;
            struct slice key = entry_key(dict, shard, cell, bytes);
            if (key.len == 0 || !slice_starts(key, prefix))
                continue;
            if (count == most) {
                *ret_more = true;
                break;
            }
            *buffer++ = (char)key.len;
            memcpy(buffer, key.at, key.len);
            buffer += key.len;
            count++;
        }
        shard_unlock(shard);
    }
    return (int)count;
}

#define REQUIRE(cond)                                                                             \
    do {                                                                                          \
        if (!(cond))                                                                              \
            return error_set(error, -EUCLEAN, "\"%s\" does not hold (line %d)", #cond, __LINE__); \
    } while (0)

static int verify_entry(struct dict *dict, struct shard *shard, uint32_t cell, struct error *error) {
    char buffer[DICT_KEY_MAX];
    struct head *head = head_at(dict, shard, cell);
    REQUIRE(head->state == STATE_VALID);
    REQUIRE(head->kind <= DICT_list);
    REQUIRE(head->kind == DICT_text || head->kind == DICT_list || head->value_len == 0);
    REQUIRE(head->value_len <= dict->value_max);
    REQUIRE(head->used <= shard->uses);
    REQUIRE(expiry_of(head) >= shard->soonest);
    uint32_t at = head->next;
    for (uint32_t tails = cells_of(head) - 1; tails > 0; tails--) {
        REQUIRE(at > 0 && at < shard->fresh);
        REQUIRE(cell_at(dict, shard, at)->tail.state == STATE_TAIL);
        at = cell_at(dict, shard, at)->tail.next;
    }
    REQUIRE(at == 0);
    struct slice key = entry_key(dict, shard, cell, buffer);
    REQUIRE(key.len > 0);
    REQUIRE((uint32_t)hash_of(dict, key) == head->hash);
    REQUIRE(shard_of(dict, hash_of(dict, key)) == shard);
    uint32_t found = 0;
    for (uint32_t other = *bucket_at(dict, shard, head->hash); other;
         other = head_at(dict, shard, other)->chain)
        found += entry_has_key(dict, shard, other, key);
    REQUIRE(found == 1);
    return 0;
}

static int verify_shard(struct dict *dict, struct shard *shard, struct error *error) {
    uint64_t valid = 0, cells = 0, free_count = 0, listed = 0, chained = 0;
    REQUIRE(shard->fresh >= 1 && shard->fresh <= dict->cell_count + 1);
    for (uint32_t cell = 1; cell < shard->fresh; cell++) {
        struct head *head = head_at(dict, shard, cell);
        REQUIRE(head->state == STATE_FREE || head->state == STATE_VALID || head->state == STATE_TAIL);
        free_count += head->state == STATE_FREE;
        if (head->state != STATE_VALID)
            continue;
        int rc = verify_entry(dict, shard, cell, error);
        if (rc < 0)
            return rc;
        valid++;
        cells += cells_of(head);
    }
    REQUIRE(valid == shard->entries);
    REQUIRE(cells == shard->cells_used);
    REQUIRE(free_count == shard->free_count);
    REQUIRE(cells + free_count + 1 == shard->fresh);  // so every tail belongs to one head
    for (uint32_t cell = shard->free_list; cell; cell = cell_at(dict, shard, cell)->tail.next) {
        REQUIRE(cell < shard->fresh && cell_at(dict, shard, cell)->tail.state == STATE_FREE);
        REQUIRE(++listed <= free_count);
    }
    REQUIRE(listed == free_count);
    listed = 0;
    uint32_t newer = 0;
    uint64_t used = UINT64_MAX;
    for (uint32_t cell = shard->newest; cell; cell = head_at(dict, shard, cell)->older) {
        struct head *head = head_at(dict, shard, cell);
        REQUIRE(head->state == STATE_VALID && head->newer == newer && head->used < used);
        REQUIRE(++listed <= valid);
        newer = cell;
        used = head->used;
    }
    REQUIRE(listed == valid && shard->oldest == newer);
    for (uint32_t bucket = 0; bucket < dict->bucket_count; bucket++)
        for (uint32_t cell = *bucket_at(dict, shard, bucket); cell;
             cell = head_at(dict, shard, cell)->chain) {
            REQUIRE(cell < shard->fresh && head_at(dict, shard, cell)->state == STATE_VALID);
            REQUIRE(++chained <= valid);
        }
    REQUIRE(chained == valid);
    return 0;
}

int dict_verify(struct dict *dict, struct error *error) {
    for (uint32_t i = 0; i < dict->shard_count; i++) {
        struct shard *shard = shard_at(dict, i);
        int rc = shard_lock(dict, shard);
        if (rc < 0)
            return error_set(error, rc, "shard %u: its lock is beyond repair", i);
        rc = verify_shard(dict, shard, error);
        shard_unlock(shard);
        if (rc < 0)
            return error_prefix(error, rc, "shard %u", i);
    }
    return 0;
}
