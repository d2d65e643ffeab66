// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for request targets: whatever is taken has a path below the root, without dot segments or
// double slashes, and normalising it again (encoded anew) changes nothing. The first byte chooses the method.
// Build: clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc, this file,
// src/http/{message,target}.c and the sources of src/base; run with t/fuzz/corpus/target
#include "http/target.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_path(struct slice path) {
    if (path.len == 0 || path.at[0] != '/')
        abort();
    for (size_t i = 0; i < path.len; i++) {
        struct slice tail = slice_from(path, i);
        if (path.at[i] == 0 || slice_starts(tail, SLICE_LIT("//")) || slice_starts(tail, SLICE_LIT("/./")) ||
            slice_starts(tail, SLICE_LIT("/../")) || slice_eq(tail, SLICE_LIT("/.")) ||
            slice_eq(tail, SLICE_LIT("/..")))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const struct slice methods[] = { SLICE_LIT("GET"), SLICE_LIT("OPTIONS"), SLICE_LIT("CONNECT") };
    struct arena arena;
    const char *why = NULL;
    if (len == 0)
        return 0;
    arena_init(&arena);
    char *copy = malloc(len);
    memcpy(copy, bytes + 1, len - 1);
    struct request request = { .method = methods[bytes[0] % 3], .target = slice_make(copy, len - 1) };
    if (target_parse(&request, &arena, &why) < 0) {
        if (!why)
            abort();
    } else if (bytes[0] % 3 != 2 && !slice_eq(request.path, SLICE_LIT("*"))) {
        check_path(request.path);
        if (!authority_valid(request.authority))
            abort();
        char *encoded = malloc(request.path.len * 3 + 1);
        size_t n = 0;
        struct slice again;
        for (size_t i = 0; i < request.path.len; i++)
            n += request.path.at[i] == '/'
                ? (size_t)sprintf(encoded + n, "/")
                : (size_t)sprintf(encoded + n, "%%%02x", (unsigned char)request.path.at[i]);
        if (path_normalise(slice_make(encoded, n), &arena, &again) < 0 || !slice_eq(again, request.path))
            abort();
        free(encoded);
    }
    free(copy);
    arena_release(&arena);
    return 0;
}
