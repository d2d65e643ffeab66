// SPDX-License-Identifier: BSD-2-Clause
// Connections to servers: the newest idle one of the pool, one that has room for another stream, or a new one
// within connect_timeout; when every server has what it may have, a place in the upstream's queue. A server's
// pool holds the most lately used first, which is also the one least likely to have been closed; its
// upstream's `keepalive` bounds all of a worker's idle ones.
//
// Where a connection carries several exchanges (HTTP/2), or may turn out to, those that come while it is
// being made wait for it together (struct attempt): the first goes as soon as it is connected, the others
// once the server has said how many it takes.
//
// A name that a script gave is resolved first, for each attempt anew; the cache is the resolver's.
//
// What must not be sent twice gets a pooled connection only after a look at the socket (conn_quiet): an end
// that has come in this turn is noticed by that and not by a lost request. One that comes later is answered
// 502.
#include "proxy/dial.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/address.h"
#include "tls/client.h"

#include <errno.h>
#include <string.h>

// A connection that is being made: first `conn` connects, then, if it carries several exchanges, `client` has
// it and awaits the server's word. It ends with that, with a failure, or when nobody waits for it before it
// is connected.
struct attempt {
    struct list link;             // of its server's
    struct server *server;
    struct conn *conn;            // connecting; NULL: `client` has it
    struct client_codec *client;  // NULL: not yet
    struct list waiting;          // struct dialling, in order; each has a place of the server
    unsigned count;               // of them
    bool shared;                  // counted in server->shared, because more than one may wait for it
    bool over;                    // those that still wait are being sent on: it goes when all are
};

// Belongs to its exchange (x->dialling). It waits until a name is resolved, for an attempt, or in its
// upstream's queue with its timer running (name and attempt are NULL).
struct dialling {
    struct exchange *x;
    const struct named *name;  // with its ask
    struct resolver_ask *ask;
    struct attempt *attempt;
    struct list link;
    struct timer timer;
};

static struct slab dialling_slab = SLAB_INIT(sizeof(struct dialling), 64);
static struct slab attempt_slab = SLAB_INIT(sizeof(struct attempt), 64);

static const struct client_codec_callbacks client_callbacks;

static void ask(struct exchange *x, struct server *server);

static void take_place(struct server *server) {
    server->active++;
}

// Those who wait are served at the turn's end: whoever gives a place may be deep in another exchange.
static void wake_later(struct server *server) {
    if (!list_empty(&server->upstream->waiting))
        ring_flush_later(&server->upstream->waker);
}

static void give_place(struct server *server) {
    server->active--;
    wake_later(server);
}

void dial_tunnel_ended(struct server *server) {
    give_place(server);
}

// Its bit in x->tried.
static uint64_t bit_of(const struct server *server) {
    unsigned index = (unsigned)(server - server->upstream->servers);
    return server->upstream->book ? address_bit(server) : index < 64 ? 1ull << index : 0;
}

// Whether a connection to it will carry several exchanges, or may: over TLS that is known behind the
// handshake.
static bool shares(const struct server *server) {
    enum conf_protocol protocol = server->upstream->conf->protocol;
    return protocol == PROTOCOL_H2 ||
        (protocol == PROTOCOL_AUTO && server->upstream->tls && !server->speaks_http1);
}

// ---- the pool ---------------------------------------------------------------------------------------------

static bool pooled(const struct client_codec *client) {
    return list_linked(&client->link) && client->streams == 0;
}

static void unpool(struct client_codec *client) {
    struct server *server = client->owner;
    list_remove(&client->link);
    server->idle_count--;
    server->upstream->idle_count--;
    counters->upstream_idle--;
}

static void drop(struct client_codec *client, enum close_reason reason) {
    struct server *server = client->owner;
    if (pooled(client))
        unpool(client);
    if (client->many) {
        server->shared--;
        wake_later(server);
    }
    client->ops->free(client, reason);
}

static struct attempt *attempt_of(const struct client_codec *client) {
    struct server *server = client->owner;
    list_each(link, &server->attempts) {
        struct attempt *attempt = container_of(link, struct attempt, link);
        if (attempt->client == client)
            return attempt;
    }
    return NULL;
}

