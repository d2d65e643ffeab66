// SPDX-License-Identifier: BSD-2-Clause
// Making connections to servers (attempt.h): connect, shake hands over TLS, choose the protocol, tell those who
// wait.
#include "proxy/attempt.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/slab.h"
#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/announce.h"
#include "proxy/pool.h"
#include "tls/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// First `conn` connects, then, if it carries several exchanges, `client` has it and awaits the server's word.
// It ends with that, with a failure, or when nobody waits for it before it is connected.
struct attempt {
    struct list link;             // of its server's
    struct server *server;
    struct conn *conn;            // connecting; NULL: `client` has it
    struct client_codec *client;  // NULL: not yet
    struct list waiting;          // struct waiter, in order
    unsigned count;               // of them
    bool shared;                  // counted in server->shared, because more than one may wait for it
    bool alone;                   // nobody may join, and nothing is learnt of the server (attempt_alone)
    bool bare;                    // without TLS
    bool connected;               // the server was reached: what `conn` does is TLS
    bool over;                    // those that still wait are being told: it goes when all are
};

static struct slab attempt_slab = SLAB_INIT(sizeof(struct attempt), 64);

static const struct client_codec_callbacks client_callbacks;

bool attempt_error_is_ours(int error) {
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

// Whether a connection to it will carry several exchanges, or may: over TLS that is known behind the
// handshake.
static bool shares(const struct server *server) {
    if (server->upstream->conf->proxy_protocol != PROXY_VERSION_NONE)
        return false;  // it is one client's
    enum conf_protocol protocol = server->upstream->conf->protocol;
    return protocol == PROTOCOL_H2 ||
        (protocol == PROTOCOL_AUTO && server->upstream->tls && !server->speaks_http1 &&
         !server_wants_http1(server));
}

static struct waiter *take_first(struct attempt *attempt) {
    struct waiter *waiter = container_of(attempt->waiting.next, struct waiter, link);
    list_remove(&waiter->link);
    waiter->attempt = NULL;
    attempt->count--;
    return waiter;
}

static void end(struct attempt *attempt) {
    struct server *server = attempt->server;
    list_remove(&attempt->link);
    if (attempt->shared)
        server->shared--;
    if (server->removed)
        upstream_tidy_later(server->upstream);
    slab_put(&attempt_slab, attempt);
}

// It takes nobody any more; who is told next may take others into the book, or end servers' uses.
static void close_list(struct attempt *attempt) {
    attempt->over = true;
    list_remove(&attempt->link);
    attempt->server->upstream->users++;
}

static void end_told(struct attempt *attempt) {
    struct upstream *upstream = attempt->server->upstream;
    end(attempt);
    upstream->users--;
}

static void count_failure(struct server *server, int error) {
    if (attempt_error_is_ours(error))
        return;
    counters->upstream_connect_errors++;
    server_failed(server);
}

static void fail(struct attempt *attempt, int error, const char *why) {
    struct server *server = attempt->server;
    if (!attempt->alone)
        count_failure(server, error);
    close_list(attempt);
    while (attempt->count > 0) {
        struct waiter *waiter = take_first(attempt);
        waiter->ops->failed(waiter, server, error, why);
    }
    end_told(attempt);
}

// Its list is closed. Those that waited too have not tried this server yet.
static void disperse(struct attempt *attempt) {
    while (attempt->count > 0) {
        struct waiter *waiter = take_first(attempt);
        waiter->ops->again(waiter, attempt->server);
    }
    end_told(attempt);
}

// The client's announcement, which the connection has begun with, is what it is found by later.
static int keep_announced(struct client_codec *client, struct slice announced) {
    if (announced.len == 0)
        return 0;
    char *copy = malloc(announced.len);
    if (!copy)
        return -ENOMEM;
    client->announced = slice_make(memcpy(copy, announced.at, announced.len), announced.len);
    return 0;
}

// Of its only waiter: with an announcement it has one, who is a client or a check of ours.
static struct slice announced_by(const struct attempt *attempt) {
    struct slice announced = { 0 };
    if (attempt->count > 0)
        announced = container_of(attempt->waiting.next, struct waiter, link)->announced;
    return announced.len > 0 ? announced : announce_nobody(attempt->server->upstream->conf);
}

// Nothing more stands between it and requests: `conn` is the attempt's no more.
static void made(struct attempt *attempt, bool h2) {
    struct server *server = attempt->server;
    const struct conf_upstream *conf = server->upstream->conf;
    struct conn *conn = attempt->conn;
    timer_stop(&conn->timer);
    if (attempt->alone) {
        struct waiter *waiter = take_first(attempt);
        close_list(attempt);
        waiter->ops->alone(waiter, conn, h2);
        end_told(attempt);
        return;
    }
    counters->upstream_connects++;
    server->counts->connect_us += clock_us() - conn->started_us;
    server_succeeded(server);
    server->speaks_http1 = !h2;
    attempt->conn = NULL;
    struct client_codec *client = h2
        ? h2_client_new(conn, conf, server->upstream->tls != NULL, &client_callbacks, server)
        : h1_client_new(conn, conf, &client_callbacks, server);
    if (!client) {
        fail(attempt, -ENOMEM, NULL);
        return;
    }
    server->shared += (unsigned)client->many - attempt->shared;
    attempt->shared = false;
    if (keep_announced(client, announced_by(attempt)) < 0) {
        pool_drop(client, CLOSE_memory);
        fail(attempt, -ENOMEM, NULL);
        return;
    }
    struct waiter *waiter = attempt->count > 0 ? take_first(attempt) : NULL;
    if (client->many) {
        attempt->client = client;
        client->settling = true;
        if (waiter)
            waiter->ops->made(waiter, client);
        return;
    }
    close_list(attempt);
    if (waiter)
        waiter->ops->made(waiter, client);
    else
        pool_put(client);
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
        fail(attempt, error, why);
        return;
    }
    counters->upstream_tls_resumed += slice_eq(tls_field(conn, TLS_resumed), SLICE_LIT("yes"));
    made(attempt, h2);
}

