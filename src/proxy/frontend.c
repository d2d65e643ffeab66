// SPDX-License-Identifier: BSD-2-Clause
// A frontend of a generation, as the site of exchanges: routes, methods, dialling, tunnels, the log. What
// becomes of accepted connections is client.c's.
#include "proxy/frontend.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/target.h"
#include "proxy/balance.h"
#include "proxy/dial.h"
#include "proxy/outlier.h"
#include "proxy/relay.h"
#include "proxy/sticky.h"
#include "proxy/websocket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A listen with TLS.
struct frontend_tls {
    const char *listener;
    struct tls_server *server;
};

struct frontend {
    struct exchange_site site, inner, second;
    struct frontend_options options;
    struct access_log *log;
    struct route *routes;  // longest prefix first
    unsigned route_count;
    struct frontend_tls *tls;
    unsigned tls_count;
    bool proxied;          // a listen says proxy_protocol
};

struct route {
    struct slice prefix;
    const struct conf_route *conf;
    struct upstream *upstream;
    struct access_log *log;  // its own, or the frontend's
};

static struct frontend *of_site(struct exchange_site *site) {
    return site->owner;
}

// ---- the site of exchanges --------------------------------------------------------------------------------

static void hold(struct exchange_site *site) {
    struct frontend *frontend = of_site(site);
    frontend->options.hold(frontend->options.generation);
}

static void drop(struct exchange_site *site) {
    struct frontend *frontend = of_site(site);
    frontend->options.drop(frontend->options.generation);
}

static struct upstream *find_upstream(struct frontend *frontend, struct slice name) {
    list_each(link, frontend->options.upstreams) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        if (slice_eq(slice_of(upstream->conf->name), name))
            return upstream;
    }
    return NULL;
}

static const struct route *find_route(const struct frontend *frontend, struct slice path) {
    for (unsigned i = 0; i < frontend->route_count; i++) {
        const struct route *route = &frontend->routes[i];
        if (slice_starts(path, route->prefix) || (slice_eq(path, SLICE_LIT("*")) && route->prefix.len == 1))
            return route;
    }
    return NULL;
}

// The route of the request's path, NULL: none. A path that servers may read in several ways, which take
// different routes, is -EBADMSG: what one route forbids must not be had by way of another.
static int route_of(const struct frontend *frontend, struct exchange *x, const struct route **ret_route) {
    const struct request *req = &x->req;
    const struct route *found = find_route(frontend, req->path);
    unsigned count = path_reading_count(req->doubts);
    char *to = count > 1 ? arena_alloc(&x->arena, req->raw_path.len + 1) : NULL;
    if (count > 1 && !to)
        return -ENOMEM;
    for (unsigned n = 1; n < count; n++)  // the first is req->path
        if (find_route(frontend, path_reading(req->raw_path, req->doubts, n, to)) != found)
            return -EBADMSG;
    *ret_route = found;
    return 0;
}

// Methods that have no use but to show a request to whoever sent it, with what proxies added to it.
static bool method_echoes(struct slice method) {
    return slice_eq(method, SLICE_LIT("TRACE")) || slice_eq(method, SLICE_LIT("TRACK"));
}

static bool method_allowed(const struct conf_settings *settings, struct slice method) {
    if (!settings->methods)
        return !method_echoes(method);
    struct slice rest = slice_of(settings->methods), one;
    while (slice_next_element(&rest, &one))
        if (slice_eq(method, one))
            return true;
    return false;
}

static unsigned site_admit(struct exchange_site *site, struct exchange *x, const char **ret_why,
                           const char **ret_allow) {
    const struct route *found;
    int rc = route_of(of_site(site), x, &found);
    if (rc < 0) {
        *ret_why =
            rc == -ENOMEM ? "memory is out" : "the path can be read in two ways that take different routes";
        return rc == -ENOMEM ? 503 : 400;
    }
    x->admitted = found;
    if (found)
        x->settings = &found->conf->settings;
    if (method_allowed(x->settings, x->req.method))
        return 0;
    // Without a list there is none to be given: these are the common ones (RFC 9110, 9.1 and RFC 5789).
    *ret_allow = x->settings->methods ? x->settings->methods : "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
    *ret_why = "the method is not among methods";
    return 405;
}

