// SPDX-License-Identifier: BSD-2-Clause
// Memory that all workers share and that outlives each of them and every reload, for what one has learned and
// all use: staples (ocsp.c), sessions of clients (sessions.c). It is a dictionary (base/dict.h) that no
// script can name. For the files of src/tls/ alone.
#ifndef MOONGATE_TLS_VAULT_H
#define MOONGATE_TLS_VAULT_H

#include "base/dict.h"

// By the master, before it forks. What is in it never gets into a core file. `what` is for the error.
int vault_make(struct dict *ret_dict, size_t size, const char *what, struct error *error)
    __attribute__((warn_unused_result));

#endif