static const struct tls_callbacks tls_callbacks = { .done = shaken };

// What the certificate of the server must be for: what stands in its line before the port.
static struct slice host_of(const struct server *server) {
    struct slice name = slice_of(server->line->name);
    if (server->line->host.at)
        return server->line->host;
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
        fail(attempt, error, NULL);
        return;
    }
    attempt->connected = true;
    // Before TLS, and before the request.
    struct slice announced = announced_by(attempt);
    bool tls = server->upstream->tls && !attempt->bare;
    if ((tls && tls_connect(conn, server->upstream->tls, host_of(server), slice_of(server->name),
                            server_wants_http1(server), &tls_callbacks, attempt) < 0) ||
        (announced.len > 0 && conn_put_first(conn, announced) < 0)) {
        conn_close(conn, CLOSE_memory);
        fail(attempt, -ENOMEM, NULL);
    } else if (!tls) {
        made(attempt, !server->upstream->tls && server->upstream->conf->protocol == PROTOCOL_H2);
    }
}

// An attempt whose connection has begun to carry exchanges stays until the server has spoken.
static struct attempt *attempt_of(const struct client_codec *client) {
    struct server *server = client->owner;
    list_each(link, &server->attempts) {
        struct attempt *attempt = container_of(link, struct attempt, link);
        if (attempt->client == client)
            return attempt;
    }
    return NULL;
}

static void settled(struct client_codec *client, int error) {
    struct attempt *attempt = attempt_of(client);
    client->settling = false;
    if (error < 0) {
        fail(attempt, error, NULL);
        return;
    }
    close_list(attempt);
    if (client->streams == 0 && client->ops->room(client) > 0)
        pool_put(client);
    disperse(attempt);
}

static bool http1_required(struct client_codec *client) {
    return server_requires_http1(client->owner);
}

static const struct client_codec_callbacks client_callbacks = {
    .http1_required = http1_required,
    .released = pool_released,
    .lost = pool_lost,
    .settled = settled,
    .roomier = pool_roomier,
};