// What a script names: an upstream, an address, or a name with a port.
static struct upstream *choose_upstream(struct frontend *frontend, struct slice choice, struct error *error) {
    struct error why;
    struct upstream *upstream = find_upstream(frontend, choice);
    if (!upstream)
        upstream = address_book_find(frontend->options.addresses, choice, &why);
    if (!upstream)
        error_set(error, -EINVAL,
                  "a script chose \"%.*s\", which is neither an upstream of this configuration nor an "
                  "address or NAME:PORT: %s",
                  SLICE_ARG(choice), why.text);
    return upstream;
}

static void forget(struct exchange_site *site, struct exchange *x) {
    (void)site;
    x->upstream->users--;
    x->upstream = NULL;
}

static void choose(struct exchange_site *site, struct exchange *x, struct upstream *upstream) {
    if (upstream == x->upstream)
        return;
    if (x->upstream)
        forget(site, x);
    upstream->users++;
    x->upstream = upstream;
    x->upstream_conf = upstream->conf;
    x->tried = 0;
    x->sticky = 0;
    x->sticky_read = false;
}

static int route(struct exchange_site *site, struct exchange *x, struct error *error) {
    struct frontend *frontend = of_site(site);
    const struct route *found = x->admitted;
    struct upstream *chosen;
    int rc = x->req.rewritten ? route_of(frontend, x, &found) : 0;
    if (rc < 0)
        return error_set(error, rc, "frontend \"%s\" has several routes for the readings of \"%.*s\"",
                         frontend->options.frontend->name, SLICE_ARG(x->req.raw_path));
    if (found)
        x->settings = &found->conf->settings;
    if (x->route_choice.len > 0) {
        chosen = choose_upstream(frontend, x->route_choice, error);
        if (!chosen)
            return -EINVAL;
    } else if (found) {
        chosen = found->upstream;
    } else {
        return error_set(error, -ENOENT, "frontend \"%s\" has no route for \"%.*s\"",
                         frontend->options.frontend->name, SLICE_ARG(x->req.path));
    }
    choose(site, x, chosen);
    return 0;
}

// A script says where its own requests go: no route of the configuration is meant.
static int route_inner(struct exchange_site *site, struct exchange *x, struct error *error) {
    struct upstream *chosen = choose_upstream(of_site(site), x->route_choice, error);
    if (!chosen)
        return -EINVAL;
    choose(site, x, chosen);
    return 0;
}

static int route_second(struct exchange_site *site, struct exchange *x, struct error *error) {
    (void)site, (void)error;
    x->upstream->users++;
    return 0;
}

static void log_nothing(struct exchange_site *site, struct exchange *x) {
    (void)site, (void)x;
}

static bool may_retry(struct exchange_site *site, struct exchange *x) {
    static struct log_limit limit;
    uint32_t suppressed;
    struct upstream *upstream = x->upstream;
    (void)site;
    if (budget_retry(&upstream->budget, &upstream->conf->retry_budget))
        return true;
    if (log_limit_pass(&limit, 1, &suppressed))
        log_warn("upstream \"%s\": requests that fail are not sent again: retry_budget is used up (request %s)",
                 upstream->conf->name, exchange_id(x));
    return false;
}

static void site_dial(struct exchange_site *site, struct exchange *x) {
    (void)site;
    if (x->attempt == 1)
        budget_request(&x->upstream->budget);
    dial(x);
}

// Where there is no other server to be asked now, the first one is waited for.
static void dial_second(struct exchange_site *site, struct exchange *x) {
    struct upstream *upstream = x->upstream;
    struct server *server = balance_other(upstream, x);
    (void)site;
    if (!server || !budget_retry(&upstream->budget, &upstream->conf->retry_budget)) {
        counters->upstream_hedge_withheld++;
        exchange_dial_failed(x, false, 503, CLOSE_upstream_busy);
        return;
    }
    counters->upstream_hedged++;
    dial_to(x, server);
}

