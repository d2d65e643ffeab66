// SPDX-License-Identifier: BSD-2-Clause
// Objects of one size, reused last-in first-out so that the next one is warm in the cache. Memory is kept up
// to `spare` free objects; what comes back beyond that goes to free(3), so a burst does not stay resident.
#ifndef MOONGATE_BASE_SLAB_H
#define MOONGATE_BASE_SLAB_H

#include <stddef.h>

struct slab {
    size_t size;       // bytes of one object, at least a pointer
    unsigned spare;    // free objects kept
    unsigned free_count, used_count;
    void *free_list;
};

#define SLAB_INIT(object_size, spare_objects) { .size = (object_size), .spare = (spare_objects) }

// Not cleared. NULL when memory is out.
void *slab_get(struct slab *slab) __attribute__((warn_unused_result));
void slab_put(struct slab *slab, void *object);
// Frees the spare objects; those in use stay the callers'.
void slab_trim(struct slab *slab);

#endif
