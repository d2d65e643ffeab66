// SPDX-License-Identifier: BSD-2-Clause
// A frontend of one generation: the site of its exchanges (routes, dialling, log), and what client.c needs to
// know of it. The generation (proc/) owns it.
#ifndef MOONGATE_PROXY_FRONTEND_H
#define MOONGATE_PROXY_FRONTEND_H

#include "conf/conf.h"
#include "http/exchange.h"
#include "proxy/access_log.h"
#include "proxy/address.h"
#include "proxy/upstream.h"
#include "tls/server.h"

// The side of the scripts of one of the hooks for connections (connect, tls_hello, tls_done), filled in by proc/ from
// script/ (proxy never includes script/).
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
    const struct connect_hook *connect, *tls_hello, *tls_done;  // NULL: none
    void *scripts;
    struct resolver_guide *guide;          // of names that its scripts give; NULL: none
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

const struct frontend_options *frontend_options_of(const struct frontend *frontend);
// What connections of that listener begin with; NULL: no TLS.
struct tls_server *frontend_tls(const struct frontend *frontend, const char *listener_name);
// Staples that are to be asked for (tls/ocsp.h): the list of the next listener that has one, from *at on (0 at
// first), which is moved on; NULL: there is none.
struct ocsp;
struct ocsp *frontend_staples(const struct frontend *frontend, unsigned *at);
// Whether connections of the listener begin with a PROXY header.
bool frontend_expects_proxy(const struct frontend *frontend, const char *listener_name);
bool frontend_logs(const struct frontend *frontend);  // there is an access log

#endif
