// SPDX-License-Identifier: BSD-2-Clause
// Memory that lives as long as one exchange (or one configuration): bumped off chunks, freed all at once.
// Chunks of the usual size are recycled within the process.
#ifndef MOONGATE_BASE_ARENA_H
#define MOONGATE_BASE_ARENA_H

#include "base/slice.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks;  // newest first
    char *at, *end;              // what is free in the newest
    size_t total;                // bytes taken from the system
};

static inline void arena_init(struct arena *arena) {
    *arena = (struct arena){ 0 };
}
void arena_release(struct arena *arena);
// All that is in `from` lives on in `to`; `from` is empty then.
void arena_join(struct arena *to, struct arena *from);

// Aligned to 8 bytes, not cleared; valid until arena_release. NULL when memory is out.
void *arena_alloc(struct arena *arena, size_t size) __attribute__((warn_unused_result));
void *arena_zalloc(struct arena *arena, size_t size) __attribute__((warn_unused_result));

// Copies with a NUL behind that is not counted. at == NULL when memory is out.
struct slice arena_copy(struct arena *arena, struct slice from);
char *arena_strdup(struct arena *arena, const char *from);
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A number in decimal. at == NULL when memory is out.
struct slice arena_number(struct arena *arena, uint64_t number);

// Appends to a slice that is in this arena already (or empty): in place when it is the newest piece and there
// is room, else by moving it. -ENOMEM leaves *target as it was.
int arena_append(struct arena *arena, struct slice *target, const char *at, size_t len)
    __attribute__((warn_unused_result));

#endif
