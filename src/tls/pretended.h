// SPDX-License-Identifier: BSD-2-Clause
// TLS of a connection to nobody (conn_made_up()), for tests of scripts (script/test_traffic.c): it has the facts
// that the test gives, keeps what hooks decide, and encrypts nothing. tls/stream.c answers for it.
#ifndef MOONGATE_TLS_PRETENDED_H
#define MOONGATE_TLS_PRETENDED_H

#include "tls/stream.h"

struct tls_pretended;

struct tls_pretended *tls_pretended_new(void) __attribute__((warn_unused_result));
void tls_pretended_free(struct tls_pretended *tls);  // no conn may use it; NULL is allowed
// One of TLS_FIELDS by its name. -ENOENT: there is none of that name; -ENOMEM.
int tls_pretended_tell(struct tls_pretended *tls, struct slice name, struct slice text)
    __attribute__((warn_unused_result));
// The conn has it from now on. greeting: the client's hello has come and nothing more, so that only what is known then
// is told.
void tls_pretended_use(struct conn *conn, struct tls_pretended *tls, bool greeting);
// What a tls_hello hook chose: a name of certificates, empty: none; where to go, NULL: nowhere.
struct slice tls_pretended_choice(const struct tls_pretended *tls);
const char *tls_pretended_diversion(const struct tls_pretended *tls);

// For stream.c: NULL when the conn has no such thing.
struct tls_pretended *tls_pretended_of(const struct conn *conn);
struct slice tls_pretended_field(const struct tls_pretended *tls, enum tls_field field);
int tls_pretended_choose(struct tls_pretended *tls, struct slice name) __attribute__((warn_unused_result));
int tls_pretended_divert(struct tls_pretended *tls, struct slice to) __attribute__((warn_unused_result));

#endif
