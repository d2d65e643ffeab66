// SPDX-License-Identifier: BSD-2-Clause
// An exchange that moongate itself asks for: for a script (script/fetch.c), a certificate's staple
// (proxy/stapler.c), a check of a server (proxy/probe.c), an answer that is late (exchange_hedge.c). Its
// downstream is no client's connection but its owner, which embeds a struct inner and is told what comes. Where it
// goes is its site's affair, as with every exchange.
//
// To ask: inner_make(), inner_field() and inner_body() as needed, inner_start(). It ends with `over`, or by
// inner_cancel().
#ifndef MOONGATE_HTTP_INNER_H
#define MOONGATE_HTTP_INNER_H

#include "http/exchange.h"

struct inner;

// What an answer of moongate's own would say is not told as a response: `over` says why there is none.
struct inner_ops {
    // The response's head, which lives as long as the exchange: what is needed for longer is to be copied. -ENOMEM.
    int (*head)(struct inner *inner, const struct response *res);
    // More of its body; to be taken off the queue. -ENOMEM.
    int (*body)(struct inner *inner, struct queue *body);
    // Bytes of it that the owner still holds: above buffer_high the server has to wait, until inner_more(). NULL:
    // it holds nothing, or has a limit of its own.
    size_t (*backlog)(const struct inner *inner);
    // The connection on whose behalf it is asked; NULL: there is none.
    struct conn *(*conn)(const struct inner *inner);
    // It is over, inner->x is NULL; not called after inner_cancel(). CLOSE_none: the response is whole. Called from
    // within x's own run, which ends behind it: nothing of the owner's generation may go before it returns.
    void (*over)(struct inner *inner, struct exchange *x, enum close_reason failure);
};

// Lies in its owner.
struct inner {
    const struct inner_ops *ops;
    struct exchange *x;  // NULL: not made, or over
};

struct inner_request {
    struct slice method, target;
    struct slice to;    // for the site's route() (x->route_choice); may be empty
    struct slice host;  // Host; empty: as inner_field() says, or the server's name
};

// An exchange of which nothing is known yet, which the caller fills in. NULL when memory is out.
struct exchange *inner_new(struct inner *inner, const struct inner_ops *ops, struct exchange_site *site)
    __attribute__((warn_unused_result));
// Makes one that asks for something; all text is copied. NULL when it is good, else why it is not: inner->x may be
// set then, and is to be cancelled.
const char *inner_make(struct inner *inner, const struct inner_ops *ops, struct exchange_site *site,
                       const struct inner_request *request) __attribute__((warn_unused_result));
// Before it starts: one more field, valid and copied (Host replaces what there is); the whole body. -ENOMEM.
int inner_field(struct inner *inner, struct slice name, struct slice value) __attribute__((warn_unused_result));
int inner_body(struct inner *inner, struct slice body) __attribute__((warn_unused_result));

static inline bool inner_is_new(const struct inner *inner) {
    return inner->x && !inner->x->started;
}
// `over` may be called at once.
void inner_start(struct inner *inner);
// There is room again for what comes of the body; when it is over nothing happens. `over` may be called at once.
void inner_more(struct inner *inner);
// What it has come to is no matter any more: its connection is let go. At any time, also when it is over.
void inner_cancel(struct inner *inner);

#endif
