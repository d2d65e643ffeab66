// SPDX-License-Identifier: BSD-2-Clause
// A frontend of one generation: takes accepted connections through the connect hook to a codec, and is the
// site of their exchanges (routes, dialling, log). This file is where the layers below meet; the generation
// (proc/) owns it.
#ifndef MOONGATE_PROXY_FRONTEND_H
#define MOONGATE_PROXY_FRONTEND_H

#include "conf/conf.h"
#include "http/exchange.h"
#include "proxy/access_log.h"
#include "proxy/address.h"
#include "proxy/upstream.h"

// The connect hook's side of the scripts, filled in by proc/ from script/ (proxy never includes script/).
struct connect_hook {
    enum step_result (*run)(void *scripts, struct conn *conn, bool *ret_reject,
                            void (*decided)(struct conn *conn, void *owner, bool reject), void *owner);
    void (*cancel)(void *scripts, struct conn *conn);
};

struct frontend_options {
    const struct conf *conf;
    const struct conf_frontend *frontend;
    struct list *upstreams;                // struct upstream, of the generation
    struct address_book *addresses;        // the generation's
    const struct exchange_hooks *hooks;    // NULL: none
    const struct connect_hook *connect;    // NULL: none
    void *scripts;
    void (*hold)(void *generation);        // one more exchange, waiting connect hook or relay lives in it
    void (*drop)(void *generation);        // one less; may free the generation and the frontend
    void *generation;
};

struct frontend;

int frontend_new(const struct frontend_options *options, struct frontend **ret_frontend, struct error *error)
    __attribute__((warn_unused_result));
void frontend_free(struct frontend *frontend);
// The site of requests that its scripts make.
struct exchange_site *frontend_inner_site(struct frontend *frontend);

// What its exchanges are given. Tests of scripts (script/test_world.c) put their own way to servers there.
struct exchange_site *frontend_site(struct frontend *frontend);

// A connection was accepted on `listener_name` (takes fd). The connection asks frontend_current() for each of
// its exchanges.
void frontend_accept(struct frontend *frontend, const char *listener_name, int fd);

// Which frontend serves a listener now; filled in by the worker. NULL: the listener was removed, the
// connection drains.
extern struct frontend *(*frontend_current)(const char *listener_name);

// All client connections of the worker: those idle, or whose listener is gone (or all: everything = true),
// are told to end: idle ones at once, others with `Connection: close` after their exchange.
void frontend_drain(bool everything);
// Closes the client that has been waiting for its next request for longest; or else for its first one, but
// not in its first second. False when there is none.
bool frontend_shed(void);
bool frontend_may_shed(void);  // whether there is one
extern bool frontend_refusing;  // requests are answered 503: memory is short. Set by the worker
// Closes what is left of connections whose listener is gone, tunnels too, at once.
void frontend_close_removed(void);
// Closes all that is left, at once.
void frontend_close_all(void);
unsigned frontend_client_count(void);

#endif
