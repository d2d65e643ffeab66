// SPDX-License-Identifier: BSD-2-Clause
// The operations of the shared dictionary of dict.h: each checks its arguments, locks the key's shard, and
// does the rest with what dict_entry.c gives. How entries lie in memory and survive a death is
// dict_shard.h's.
#include "base/dict_shard.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#ifdef DICT_FAULT
void (*dict_fault)(void);
#endif

static int check_key(struct slice key) {
    return key.len == 0 ? -EINVAL : key.len > DICT_KEY_MAX ? -ENAMETOOLONG : 0;
}

int shard_open(const struct dict *dict, struct slice key, struct shard **ret_shard, uint32_t *ret_hash) {
    int rc = check_key(key);
    if (rc < 0)
        return rc;
    uint64_t hash = hash_of(dict, key);
    struct shard *shard = shard_of(dict, hash);
    rc = shard_lock(dict, shard);
    if (rc < 0)
        return rc;
    *ret_shard = shard;
    *ret_hash = (uint32_t)hash;
    return 0;
}

int dict_get(struct dict *dict, struct slice key, uint64_t now_ms, struct dict_value *ret_value, char *buffer,
             size_t room) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    if (!cell) {
        shard->misses++;
        shard_unlock(shard);
        return -ENOENT;
    }
    struct head *head = head_at(dict, shard, cell);
    struct dict_value value = { .kind = (enum dict_kind)head->kind };
    switch (value.kind) {
    case DICT_number:
        memcpy(&value.number, &head->word, sizeof value.number);
        break;
    case DICT_boolean:
        value.boolean = head->word != 0;
        break;
    case DICT_text:
        value.text = slice_make(buffer, head->value_len);
        if (head->value_len > room)
            rc = -ENOSPC;
        else if (head->value_len > 0 &&
                 !entry_copy(dict, shard, cell, head->key_len, buffer, head->value_len))
            rc = -EIO;
        break;
    case DICT_bucket:
    case DICT_list:
        rc = -EINVAL;
        break;
    }
    if (rc == 0) {
        shard->hits++;
        entry_touch(dict, shard, cell);
        *ret_value = value;
    }
    shard_unlock(shard);
    return rc;
}

static uint64_t expires_at(uint64_t now_ms, uint64_t ttl_ms) {
    uint64_t expires;
    if (ttl_ms == 0 || __builtin_add_overflow(now_ms, ttl_ms, &expires))
        return 0;
    return expires;
}

// What is to be stored for a value.
static int content_of(const struct dict *dict, const struct dict_value *value, uint64_t ttl_ms,
                      uint64_t now_ms, struct content *ret_content) {
    struct content content = { .kind = value->kind, .expires_ms = expires_at(now_ms, ttl_ms) };
    switch (value->kind) {
    case DICT_number:
        memcpy(&content.word, &value->number, sizeof value->number);
        break;
    case DICT_boolean:
        content.word = value->boolean;
        break;
    case DICT_text:
        if (value->text.len > dict->value_max)
            return -E2BIG;
        content.text = value->text;
        break;
    default:
        return -EINVAL;
    }
    *ret_content = content;
    return 0;
}

enum store { STORE_ALWAYS, STORE_NEW, STORE_OLD };

static int store(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
                 uint64_t now_ms, enum store when) {
    struct content content;
    struct shard *shard;
    uint32_t hash;
    int rc = content_of(dict, value, ttl_ms, now_ms, &content);
    if (rc == 0)
        rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    if (when == STORE_NEW && entry_find(dict, shard, hash, key, now_ms))
        rc = -EEXIST;
    else if (when == STORE_OLD && !entry_find(dict, shard, hash, key, now_ms))
        rc = -ENOENT;
    else
        rc = entry_store(dict, shard, hash, key, &content, now_ms);
    shard_unlock(shard);
    return rc;
}

int dict_set(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) {
    return store(dict, key, value, ttl_ms, now_ms, STORE_ALWAYS);
}

int dict_add(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) {
    return store(dict, key, value, ttl_ms, now_ms, STORE_NEW);
}

int dict_replace(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
                 uint64_t now_ms) {
    return store(dict, key, value, ttl_ms, now_ms, STORE_OLD);
}

static bool has_value(const struct dict *dict, struct shard *shard, uint32_t cell,
                      const struct dict_value *value) {
    static char bytes[DICT_VALUE_MAX];
    const struct head *head = head_at(dict, shard, cell);
    double number;
    if (head->kind != value->kind)
        return false;
    switch (value->kind) {
    case DICT_number:
        memcpy(&number, &head->word, sizeof number);
        return number == value->number;
    case DICT_boolean:
        return (head->word != 0) == value->boolean;
    case DICT_text:
        return head->value_len == value->text.len && head->value_len <= sizeof bytes &&
            (head->value_len == 0 ||
             (entry_copy(dict, shard, cell, head->key_len, bytes, head->value_len) &&
              memcmp(bytes, value->text.at, head->value_len) == 0));
    default:
        return false;
    }
}

int dict_compare_and_set(struct dict *dict, struct slice key, const struct dict_value *expected,
                         const struct dict_value *value, uint64_t ttl_ms, uint64_t now_ms) {
    struct content content;
    struct shard *shard;
    uint32_t hash;
    int rc = value ? content_of(dict, value, ttl_ms, now_ms, &content) : 0;
    if (rc == 0)
        rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    if (expected ? !cell || !has_value(dict, shard, cell, expected) : cell != 0)
        rc = -EAGAIN;
    else if (value)
        rc = entry_store(dict, shard, hash, key, &content, now_ms);
    else if (cell)
        entry_drop(dict, shard, cell);
    shard_unlock(shard);
    return rc;
}