// It carries nothing, and may carry something.
static void pool(struct client_codec *client) {
    struct server *server = client->owner;
    struct upstream *upstream = server->upstream;
    uint64_t idle = upstream->conf->keepalive_idle;
    if (idle > client->idle_ms)
        idle = client->idle_ms;
    if (upstream->conf->keepalive == 0 || idle == 0) {
        drop(client, CLOSE_none);
        return;
    }
    if (upstream->idle_count >= upstream->conf->keepalive) {
        // Full: the one unused for longest goes, of this server if it has any.
        if (list_empty(&server->idle)) {
            drop(client, CLOSE_none);
            return;
        }
        drop(container_of(server->idle.prev, struct client_codec, link), CLOSE_keepalive_timeout);
    }
    list_push_front(&server->idle, &client->link);
    server->idle_count++;
    upstream->idle_count++;
    counters->upstream_idle++;
    client->ops->idle(client, idle);
}

static void released(struct client_codec *client, enum client_released how) {
    if (how != CLIENT_TUNNEL)  // else the tunnel keeps the place
        give_place(client->owner);
    if (client->streams > 0)
        return;
    list_remove(&client->link);
    if (how != CLIENT_REUSABLE)
        drop(client, CLOSE_none);
    else if (!attempt_of(client))  // else it waits for its first streams
        pool(client);
}

static void lost(struct client_codec *client) {
    drop(client, CLOSE_upstream_closed);
}

static void roomier(struct client_codec *client) {
    wake_later(client->owner);
}

// ---- making connections -----------------------------------------------------------------------------------

// What this process lacks says nothing of the server.
static bool is_ours(int error) {
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

// why: of a TLS handshake; NULL: of the connection itself.
static void failed(struct exchange *x, struct server *server, int error, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (is_ours(error)) {
        if (log_limit_pass(&limit, 10, &suppressed))
            log_error("upstream \"%s\": no connection to \"%s\" can be made: %s (request %s)",
                      server->upstream->conf->name, server->conf->name, strerror(-error), exchange_id(x));
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    bool timeout = error == -ETIMEDOUT;
    if (why && log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": TLS with \"%s\" failed: %s (request %s)", server->upstream->conf->name,
                  server->conf->name, why, exchange_id(x));
    else if (!why && log_limit_pass(&limit, 10, &suppressed))
        log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)",
                  server->upstream->conf->name, server->conf->name, strerror(-error), exchange_id(x));
    exchange_dial_failed(x, true, timeout ? 504 : 502,
                         timeout   ? CLOSE_upstream_timeout
                             : why ? CLOSE_upstream_tls
                                   : CLOSE_upstream_connect);
}

// Takes it from where it waits; its place at the server, if it has one, is the caller's.
static struct exchange *end(struct dialling *dialling) {
    struct exchange *x = dialling->x;
    x->dialling = NULL;
    list_remove(&dialling->link);
    if (dialling->name) {
        resolver_cancel(dialling->ask);
    } else if (dialling->attempt) {
        dialling->attempt->count--;
    } else {
        timer_stop(&dialling->timer);
        x->upstream->waiting_count--;
        counters->upstream_waiting--;
    }
    slab_put(&dialling_slab, dialling);
    return x;
}

static struct exchange *end_first(struct attempt *attempt) {
    return end(container_of(attempt->waiting.next, struct dialling, link));
}

static void end_attempt(struct attempt *attempt) {
    list_remove(&attempt->link);
    if (attempt->shared)
        attempt->server->shared--;
    slab_put(&attempt_slab, attempt);
}

// All that wait for it are told. Each may ask this server again at once: it has left the attempt by then.
static void fail_attempt(struct attempt *attempt, int error, const char *why) {
    struct server *server = attempt->server;
    if (!is_ours(error)) {
        counters->upstream_connect_errors++;
        server_failed(server);
    }
    attempt->over = true;
    list_remove(&attempt->link);  // takes nobody any more
    server->upstream->users++;    // who is told may take others into the book
    while (attempt->count > 0) {
        struct exchange *x = end_first(attempt);
        give_place(server);
        failed(x, server, error, why);
    }
    end_attempt(attempt);
    server->upstream->users--;
}

// The exchange has a place of the server.
static void serve(struct exchange *x, struct server *server, struct client_codec *client) {
    server->requests++;
    if (pooled(client))
        unpool(client);
    if (client->many && !list_linked(&client->link))
        list_push_back(&server->busy, &client->link);
    client->ops->carry(client, x, server->upstream->conf);
}

