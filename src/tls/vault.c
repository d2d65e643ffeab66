// SPDX-License-Identifier: BSD-2-Clause
// Makes the memory of vault.h. Pages that were never written cost nothing.
#include "tls/vault.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int vault_make(struct dict *ret_dict, size_t size, const char *what, struct error *error) {
    struct error why;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return error_set(error, -errno, "no memory for %s: %s", what, strerror(errno));
    (void)madvise(at, size, MADV_DONTDUMP);
    int rc = dict_format(at, size, &why);
    if (rc == 0)
        rc = dict_attach(ret_dict, at, size, &why);
    if (rc < 0) {
        munmap(at, size);
        return error_set(error, rc, "no memory for %s: %s", what, why.text);
    }
    return 0;
}
