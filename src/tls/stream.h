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

enum tls_answer {
    TLS_GO_ON,
    TLS_WAIT,    // tls_answered() will be called
    TLS_REFUSE,  // the handshake fails with access_denied
    TLS_DIVERT,  // diverted() takes the conn, without TLS, as if nothing had been read of it
};

struct tls_callbacks {
    // The client's hello has come. NULL: go on. Not called for a client side.
    enum tls_answer (*hello)(struct conn *conn, void *owner);
    void (*diverted)(struct conn *conn, void *owner, struct queue *read, const char *to);
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

// Answers a hello() that said TLS_WAIT; any other answer.
void tls_answered(struct conn *conn, enum tls_answer answer);
// From done() on: nothing is delivered until tls_go_on().
void tls_hold(struct conn *conn);
void tls_go_on(struct conn *conn);
// By a script in hello(): the certificates of this name serve, whatever the client asks for; -ENOENT when none
// has it. Where diverted() is told to connect to, a text that nobody looks at here.
int tls_choose(struct conn *conn, struct slice name) __attribute__((warn_unused_result));
int tls_set_diversion(struct conn *conn, struct slice to) __attribute__((warn_unused_result));
bool tls_has_diversion(const struct conn *conn);

// Whether the conn has TLS.
bool tls_on(const struct conn *conn);

//  X(name, documentation): what is known of a conn when its handshake is done; all are texts. Within hello()
//  server_name, fingerprint and the offered ones are known; offered ones not afterwards.
#define TLS_FIELDS(X)                                                                               \
    X(version, "the version: TLSv1.2, TLSv1.3")                                                     \
    X(cipher, "the cipher suite, as OpenSSL names it")                                              \
    X(group, "the group of the key exchange")                                                       \
    X(server_name, "the name that the client asked for (SNI)")                                      \
    X(alpn, "the protocol that ALPN chose")                                                         \
    X(resumed, "yes when an earlier session was resumed, no when not")                              \
    X(fingerprint, "a fingerprint of the client's hello, in the manner of JA4")                     \
    X(offered_alpn, "the protocols that the client offers by ALPN, a space between them")           \
    X(offered_versions, "the versions that the client offers, likewise")                            \
    X(client_subject, "the subject of the client's certificate, as RFC 2253 writes it")             \
    X(client_issuer, "who signed the client's certificate")                                         \
    X(client_serial, "the serial number of the client's certificate, in hexadecimal digits")        \
    X(client_fingerprint, "the SHA-256 digest of the client's certificate, likewise")               \
    X(client_names, "the DNS names, mail addresses and URIs of the client's certificate")           \
    X(client_not_before, "when the client's certificate begins to be valid, in seconds since 1970") \
    X(client_not_after, "when it ends")

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
