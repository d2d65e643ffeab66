// SPDX-License-Identifier: BSD-2-Clause
// TLS on a conn: a layer (net/conn_layer.h) over OpenSSL, the same for both sides. server.c and client.c make
// the objects of OpenSSL and begin; who begins is told when the handshake is done, and gives the conn to its
// codec then. From there on nobody but logs and scripts sees a difference.
//
// An end of the connection without close_notify is ended(conn, -ECONNRESET) for the handler. conn_finish()
// and conn_shutdown() send close_notify, conn_close() does not.
#ifndef MOONGATE_TLS_STREAM_H
#define MOONGATE_TLS_STREAM_H

#include "net/conn.h"

struct ssl_st;
struct tls_hello;

struct tls_callbacks {
    // The handshake has ended: error 0, or a negative errno and why, a text for the log. Called once, never
    // from within the call that began. Then the conn must be given to a handler, finished or closed. What
    // came behind the handshake is delivered to that handler afterwards. Until then the conn's handler must
    // only have timeout(), which is the owner's, to limit the handshake.
    void (*done)(struct conn *conn, void *owner, int error, const char *why);
};

// Begins the handshake; takes the ssl, whose side (accept or connect) is set, and `held`, which is dropped
// with it. For server.c and client.c. After an error the conn must be closed.
int tls_stream_begin(struct conn *conn, struct ssl_st *ssl, const struct tls_callbacks *callbacks,
                     void *owner, void *held, void (*drop)(void *held)) __attribute__((warn_unused_result));

// Whether the conn has TLS.
bool tls_on(const struct conn *conn);

//  X(name, documentation): what is known of a conn when its handshake is done; all are texts.
#define TLS_FIELDS(X)                                          \
    X(version, "the version: TLSv1.2, TLSv1.3")                \
    X(cipher, "the cipher suite, as OpenSSL names it")         \
    X(group, "the group of the key exchange")                  \
    X(server_name, "the name that the client asked for (SNI)") \
    X(alpn, "the protocol that ALPN chose")                    \
    X(resumed, "yes when an earlier session was resumed, no when not")

enum tls_field {
#define X(name, doc) TLS_##name,
    TLS_FIELDS(X)
#undef X
        TLS_FIELD_COUNT
};

// Valid until the next call. Empty when there is none, or no TLS, or no handshake yet.
struct slice tls_field(const struct conn *conn, enum tls_field field);
// The protocol that ALPN chose; empty: none.
static inline struct slice tls_alpn(const struct conn *conn) {
    return tls_field(conn, TLS_alpn);
}

#endif