static void site_dial_cancel(struct exchange_site *site, struct exchange *x) {
    (void)site;
    dial_cancel(x);
}

static void asked(struct exchange_site *site, struct exchange *x, enum close_reason reason) {
    (void)site;
    // How fast a client sends its body says nothing of the server.
    uint64_t us = x->req.framing == BODY_NONE && x->at.dialled ? clock_us() - x->at.dialled : 0;
    if (!x->server)
        return;
    // One that was outrun is slow at most, and quicker than so nobody knows: else it would be a good mark.
    if (reason == CLOSE_outrun && us >= x->upstream_conf->hedge * 1000)
        outlier_outrun(x->server, us);
    else if (reason == CLOSE_none)
        outlier_answered(x->server, x->res.status, us);
    else if (reason != CLOSE_outrun)
        outlier_no_answer(x->server);
}

// What a relay holds until it ends: the generation, for its settings, and its place at the server.
struct tunnel {
    struct exchange_site *site;
    struct server *server;
};

static struct slab tunnel_slab = SLAB_INIT(sizeof(struct tunnel), 64);

static void tunnel_ended(void *owner) {
    struct tunnel *tunnel = owner;
    server_give_place(tunnel->server);
    drop(tunnel->site);
    slab_put(&tunnel_slab, tunnel);
}

static void tunnel(struct exchange_site *site, struct exchange *x, struct conn *client,
                   struct queue *from_client, struct conn *server, struct queue *from_server) {
    struct tunnel *tunnel = slab_get(&tunnel_slab);
    if (!tunnel) {
        log_error("no memory for a tunnel");
        queue_release(from_client);
        queue_release(from_server);
        conn_close(client, CLOSE_memory);
        conn_close(server, CLOSE_memory);
        server_give_place(x->server);
        return;
    }
    *tunnel = (struct tunnel){ site, x->server };
    hold(site);
    relay_start(client, from_client, server, from_server, x->settings, tunnel_ended, tunnel);
}

static void write_log(struct exchange_site *site, struct exchange *x) {
    struct frontend *frontend = of_site(site);
    struct access_log *log = frontend->log;
    for (unsigned i = 0; i < frontend->route_count && x->settings != site->settings; i++)
        if (&frontend->routes[i].conf->settings == x->settings) {
            log = frontend->routes[i].log;
            break;
        }
    if (log)
        access_log_write(log, x);
}

// ---- life -------------------------------------------------------------------------------------------------

static int make_tls(struct frontend *frontend, const struct frontend_options *options, struct error *error) {
    const struct conf_frontend *conf = options->frontend;
    unsigned count = 0;
    for (const struct conf_listen *listen = conf->listens; listen; listen = listen->next) {
        count += listen->tls != NULL;
        frontend->proxied |= listen->proxy_protocol;
    }
    frontend->tls = calloc(count ? count : 1, sizeof *frontend->tls);
    if (!frontend->tls)
        return error_set(error, -ENOMEM, "memory is out");
    for (const struct conf_listen *listen = conf->listens; listen; listen = listen->next) {
        struct frontend_tls *tls = &frontend->tls[frontend->tls_count];
        if (!listen->tls)
            continue;
        int rc = tls_server_new(options->conf, conf, listen, &tls->server, error);
        if (rc < 0)
            return rc;
        tls->listener = listen->name;
        frontend->tls_count++;
    }
    return 0;
}

