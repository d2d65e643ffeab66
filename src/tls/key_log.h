// SPDX-License-Identifier: BSD-2-Clause
// Secrets of connections in a file, in the form that debuggers of networks read (SSLKEYLOGFILE). For the files of
// src/tls/ alone.
#ifndef MOONGATE_TLS_KEY_LOG_H
#define MOONGATE_TLS_KEY_LOG_H

#include <openssl/ssl.h>

struct key_log;

// Opened with the first secret, by the process that has it. NULL when memory is out.
struct key_log *key_log_new(const char *path);
void key_log_free(struct key_log *log);  // NULL is allowed
// Secrets of connections of the context go there; the log outlives it. NULL: nowhere.
void key_log_use(SSL_CTX *ctx, struct key_log *log);

#endif
