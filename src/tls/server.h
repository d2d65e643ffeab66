// SPDX-License-Identifier: BSD-2-Clause
// What a listener with TLS is to its clients: certificates by name, versions, ciphers, ALPN. Made from a
// `tls` block of the configuration; a handshake takes that of the generation in use, and what has begun keeps
// it.
#ifndef MOONGATE_TLS_SERVER_H
#define MOONGATE_TLS_SERVER_H

#include "conf/conf.h"
#include "tls/stream.h"

struct tls_server;

// Of a listen with tls. Errors have the place of what is wrong in the configuration. The caller has a
// reference.
int tls_server_new(const struct conf *conf, const struct conf_frontend *frontend,
                   const struct conf_listen *listen, struct tls_server **ret_server, struct error *error)
    __attribute__((warn_unused_result));
void tls_server_unref(void *server);  // struct tls_server; NULL is allowed

// Whether all tls blocks of a configuration are good; warns of certificates that are out of date.
int tls_server_check(const struct conf *conf, struct error *error) __attribute__((warn_unused_result));

// The certificates whose staples are to be asked for (ocsp.h), in a list that lives as long as the server.
struct ocsp;
struct ocsp *tls_server_staples(const struct tls_server *server);

// Begins a handshake as the server; callbacks as stream.h says. After an error the conn must be closed.
int tls_accept(struct conn *conn, struct tls_server *server, const struct tls_callbacks *callbacks,
               void *owner) __attribute__((warn_unused_result));

#endif
