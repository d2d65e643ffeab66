// SPDX-License-Identifier: BSD-2-Clause
// What faults.h says: OpenSSL is told to take its memory here, where the linker has put the functions that fail.
#include "tls/faults.h"

#ifdef MOONGATE_FAULTS

#include "base/fault.h"

#include <openssl/crypto.h>
#include <stdlib.h>

static void *take(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return size > 0 ? malloc(size) : NULL;
}

static void *resize(void *at, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return realloc(at, size);
}

static void give(void *at, const char *file, int line) {
    (void)file, (void)line;
    free(at);
}

void tls_faults_begin(void) {
    if (fault_number("alloc_openssl", 0) > 0)
        (void)CRYPTO_set_mem_functions(take, resize, give);
}

#endif