static void timed_out(struct conn *conn) {
    struct attempt *attempt = conn->owner;
    bool tls = tls_on(conn);
    counters->upstream_tls_errors += tls;
    conn_close(conn, CLOSE_upstream_timeout);
    fail(attempt, -ETIMEDOUT, tls ? "connect_timeout has passed" : NULL);
}

// Only timeout can be called while a conn connects.
static const struct conn_handler dialling_handler = { .timeout = timed_out };

// One that has begun to which one more may be added.
static struct attempt *joinable(const struct server *server) {
    if (shares(server))
        list_each(link, &server->attempts) {
            struct attempt *attempt = container_of(link, struct attempt, link);
            unsigned carried = attempt->client ? attempt->client->streams : 0;
            if (!attempt->alone && attempt->count + carried < server->upstream->conf->http2_streams)
                return attempt;
        }
    return NULL;
}

bool attempt_has_room(const struct server *server) {
    return !shares(server) || server->shared < server->upstream->conf->http2_connections ||
        pool_has_room(server) || joinable(server);
}

static int begin(struct server *server, bool alone, struct attempt **ret_attempt) {
    struct attempt *attempt = slab_get(&attempt_slab);
    if (!attempt)
        return -ENOMEM;
    struct conn *conn = conn_connect(&server->addr, &server->upstream->conf->connecting, connected,
                                     &dialling_handler, attempt);
    if (!conn) {
        int error = -errno;
        slab_put(&attempt_slab, attempt);
        if (!alone)
            count_failure(server, error);
        return error;
    }
    *attempt = (struct attempt){
        .server = server, .conn = conn, .shared = !alone && shares(server), .alone = alone
    };
    list_init(&attempt->waiting);
    list_push_back(&server->attempts, &attempt->link);
    server->shared += attempt->shared;
    timer_start(&conn->timer, server->upstream->conf->connect_timeout);
    *ret_attempt = attempt;
    return 0;
}

static void wait_for(struct attempt *attempt, struct waiter *waiter) {
    waiter->attempt = attempt;
    list_push_back(&attempt->waiting, &waiter->link);
    attempt->count++;
}

int attempt_join(struct server *server, struct waiter *waiter) {
    struct attempt *attempt = joinable(server);
    int rc = attempt ? 0 : begin(server, false, &attempt);
    if (rc == 0)
        wait_for(attempt, waiter);
    return rc;
}

int attempt_alone(struct server *server, struct waiter *waiter, bool bare) {
    struct attempt *attempt;
    int rc = begin(server, true, &attempt);
    if (rc < 0)
        return rc;
    attempt->bare = bare;
    wait_for(attempt, waiter);
    return 0;
}

static void leave(struct waiter *waiter, bool late) {
    struct attempt *attempt = waiter->attempt;
    list_remove(&waiter->link);
    waiter->attempt = NULL;
    attempt->count--;
    if (attempt->count > 0 || attempt->client || attempt->over)
        return;
    if (late && !attempt->connected)
        count_failure(attempt->server, -ETIMEDOUT);
    conn_close(attempt->conn, late ? CLOSE_upstream_timeout : CLOSE_client_closed);
    end(attempt);
}

void attempt_leave(struct waiter *waiter) {
    leave(waiter, false);
}

void attempt_give_up(struct waiter *waiter) {
    leave(waiter, true);
}

bool attempt_is_connected(const struct waiter *waiter) {
    return waiter->attempt->connected;
}

void attempt_prepare(struct server *server) {
    struct attempt *attempt;
    if (server->upstream->conf->proxy_protocol != PROXY_VERSION_NONE)
        return;  // it would be nobody's
    if (!shares(server) || server->shared == 0)
        (void)begin(server, false, &attempt);
}

unsigned attempt_count(const struct server *server) {
    unsigned count = 0;
    list_each(link, &server->attempts) count++;
    return count;
}

void attempts_release(struct server *server) {
    // What settles, and what nobody waited for from the begin.
    list_each(link, &server->attempts) {
        struct attempt *attempt = container_of(link, struct attempt, link);
        struct client_codec *client = attempt->client;
        struct conn *conn = attempt->conn;
        end(attempt);
        if (client)
            pool_drop(client, CLOSE_drain);
        else
            conn_close(conn, CLOSE_drain);
    }
}
