// SPDX-License-Identifier: BSD-2-Clause
// A growing table of slots with a free list for handle.h. 20 bits of slot, 32 bits of reuse count.
#include "base/handle.h"

#include "base/counters.h"

#include <stdlib.h>

enum { SLOT_BITS = 20 };

struct slot {
    void *object;
    uint32_t reuse;
    uint32_t next_free;  // index + 1, or 0
    enum handle_kind kind;
};

static struct {
    struct slot *slots;
    uint32_t count, room, first_free;  // first_free: index + 1
} table;

uint64_t handle_new(enum handle_kind kind, void *object) {
    uint32_t index;
    if (table.first_free) {
        index = table.first_free - 1;
        table.first_free = table.slots[index].next_free;
    } else {
        if (table.count == table.room) {
            uint32_t room = table.room ? table.room * 2 : 256;
            struct slot *slots = room > 1u << SLOT_BITS ? NULL : realloc(table.slots, room * sizeof *slots);
            if (!slots)
                return 0;
            table.slots = slots;
            table.room = room;
        }
        index = table.count++;
        table.slots[index].reuse = 0;
    }
    struct slot *slot = &table.slots[index];
    slot->object = object;
    slot->kind = kind;
    slot->reuse++;
    counters->handles_active++;
    return ((uint64_t)slot->reuse << SLOT_BITS) | index;
}

static struct slot *find(uint64_t handle) {
    uint32_t index = handle & ((1u << SLOT_BITS) - 1);
    if (index >= table.count || table.slots[index].reuse != handle >> SLOT_BITS)
        return NULL;
    return &table.slots[index];
}

void *handle_get(enum handle_kind kind, uint64_t handle) {
    struct slot *slot = find(handle);
    return slot && slot->kind == kind ? slot->object : NULL;
}

void handle_drop(uint64_t handle) {
    struct slot *slot = handle ? find(handle) : NULL;
    if (!slot || slot->kind == HANDLE_FREE)
        return;
    counters->handles_active--;
    slot->kind = HANDLE_FREE;
    slot->object = NULL;
    slot->next_free = table.first_free;
    table.first_free = (uint32_t)(slot - table.slots) + 1;
}