// Those that waited too go to the same server, which they have not tried yet; where there is no room for all,
// as if they had just come.
static void disperse(struct attempt *attempt) {
    struct server *server = attempt->server;
    struct upstream *upstream = server->upstream;
    upstream->users++;  // who is told may take others into the book
    while (attempt->count > 0) {
        struct exchange *x = end_first(attempt);
        give_place(server);
        if (dial_has_room(server)) {
            ask(x, server);
        } else {
            x->tried &= ~bit_of(server);
            dial(x);
        }
    }
    end_attempt(attempt);
    upstream->users--;
}

// Nothing more stands between it and requests: `conn` is the attempt's no more.
static void made(struct attempt *attempt, bool h2) {
    struct server *server = attempt->server;
    const struct conf_upstream *conf = server->upstream->conf;
    struct conn *conn = attempt->conn;
    timer_stop(&conn->timer);
    counters->upstream_connects++;
    server->connects++;
    server_succeeded(server);
    server->speaks_http1 = !h2;
    attempt->conn = NULL;
    struct client_codec *client = h2
        ? h2_client_new(conn, conf, server->upstream->tls != NULL, &client_callbacks, server)
        : h1_client_new(conn, conf, &client_callbacks, server);
    if (!client) {
        fail_attempt(attempt, -ENOMEM, NULL);
        return;
    }
    server->shared += (unsigned)client->many - attempt->shared;
    attempt->shared = false;
    struct exchange *x = end_first(attempt);
    if (client->many) {
        attempt->client = client;
        serve(x, server, client);
        return;
    }
    attempt->over = true;
    list_remove(&attempt->link);
    server->upstream->users++;
    serve(x, server, client);
    server->upstream->users--;
    disperse(attempt);
}

static void shaken(struct conn *conn, void *owner, int error, const char *why) {
    struct attempt *attempt = owner;
    enum conf_protocol protocol = attempt->server->upstream->conf->protocol;
    bool h2 = slice_eq(tls_alpn(conn), SLICE_LIT("h2"));
    counters->upstream_tls_handshakes++;
    if (error == 0 && protocol == PROTOCOL_H2 && !h2) {
        error = -EPROTO;
        why = "the server does not offer HTTP/2 (ALPN)";
    } else if (error < 0) {
        why = tls_connect_why(conn, why);
    }
    if (error < 0) {
        counters->upstream_tls_errors++;
        conn_finish(conn, CLOSE_upstream_tls, 0);  // an alert may have to leave
        fail_attempt(attempt, error, why);
        return;
    }
    counters->upstream_tls_resumed += slice_eq(tls_field(conn, TLS_resumed), SLICE_LIT("yes"));
    made(attempt, h2);
}

static const struct tls_callbacks tls_callbacks = { .done = shaken };

// What the certificate of the server must be for: what stands in its line before the port.
static struct slice host_of(const struct server *server) {
    struct slice name = slice_of(server->conf->name);
    if (server->conf->host.at)
        return server->conf->host;
    if (slice_starts(name, SLICE_LIT("unix:")))
        return slice_make(NULL, 0);
    const char *colon = memrchr(name.at, ':', name.len);
    if (colon)
        name.len = (size_t)(colon - name.at);
    if (name.len > 1 && name.at[0] == '[')
        name = slice_make(name.at + 1, name.len - 2);
    return name;
}

static void connected(struct conn *conn, int error) {
    struct attempt *attempt = conn->owner;
    struct server *server = attempt->server;
    if (error < 0) {
        conn_close(conn, CLOSE_upstream_connect);
        fail_attempt(attempt, error, NULL);
    } else if (!server->upstream->tls) {
        made(attempt, server->upstream->conf->protocol == PROTOCOL_H2);
    } else if (tls_connect(conn, server->upstream->tls, host_of(server), slice_of(server->conf->name),
                           &tls_callbacks, attempt) < 0) {
        conn_close(conn, CLOSE_memory);
        fail_attempt(attempt, -ENOMEM, NULL);
    }
}

static void settled(struct client_codec *client, int error) {
    struct attempt *attempt = attempt_of(client);
    if (error < 0) {
        fail_attempt(attempt, error, NULL);
        return;
    }
    attempt->over = true;
    list_remove(&attempt->link);
    if (client->streams == 0 && client->ops->room(client) > 0)
        pool(client);
    disperse(attempt);
}

static const struct client_codec_callbacks client_callbacks = {
    .released = released,
    .lost = lost,
    .settled = settled,
    .roomier = roomier,
};

