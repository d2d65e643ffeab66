// SPDX-License-Identifier: BSD-2-Clause
// The dictionary behind gate.shared: bounded memory that all workers share and that survives the death of any
// of them at any instruction. The master makes the region (dict_format), every process attaches it at an
// address of its own; scripts use it through the script layer.
//
//   region  one shared mapping: a header and up to 16 shards; nothing in it is a pointer
//   shard   a lock, a hash table, an order of use and cells; a key's hash says which shard
//   cell    128 bytes; an entry is one head cell and as many more as its key and value need
//
// Whoever takes the lock of a shard whose last holder died rebuilds everything from the cells before going
// on: an entry then has its old value or its new one, or (only when it was being made or removed) is absent.
// No call of this file enters the kernel unless a lock is contended. Times are the caller's milliseconds of
// one clock that all processes share; it may stand still or go back.
#ifndef MOONGATE_BASE_DICT_H
#define MOONGATE_BASE_DICT_H

#include "base/error.h"
#include "base/slice.h"

enum {
    DICT_KEY_MAX = 250,
    DICT_VALUE_MAX = 65536,
    DICT_SIZE_MIN = 32768,
};

// A process's handle; copies are fine. The region must stay mapped for as long as it is used.
struct dict {
    char *base;
    uint64_t seed;
    uint64_t shard_size;
    uint32_t shard_count, bucket_count, cell_count, value_max;
};

//  X(name, documentation)
#define DICT_KINDS(X) \
    X(number, "a double") \
    X(boolean, "true or false") \
    X(text, "a string of bytes") \
    X(bucket, "a token bucket; only dict_take reads it") \
    X(list, "values in a row; only dict_push, dict_pop and dict_length read it")

enum dict_kind {
#define X(name, doc) DICT_##name,
    DICT_KINDS(X)
#undef X
};

struct dict_value {
    enum dict_kind kind;
    union {
        double number;
        bool boolean;
        struct slice text;
    };
};

//  X(name, documentation)
#define DICT_STATS(X) \
    X(entries, "entries held, expired ones that nobody has met included") \
    X(bytes, "bytes in cells that entries use") \
    X(capacity, "bytes in all cells") \
    X(hits, "gets that found a value") \
    X(misses, "gets that did not") \
    X(expired, "entries dropped because their time was over") \
    X(evictions, "live entries dropped to make room") \
    X(recoveries, "shards rebuilt because a process died while it changed them")

struct dict_stats {
#define X(name, doc) uint64_t name;
    DICT_STATS(X)
#undef X
};

// Makes an empty dictionary in `size` bytes (aligned to 8, at least DICT_SIZE_MIN); what was there is lost.
// -EINVAL with the reason.
int dict_format(void *region, size_t size, struct error *error) __attribute__((warn_unused_result));
// Uses a dictionary that dict_format made. -EINVAL with the reason when this is none, or another version's or
// size's.
int dict_attach(struct dict *dict, void *region, size_t size, struct error *error)
    __attribute__((warn_unused_result));

// All return -EINVAL for an empty key, -ENAMETOOLONG for one above DICT_KEY_MAX, -EIO when a lock is beyond
// repair.

// Copies the value; text goes to `buffer` (-ENOSPC when it has less than the value's length: DICT_VALUE_MAX
// always suffices). -ENOENT when there is none, -EINVAL for a token bucket or a list.
int dict_get(struct dict *dict, struct slice key, uint64_t now_ms, struct dict_value *ret_value, char *buffer,
             size_t room) __attribute__((warn_unused_result));
// Replaces whatever the key had. ttl_ms 0: until evicted. -E2BIG for text above dict->value_max, -EINVAL for
// a bucket or list as value.
int dict_set(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) __attribute__((warn_unused_result));
// dict_set, but -EEXIST when the key has a value.
int dict_add(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) __attribute__((warn_unused_result));
// dict_set, but -ENOENT when the key has no value.
int dict_replace(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
                 uint64_t now_ms) __attribute__((warn_unused_result));
