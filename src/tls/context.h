// SPDX-License-Identifier: BSD-2-Clause
// What contexts of OpenSSL have in common on both sides, towards clients (server.c) and servers (client.c): versions,
// ciphers, groups. For the files of src/tls/ alone.
#ifndef MOONGATE_TLS_CONTEXT_H
#define MOONGATE_TLS_CONTEXT_H

#include "conf/conf.h"

#include <openssl/ssl.h>

// As the tls block says. Errors have the place of what is wrong.
int context_set(SSL_CTX *ctx, const struct conf *conf, const struct conf_tls *tls, struct error *error)
    __attribute__((warn_unused_result));
// What OpenSSL's last error says; clears them all.
const char *context_reason(void);

#endif