int frontend_new(const struct frontend_options *options, struct frontend **ret_frontend,
                 struct error *error) {
    const struct conf_frontend *conf = options->frontend;
    struct frontend *frontend = calloc(1, sizeof *frontend);
    if (!frontend)
        return error_set(error, -ENOMEM, "memory is out");
    frontend->options = *options;
    frontend->site = (struct exchange_site){
        .name = conf->name,
        .owner = frontend,
        .settings = &conf->settings,
        .hooks = options->hooks,
        .scripts = options->scripts,
        .guide = options->guide,
        .admit = site_admit,
        .route = route,
        .dial = site_dial,
        .dial_cancel = site_dial_cancel,
        .asked = asked,
        .may_retry = may_retry,
        .tunnel = tunnel,
        .answered = sticky_answered,
        .websocket_offer = websocket_offer,
        .websocket_accepted = websocket_accepted,
        .websocket_accept = websocket_accept,
        .log = write_log,
        .forget = forget,
        .hold = hold,
        .drop = drop,
    };
    frontend->inner = frontend->site;
    frontend->inner.inner = true;
    frontend->inner.hooks = NULL;
    frontend->inner.scripts = NULL;
    frontend->inner.admit = NULL;
    frontend->inner.route = route_inner;
    frontend->inner.log = log_nothing;
    frontend->inner.answered = NULL;
    frontend->second = frontend->inner;
    frontend->second.route = route_second;
    frontend->second.dial = dial_second;
    frontend->site.second = frontend->inner.second = &frontend->second;
    int rc = 0;
    if (conf->settings.access_log)
        rc = access_log_new(conf->settings.access_log, &frontend->log, error);
    if (rc == 0)
        rc = make_tls(frontend, options, error);
    unsigned count = 0;
    for (const struct conf_route *r = conf->routes; r; r = r->next)
        count++;
    frontend->routes = calloc(count ? count : 1, sizeof *frontend->routes);
    if (!frontend->routes && rc == 0)
        rc = error_set(error, -ENOMEM, "memory is out");
    for (const struct conf_route *r = conf->routes; r && rc == 0; r = r->next) {
        struct route *to = &frontend->routes[frontend->route_count++];
        *to = (struct route){ slice_of(r->prefix), r, find_upstream(frontend, slice_of(r->upstream->name)),
                              frontend->log };
        check_fatal(to->upstream);
        if (r->settings.access_log != conf->settings.access_log) {
            to->log = NULL;
            if (r->settings.access_log)
                rc = access_log_new(r->settings.access_log, &to->log, error);
        }
    }
    if (rc < 0) {
        frontend_free(frontend);
        return rc;
    }
    *ret_frontend = frontend;
    return 0;
}

struct exchange_site *frontend_site(struct frontend *frontend) {
    return &frontend->site;
}

const struct frontend_options *frontend_options_of(const struct frontend *frontend) {
    return &frontend->options;
}

struct tls_server *frontend_tls(const struct frontend *frontend, const char *listener_name) {
    for (unsigned i = 0; i < frontend->tls_count; i++)
        if (strcmp(frontend->tls[i].listener, listener_name) == 0)
            return frontend->tls[i].server;
    return NULL;
}

struct ocsp *frontend_staples(const struct frontend *frontend, unsigned *at) {
    struct ocsp *staples = NULL;
    while (!staples && *at < frontend->tls_count)
        staples = tls_server_staples(frontend->tls[(*at)++].server);
    return staples;
}

bool frontend_expects_proxy(const struct frontend *frontend, const char *listener_name) {
    const struct conf_listen *listen = frontend->proxied ? frontend->options.frontend->listens : NULL;
    while (listen && strcmp(listen->name, listener_name) != 0)
        listen = listen->next;
    return listen && listen->proxy_protocol;
}

bool frontend_logs(const struct frontend *frontend) {
    return frontend->log != NULL;
}

struct exchange_site *frontend_inner_site(struct frontend *frontend) {
    return &frontend->inner;
}

void frontend_free(struct frontend *frontend) {
    if (!frontend)
        return;
    for (unsigned i = 0; i < frontend->route_count; i++)
        if (frontend->routes[i].log != frontend->log)
            access_log_free(frontend->routes[i].log);
    access_log_free(frontend->log);
    for (unsigned i = 0; i < frontend->tls_count; i++)
        tls_server_unref(frontend->tls[i].server);
    free(frontend->tls);
    free(frontend->routes);
    free(frontend);
}
