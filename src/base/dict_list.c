// SPDX-License-Identifier: BSD-2-Clause
// Lists in the shared dictionary of dict.h. A list is one entry like a text, so that all that holds for texts
// (dict_shard.h) holds for lists: a change stores it anew, and a death leaves the old one or the new one. Its
// bytes are its values in order, each as
//     kind (1 byte), length (4 bytes), bytes, length again (so that the list can be read from its right end)
#include "base/dict_shard.h"

#include <errno.h>
#include <string.h>

enum { FRONT = 5, BACK = 4 };
_Static_assert(FRONT + BACK == LIST_OVERHEAD, "what dict.h says");

// The list at hand, with room for one more value on either side: a value is never longer than a list may be.
static char bytes[3 * DICT_VALUE_MAX];

struct list_entry {
    struct shard *shard;
    uint32_t hash, cell;  // 0: there is none
    uint64_t count, expires_ms;
    struct slice values;  // in `bytes`
};

// Locks the shard; not when it fails.
static int list_open(struct dict *dict, struct slice key, uint64_t now_ms, struct list_entry *list) {
    *list = (struct list_entry){ .values = slice_make(bytes + DICT_VALUE_MAX, 0) };
    int rc = shard_open(dict, key, &list->shard, &list->hash);
    if (rc < 0)
        return rc;
    list->cell = entry_find(dict, list->shard, list->hash, key, now_ms);
    if (!list->cell)
        return 0;
    const struct head *head = head_at(dict, list->shard, list->cell);
    if (head->kind != DICT_list) {
        rc = -EINVAL;
    } else if (head->value_len > DICT_VALUE_MAX ||
               !entry_copy(dict, list->shard, list->cell, head->key_len, bytes + DICT_VALUE_MAX,
                           head->value_len)) {
        rc = -EIO;
    } else {
        list->count = head->word;
        list->expires_ms = head->expires_ms;
        list->values.len = head->value_len;
    }
    if (rc < 0)
        shard_unlock(list->shard);
    return rc;
}

static int list_store(struct dict *dict, struct slice key, const struct list_entry *list, uint64_t now_ms) {
    struct content content = {
        .kind = DICT_list, .word = list->count, .text = list->values, .expires_ms = list->expires_ms
    };
    return entry_store(dict, list->shard, list->hash, key, &content, now_ms);
}

int dict_push(struct dict *dict, struct slice key, enum dict_end end, const struct dict_value *value,
              uint64_t now_ms, uint64_t *ret_count) {
    struct slice from;
    char boolean = value->kind == DICT_boolean && value->boolean;
    switch (value->kind) {
    case DICT_number:
        from = slice_make((const char *)&value->number, sizeof value->number);
        break;
    case DICT_boolean:
        from = slice_make(&boolean, 1);
        break;
    case DICT_text:
        from = value->text;
        break;
    default:
        return -EINVAL;
    }
    if (from.len + LIST_OVERHEAD > dict->value_max)
        return -E2BIG;
    struct list_entry list;
    int rc = list_open(dict, key, now_ms, &list);
    if (rc < 0)
        return rc;
    uint32_t len = (uint32_t)from.len;
    size_t adds = from.len + LIST_OVERHEAD;
    if (list.values.len + adds > dict->value_max) {
        shard_unlock(list.shard);
        return -E2BIG;
    }
    char *at = bytes + DICT_VALUE_MAX + list.values.len;
    if (end == DICT_LEFT) {
        at = bytes + DICT_VALUE_MAX - adds;
        list.values.at = at;
    }
    at[0] = (char)value->kind;
    memcpy(at + 1, &len, sizeof len);
    if (len > 0)
        memcpy(at + FRONT, from.at, len);
    memcpy(at + FRONT + len, &len, sizeof len);
    list.values.len += adds;
    list.count++;
    rc = list_store(dict, key, &list, now_ms);
    shard_unlock(list.shard);
    if (rc == 0)
        *ret_count = list.count;
    return rc;
}

// Takes the value at one end off list->values; false when its bytes make no sense.
static bool take_value(struct list_entry *list, enum dict_end end, enum dict_kind *ret_kind,
                       struct slice *ret_bytes) {
    struct slice values = list->values;
    uint32_t len;
    if (values.len < LIST_OVERHEAD)
        return false;
    memcpy(&len, end == DICT_LEFT ? values.at + 1 : values.at + values.len - BACK, sizeof len);
    if (len > values.len - LIST_OVERHEAD)
        return false;
    size_t whole = len + (size_t)LIST_OVERHEAD;
    const char *at = end == DICT_LEFT ? values.at : values.at + values.len - whole;
    *ret_kind = (enum dict_kind)(unsigned char)at[0];
    *ret_bytes = slice_make(at + FRONT, len);
    list->values = end == DICT_LEFT ? slice_from(values, whole) : slice_make(values.at, values.len - whole);
    list->count--;
    return true;
}

static int read_value(enum dict_kind kind, struct slice from, struct dict_value *ret_value, char *buffer) {
    struct dict_value value = { .kind = kind };
    if (kind == DICT_number && from.len == sizeof value.number) {
        memcpy(&value.number, from.at, sizeof value.number);
    } else if (kind == DICT_boolean && from.len == 1) {
        value.boolean = from.at[0] != 0;
    } else if (kind == DICT_text) {
        memcpy(buffer, from.at, from.len);
        value.text = slice_make(buffer, from.len);
    } else {
        return -EIO;
    }
    *ret_value = value;
    return 0;
}

int dict_pop(struct dict *dict, struct slice key, enum dict_end end, uint64_t now_ms,
             struct dict_value *ret_value, char *buffer) {
    struct list_entry list;
    enum dict_kind kind;
    struct slice taken;
    int rc = list_open(dict, key, now_ms, &list);
    if (rc < 0)
        return rc;
    if (!list.cell)
        rc = -ENOENT;
    else if (!take_value(&list, end, &kind, &taken))
        rc = -EIO;
    else
        rc = read_value(kind, taken, ret_value, buffer);
    if (rc == 0 && list.count > 0)
        rc = list_store(dict, key, &list, now_ms);
    else if (rc == 0)
        entry_drop(dict, list.shard, list.cell);
    shard_unlock(list.shard);
    return rc;
}

int dict_length(struct dict *dict, struct slice key, uint64_t now_ms, uint64_t *ret_count) {
    struct shard *shard;
    uint32_t hash;
    int rc = shard_open(dict, key, &shard, &hash);
    if (rc < 0)
        return rc;
    uint32_t cell = entry_find(dict, shard, hash, key, now_ms);
    const struct head *head = cell ? head_at(dict, shard, cell) : NULL;
    if (head && head->kind != DICT_list)
        rc = -EINVAL;
    else
        *ret_count = head ? head->word : 0;
    shard_unlock(shard);
    return rc;
}
