// SPDX-License-Identifier: BSD-2-Clause
// Where listeners, scripts, codecs, routes, upstreams and logs meet. A client is what is known of one
// accepted connection over all its exchanges and generations; a frontend is one of a generation.
#include "proxy/frontend.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_server.h"
#include "http/target.h"
#include "proxy/dial.h"
#include "proxy/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct frontend {
    struct exchange_site site, inner;
    struct frontend_options options;
    struct access_log *log;
    struct route *routes;  // longest prefix first
    unsigned route_count;
};

struct route {
    struct slice prefix;
    const struct conf_route *conf;
    struct upstream *upstream;
    struct access_log *log;  // its own, or the frontend's
};

// An accepted connection. conn: its connect hook has yielded; otherwise the codec has it. Which list it is on
// says what it does.
struct client {
    struct list link;
    struct conn *conn;  // only while the connect hook decides
    struct h1_server *codec;
    // Where it came in, until its first request begins: that is answered even if its listener was removed
    // meanwhile. Valid while its listener is current, and while held.
    struct frontend *frontend;
    const char *listener;  // interned: lives as long as the process
    uint32_t since_ms;     // the clock's lower part
    bool held;             // `frontend`, by us
};

struct frontend *(*frontend_current)(const char *listener_name);

static struct slab client_slab = SLAB_INIT(sizeof(struct client), 512);
static struct list clients = { &clients, &clients };  // busy with a request
static struct list fresh = { &fresh, &fresh };        // none has come yet; the oldest first
static struct list idle = { &idle, &idle };           // between two; the longest idle first
bool frontend_refusing;
enum { FRESH_MS = 1000 };  // so old a connection without a request may be closed to make room
static unsigned client_count;

unsigned frontend_client_count(void) {
    return client_count;
}

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

// What a script names: an upstream or an address.
static struct upstream *choose_upstream(struct frontend *frontend, struct slice choice, struct error *error) {
    struct error why;
    struct upstream *upstream = find_upstream(frontend, choice);
    if (!upstream)
        upstream = address_book_find(frontend->options.addresses, choice, &why);
    if (!upstream)
        error_set(
            error, -EINVAL,
            "a script chose \"%.*s\", which is neither an upstream of this configuration nor an address: %s",
            SLICE_ARG(choice), why.text);
    return upstream;
}

static int route(struct exchange_site *site, struct exchange *x, struct error *error) {
    struct frontend *frontend = of_site(site);
    const struct route *found = x->admitted;
    struct upstream *before = x->upstream;
    int rc = x->req.rewritten ? route_of(frontend, x, &found) : 0;
    if (rc < 0)
        return error_set(error, rc, "frontend \"%s\" has several routes for the readings of \"%.*s\"",
                         frontend->options.frontend->name, SLICE_ARG(x->req.raw_path));
    if (found)
        x->settings = &found->conf->settings;
    if (x->route_choice.len > 0) {
        x->upstream = choose_upstream(frontend, x->route_choice, error);
        if (!x->upstream)
            return -EINVAL;
    } else if (found) {
        x->upstream = found->upstream;
    } else {
        return error_set(error, -ENOENT, "frontend \"%s\" has no route for \"%.*s\"",
                         frontend->options.frontend->name, SLICE_ARG(x->req.path));
    }
    x->upstream_conf = x->upstream->conf;
    if (x->upstream != before)
        x->tried = 0;
    return 0;
}

// A script says where its own requests go: no route of the configuration is meant.
static int route_inner(struct exchange_site *site, struct exchange *x, struct error *error) {
    struct frontend *frontend = of_site(site);
    struct upstream *before = x->upstream;
    x->upstream = choose_upstream(frontend, x->route_choice, error);
    if (!x->upstream)
        return -EINVAL;
    x->upstream_conf = x->upstream->conf;
    if (x->upstream != before)
        x->tried = 0;
    return 0;
}

static void log_nothing(struct exchange_site *site, struct exchange *x) {
    (void)site, (void)x;
}

static void site_dial(struct exchange_site *site, struct exchange *x) {
    (void)site;
    dial(x);
}

static void site_dial_cancel(struct exchange_site *site, struct exchange *x) {
    (void)site;
    dial_cancel(x);
}

// What a relay holds until it ends: the generation, for its settings, and its place at the server.
struct tunnel {
    struct exchange_site *site;
    struct server *server;
};

static struct slab tunnel_slab = SLAB_INIT(sizeof(struct tunnel), 64);