int dict_expire(struct dict *dict, struct slice key, uint64_t ttl_ms, uint64_t now_ms) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    struct head *head = cell ? head_at(dict, shard, cell) : NULL;
    if (!head) {
        rc = -ENOENT;
    } else if (head->kind == DICT_bucket) {
        rc = -EINVAL;
    } else {
        STEP();
        __atomic_store_n(&head->expires_ms, expires_at(now_ms, ttl_ms), __ATOMIC_RELAXED);
        STEP();
        shard_note_expiry(shard, head);
        entry_touch(dict, shard, cell);
    }
    shard_unlock(shard);
    return rc;
}

int dict_ttl(struct dict *dict, struct slice key, uint64_t now_ms, uint64_t *ret_ttl_ms) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    const struct head *head = cell ? head_at(dict, shard, cell) : NULL;
    if (!head)
        rc = -ENOENT;
    else if (head->kind == DICT_bucket)
        rc = -EINVAL;
    else
        *ret_ttl_ms = head->expires_ms ? head->expires_ms - now_ms : 0;
    shard_unlock(shard);
    return rc;
}

int dict_incr(struct dict *dict, struct slice key, double delta, double initial, uint64_t ttl_ms,
              uint64_t now_ms, double *ret_value) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    double number = initial;
    uint64_t word;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    if (cell) {
        struct head *head = head_at(dict, shard, cell);
        if (head->kind == DICT_number) {
            memcpy(&number, &head->word, sizeof number);
            number += delta;
            memcpy(&word, &number, sizeof word);
            STEP();
            __atomic_store_n(&head->word, word, __ATOMIC_RELAXED);
            entry_touch(dict, shard, cell);
        } else {
            rc = -EINVAL;
        }
    } else if (isnan(initial)) {
        rc = -ENOENT;
    } else {
        number += delta;
        struct content content = { .kind = DICT_number, .expires_ms = expires_at(now_ms, ttl_ms) };
        memcpy(&content.word, &number, sizeof number);
        rc = entry_store(dict, shard, hash, key, &content, now_ms);
    }
    shard_unlock(shard);
    if (rc == 0)
        *ret_value = number;
    return rc;
}

// The bucket is kept as one time: when it would be full again. Taking moves that time into the future by what
// the tokens cost; it may not lie further ahead than an empty bucket takes to fill.
int dict_take(struct dict *dict, struct slice key, double rate, double burst, double cost, uint64_t now_ms,
              bool *ret_allowed, double *ret_wait_s) {
    const double longest = 1e18;  // nanoseconds, 31 years
    double fills_ns = burst * 1e9 / rate, costs_ns = cost * 1e9 / rate;
    if (!(rate > 0) || !(burst > 0) || !(cost >= 0) || !(fills_ns <= longest) || !isfinite(cost))
        return -EINVAL;
    if (cost > burst) {
        int rc = check_key(key);
        if (rc == 0) {
            *ret_allowed = false;
            *ret_wait_s = HUGE_VAL;
        }
        return rc;
    }
    const uint64_t latest_ms = 10000000000000u;  // so that the sums below fit
    uint64_t now = (now_ms < latest_ms ? now_ms : latest_ms) * 1000000u;
    uint64_t fills = (uint64_t)(fills_ns + 0.5), costs = (uint64_t)(costs_ns + 0.5);
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    struct head *head = cell ? head_at(dict, shard, cell) : NULL;
    uint64_t full = now;
    bool allowed = false;
    double wait_s = 0;
    if (head && head->kind != DICT_bucket) {
        rc = -EINVAL;
    } else {
        if (head && head->word > now)
            full = head->word;
        if (full - now > fills)
            full = now + fills;  // the clock went back, or the rule has changed: empty, but no emptier
        allowed = full + costs - now <= fills;
        if (!allowed)
            wait_s = (double)(full + costs - now - fills) / 1e9;
        else
            full += costs;
        if (head) {
            STEP();
            __atomic_store_n(&head->word, full, __ATOMIC_RELAXED);
            shard_note_expiry(shard, head);
            entry_touch(dict, shard, cell);
        } else if (costs > 0) {
            struct content content = { .kind = DICT_bucket, .word = full };
            rc = entry_store(dict, shard, hash, key, &content, now_ms);
        }
    }
    shard_unlock(shard);
    if (rc == 0) {
        *ret_allowed = allowed;
        *ret_wait_s = wait_s;
    }
    return rc;
}

int dict_delete(struct dict *dict, struct slice key, uint64_t now_ms) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    if (cell)
        entry_drop(dict, shard, cell);
    shard_unlock(shard);
    return cell ? 0 : -ENOENT;
}

int dict_flush(struct dict *dict) {
    for (uint32_t i = 0; i < dict->shard_count; i++) {
        struct shard *shard = shard_at(dict, i);
        int rc = shard_lock(dict, shard);
        if (rc < 0)
            return rc;
        STEP();
        shard->fresh = 1;  // no cell counts any more
        STEP();
        memset(bucket_at(dict, shard, 0), 0, dict->bucket_count * sizeof(uint32_t));
        STEP();
        shard->newest = shard->oldest = shard->free_list = shard->free_count = 0;
        shard->entries = shard->cells_used = 0;
        shard->hand = 1;
        shard->soonest = shard->lap_soonest = UINT64_MAX;
        shard_unlock(shard);
    }
    return 0;
}
