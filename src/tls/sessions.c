// SPDX-License-Identifier: BSD-2-Clause
// The cache of sessions.h: a dictionary of what OpenSSL makes of a session (ASN.1), by its id. When it is
// full the one that was not used for longest goes.
#include "tls/sessions.h"

#include "base/clock.h"
#include "base/counters.h"
#include "tls/vault.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

static struct dict vault;
static bool shared;
static unsigned char buffer[DICT_VALUE_MAX];  // for one session

int sessions_share(size_t bytes, struct error *error) {
    int rc = bytes > 0 ? vault_make(&vault, bytes, "TLS sessions", error) : 0;
    shared = rc == 0 && bytes > 0;
    return rc;
}

// One with a ticket has no id, and with TLS 1.3 a ticket is all there is.
static int on_session(SSL *ssl, SSL_SESSION *session) {
    unsigned id_len;
    const unsigned char *id = SSL_SESSION_get_id(session, &id_len);
    int len = i2d_SSL_SESSION(session, NULL);
    uint64_t ttl = (uint64_t)SSL_SESSION_get_timeout(session) * 1000;
    if (SSL_version(ssl) >= TLS1_3_VERSION || id_len == 0 || len <= 0 || (size_t)len > vault.value_max)
        return 0;  // OpenSSL keeps its reference
    unsigned char *to = buffer;
    if (i2d_SSL_SESSION(session, &to) == len) {
        const struct dict_value value = { DICT_text, .text = { (const char *)buffer, (size_t)len } };
        if (dict_set(&vault, slice_make((const char *)id, id_len), &value, ttl, clock_ms()) == 0)
            counters->tls_sessions_kept++;
    }
    OPENSSL_cleanse(buffer, (size_t)len);
    return 0;
}

// Whether it fits this listener OpenSSL looks at: at the session's context, its age and its version.
static SSL_SESSION *on_id(SSL *ssl, const unsigned char *id, int len, int *ret_copy) {
    struct dict_value value;
    *ret_copy = 0;  // the reference is OpenSSL's
    if (SSL_version(ssl) >= TLS1_3_VERSION || len <= 0 ||
        dict_get(&vault, slice_make((const char *)id, (size_t)len), clock_ms(), &value, (char *)buffer,
                 sizeof buffer) < 0 ||
        value.kind != DICT_text)
        return NULL;
    const unsigned char *at = buffer;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &at, (long)value.text.len);
    OPENSSL_cleanse(buffer, value.text.len);
    ERR_clear_error();
    return session;
}

// That a session is not to be resumed any more is not listened to (SSL_CTX_sess_set_remove_cb): OpenSSL says
// it of each whose connection ends without close_notify, too, as those of many clients do.
void sessions_use(struct ssl_ctx_st *ctx) {
    if (!shared) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    SSL_CTX_sess_set_get_cb(ctx, on_id);
}