static void timed_out(struct conn *conn) {
    struct attempt *attempt = conn->owner;
    bool tls = tls_on(conn);
    counters->upstream_tls_errors += tls;
    conn_close(conn, CLOSE_upstream_timeout);
    fail_attempt(attempt, -ETIMEDOUT, tls ? "connect_timeout has passed" : NULL);
}

// Only timeout can be called while a conn connects.
static const struct conn_handler dialling_handler = { .timeout = timed_out };

// An attempt that has begun to which one more may be added.
static struct attempt *joinable(const struct server *server) {
    if (shares(server))
        list_each(link, &server->attempts) {
            struct attempt *attempt = container_of(link, struct attempt, link);
            unsigned carried = attempt->client ? attempt->client->streams : 0;
            if (attempt->count + carried < server->upstream->conf->http2_streams)
                return attempt;
        }
    return NULL;
}

// The first of a list that may carry one more. Of those that carry some already the first there is, so that
// the last ones become idle and end.
static struct client_codec *roomy(const struct list *clients) {
    list_each(link, clients) {
        struct client_codec *client = container_of(link, struct client_codec, link);
        if (client->ops->room(client) > 0 && !attempt_of(client))
            return client;
    }
    return NULL;
}

bool dial_has_room(const struct server *server) {
    return !shares(server) || server->shared < server->upstream->conf->http2_connections ||
        roomy(&server->idle) || roomy(&server->busy) || joinable(server);
}

// The newest idle connection that may carry this request, NULL when there is none.
static struct client_codec *take_idle(struct exchange *x, struct server *server) {
    if (x->fresh && !shares(server))
        return NULL;
    struct client_codec *client;
    while ((client = roomy(&server->idle))) {
        if (!x->req.idempotent && !conn_quiet(client->conn)) {
            drop(client, CLOSE_upstream_closed);
            continue;
        }
        return client;
    }
    return NULL;
}

static struct attempt *begin(struct server *server) {
    struct attempt *attempt = slab_get(&attempt_slab);
    if (!attempt) {
        errno = ENOMEM;
        return NULL;
    }
    struct conn *conn = conn_connect(&server->conf->addr, connected, &dialling_handler, attempt);
    if (!conn) {
        int error = errno;
        slab_put(&attempt_slab, attempt);
        errno = error;
        return NULL;
    }
    *attempt = (struct attempt){ .server = server, .conn = conn, .shared = shares(server) };
    list_init(&attempt->waiting);
    list_push_back(&server->attempts, &attempt->link);
    server->shared += attempt->shared;
    timer_start(&conn->timer, server->upstream->conf->connect_timeout);
    return attempt;
}

// Notes which server is asked. One of the book's may be gone when the exchange is logged.
static int note(struct exchange *x, struct server *server) {
    struct slice name = slice_of(server->conf->name);
    x->tried |= bit_of(server);
    if (server->upstream->book) {
        name = arena_copy(&x->arena, name);
        if (!name.at)
            return -ENOMEM;
    }
    x->server = server;
    x->upstream_name = name;
    return 0;
}

static void ask(struct exchange *x, struct server *server) {
    if (note(x, server) < 0) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    struct client_codec *client = roomy(&server->busy);
    if (!client)
        client = take_idle(x, server);
    x->fresh = false;
    if (client) {
        take_place(server);
        serve(x, server, client);
        return;
    }
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    struct attempt *attempt = joinable(server);
    if (!attempt)
        attempt = begin(server);
    if (!attempt) {
        int error = errno;
        slab_put(&dialling_slab, dialling);
        if (!is_ours(-error)) {
            counters->upstream_connect_errors++;
            server_failed(server);
        }
        failed(x, server, -error, NULL);
        return;
    }
    take_place(server);
    *dialling = (struct dialling){ .x = x, .attempt = attempt };
    timer_init(&dialling->timer, NULL);
    list_push_back(&attempt->waiting, &dialling->link);
    attempt->count++;
    x->dialling = dialling;
}

// ---- the queue --------------------------------------------------------------------------------------------

static void refuse(struct exchange *x, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": no server is free: %s (request %s)", x->upstream->conf->name, why,
                 exchange_id(x));
    exchange_dial_failed(x, false, 503, CLOSE_upstream_busy);
}

static void waited_too_long(struct timer *timer) {
    struct dialling *dialling = container_of(timer, struct dialling, timer);
    counters->upstream_queue_timeouts++;
    refuse(end(dialling), "queue_timeout has passed");
}

