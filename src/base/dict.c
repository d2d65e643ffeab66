// SPDX-License-Identifier: BSD-2-Clause
// The shared dictionary of dict.h. Every change is a row of steps of which one commits; the cells alone say
// what holds, all else (hash chains, order of use, free list, counts) is made anew from them by
// shard_rebuild(). The rules that make this work:
//   - a cell that a valid head reaches through `next` is not written until the head is free
//   - a head becomes valid with one store after all else of the entry is written, and free with one before
//   - of two valid heads with one key (a death between the two halves of a replacement) the later used counts
//   - what changes in place (a number, a token bucket, the stamp of use) is one aligned word
#include "base/dict.h"

#include "base/check.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/random.h>
#include <time.h>

#ifdef DICT_FAULT
void (*dict_fault)(void);
#define STEP() \
    do { \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        if (dict_fault) \
            dict_fault(); \
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
    SHARDS_MAX = 16,
    SHARD_MIN = 262144,
    SWEEP = 64,  // cells looked at for expired entries when room is short
};

enum state {
    STATE_FREE,   // on the free list, or about to be
    STATE_MAKING, // a head that is not complete
    STATE_VALID,  // a complete head; the one state in which other fields mean something after a death
    STATE_TAIL,   // belongs to a head
};

struct head {
    uint32_t state, next;  // `next` of head and tail: the entry's next cell, or the next free one
    uint32_t hash, chain;  // the next head of the bucket
    uint32_t newer, older;
    uint64_t used;        // the shard's count of uses at the last one
    uint64_t expires_ms;  // 0: never
    uint64_t word;        // a double's bits, a boolean, or when the bucket will be full (nanoseconds)
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
    uint64_t soonest;   // no entry expires before this
    uint64_t lap_soonest;  // the same for what the hand has passed since its last lap began
    uint32_t hand;
    uint32_t fresh;     // cells from this on were never used
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

static const char magic[8] = "mgdict\r\n";

enum {
    VERSION = 1,
    REGION_HEAD = 256,  // bytes before the first shard
    SHARD_HEAD = 256,
};
_Static_assert(sizeof(struct region) <= REGION_HEAD && sizeof(struct shard) <= SHARD_HEAD, "headers fit");

// ---- geometry ----

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

static struct shard *shard_at(const struct dict *dict, uint32_t number) {
    return (struct shard *)(void *)(dict->base + REGION_HEAD + number * dict->shard_size);
}

static uint32_t *bucket_at(const struct dict *dict, struct shard *shard, uint32_t hash) {
    return (uint32_t *)(void *)((char *)shard + SHARD_HEAD) + (hash & (dict->bucket_count - 1));
}

static union cell *cell_at(const struct dict *dict, struct shard *shard, uint32_t number) {
    size_t table = ((size_t)dict->bucket_count * sizeof(uint32_t) + CELL_SIZE - 1) / CELL_SIZE * CELL_SIZE;
    return (union cell *)(void *)((char *)shard + SHARD_HEAD + table) + (number - 1);
}

static struct head *head_at(const struct dict *dict, struct shard *shard, uint32_t number) {
    return &cell_at(dict, shard, number)->head;
}

// ---- entries ----

static uint32_t cells_for(size_t bytes) {
    return bytes <= HEAD_BYTES ? 1 : 1 + (uint32_t)((bytes - HEAD_BYTES + TAIL_BYTES - 1) / TAIL_BYTES);
}

static uint32_t cells_of(const struct head *head) {
    return cells_for((size_t)head->key_len + head->value_len);
}

static uint64_t expiry_of(const struct head *head) {
    if (head->kind == DICT_bucket)
        return head->word / 1000000u + 1;  // a full bucket is as good as none
    return head->expires_ms ? head->expires_ms : UINT64_MAX;
}

// Where reading or writing an entry's bytes stands.
struct cursor {
    uint32_t cell;
    size_t at, room;
    char *bytes;
};

static struct cursor cursor_start(struct head *head, uint32_t cell) {
    return (struct cursor){ .cell = cell, .room = HEAD_BYTES, .bytes = head->bytes };
}

static bool cursor_next(const struct dict *dict, struct shard *shard, struct cursor *cursor) {
    uint32_t next = cell_at(dict, shard, cursor->cell)->tail.next;
    if (next == 0 || next > dict->cell_count)
        return false;
    *cursor =
        (struct cursor){ .cell = next, .room = TAIL_BYTES, .bytes = cell_at(dict, shard, next)->tail.bytes };
    return true;
}

static bool key_matches(const struct dict *dict, struct shard *shard, uint32_t cell, struct slice key) {
    struct head *head = head_at(dict, shard, cell);
    if (head->key_len != key.len)
        return false;
    if (key.len <= HEAD_BYTES)
        return memcmp(head->bytes, key.at, key.len) == 0;
    struct cursor cursor = cursor_start(head, cell);
    while (key.len > 0) {
        size_t n = key.len < cursor.room ? key.len : cursor.room;
        if (memcmp(cursor.bytes, key.at, n) != 0)
            return false;
        key = slice_from(key, n);
        if (key.len > 0 && !cursor_next(dict, shard, &cursor))
            return false;
    }
    return true;
}

// Copies key_len + value_len bytes from `skip` on; false when the entry is shorter than it says.
static bool bytes_copy(const struct dict *dict, struct shard *shard, uint32_t cell, size_t skip, char *to,
                       size_t len) {
    struct cursor cursor = cursor_start(head_at(dict, shard, cell), cell);
    for (;;) {
        size_t passed = skip < cursor.room ? skip : cursor.room;
        size_t n = cursor.room - passed < len ? cursor.room - passed : len;
        memcpy(to, cursor.bytes + passed, n);
        skip -= passed;
        to += n;
        len -= n;
        if (len == 0)
            return true;
        if (!cursor_next(dict, shard, &cursor))
            return false;
    }
}

// ---- order of use, hash chains, free cells ----

static void use_unlink(const struct dict *dict, struct shard *shard, struct head *head) {
    if (head->newer)
        head_at(dict, shard, head->newer)->older = head->older;
    else
        shard->newest = head->older;
    if (head->older)
        head_at(dict, shard, head->older)->newer = head->newer;
    else
        shard->oldest = head->newer;
}

static void use_link(const struct dict *dict, struct shard *shard, struct head *head, uint32_t cell) {
    head->newer = 0;
    head->older = shard->newest;
    STEP();
    if (shard->newest)
        head_at(dict, shard, shard->newest)->newer = cell;
    else
        shard->oldest = cell;
    STEP();
    shard->newest = cell;
}

static void touch(const struct dict *dict, struct shard *shard, uint32_t cell) {
    struct head *head = head_at(dict, shard, cell);
    head->used = ++shard->uses;
    if (shard->newest == cell)
        return;
    STEP();
    use_unlink(dict, shard, head);
    STEP();
    use_link(dict, shard, head, cell);
}

static uint32_t free_cells(const struct dict *dict, const struct shard *shard) {
    return shard->free_count + (dict->cell_count + 1 - shard->fresh);
}

// The caller made sure that there is one.
static uint32_t cell_take(const struct dict *dict, struct shard *shard, enum state state) {
    uint32_t cell = shard->free_list;
    if (cell) {
        shard->free_list = cell_at(dict, shard, cell)->tail.next;
        STEP();
        shard->free_count--;
    } else {
        cell = shard->fresh;
        // In this order: a rebuild looks at all cells below `fresh`, and this one was never written.
        cell_at(dict, shard, cell)->tail.state = STATE_FREE;
        STEP();
        shard->fresh = cell + 1;
    }
    STEP();
    cell_at(dict, shard, cell)->tail.state = state;
    cell_at(dict, shard, cell)->tail.next = 0;
    return cell;
}

static void entry_drop(const struct dict *dict, struct shard *shard, uint32_t cell) {
    struct head *head = head_at(dict, shard, cell);
    uint32_t left = cells_of(head);
    STEP();
    head->state = STATE_FREE;  // it is gone
    STEP();
    uint32_t *link = bucket_at(dict, shard, head->hash);
    while (*link && *link != cell)
        link = &head_at(dict, shard, *link)->chain;
    if (*link)
        *link = head->chain;
    STEP();
    use_unlink(dict, shard, head);
    STEP();
    shard->entries--;
    shard->cells_used -= left;
    for (; left > 0 && cell; left--) {
        struct tail *tail = &cell_at(dict, shard, cell)->tail;
        uint32_t next = tail->next;
        STEP();
        tail->state = STATE_FREE;
        tail->next = shard->free_list;
        STEP();
        shard->free_list = cell;
        shard->free_count++;
        cell = next;
    }
}

// The entry's head, 0 when there is none; one that has expired is dropped.
static uint32_t find(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                     uint64_t now_ms) {
    for (uint32_t cell = *bucket_at(dict, shard, hash); cell; cell = head_at(dict, shard, cell)->chain) {
        struct head *head = head_at(dict, shard, cell);
        if (head->hash != hash || !key_matches(dict, shard, cell, key))
            continue;
        if (expiry_of(head) > now_ms)
            return cell;
        shard->expired++;
        entry_drop(dict, shard, cell);
        return 0;
    }
    return 0;
}

// Lets the hand pass some cells and drops what has expired there.
static void sweep(const struct dict *dict, struct shard *shard, uint64_t now_ms) {
    for (int i = 0; i < SWEEP && now_ms >= shard->soonest; i++) {
        if (shard->hand >= shard->fresh) {
            shard->hand = 1;
            shard->soonest = shard->lap_soonest;
            shard->lap_soonest = UINT64_MAX;
            continue;
        }
        uint32_t cell = shard->hand++;
        struct head *head = head_at(dict, shard, cell);
        if (head->state != STATE_VALID)
            continue;
        uint64_t expires = expiry_of(head);
        if (expires <= now_ms) {
            shard->expired++;
            entry_drop(dict, shard, cell);
        } else if (expires < shard->lap_soonest) {
            shard->lap_soonest = expires;
        }
    }
}

static int make_room(const struct dict *dict, struct shard *shard, uint32_t need, uint64_t now_ms) {
    while (free_cells(dict, shard) < need) {
        sweep(dict, shard, now_ms);
        if (free_cells(dict, shard) >= need)
            break;
        if (!shard->oldest)
            return -ENOSPC;
        if (expiry_of(head_at(dict, shard, shard->oldest)) <= now_ms)
            shard->expired++;
        else
            shard->evictions++;
        entry_drop(dict, shard, shard->oldest);
    }
    return 0;
}

static void note_expiry(struct shard *shard, const struct head *head) {
    uint64_t expires = expiry_of(head);
    if (expires < shard->soonest)
        shard->soonest = expires;
    if (expires < shard->lap_soonest)
        shard->lap_soonest = expires;
}

struct content {
    enum dict_kind kind;
    uint64_t word;
    struct slice text;
    uint64_t expires_ms;
};

static void bytes_put(const struct dict *dict, struct shard *shard, struct cursor *cursor,
                      struct slice from) {
    while (from.len > 0) {
        if (cursor->at == cursor->room) {
            uint32_t cell = cell_take(dict, shard, STATE_TAIL);
            STEP();
            cell_at(dict, shard, cursor->cell)->tail.next = cell;
            struct tail *tail = &cell_at(dict, shard, cell)->tail;
            *cursor = (struct cursor){ .cell = cell, .room = TAIL_BYTES, .bytes = tail->bytes };
        }
        size_t n = cursor->room - cursor->at < from.len ? cursor->room - cursor->at : from.len;
        STEP();
        memcpy(cursor->bytes + cursor->at, from.at, n);
        cursor->at += n;
        from = slice_from(from, n);
    }
}

// Stores a new entry in place of any that the key has.
static int entry_store(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                       const struct content *content, uint64_t now_ms) {
    uint32_t need = cells_for(key.len + content->text.len);
    int rc = make_room(dict, shard, need, now_ms);
    if (rc < 0)
        return rc;
    uint32_t old = find(dict, shard, hash, key, now_ms);  // after make_room, which may have dropped it

    uint32_t cell = cell_take(dict, shard, STATE_MAKING);
    struct head *head = head_at(dict, shard, cell);
    STEP();
    head->hash = hash;
    head->used = ++shard->uses;
    head->expires_ms = content->expires_ms;
    head->word = content->word;
    head->value_len = (uint32_t)content->text.len;
    head->kind = (uint8_t)content->kind;
    head->key_len = (uint8_t)key.len;
    head->unused = 0;
    struct cursor cursor = cursor_start(head, cell);
    bytes_put(dict, shard, &cursor, key);
    bytes_put(dict, shard, &cursor, content->text);
    STEP();
    head->state = STATE_VALID;  // the new value holds
    STEP();
    uint32_t *bucket = bucket_at(dict, shard, hash);
    head->chain = *bucket;
    STEP();
    *bucket = cell;
    use_link(dict, shard, head, cell);
    shard->entries++;
    shard->cells_used += need;
    note_expiry(shard, head);
    STEP();
    if (old)
        entry_drop(dict, shard, old);
    return 0;
}

// ---- recovery ----

static struct slice key_copy(const struct dict *dict, struct shard *shard, uint32_t cell,
                             char buffer[DICT_KEY_MAX]) {
    struct head *head = head_at(dict, shard, cell);
    if (head->key_len == 0 || head->key_len > DICT_KEY_MAX ||
        !bytes_copy(dict, shard, cell, 0, buffer, head->key_len))
        return slice_make(NULL, 0);
    return slice_make(buffer, head->key_len);
}

static uint64_t hash_of(const struct dict *dict, struct slice key) {
    return slice_hash(key, dict->seed);
}

// Marks the tails of a head as its own. False, with nothing marked, when they are not all there for it.
static bool claim_tails(const struct dict *dict, struct shard *shard, uint32_t cell) {
    struct head *head = head_at(dict, shard, cell);
    uint32_t tails = cells_of(head) - 1, at = head->next, claimed = 0;
    if (head->value_len > dict->value_max || head->kind > DICT_bucket)
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
    struct slice key = key_copy(dict, shard, cell, buffer);
    if (key.len == 0 || (uint32_t)hash_of(dict, key) != head->hash)
        return false;
    uint32_t *link = bucket_at(dict, shard, head->hash);
    for (; *link; link = &head_at(dict, shard, *link)->chain) {
        struct head *other = head_at(dict, shard, *link);
        if (other->hash != head->hash || !key_matches(dict, shard, *link, key))
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

static int shard_lock(const struct dict *dict, struct shard *shard) {
    int rc = pthread_mutex_lock(&shard->lock);
    if (__builtin_expect(rc == 0, 1))
        return 0;
    if (rc != EOWNERDEAD)
        return -EIO;
    shard_rebuild(dict, shard);
    pthread_mutex_consistent(&shard->lock);
    return 0;
}

static void shard_unlock(struct shard *shard) {
    STEP();
    pthread_mutex_unlock(&shard->lock);
}

// ---- making and attaching ----

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

// ---- operations ----

static int check_key(struct slice key) {
    return key.len == 0 ? -EINVAL : key.len > DICT_KEY_MAX ? -ENAMETOOLONG : 0;
}

// Locks the shard of a key.
static int open_key(const struct dict *dict, struct slice key, struct shard **ret_shard, uint32_t *ret_hash) {
    int rc = check_key(key);
    if (rc < 0)
        return rc;
    uint64_t hash = hash_of(dict, key);
    struct shard *shard = shard_at(dict, (uint32_t)(hash >> 32) & (dict->shard_count - 1));
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
    int rc = open_key(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = find(dict, shard, hash, key, now_ms);
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
                 !bytes_copy(dict, shard, cell, head->key_len, buffer, head->value_len))
            rc = -EIO;
        break;
    case DICT_bucket:
        rc = -EINVAL;
        break;
    }
    if (rc == 0) {
        shard->hits++;
        touch(dict, shard, cell);
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

static int store(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
                 uint64_t now_ms, bool replace) {
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
    struct shard *shard;
    uint32_t hash;
    int rc = open_key(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    if (!replace && find(dict, shard, hash, key, now_ms))
        rc = -EEXIST;
    else
        rc = entry_store(dict, shard, hash, key, &content, now_ms);
    shard_unlock(shard);
    return rc;
}

int dict_set(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) {
    return store(dict, key, value, ttl_ms, now_ms, true);
}

int dict_add(struct dict *dict, struct slice key, const struct dict_value *value, uint64_t ttl_ms,
             uint64_t now_ms) {
    return store(dict, key, value, ttl_ms, now_ms, false);
}

int dict_incr(struct dict *dict, struct slice key, double delta, double initial, uint64_t ttl_ms,
              uint64_t now_ms, double *ret_value) {
    struct shard *shard;
    uint32_t hash;
    int rc = open_key(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    double number = initial;
    uint64_t word;
    uint32_t cell = find(dict, shard, hash, key, now_ms);
    if (cell) {
        struct head *head = head_at(dict, shard, cell);
        if (head->kind == DICT_number) {
            memcpy(&number, &head->word, sizeof number);
            number += delta;
            memcpy(&word, &number, sizeof word);
            STEP();
            __atomic_store_n(&head->word, word, __ATOMIC_RELAXED);
            touch(dict, shard, cell);
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
    int rc = open_key(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = find(dict, shard, hash, key, now_ms);
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
            note_expiry(shard, head);
            touch(dict, shard, cell);
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
    int rc = open_key(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = find(dict, shard, hash, key, now_ms);
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

// ---- verification ----

#define REQUIRE(cond) \
    do { \
        if (!(cond)) \
            return error_set(error, -EUCLEAN, "\"%s\" does not hold (line %d)", #cond, __LINE__); \
    } while (0)

static int verify_entry(struct dict *dict, struct shard *shard, uint32_t cell, struct error *error) {
    char buffer[DICT_KEY_MAX];
    struct head *head = head_at(dict, shard, cell);
    REQUIRE(head->state == STATE_VALID);
    REQUIRE(head->kind <= DICT_bucket);
    REQUIRE(head->kind == DICT_text || head->value_len == 0);
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
    struct slice key = key_copy(dict, shard, cell, buffer);
    REQUIRE(key.len > 0);
    REQUIRE((uint32_t)hash_of(dict, key) == head->hash);
    REQUIRE(shard_at(dict, (uint32_t)(hash_of(dict, key) >> 32) & (dict->shard_count - 1)) == shard);
    uint32_t found = 0;
    for (uint32_t other = *bucket_at(dict, shard, head->hash); other;
         other = head_at(dict, shard, other)->chain)
        found += key_matches(dict, shard, other, key);
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
