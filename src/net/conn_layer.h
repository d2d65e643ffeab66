// SPDX-License-Identifier: BSD-2-Clause
// A layer stands between a conn's handler and the wire: it turns what comes from the peer into plain bytes,
// and the plain output (conn->out) into what is sent. TLS is one (tls/stream.c). A conn without one pays a
// branch.
//
// The layer belongs to its conn once conn_set_layer() was called; freed() is the last that it hears.
#ifndef MOONGATE_NET_CONN_LAYER_H
#define MOONGATE_NET_CONN_LAYER_H

#include "net/conn.h"

struct conn_layer;

struct conn_layer_ops {
    // Bytes came from the wire; takes the span. Hands plain ones on with conn_deliver(), also after
    // conn_pause(); the state of the conn must be looked at after each, for the handler may have ended it.
    void (*received)(struct conn *conn, struct span span);
    // The peer's side of the wire ended: hands it on with conn_deliver_end(). An end that the layer did not
    // expect is an error, so that a message that only the end delimits is not taken for whole.
    void (*ended)(struct conn *conn, int error);
    // Nothing more can be sent; hands it on with conn_deliver_broken().
    void (*broken)(struct conn *conn, int error);
    // Takes plain bytes off conn->out, at most about `most` of them, and puts what they become on
    // layer->wire; adds their number to layer->sealed. Called with an empty wire and nothing in flight.
    // Negative errno: what was taken is lost, and the conn with it.
    int (*seal)(struct conn *conn, size_t most);
    // Puts what ends the output in good order on layer->wire; called once, when all else is on it.
    void (*shutdown)(struct conn *conn);
    // The conn ends: releases all that the layer has, itself too, but for `wire`.
    void (*freed)(struct conn *conn);
};

// The begin of a layer's own struct.
struct conn_layer {
    const struct conn_layer_ops *ops;
    struct queue wire;  // to be sent, in order; the front may be in the kernel's hands
    size_t sealed;      // plain bytes that are on the wire and not yet taken by the kernel, about
    bool ended;         // the end was delivered
    bool closed;        // shutdown() was called
};

// Output that is on conn->out already goes through the layer, too.
void conn_set_layer(struct conn *conn, struct conn_layer *layer, const struct conn_layer_ops *ops);
// To the handler, by the layer. The span is taken; without effect once the conn closes or has ended.
void conn_deliver(struct conn *conn, struct span span);
// The peer will send no more; nothing is read from now on, whatever else comes.
void conn_deliver_end(struct conn *conn, int error);
void conn_deliver_broken(struct conn *conn, int error);

#endif