// dict_set, or deletes (value NULL), if the key's value is `expected` (NULL: if it has none). -EAGAIN when
// not.
int dict_compare_and_set(struct dict *dict, struct slice key, const struct dict_value *expected,
                         const struct dict_value *value, uint64_t ttl_ms, uint64_t now_ms)
    __attribute__((warn_unused_result));
// Sets when whatever the key has will end, 0: never. -ENOENT when there is none, -EINVAL for a token bucket.
int dict_expire(struct dict *dict, struct slice key, uint64_t ttl_ms, uint64_t now_ms)
    __attribute__((warn_unused_result));
// How long until then, 0: for ever. Does not count as a use. Otherwise as dict_expire.
int dict_ttl(struct dict *dict, struct slice key, uint64_t now_ms, uint64_t *ret_ttl_ms)
    __attribute__((warn_unused_result));
// Adds to a number. An absent one is made as initial + delta with ttl_ms (an existing one keeps its time), or
// is -ENOENT when `initial` is NAN. -EINVAL when the key has no number.
int dict_incr(struct dict *dict, struct slice key, double delta, double initial, uint64_t ttl_ms,
              uint64_t now_ms, double *ret_value) __attribute__((warn_unused_result));
// A token bucket of `burst` tokens that fills with `rate` tokens a second: takes `cost` of them if they are
// there. *ret_wait_s is 0 when allowed, else the seconds until it would be (infinite when cost is above
// burst). -EINVAL for a rate, burst or cost that makes no sense or a key that has something else.
int dict_take(struct dict *dict, struct slice key, double rate, double burst, double cost, uint64_t now_ms,
              bool *ret_allowed, double *ret_wait_s) __attribute__((warn_unused_result));
// -ENOENT when there was nothing.
int dict_delete(struct dict *dict, struct slice key, uint64_t now_ms) __attribute__((warn_unused_result));

// A list has values at two ends and is one entry: at most dict->value_max bytes, of which each value needs
// LIST_OVERHEAD and its own (a number 8, a boolean 1). Each call costs a copy of the list.
enum { LIST_OVERHEAD = 9 };
enum dict_end { DICT_LEFT, DICT_RIGHT };
// An absent list is made, without an end. *ret_count is how many values it has then. -E2BIG when the list has
// no room, -EINVAL when the key has something else, or for a value that is not a number, boolean or text.
int dict_push(struct dict *dict, struct slice key, enum dict_end end, const struct dict_value *value,
              uint64_t now_ms, uint64_t *ret_count) __attribute__((warn_unused_result));
// Takes a value off; the last one takes the list with it. Text goes to `buffer`, which has DICT_VALUE_MAX
// bytes. -ENOENT when there is no list, -EINVAL when the key has something else.
int dict_pop(struct dict *dict, struct slice key, enum dict_end end, uint64_t now_ms,
             struct dict_value *ret_value, char *buffer) __attribute__((warn_unused_result));
// 0 when there is none; -EINVAL when the key has something else.
int dict_length(struct dict *dict, struct slice key, uint64_t now_ms, uint64_t *ret_count)
    __attribute__((warn_unused_result));

// Copies up to `most` keys that begin with `prefix`, each behind a byte with its length, to `buffer`, which
// has most * (1 + DICT_KEY_MAX) bytes; the last used of each shard come first. Returns how many there are;
// *ret_more says whether there were more. Looks at every entry if need be: a shard is locked for as long.
int dict_keys(struct dict *dict, struct slice prefix, uint32_t most, uint64_t now_ms, char *buffer,
              bool *ret_more) __attribute__((warn_unused_result));
int dict_flush(struct dict *dict) __attribute__((warn_unused_result));
int dict_get_stats(struct dict *dict, struct dict_stats *ret_stats) __attribute__((warn_unused_result));

// Walks everything and checks every rule of the structure; for tests and debugging. -EUCLEAN with what is
// wrong.
int dict_verify(struct dict *dict, struct error *error) __attribute__((warn_unused_result));

#ifdef DICT_FAULT
// Tests alone: called before each step that another process could find half done.
extern void (*dict_fault)(void);
#endif

#endif