static void tunnel_ended(void *owner) {
    struct tunnel *tunnel = owner;
    dial_tunnel_ended(tunnel->server);
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
        dial_tunnel_ended(x->server);
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

// ---- clients ----------------------------------------------------------------------------------------------

static void hold_frontend(struct client *client) {
    if (!client->frontend || client->held)
        return;
    client->held = true;
    hold(&client->frontend->site);
}

static void leave_frontend(struct client *client) {
    struct frontend *frontend = client->held ? client->frontend : NULL;
    client->frontend = NULL;
    client->held = false;
    if (frontend)
        drop(&frontend->site);
}

static void client_free(struct client *client) {
    leave_frontend(client);
    list_remove(&client->link);
    client_count--;
    counters->connections_active--;
    slab_put(&client_slab, client);
}

static struct exchange_site *current_site(void *owner) {
    struct client *client = owner;
    struct frontend *frontend = frontend_current(client->listener);
    if (!frontend && client->held)
        frontend = client->frontend;
    return frontend ? &frontend->site : NULL;
}

static void codec_idle(void *owner, bool waits) {
    struct client *client = owner;
    leave_frontend(client);
    list_remove(&client->link);
    list_push_back(waits ? &idle : &clients, &client->link);
}

static bool overloaded(void *owner) {
    (void)owner;
    return frontend_refusing;
}

static void codec_gone(void *owner) {
    client_free(owner);
}

static const struct h1_server_callbacks codec_callbacks = {
    .site = current_site,
    .idle = codec_idle,
    .overloaded = overloaded,
    .gone = codec_gone,
};

// The connect hook agreed, or there is none.
static void admit(struct client *client) {
    struct conn *conn = client->conn;
    client->conn = NULL;
    client->codec = h1_server_new(conn, &codec_callbacks, client);
    if (!client->codec) {
        client_free(client);
        return;
    }
    list_remove(&client->link);
    list_push_back(&fresh, &client->link);
}

static bool old_enough(const struct client *client) {
    return (uint32_t)clock_ms() - client->since_ms >= FRESH_MS;
}

bool frontend_may_shed(void) {
    return !list_empty(&idle) ||
        (!list_empty(&fresh) && old_enough(container_of(fresh.next, struct client, link)));
}

bool frontend_shed(void) {
    if (!frontend_may_shed())
        return false;
    struct list *from = list_empty(&idle) ? &fresh : &idle;
    if (!h1_server_shed(container_of(from->next, struct client, link)->codec))
        return false;
    counters->connections_shed++;
    return true;
}

static void reject(struct client *client, enum close_reason reason) {
    if (reason == CLOSE_rejected)
        counters->connections_rejected++;
    conn_close(client->conn, reason);
    client_free(client);
}

static void decided(struct conn *conn, void *owner, bool rejected) {
    struct client *client = owner;
    check_fatal(client->conn == conn);
    if (rejected)
        reject(client, CLOSE_rejected);
    else
        admit(client);
}

static void cancel_connect(struct client *client, enum close_reason reason) {
    struct frontend *frontend = client->frontend;
    frontend->options.connect->cancel(frontend->options.scripts, client->conn);
    reject(client, reason);
}

// While a connect hook waits nothing is read; only the time-out of a first request can end it.
static void waited_too_long(struct conn *conn) {
    cancel_connect(conn->owner, CLOSE_header_timeout);
}
static const struct conn_handler waiting_handler = { .timeout = waited_too_long };

// A name per listener that ever was: few, and clients point at them.
static const char *intern(const char *name) {
    static struct name {
        struct name *next;
        char text[];
    } * names;
    for (struct name *known = names; known; known = known->next)
        if (strcmp(known->text, name) == 0)
            return known->text;
    struct name *known = malloc(sizeof *known + strlen(name) + 1);
    if (!known)
        return NULL;
    strcpy(known->text, name);
    known->next = names;
    names = known;
    return known->text;
}

// connections_per_client.
static bool count_peer(struct client *client) {
    uint64_t most = client->frontend->site.settings->connections_per_client;
    if (most == 0)
        return true;
    int rc = peers_enter(conn_remote(client->conn), most, &client->conn->peer);
    if (rc == 0)
        return true;
    static struct log_limit limit;
    uint32_t suppressed;
    counters->clients_limited++;
    if (log_limit_pass(&limit, 1, &suppressed)) {
        char ip[ADDR_IP_MAX];
        addr_print_ip(conn_remote(client->conn), ip);
        log_info("frontend \"%s\": client %s has %llu connections (connections_per_client): one more is "
                 "refused (%u others were refused before)",
                 client->frontend->site.name, ip, (unsigned long long)most, suppressed);
    }
    return false;
}

void frontend_accept(struct frontend *frontend, const char *listener_name, int fd) {
    const char *listener = intern(listener_name);
    struct client *client = listener ? slab_get(&client_slab) : NULL;
    struct conn *conn = client ? conn_accepted(fd, &waiting_handler, client) : NULL;
    if (!conn) {
        static struct log_limit limit;
        uint32_t suppressed;
        if (log_limit_pass(&limit, 10, &suppressed))
            log_error("listener \"%s\": memory is out: a connection is closed", listener_name);
        if (!client)
            close(fd);  // else conn_accepted() did
        slab_put(&client_slab, client);
        return;
    }
    *client = (struct client){
        .frontend = frontend, .listener = listener, .conn = conn, .since_ms = (uint32_t)clock_ms()
    };
    conn->listener = listener;
    list_push_back(&clients, &client->link);
    client_count++;
    counters->connections_active++;
    if (frontend_current(listener) == NULL)
        hold_frontend(client);
    if (!count_peer(client)) {
        client->conn->reset = true;
        reject(client, CLOSE_limit);
        return;
    }
    if (frontend->log || frontend->options.scripts)
        conn_remote(client->conn);  // now: a peer that resets has no address afterwards
    if (frontend->options.connect) {
        bool rejected = false;
        if (frontend->options.connect->run(frontend->options.scripts, client->conn, &rejected, decided,
                                           client) == STEP_WAIT) {
            hold_frontend(client);
            timer_start(&client->conn->timer, frontend->site.settings->header_timeout);
            return;
        }
        if (rejected) {
            reject(client, CLOSE_rejected);
            return;
        }
    }
    admit(client);
}

static void end_client(struct client *client, bool at_once) {
    if (client->conn)
        cancel_connect(client, CLOSE_drain);
    else if (at_once)
        h1_server_close(client->codec, CLOSE_drain);
    else
        h1_server_drain(client->codec);
}

static void end_clients(bool (*chosen)(const struct client *client), bool at_once) {
    struct list *const lists[] = { &clients, &fresh, &idle };
    for (unsigned i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct list all;
        list_init(&all);
        list_splice(&all, lists[i]);
        while (!list_empty(&all)) {
            struct client *client = container_of(all.next, struct client, link);
            list_remove(&client->link);
            list_push_back(lists[i], &client->link);
            if (chosen(client))
                end_client(client, at_once);
        }
    }
}

// The generation that they came in by goes: those without a request take the new one, or keep the old one
// when their listener goes with it.
static void move_fresh(void) {
    list_each(link, &fresh) {
        struct client *client = container_of(link, struct client, link);
        struct frontend *current = frontend_current(client->listener);
        if (client->held)
            continue;
        if (current)
            client->frontend = current;
        else
            hold_frontend(client);
    }
}

static bool any(const struct client *client) {
    (void)client;
    return true;
}

static bool without_listener(const struct client *client) {
    return frontend_current(client->listener) == NULL;
}

void frontend_drain(bool everything) {
    move_fresh();
    end_clients(everything ? any : without_listener, false);
}

static bool any_tunnel(const struct conn *conn) {
    (void)conn;
    return true;
}

static bool tunnel_without_listener(const struct conn *conn) {
    return frontend_current(conn->listener) == NULL;
}

void frontend_close_removed(void) {
    end_clients(without_listener, true);
    relay_close(tunnel_without_listener, CLOSE_drain);
}

void frontend_close_all(void) {
    end_clients(any, true);
    relay_close(any_tunnel, CLOSE_drain);
}

// ---- life -------------------------------------------------------------------------------------------------

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
        .admit = site_admit,
        .route = route,
        .dial = site_dial,
        .dial_cancel = site_dial_cancel,
        .tunnel = tunnel,
        .log = write_log,
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
    int rc = 0;
    if (conf->settings.access_log)
        rc = access_log_new(conf->settings.access_log, &frontend->log, error);
    unsigned count = 0;
    for (const struct conf_route *r = conf->routes; r; r = r->next)
        count++;
    frontend->routes = calloc(count ? count : 1, sizeof *frontend->routes);
    if (!frontend->routes)
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
    free(frontend->routes);
    free(frontend);
}
