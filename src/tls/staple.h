// SPDX-License-Identifier: BSD-2-Clause
// OCSP responses (RFC 6960) that are sent along with certificates: from files, or as ocsp.c has them. For the
// files of src/tls/ alone.
#ifndef MOONGATE_TLS_STAPLE_H
#define MOONGATE_TLS_STAPLE_H

#include "conf/conf.h"
#include "tls/ocsp.h"

#include <openssl/ssl.h>

// Of a listener's certificates.
struct staples {
    struct staple *files;
    struct ocsp *asked;
};

struct staple {
    struct staple *next;
    const X509 *certificate;  // for whom it speaks; a context holds it
    int64_t until;            // seconds since 1970; INT64_MAX: without end
    size_t len;
    unsigned char bytes[];
};

// Reads that of a certificate and puts it on the list. Errors have the place of the file's name.
int staple_add(struct staples *staples, const struct conf *conf, const struct conf_certificate *c,
               const X509 *certificate, struct error *error) __attribute__((warn_unused_result));
// What the authority says of it is asked for from now on. -ENOMEM.
int staple_ask(struct staples *staples, const struct conf_tls *tls, const struct conf_certificate *c,
               X509 *certificate, STACK_OF(X509) *chain) __attribute__((warn_unused_result));
void staples_release(struct staples *staples);
// Clients of the context that ask for one get that of the certificate that they get; the staples outlive it.
void staples_use(SSL_CTX *ctx, const struct staples *staples);
// Whether clients are told to refuse the certificate without a staple (RFC 7633).
bool staple_demanded(const X509 *certificate);

#endif
