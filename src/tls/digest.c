// SPDX-License-Identifier: BSD-2-Clause
// Digests, keyed digests and random bytes from libcrypto (digest.h). The text forms of bytes are in encode.c.
#include "tls/digest.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

static const char *const names[DIGEST_COUNT] = {
#define X(name) #name,
    DIGESTS(X)
#undef X
};

int digest_find(struct slice name, enum digest_kind *ret_kind) {
    for (int i = 0; i < DIGEST_COUNT; i++)
        if (slice_eq(name, slice_of(names[i]))) {
            *ret_kind = (enum digest_kind)i;
            return 0;
        }
    return -ENOENT;
}

const char *digest_name(enum digest_kind kind) {
    return names[kind];
}

int digest_of(enum digest_kind kind, struct slice text, unsigned char out[DIGEST_MAX]) {
    static EVP_MD *fetched[DIGEST_COUNT];
    static EVP_MD_CTX *context;
    unsigned len = 0;
    if (!context)
        context = EVP_MD_CTX_new();
    if (!fetched[kind])
        fetched[kind] = EVP_MD_fetch(NULL, names[kind], NULL);
    if (!context || !fetched[kind] || !EVP_DigestInit_ex2(context, fetched[kind], NULL) ||
        !EVP_DigestUpdate(context, text.at, text.len) || !EVP_DigestFinal_ex(context, out, &len))
        return -EOPNOTSUPP;
    return (int)len;
}

static EVP_MAC_CTX *mac_new(const char *algorithm, const OSSL_PARAM *params) {
    EVP_MAC *mac = EVP_MAC_fetch(NULL, algorithm, NULL);
    EVP_MAC_CTX *context = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);  // the context holds it
    if (context && !EVP_MAC_CTX_set_params(context, params)) {
        EVP_MAC_CTX_free(context);
        return NULL;
    }
    return context;
}

static int mac_of(EVP_MAC_CTX *context, struct slice key, struct slice text, unsigned char *out,
                  size_t room) {
    size_t len = 0;
    // A key that is NULL would mean the last one.
    const unsigned char *key_at = key.len > 0 ? (const unsigned char *)key.at : (const unsigned char *)"";
    if (!context || !EVP_MAC_init(context, key_at, key.len, NULL) ||
        !EVP_MAC_update(context, (const unsigned char *)text.at, text.len) ||
        !EVP_MAC_final(context, out, &len, room))
        return -EOPNOTSUPP;
    return (int)len;
}

int digest_hmac(enum digest_kind kind, struct slice key, struct slice text, unsigned char out[DIGEST_MAX]) {
    static EVP_MAC_CTX *contexts[DIGEST_COUNT];
    if (!contexts[kind]) {
        const OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)names[kind], 0),
            OSSL_PARAM_construct_end(),
        };
        contexts[kind] = mac_new("HMAC", params);
    }
    return mac_of(contexts[kind], key, text, out, DIGEST_MAX);
}

int digest_siphash(const unsigned char key[SIPHASH_KEY], struct slice text, unsigned char out[SIPHASH_SIZE]) {
    static EVP_MAC_CTX *context;
    if (!context) {
        unsigned size = SIPHASH_SIZE;
        const OSSL_PARAM params[] = {
            OSSL_PARAM_construct_uint(OSSL_MAC_PARAM_SIZE, &size),
            OSSL_PARAM_construct_end(),
        };
        context = mac_new("SIPHASH", params);
    }
    return mac_of(context, slice_make((const char *)key, SIPHASH_KEY), text, out, SIPHASH_SIZE);
}

int random_bytes(void *out, size_t len) {
    return len <= INT32_MAX && RAND_bytes(out, (int)len) == 1 ? 0 : -EIO;
}

bool equal_in_constant_time(struct slice a, struct slice b) {
    return a.len == b.len && CRYPTO_memcmp(a.at, b.at, a.len) == 0;
}

const char *libcrypto_version(void) {
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}
