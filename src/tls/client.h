// SPDX-License-Identifier: BSD-2-Clause
// TLS towards the servers of an upstream: whom to trust, what name, what certificate of our own, ALPN,
// sessions. Made from the `tls` block of an upstream; a handshake takes that of its generation and keeps it.
#ifndef MOONGATE_TLS_CLIENT_H
#define MOONGATE_TLS_CLIENT_H

#include "conf/conf.h"
#include "tls/stream.h"

struct tls_client;

// Errors have the place of what is wrong in the configuration. The caller has a reference.
int tls_client_new(const struct conf *conf, const struct conf_tls *tls, enum conf_protocol protocol,
                   struct tls_client **ret_client, struct error *error) __attribute__((warn_unused_result));
// For sockets of scripts: as fetches are, but without ALPN. pem: whom to trust instead of fetch_ca; at NULL: as it
// says. verify: false trusts whoever answers.
int tls_client_for_scripts(const struct conf *conf, struct slice pem, bool verify, struct tls_client **ret_client,
                           struct error *error) __attribute__((warn_unused_result));
struct tls_client *tls_client_ref(struct tls_client *client);
void tls_client_unref(void *client);  // struct tls_client; NULL is allowed

// Whether the tls blocks of all upstreams are good; warns of certificates that are out of date.
int tls_client_check(const struct conf *conf, struct error *error) __attribute__((warn_unused_result));

// Begins a handshake with the server that is called `host`, a name or an IP address, unless the configuration
// says how it is called; a session of an earlier handshake with the same `server` is resumed. http1: that
// protocol alone is offered (ALPN), whatever else could be. callbacks as stream.h says. After an error the conn must be closed.
int tls_connect(struct conn *conn, struct tls_client *client, struct slice host, struct slice server,
                bool http1, const struct tls_callbacks *callbacks, void *owner) __attribute__((warn_unused_result));
// What a handshake that failed failed of, for the log: `why` as done() had it, or a better text. Valid until
// the next call.
const char *tls_connect_why(const struct conn *conn, const char *why);

#endif
