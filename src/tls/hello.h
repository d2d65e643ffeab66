// SPDX-License-Identifier: BSD-2-Clause
// What a client's first message says, and a fingerprint of it in the manner of JA4: clients of the same make have the
// same one, whatever they ask for. The parts come from OpenSSL, which has checked the message's frame but not
// what is in an extension: each is read with its own bounds here. Knows nothing of OpenSSL; stream.c calls.
#ifndef MOONGATE_TLS_HELLO_H
#define MOONGATE_TLS_HELLO_H

#include "base/slice.h"

enum { HELLO_FINGERPRINT = 36, HELLO_EXTENSIONS = 128, HELLO_CIPHERS = 512 };

struct tls_hello {
    unsigned version;      // legacy_version
    struct slice ciphers;  // two bytes each
    unsigned extension_count;
    uint16_t extensions[HELLO_EXTENSIONS];  // types in their order; more are left out
    // The bodies of some extensions; at NULL when there is none.
    struct slice server_name, alpn, versions, algorithms;
};

// The first host name; empty when there is none.
struct slice hello_server_name(const struct tls_hello *hello);
// The protocols that are offered, a space between them: as much as fits, with a NUL. The length.
size_t hello_alpn(const struct tls_hello *hello, char *to, size_t room);
// "TLSv1.3 TLSv1.2", likewise.
size_t hello_versions(const struct tls_hello *hello, char *to, size_t room);
// t13d1516h2_8daaf6152771_e5627efa2ab1: t for TCP, the highest version, d with a server name (i without), how many
// ciphers and extensions, the ends of the first ALPN protocol; digests of the ciphers, and of the extensions
// with the signature algorithms. With a NUL. -EIO when there are no digests.
int hello_fingerprint(const struct tls_hello *hello, char to[HELLO_FINGERPRINT + 1])
    __attribute__((warn_unused_result));

#endif
