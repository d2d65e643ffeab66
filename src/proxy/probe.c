// SPDX-License-Identifier: BSD-2-Clause
// One check of a server (probe.h). A request is an inner exchange (http/inner.h) on a connection that nobody else gets:
// so HTTP/1.1, HTTP/2 and TLS are spoken as they are for everybody, by the upstream's configuration.
#include "proxy/probe.h"

#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct probe *of_inner(struct inner *inner) {
    return container_of(inner, struct probe, inner);
}

static struct probe *of_exchange(const struct exchange *x) {
    return of_inner(x->down_owner);
}

static void note(struct probe *probe, const char *why) {
    if (!probe->why[0])
        snprintf(probe->why, sizeof probe->why, "%s", why);
}

static void tell(struct probe *probe, bool good) {
    probe->done(probe, good ? PROBE_GOOD : probe->ours ? PROBE_NOTHING : PROBE_BAD, probe->why);
}

static void note_error(struct probe *probe, int error, const char *why) {
    char text[STANDING_WHY_MAX];
    probe->ours |= attempt_error_is_ours(error);
    snprintf(text, sizeof text, "%s: %s", why ? "the TLS handshake failed" : "it cannot be connected to",
             why ? why : strerror(-error));
    note(probe, text);
}

// ---- what comes --------------------------------------------------------------------------------------------

static int take_head(struct inner *inner, const struct response *res) {
    of_inner(inner)->status = res->status;
    return 0;
}

// The text may begin in one piece and end in another.
static void search(struct probe *probe, const char *at, size_t len) {
    struct slice text = slice_of(probe->kit->health->body);
    char joint[2 * CONF_HEALTH_TEXT_MAX];
    size_t keep = text.len - 1, more = len < keep ? len : keep;
    memcpy(joint, probe->tail, probe->tail_len);
    memcpy(joint + probe->tail_len, at, more);
    size_t joined = probe->tail_len + more;
    probe->found = memmem(joint, joined, text.at, text.len) || memmem(at, len, text.at, text.len);
    const char *from = len >= keep ? at : joint;
    size_t have = len >= keep ? len : joined;
    probe->tail_len = (unsigned)(have < keep ? have : keep);
    memcpy(probe->tail, from + have - probe->tail_len, probe->tail_len);
}

static int take_body(struct inner *inner, struct queue *body) {
    struct probe *probe = of_inner(inner);
    struct span span;
    while (queue_take(body, &span)) {
        if (probe->kit->health->body && !probe->found)
            search(probe, span.at, span.len);
        block_unref(span.block);
    }
    return 0;
}

static bool status_good(const struct conf_health *health, unsigned status) {
    for (unsigned i = 0; i < health->status_count; i++)
        if (status >= health->status[i].low && status <= health->status[i].high)
            return true;
    return false;
}

static void over(struct inner *inner, struct exchange *x, enum close_reason failure) {
    (void)x;
    struct probe *probe = of_inner(inner);
    const struct conf_health *health = probe->kit->health;
    probe->ours |= failure == CLOSE_memory;
    if (failure != CLOSE_none)
        note(probe, close_reason_text(failure));
    else if (!status_good(health, probe->status))
        snprintf(probe->why, sizeof probe->why, "it answers with status %u", probe->status);
    else if (health->body && !probe->found)
        note(probe, "its answer lacks the text of body=");
    tell(probe, failure == CLOSE_none && !probe->why[0]);
}

static const struct inner_ops inner_ops = { .head = take_head, .body = take_body, .over = over };

// ---- the connection ---------------------------------------------------------------------------------------

static void free_client(struct probe *probe) {
    struct client_codec *client = probe->client;
    probe->client = NULL;
    if (client)
        client->ops->free(client, CLOSE_none);
}

static void released(struct client_codec *client, enum client_released how) {
    (void)how;
    if (client->streams == 0)
        free_client(client->owner);
}

static void lost(struct client_codec *client) {
    struct probe *probe = client->owner;
    free_client(probe);
    note(probe, "it closed the connection");
    tell(probe, false);
}

// HTTP/2 alone. After an error `lost` follows, or the exchange fails of it.
static void settled(struct client_codec *client, int error) {
    struct probe *probe = client->owner;
    if (error < 0)
        note(probe, "it does not begin HTTP/2");
    if (error < 0 || probe->inner.x)
        return;
    free_client(probe);
    tell(probe, true);
}

static void roomier(struct client_codec *client) {
    (void)client;
}

static bool http1_required(struct client_codec *client) {
    const struct probe *probe = client->owner;
    return server_requires_http1(probe->server);
}

static const struct client_codec_callbacks callbacks = {
    .http1_required = http1_required,
    .released = released,
    .lost = lost,
    .settled = settled,
    .roomier = roomier,
};

static struct probe *of_waiter(struct waiter *waiter) {
    return container_of(waiter, struct probe, waiter);
}

