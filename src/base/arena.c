// SPDX-License-Identifier: BSD-2-Clause
// Chunked bump allocation for arena.h.
#include "base/arena.h"

#include "base/slab.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK_SIZE = 4096 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    char bytes[];
};

static struct slab chunk_slab = SLAB_INIT(CHUNK_SIZE, 256);

void arena_release(struct arena *arena) {
    struct arena_chunk *chunk = arena->chunks;
    while (chunk) {
        struct arena_chunk *next = chunk->next;
        if (chunk->size == CHUNK_SIZE)
            slab_put(&chunk_slab, chunk);
        else
            free(chunk);
        chunk = next;
    }
    arena_init(arena);
}

void arena_join(struct arena *to, struct arena *from) {
    struct arena_chunk *last = from->chunks;
    if (!to->chunks) {
        *to = *from;
    } else if (last) {
        while (last->next)
            last = last->next;
        last->next = to->chunks->next;  // the newest stays in front: it has room
        to->chunks->next = from->chunks;
        to->total += from->total;
    }
    arena_init(from);
}

static bool arena_grow(struct arena *arena, size_t need) {
    size_t size = CHUNK_SIZE;
    struct arena_chunk *chunk;
    if (need > CHUNK_SIZE - sizeof *chunk) {
        if (__builtin_add_overflow(need, sizeof *chunk, &size))
            return false;
        chunk = malloc(size);
    } else {
        chunk = slab_get(&chunk_slab);
    }
    if (!chunk)
        return false;
    chunk->size = size;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->at = chunk->bytes;
    arena->end = (char *)chunk + size;
    arena->total += size;
    return true;
}

void *arena_alloc(struct arena *arena, size_t size) {
    uintptr_t at = ((uintptr_t)arena->at + 7u) & ~(uintptr_t)7u;
    if (!arena->at || at > (uintptr_t)arena->end || (uintptr_t)arena->end - at < size) {
        if (size > SIZE_MAX - 8 || !arena_grow(arena, size + 8))
            return NULL;
        at = ((uintptr_t)arena->at + 7u) & ~(uintptr_t)7u;
    }
    arena->at = (char *)at + size;
    return (void *)at;
}

void *arena_zalloc(struct arena *arena, size_t size) {
    void *at = arena_alloc(arena, size);
    if (at)
        memset(at, 0, size);
    return at;
}

struct slice arena_copy(struct arena *arena, struct slice from) {
    char *at = arena_alloc(arena, from.len + 1);
    if (!at)
        return slice_make(NULL, 0);
    if (from.len > 0)
        memcpy(at, from.at, from.len);
    at[from.len] = 0;
    return slice_make(at, from.len);
}

char *arena_strdup(struct arena *arena, const char *from) {
    return (char *)arena_copy(arena, slice_of(from)).at;
}

char *arena_printf(struct arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    char *at = len < 0 ? NULL : arena_alloc(arena, (size_t)len + 1);
    if (at)
        vsnprintf(at, (size_t)len + 1, format, again);
    va_end(again);
    va_end(args);
    return at;
}

struct slice arena_number(struct arena *arena, uint64_t number) {
    char digits[20];
    size_t n = sizeof digits;
    do
        digits[--n] = (char)('0' + number % 10);
    while (number /= 10);
    return arena_copy(arena, slice_make(digits + n, sizeof digits - n));
}

int arena_append(struct arena *arena, struct slice *target, const char *at, size_t len) {
    if (target->len > 0 && target->at + target->len == arena->at && (size_t)(arena->end - arena->at) >= len) {
        memcpy(arena->at, at, len);
        arena->at += len;
        target->len += len;
        return 0;
    }
    // Bytes are packed, without the alignment that arena_alloc gives.
    size_t size = target->len + len;
    if (!arena->at || (size_t)(arena->end - arena->at) < size) {
        if (!arena_grow(arena, size))
            return -ENOMEM;
    }
    char *to = arena->at;
    if (target->len > 0)
        memcpy(to, target->at, target->len);
    if (len > 0)
        memcpy(to + target->len, at, len);
    arena->at += size;
    *target = slice_make(to, size);
    return 0;
}
