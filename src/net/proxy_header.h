// SPDX-License-Identifier: BSD-2-Clause
// The PROXY protocol, versions 1 and 2: the header before the first byte of a connection with which a proxy
// says whose connection it carries. Reading and writing of the bytes alone; nothing here knows a conn.
//   command   PROXY: the addresses are those of the client's connection; LOCAL: the proxy speaks for itself
//             (a health check), and the connection's own addresses hold
//   TLV       a type, a length, a value: version 2 alone, behind the addresses
#ifndef MOONGATE_NET_PROXY_HEADER_H
#define MOONGATE_NET_PROXY_HEADER_H

#include "base/addr.h"

enum {
    PROXY_V1_MAX = 107,      // the longest header of version 1, with its CRLF
    PROXY_V2_FIXED = 16,     // signature, command, family, length
    PROXY_HEADER_MAX = 4096, // of version 2, as we read and write it
    PROXY_UNIQUE_ID_MAX = 128,
};

enum proxy_command { PROXY_LOCAL = 0, PROXY_PROXY = 1 };

//  X(name, type, documentation): TLVs that have a name
#define PROXY_TLVS(X) \
    X(alpn, 0x01, "the protocol that ALPN chose for the client's connection") \
    X(authority, 0x02, "the host name that the client asked for (SNI)") \
    X(crc32c, 0x03, "a checksum of the header") \
    X(noop, 0x04, "nothing: padding") \
    X(unique_id, 0x05, "a name of the connection, at most 128 bytes") \
    X(ssl, 0x20, "the client's TLS, with TLVs of its own inside") \
    X(netns, 0x30, "the network namespace's name")

//  X(name, type, documentation): TLVs inside that of TLS
#define PROXY_SSL_TLVS(X) \
    X(version, 0x21, "the version, as OpenSSL names it: TLSv1.3") \
    X(cn, 0x22, "the common name of the client's certificate") \
    X(cipher, 0x23, "the cipher suite, as OpenSSL names it") \
    X(sig_alg, 0x24, "how our certificate was signed: SHA256") \
    X(key_alg, 0x25, "the kind and size of our certificate's key: RSA2048")

enum {
#define X(name, type, doc) PROXY_TLV_##name = type,
    PROXY_TLVS(X)
#undef X
#define X(name, type, doc) PROXY_SSL_##name = type,
    PROXY_SSL_TLVS(X)
#undef X
    PROXY_TLV_own_first = 0xe0,  // free for anybody's own use
    PROXY_TLV_own_last = 0xef,
};

enum {
    PROXY_CLIENT_SSL = 0x01,        // the client's connection has TLS
    PROXY_CLIENT_CERT_CONN = 0x02,  // a certificate was shown on this connection
    PROXY_CLIENT_CERT_SESS = 0x04,  // or at the begin of the session that it resumed
};

// The client's TLS. An empty slice: not said.
struct proxy_ssl {
    uint8_t client;   // PROXY_CLIENT_*
    uint32_t verify;  // 0: a certificate was shown and is good
#define X(name, type, doc) struct slice name;
    PROXY_SSL_TLVS(X)
#undef X
};

// What the proxy in front of a connection has said of it, for as long as the connection lives.
struct proxied {
    unsigned version;
    enum proxy_command command;
    struct addr source, destination;  // with a length of 0 where nothing was said: the connection's own hold
    struct addr proxy;                // the other end of the connection
    struct slice tlvs;
    char bytes[];                     // of these
};

// ---- reading
// ----------------------------------------------------------------------------------------------

struct proxy_header {
    unsigned version;       // 1 or 2
    enum proxy_command command;
    struct addr source;     // no address: not said, or the command is LOCAL; then the connection's own hold
    struct addr destination;
    struct slice tlvs;      // of version 2, within the bytes that were read; each fits
};

// Reads a header at the begin of `bytes`, which must stay for as long as ret_header->tlvs is used. 0:
// *ret_len bytes of it were the header. -EAGAIN: it goes on behind them. Else, with a text: -EPROTO, it is
// none or breaks the rules; -EBADMSG, its checksum is wrong; -EMSGSIZE, longer than PROXY_HEADER_MAX.
int proxy_header_read(struct slice bytes, struct proxy_header *ret_header, size_t *ret_len,
                      struct error *error) __attribute__((warn_unused_result));
// Takes the next TLV off the front. False at the end, and where the rest is none.
bool proxy_tlv_next(struct slice *rest, uint8_t *ret_type, struct slice *ret_value);
// The first TLV of a type.
bool proxy_tlv_find(struct slice tlvs, uint8_t type, struct slice *ret_value);
// The value of a PROXY_TLV_ssl; -EPROTO when it is none.
int proxy_ssl_read(struct slice value, struct proxy_ssl *ret_ssl) __attribute__((warn_unused_result));

// ---- writing
// ----------------------------------------------------------------------------------------------

// Version 1 has no LOCAL: without a pair of IP addresses it says UNKNOWN. Returns the length.
size_t proxy_v1_write(char to[PROXY_V1_MAX + 1], const struct addr *source, const struct addr *destination);

// Version 2: begun, TLVs added, ended. What does not fit is noted and told by the end.
struct proxy_writer {
    uint8_t at[PROXY_HEADER_MAX];
    size_t len;
    bool full;
};
// The addresses are not looked at for PROXY_LOCAL. A pair of an IPv4 and an IPv6 address is written as
// IPv6; one of which one is no address, or one alone a unix socket's, is not said.
void proxy_v2_begin(struct proxy_writer *writer, enum proxy_command command, const struct addr *source,
                    const struct addr *destination);
void proxy_v2_tlv(struct proxy_writer *writer, uint8_t type, struct slice value);
void proxy_v2_ssl(struct proxy_writer *writer, const struct proxy_ssl *ssl);
// With a checksum, when asked for. -EMSGSIZE: it did not fit, and nothing may be sent.
int proxy_v2_end(struct proxy_writer *writer, bool checksum) __attribute__((warn_unused_result));

#endif
