// SPDX-License-Identifier: BSD-2-Clause
// Public keys of others, and whether what they signed is theirs: for scripts that check tokens
// (script/api_keys.c).
#ifndef MOONGATE_TLS_SIGNATURE_H
#define MOONGATE_TLS_SIGNATURE_H

#include "tls/digest.h"

struct public_key;

// From PEM: a public key ("PUBLIC KEY") or a certificate. RSA of 2048 bits or more, for everything else is too
// weak or has another form of signature. 0, or negative errno with *ret_why.
int public_key_new(struct slice pem, struct public_key **ret_key, const char **ret_why)
    __attribute__((warn_unused_result));
void public_key_free(struct public_key *key);
// RSASSA-PKCS1-v1_5 (RFC 8017, 8.2.2) over the digest of the text.
bool public_key_verify(const struct public_key *key, enum digest_kind kind, struct slice text,
                       struct slice signature);

#endif
