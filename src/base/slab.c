// SPDX-License-Identifier: BSD-2-Clause
// The free list behind slab.h. Under AddressSanitizer nothing is reused, so that a use after free is seen.
#include "base/slab.h"

#include <stdlib.h>

// Nor where memory runs out on purpose (base/fault.h): what is reused cannot fail.
#if defined(MOONGATE_FAULTS)
#define SLAB_REUSE 0
#elif defined(__SANITIZE_ADDRESS__)
#define SLAB_REUSE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_REUSE 0
#endif
#endif
#ifndef SLAB_REUSE
#define SLAB_REUSE 1
#endif

void *slab_get(struct slab *slab) {
    void *object = slab->free_list;
    if (object) {
        slab->free_list = *(void **)object;
        slab->free_count--;
    } else {
        object = malloc(slab->size);
        if (!object)
            return NULL;
    }
    slab->used_count++;
    return object;
}

void slab_put(struct slab *slab, void *object) {
    if (!object)
        return;
    slab->used_count--;
    if (!SLAB_REUSE || slab->free_count >= slab->spare) {
        free(object);
        return;
    }
    *(void **)object = slab->free_list;
    slab->free_list = object;
    slab->free_count++;
}

void slab_trim(struct slab *slab) {
    while (slab->free_list) {
        void *object = slab->free_list;
        slab->free_list = *(void **)object;
        free(object);
    }
    slab->free_count = 0;
}
