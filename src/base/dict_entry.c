// SPDX-License-Identifier: BSD-2-Clause
// The entries of one locked shard: finding, storing, dropping, and the order of use, hash chains and free
// cells that this moves. The rules of dict_shard.h hold after every step. Called by dict.c, dict_rebuild.c
// and dict_verify.c.
#include "base/dict_shard.h"

#include <errno.h>
#include <string.h>

enum { SWEEP = 64 };  // cells looked at for expired entries when room is short

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

bool entry_has_key(const struct dict *dict, struct shard *shard, uint32_t cell, struct slice key) {
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

bool entry_copy(const struct dict *dict, struct shard *shard, uint32_t cell, size_t skip, char *to,
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

struct slice entry_key(const struct dict *dict, struct shard *shard, uint32_t cell,
                       char buffer[DICT_KEY_MAX]) {
    struct head *head = head_at(dict, shard, cell);
    if (head->key_len == 0 || head->key_len > DICT_KEY_MAX ||
        !entry_copy(dict, shard, cell, 0, buffer, head->key_len))
        return slice_make(NULL, 0);
    return slice_make(buffer, head->key_len);
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

void entry_touch(const struct dict *dict, struct shard *shard, uint32_t cell) {
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
static uint32_t cell_take(const struct dict *dict, struct shard *shard, enum cell_state state) {
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

void entry_drop(const struct dict *dict, struct shard *shard, uint32_t cell) {
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

uint32_t entry_find(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                    uint64_t now_ms) {
    for (uint32_t cell = *bucket_at(dict, shard, hash); cell; cell = head_at(dict, shard, cell)->chain) {
        struct head *head = head_at(dict, shard, cell);
        if (head->hash != hash || !entry_has_key(dict, shard, cell, key))
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

void shard_note_expiry(struct shard *shard, const struct head *head) {
    uint64_t expires = expiry_of(head);
    if (expires < shard->soonest)
        shard->soonest = expires;
    if (expires < shard->lap_soonest)
        shard->lap_soonest = expires;
}

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

int entry_store(const struct dict *dict, struct shard *shard, uint32_t hash, struct slice key,
                const struct content *content, uint64_t now_ms) {
    uint32_t need = cells_for(key.len + content->text.len);
    int rc = make_room(dict, shard, need, now_ms);
    if (rc < 0)
        return rc;
    uint32_t old = entry_find(dict, shard, hash, key, now_ms);  // after make_room, which may have dropped it

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
    shard_note_expiry(shard, head);
    STEP();
    if (old)
        entry_drop(dict, shard, old);
    return 0;
}
