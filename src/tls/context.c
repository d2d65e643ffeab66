// SPDX-License-Identifier: BSD-2-Clause
// The common settings of context.h.
#include "tls/context.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

const char *context_reason(void) {
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return text ? text : "unknown error";
}

// OpenSSL passes over names in a list that it does not know: each is tried alone.
static int check_ciphers(SSL_CTX *ctx, const struct conf *conf, const struct conf_tls *tls,
                         struct error *error) {
    for (const char *at = tls->ciphers; *at;) {
        char name[128];
        size_t len = strcspn(at, ":");
        snprintf(name, sizeof name, "%.*s", (int)len, at);
        if (strchr("!+-@", *at) == NULL && !SSL_CTX_set_cipher_list(ctx, name)) {
            ERR_clear_error();
            return conf_error(conf, tls->ciphers_place, error, "unknown cipher \"%s\"", name);
        }
        at += len + (at[len] == ':');
    }
    return 0;
}

int context_set(SSL_CTX *ctx, const struct conf *conf, const struct conf_tls *tls, struct error *error) {
    SSL_CTX_set_min_proto_version(ctx, tls->versions & TLS_VERSION_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(ctx, tls->versions & TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    int rc = check_ciphers(ctx, conf, tls, error);
    if (rc < 0)
        return rc;
    if (!SSL_CTX_set_cipher_list(ctx, tls->ciphers))
        return conf_error(conf, tls->ciphers_place, error, "bad ciphers: %s", context_reason());
    if (!SSL_CTX_set_ciphersuites(ctx, tls->ciphersuites))
        return conf_error(conf, tls->ciphersuites_place, error, "bad ciphersuites: %s", context_reason());
    if (!SSL_CTX_set1_groups_list(ctx, tls->groups))
        return conf_error(conf, tls->groups_place, error, "bad groups: %s", context_reason());
    return 0;
}
