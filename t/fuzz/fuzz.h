// SPDX-License-Identifier: BSD-2-Clause
// What all fuzz targets use: libFuzzer's entry, the input taken apart, and must(), which says what does not hold before
// it aborts, so that a finding explains itself.
#ifndef MOONGATE_FUZZ_FUZZ_H
#define MOONGATE_FUZZ_FUZZ_H

#include "base/slice.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define must(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition), abort()))

// A copy of exactly that size, so that a read beyond it, or a pointer kept into it, is seen.
static inline char *fuzz_copy(const void *at, size_t len) {
    char *copy = malloc(len ? len : 1);
    must(copy);
    if (len > 0)
        memcpy(copy, at, len);
    return copy;
}

// The next line of the input, without its end.
static inline struct slice fuzz_line(struct slice *rest) {
    const char *end = rest->len > 0 ? memchr(rest->at, '\n', rest->len) : NULL;
    struct slice line = slice_make(rest->at, end ? (size_t)(end - rest->at) : rest->len);
    *rest = slice_from(*rest, line.len + 1);
    return line;
}

#endif
