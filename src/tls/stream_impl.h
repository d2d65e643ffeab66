// SPDX-License-Identifier: BSD-2-Clause
// The object of a TLS conn, for the files of src/tls/ alone.
#ifndef MOONGATE_TLS_STREAM_IMPL_H
#define MOONGATE_TLS_STREAM_IMPL_H

#include "net/conn_layer.h"
#include "tls/hello.h"
#include "tls/stream.h"

enum tls_state {
    TLS_HANDSHAKE,  // the owner waits for callbacks->done()
    TLS_EARLY,      // the conn's handler has it, but the client has not proven yet that it is there
    TLS_OPEN,       // the conn's handler has it
    TLS_FAILED,     // nothing is read or written any more, but for what is on the wire (an alert)
};

struct tls_stream {
    struct conn_layer layer;
    struct ssl_st *ssl;
    const struct tls_callbacks *callbacks;
    void *owner;
    void *held;  // drop(held) when the conn is freed
    void (*drop)(void *held);
    struct span input;    // what OpenSSL reads from; what it has not read yet
    struct queue behind;  // came after `input`, while the handshake waits for somebody
    enum tls_state state;
    enum {
        HELLO_AWAITED,
        HELLO_ASKED,     // hello() decides, or said TLS_WAIT: OpenSSL has the client's hello
        HELLO_ANSWERED,  // `answer` is what came of it
    } hello_state;
    enum tls_answer answer;
    struct queue read;       // all that came until then, where it may have to go elsewhere
    char *diversion;  // NULL: none
    void *chosen;            // server.c's: the site that a script chose
    bool held_back;          // tls_hold()
    bool early;              // early data may come, or is coming
    struct queue plain;      // early data that came while held back
    char fingerprint[HELLO_FINGERPRINT + 1];
};

struct tls_server;
// server.c's: whose certificates have that name; NULL: nobody's.
void *tls_server_site(const struct tls_server *server, struct slice name);

// OpenSSL calls it with the client's hello.
int tls_stream_hello(struct ssl_st *ssl, int *alert, void *arg);

// NULL when the conn has no TLS.
struct tls_stream *tls_stream_of(const struct conn *conn);
// Goes on with what has come: the handshake was waiting for something else than bytes.
void tls_stream_go_on(struct conn *conn, struct tls_stream *stream);

#endif