static void wait(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    struct dialling *dialling =
        upstream->waiting_count < upstream->conf->queue ? slab_get(&dialling_slab) : NULL;
    if (!dialling) {
        counters->upstream_queue_full++;
        refuse(x, "the queue is full");
        return;
    }
    *dialling = (struct dialling){ .x = x };
    timer_init(&dialling->timer, waited_too_long);
    timer_start(&dialling->timer, upstream->conf->queue_timeout);
    list_push_back(&upstream->waiting, &dialling->link);
    upstream->waiting_count++;
    counters->upstream_waiting++;
    counters->upstream_waited++;
    x->dialling = dialling;
}

static void wake(struct ring_flush *flush) {
    struct upstream *upstream = container_of(flush, struct upstream, waker);
    while (!list_empty(&upstream->waiting)) {
        struct dialling *first = container_of(upstream->waiting.next, struct dialling, link);
        struct server *server = upstream_choose(upstream, first->x->tried);
        if (!server)
            return;
        ask(end(first), server);
    }
}

// ---- names ------------------------------------------------------------------------------------------------

// Nothing was sent: a route hook may know of another server.
static void name_failed(struct exchange *x, const char *why, unsigned status, enum close_reason reason) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("no server \"%s\": %s (request %s)", x->upstream->conf->name, why, exchange_id(x));
    exchange_dial_failed(x, status != 503, status, reason);
}

static void resolved(void *owner, const struct resolver_answer *answer) {
    struct dialling *dialling = owner;
    const struct named *name = dialling->name;
    struct error error;
    dialling->ask = NULL;
    struct exchange *x = end(dialling);
    if (answer->count == 0) {
        bool late = answer->failure == DNS_timeout;
        bool ours = answer->failure == DNS_busy || answer->failure == DNS_memory;
        name_failed(x, answer->text, late ? 504 : ours ? 503 : 502, CLOSE_upstream_name);
        return;
    }
    struct server *server = address_choose(name, answer, x->settings->route_allow, x->tried, &error);
    if (server)
        ask(x, server);
    else
        name_failed(x, error.text, 502, CLOSE_upstream_denied);
}

static void resolve(struct exchange *x, const struct named *name) {
    struct dialling *dialling = slab_get(&dialling_slab);
    if (!dialling) {
        exchange_dial_failed(x, false, 503, CLOSE_memory);
        return;
    }
    *dialling = (struct dialling){ .x = x, .name = name };
    list_init(&dialling->link);
    x->dialling = dialling;
    struct resolver_ask *pending =
        resolver_ask(name->book->resolver, name->host, AF_UNSPEC, resolved, dialling);
    if (pending)  // else it was told already, and is gone
        dialling->ask = pending;
}

void dial(struct exchange *x) {
    struct upstream *upstream = x->upstream;
    if (upstream->named) {
        resolve(x, upstream->named);
        return;
    }
    // Nobody overtakes those who wait, not even when a place was given a moment ago.
    struct server *server = list_empty(&upstream->waiting) ? upstream_choose(upstream, x->tried) : NULL;
    if (server)
        ask(x, server);
    else
        wait(x);
}

void dial_cancel(struct exchange *x) {
    struct dialling *dialling = x->dialling;
    struct attempt *attempt = dialling->attempt;
    end(dialling);
    if (!attempt)
        return;
    give_place(attempt->server);
    if (attempt->count > 0 || attempt->client || attempt->over)
        return;
    conn_close(attempt->conn, CLOSE_client_closed);
    end_attempt(attempt);
}

void dial_init_server(struct server *server) {
    list_init(&server->idle);
    list_init(&server->busy);
    list_init(&server->attempts);
}

void dial_init(struct upstream *upstream) {
    list_init(&upstream->waiting);
    list_init(&upstream->waker.link);
    upstream->waker.flush = wake;
}

static void release_server(struct server *server) {
    // What settles has nobody who waits for it any more.
    list_each(link, &server->attempts) {
        struct attempt *attempt = container_of(link, struct attempt, link);
        struct client_codec *client = attempt->client;
        end_attempt(attempt);
        drop(client, CLOSE_drain);
    }
    while (!list_empty(&server->idle))
        drop(container_of(server->idle.next, struct client_codec, link), CLOSE_drain);
}

void dial_release(struct upstream *upstream) {
    for (unsigned i = 0; i < upstream->server_count; i++)
        release_server(&upstream->servers[i]);
    list_remove(&upstream->waker.link);
}
