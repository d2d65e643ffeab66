// SPDX-License-Identifier: BSD-2-Clause
// Certificates with their chains and keys, read from the PEM texts that the configuration gathered, and
// checked. For the files of src/tls/ alone.
#ifndef MOONGATE_TLS_PEM_H
#define MOONGATE_TLS_PEM_H

#include "conf/conf.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

enum { PEM_KINDS = 8 };  // kinds of keys that one name may have certificates of, at most

struct pem_pair {
    struct pem_pair *next;
    const struct conf_certificate *conf;
    X509 *certificate;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    int kind;      // of the key: EVP_PKEY_RSA, ...
    char **names;  // DNS names, lower case or not; wildcards as they are
    unsigned name_count;
};

// In the order of the configuration. Errors have the place of the file's name.
int pem_load(const struct conf *conf, const struct conf_certificate *certificates,
             struct pem_pair **ret_pairs, struct error *error) __attribute__((warn_unused_result));
void pem_free(struct pem_pair *pairs);
// Whether the certificate has exactly this name, or with wildcards: one that fits it, too.
bool pem_pair_names(const struct pem_pair *pair, struct slice name, bool wildcards);
// Adds all certificates of a text to those that a context trusts, and to those that it names to clients; all lists of
// revoked certificates to a store. -EINVAL with OpenSSL's error queued.
int pem_add_authorities(SSL_CTX *ctx, struct slice text, unsigned *count) __attribute__((warn_unused_result));
int pem_add_lists(X509_STORE *store, struct slice text, unsigned *count) __attribute__((warn_unused_result));
// Logs a warning for each certificate that is out of date, or will be within a week; unstapled: for each, too,
// that demands a staple and has no file of one.
void pem_warn(const struct conf_certificate *certificates, bool unstapled);

#endif
