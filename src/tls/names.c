// SPDX-License-Identifier: BSD-2-Clause
// Host names of names.h: a hash table with chains, doubled when it is full.
#include "tls/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    void *value;
    size_t len;
    char name[];  // lower case
};

struct names {
    struct entry **buckets;
    size_t size, count;
};

enum { NAME_MAX_LEN = 255, FIRST_SIZE = 16 };

struct names *names_new(void) {
    struct names *names = calloc(1, sizeof *names);
    if (names && !(names->buckets = calloc(FIRST_SIZE, sizeof *names->buckets))) {
        free(names);
        return NULL;
    }
    if (names)
        names->size = FIRST_SIZE;
    return names;
}

void names_free(struct names *names) {
    if (!names)
        return;
    for (size_t i = 0; i < names->size; i++)
        for (struct entry *entry = names->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            free(entry);
        }
    free(names->buckets);
    free(names);
}

static size_t lower(struct slice name, char to[NAME_MAX_LEN + 1]) {
    size_t len = name.len > NAME_MAX_LEN ? NAME_MAX_LEN : name.len;
    for (size_t i = 0; i < len; i++)
        to[i] = name.at[i] >= 'A' && name.at[i] <= 'Z' ? (char)(name.at[i] | 0x20) : name.at[i];
    return len;
}

static struct entry **bucket(const struct names *names, const char *name, size_t len) {
    return &names->buckets[slice_hash(slice_make(name, len), 0) % names->size];
}

static struct entry *find(const struct names *names, const char *name, size_t len) {
    struct entry *entry = *bucket(names, name, len);
    while (entry && (entry->len != len || memcmp(entry->name, name, len) != 0))
        entry = entry->next;
    return entry;
}

// Without memory it stays as it is: only slower.
static void grow(struct names *names) {
    struct names bigger = { calloc(names->size * 2, sizeof *names->buckets), names->size * 2, names->count };
    if (!bigger.buckets)
        return;
    for (size_t i = 0; i < names->size; i++)
        for (struct entry *entry = names->buckets[i], *next; entry; entry = next) {
            struct entry **to = bucket(&bigger, entry->name, entry->len);
            next = entry->next;
            entry->next = *to;
            *to = entry;
        }
    free(names->buckets);
    *names = bigger;
}

int names_add(struct names *names, struct slice name, void *value) {
    struct entry *entry = malloc(sizeof *entry + NAME_MAX_LEN + 1);
    if (!entry)
        return -ENOMEM;
    if (names->count >= names->size)
        grow(names);
    entry->len = lower(name, entry->name);
    entry->value = value;
    struct entry **to = bucket(names, entry->name, entry->len);
    entry->next = *to;
    *to = entry;
    names->count++;
    return 0;
}

bool names_has(const struct names *names, struct slice name) {
    char text[NAME_MAX_LEN + 1];
    return find(names, text, lower(name, text)) != NULL;
}

void *names_find(const struct names *names, struct slice host) {
    char text[NAME_MAX_LEN + 1];
    if (host.len > 0 && host.at[host.len - 1] == '.')
        host.len--;
    if (host.len == 0 || host.len > NAME_MAX_LEN)
        return NULL;
    size_t len = lower(host, text);
    const struct entry *entry = find(names, text, len);
    const char *dot = memchr(text, '.', len);
    if (!entry && dot && dot > text) {
        // "*" in place of the first label.
        size_t at = (size_t)(dot - text) - 1;
        text[at] = '*';
        entry = find(names, text + at, len - at);
    }
    return entry ? entry->value : NULL;
}

bool name_fits(struct slice name, struct slice host) {
    if (slice_ieq(name, host))
        return true;
    if (name.len < 3 || name.at[0] != '*' || name.at[1] != '.')
        return false;
    const char *dot = memchr(host.at, '.', host.len);
    if (!dot || dot == host.at)
        return false;
    size_t label = (size_t)(dot - host.at);
    return slice_ieq(slice_make(name.at + 1, name.len - 1), slice_make(dot, host.len - label));
}
