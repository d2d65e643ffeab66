// SPDX-License-Identifier: BSD-2-Clause
// Signatures of signature.h, by libcrypto.
#include "tls/signature.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>

enum { RSA_BITS_MIN = 2048 };

struct public_key {
    EVP_PKEY *key;
};

static EVP_PKEY *key_of(struct slice pem) {
    BIO *bio = pem.len <= INT_MAX ? BIO_new_mem_buf(pem.at, (int)pem.len) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    if (bio && !key && BIO_reset(bio) >= 0) {
        X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        key = certificate ? X509_get_pubkey(certificate) : NULL;
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

int public_key_new(struct slice pem, struct public_key **ret_key, const char **ret_why) {
    EVP_PKEY *found = key_of(pem);
    if (!found) {
        *ret_why = "there is no public key or certificate in PEM";
        return -EINVAL;
    }
    if (EVP_PKEY_get_base_id(found) != EVP_PKEY_RSA || EVP_PKEY_get_bits(found) < RSA_BITS_MIN) {
        EVP_PKEY_free(found);
        *ret_why = "the key is not one of RSA with at least 2048 bits";
        return -ENOTSUP;
    }
    struct public_key *key = malloc(sizeof *key);
    if (!key) {
        EVP_PKEY_free(found);
        *ret_why = "memory is out";
        return -ENOMEM;
    }
    key->key = found;
    *ret_key = key;
    return 0;
}

void public_key_free(struct public_key *key) {
    if (!key)
        return;
    EVP_PKEY_free(key->key);
    free(key);
}

bool public_key_verify(const struct public_key *key, enum digest_kind kind, struct slice text,
                       struct slice signature) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *of_key;  // the context's
    bool good = context &&
        EVP_DigestVerifyInit_ex(context, &of_key, digest_name(kind), NULL, NULL, key->key, NULL) == 1 &&
        EVP_PKEY_CTX_set_rsa_padding(of_key, RSA_PKCS1_PADDING) == 1 &&
        EVP_DigestVerify(context, (const unsigned char *)signature.at, signature.len,
                         (const unsigned char *)text.at, text.len) == 1;
    EVP_MD_CTX_free(context);
    ERR_clear_error();  // a wrong signature leaves its reasons for whoever looks next
    return good;
}
