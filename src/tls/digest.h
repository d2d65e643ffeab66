// SPDX-License-Identifier: BSD-2-Clause
// What OpenSSL's libcrypto gives without a connection: digests, keyed digests, random bytes, comparison in
// constant time, base64 and hex. src/tls/ is the only folder that includes OpenSSL; scripts get at this by
// way of script/api_crypto.c.
//
// The objects of libcrypto are made at their first use and kept for the rest of the process's life: making
// one costs more than most of what it is used for.
#ifndef MOONGATE_TLS_DIGEST_H
#define MOONGATE_TLS_DIGEST_H

#include "base/slice.h"

enum { DIGEST_MAX = 64, SIPHASH_KEY = 16, SIPHASH_SIZE = 8 };

//  X(name)
#define DIGESTS(X) X(md5) X(sha1) X(sha224) X(sha256) X(sha384) X(sha512)

enum digest_kind {
#define X(name) DIGEST_##name,
    DIGESTS(X)
#undef X
        DIGEST_COUNT
};

// -ENOENT when there is none of that name (lower case, as in the table).
int digest_find(struct slice name, enum digest_kind *ret_kind) __attribute__((warn_unused_result));
const char *digest_name(enum digest_kind kind);

// Both write at most DIGEST_MAX bytes and return how many, or -EOPNOTSUPP when libcrypto refuses (MD5 where
// only FIPS 140 algorithms are allowed).
int digest_of(enum digest_kind kind, struct slice text, unsigned char out[DIGEST_MAX])
    __attribute__((warn_unused_result));
// HMAC (RFC 2104); the key has any length, 0 too.
int digest_hmac(enum digest_kind kind, struct slice key, struct slice text, unsigned char out[DIGEST_MAX])
    __attribute__((warn_unused_result));
// SipHash-2-4 with a result of 64 bits.
int digest_siphash(const unsigned char key[SIPHASH_KEY], struct slice text, unsigned char out[SIPHASH_SIZE])
    __attribute__((warn_unused_result));

// Unpredictable bytes; each process has its own stream, children of a fork too. -EIO when there are none.
int random_bytes(void *out, size_t len) __attribute__((warn_unused_result));
// How long it takes says nothing about where they differ; their lengths are no secret.
bool equal_in_constant_time(struct slice a, struct slice b);

// base64 and hex (RFC 4648). *_room() says what `out` must have. The decoders take nothing but what the
// encoders write (hex: either case), and return the length, or -EINVAL.
size_t base64_encode_room(size_t len);
size_t base64_encode(struct slice bytes, bool url, char *out);  // url: of section 5, without padding
size_t base64_decode_room(size_t len);
int base64_decode(struct slice text, bool url, char *out) __attribute__((warn_unused_result));
size_t hex_encode_room(size_t len);
size_t hex_encode(struct slice bytes, char *out);
size_t hex_decode_room(size_t len);
int hex_decode(struct slice text, char *out) __attribute__((warn_unused_result));

// Of the library that runs, for moongate -V.
const char *libcrypto_version(void);

#endif