static void connect_failed(struct waiter *waiter, struct server *server, int error, const char *why) {
    struct probe *probe = of_waiter(waiter);
    (void)server;
    note_error(probe, error, why);
    if (!probe->inner.x) {
        tell(probe, false);
        return;
    }
    probe->inner.x->dialling = NULL;
    exchange_dial_failed(probe->inner.x, false, 502, CLOSE_upstream_connect);
}

static void connected(struct waiter *waiter, struct conn *conn, bool h2) {
    struct probe *probe = of_waiter(waiter);
    struct exchange *x = probe->inner.x;
    const struct conf_upstream *conf = &probe->kit->conf;
    bool secure = probe->server->upstream->tls != NULL;
    if (probe->kit->health->kind < HEALTH_H2) {
        conn_finish(conn, CLOSE_none, 0);
        tell(probe, true);
        return;
    }
    if (!x && !h2) {
        conn_finish(conn, CLOSE_none, 0);
        note(probe, "it does not speak HTTP/2 (ALPN)");
        tell(probe, false);
        return;
    }
    if (x)
        x->dialling = NULL;
    probe->client = h2 ? h2_client_new(conn, conf, secure, &callbacks, probe)
                       : h1_client_new(conn, conf, &callbacks, probe);
    if (!probe->client)
        probe->ours = true;
    if (x && probe->client)
        probe->client->ops->carry(probe->client, x, conf);
    else if (x)
        exchange_dial_failed(x, false, 503, CLOSE_memory);
    else if (!probe->client)
        tell(probe, false);
}

static const struct waiter_ops waiter_ops = { .failed = connect_failed, .alone = connected };

// ---- the exchange's site ----------------------------------------------------------------------------------

static int route(struct exchange_site *site, struct exchange *x, struct error *error) {
    (void)site, (void)error;
    struct probe *probe = of_exchange(x);
    x->upstream_conf = &probe->kit->conf;
    x->upstream_name = slice_of(probe->server->name);
    return 0;
}

static void dial(struct exchange_site *site, struct exchange *x) {
    (void)site;
    struct probe *probe = of_exchange(x);
    int rc = attempt_alone(probe->server, &probe->waiter, false);
    if (rc == 0) {
        x->dialling = probe;
        return;
    }
    note_error(probe, rc, NULL);
    exchange_dial_failed(x, false, 503, CLOSE_upstream_connect);
}

static void dial_cancel(struct exchange_site *site, struct exchange *x) {
    (void)site;
    x->dialling = NULL;
    attempt_leave(&of_exchange(x)->waiter);
}

static void nothing_of(struct exchange_site *site, struct exchange *x) {
    (void)site, (void)x;
}

// Checks end with the use of their configuration, before it can go.
static void nothing(struct exchange_site *site) {
    (void)site;
}

void probe_kit_init(struct probe_kit *kit, const struct conf_upstream *conf, const struct conf_settings *settings) {
    *kit = (struct probe_kit){
        .health = conf->health,
        .conf = *conf,
        .site = { .inner = true,
                  .settings = settings,
                  .route = route,
                  .dial = dial,
                  .dial_cancel = dial_cancel,
                  .log = nothing_of,
                  .hold = nothing,
                  .drop = nothing },
    };
    kit->conf.retry = 0;
    kit->conf.tries = 1;
    kit->conf.keepalive = 0;
}

// ---- life -------------------------------------------------------------------------------------------------

// NULL: the exchange is ready to be started.
static const char *prepare(struct probe *probe) {
    const struct conf_health *health = probe->kit->health;
    struct slice host = slice_of(health->host ? health->host : probe->server->line->name);
    struct inner_request request = {
        .method = slice_of(health->method),
        .target = slice_of(health->path),
        .host = slice_starts(host, SLICE_LIT("unix:")) ? SLICE_LIT("localhost") : host,
    };
    const char *why = inner_make(&probe->inner, &inner_ops, &probe->kit->site, &request);
    if (!why && inner_field(&probe->inner, SLICE_LIT("User-Agent"), SLICE_LIT("moongate")) < 0)
        why = "memory is out";
    return why;
}

static void ask(struct probe *probe) {
    const char *why = prepare(probe);
    if (!why) {
        inner_start(&probe->inner);
        return;
    }
    probe_end(probe);
    probe->ours = true;
    note(probe, why);
    tell(probe, false);
}

void probe_begin(struct probe *probe, struct probe_kit *kit, struct server *server,
                 void (*done)(struct probe *probe, enum probe_result result, const char *why)) {
    *probe = (struct probe){ .kit = kit, .server = server, .done = done, .waiter.ops = &waiter_ops };
    if (kit->health->kind == HEALTH_HTTP) {
        ask(probe);
        return;
    }
    int rc = attempt_alone(server, &probe->waiter, kit->health->kind == HEALTH_TCP);
    if (rc == 0)
        return;
    note_error(probe, rc, NULL);
    tell(probe, false);
}

void probe_end(struct probe *probe) {
    if (probe->inner.x)
        inner_cancel(&probe->inner);
    else if (probe->waiter.attempt)
        attempt_leave(&probe->waiter);
    else
        free_client(probe);
}
