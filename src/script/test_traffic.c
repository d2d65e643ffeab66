// SPDX-License-Identifier: BSD-2-Clause
// Made-up clients and servers around real exchanges: the two codecs of a test of scripts. Heads go through
// the real parser and the real writer; bodies pass in pieces, without the framing of the wire. A client takes
// what it gets at once. What scripts ask for by themselves (gate.fetch) comes to the same servers. What a
// server does is told by the test's side (test.lua), which looks at the events.
#include "script/test_world.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "http/h1_write.h"
#include "proxy/balance.h"
#include "tls/pretended.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tell(enum event_kind kind, const struct stream *stream) {
    for (unsigned i = 0; i < world.stream_count; i++)
        if (world.streams[i] == stream) {
            world.events = world_grow(world.events, world.event_count, sizeof *world.events);
            world.events[world.event_count++] = (struct event){ kind, i + 1 };
        }
}

// ---- the client's side: struct downstream_ops -------------------------------------------------------------

static int write_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    struct visit *visit = x->down_owner;
    struct queue out = { 0 };
    int rc =
        h1_write_response(&out, status, slice_of(status_reason(status)), headers, BODY_NONE, 0, false, NULL);
    text_take(&visit->interim, &out);
    return rc;
}

// What h1_server.c makes of a response for a client of HTTP/1.1 that keeps its connection.
static int write_head(struct exchange *x) {
    struct visit *visit = x->down_owner;
    struct response *res = &x->res;
    bool bodiless = res->status < 200 || res->status == 204 || res->status == 304, keep_length = false;
    enum body_framing framing = res->framing;
    visit->skip_body = x->req.head || bodiless;
    if (x->upgraded || bodiless || (x->req.head && framing == BODY_NONE)) {
        framing = BODY_NONE;
        keep_length = !x->upgraded && res->status != 204;
    } else if (framing == BODY_NONE) {
        framing = BODY_LENGTH;
    } else if (framing != BODY_LENGTH && !x->req.head) {
        framing = BODY_CHUNKED;
    }
    struct slice reason = res->reason.len > 0 ? res->reason : slice_of(status_reason(res->status));
    struct queue out = { 0 };
    int rc = h1_write_response(&out, res->status, reason, &res->headers, framing,
                               framing == BODY_LENGTH ? res->length : 0, keep_length,
                               x->upgraded ? "upgrade" : NULL);
    text_take(&visit->head, &out);
    return rc;
}

static int write_body(struct exchange *x) {
    struct visit *visit = x->down_owner;
    if (visit->skip_body) {
        queue_release(&x->res_body);
        return 0;
    }
    x->res_bytes += x->res_body.bytes;
    text_take(&visit->body, &x->res_body);
    return 0;
}

static size_t nothing_waits(struct exchange *x) {
    (void)x;
    return 0;
}

static void want_request_body(struct exchange *x, bool want) {
    ((struct visit *)x->down_owner)->paused = !want;
}

static struct conn *conn_of(struct exchange *x) {
    return ((struct visit *)x->down_owner)->client->conn;
}

static void leave(struct visit *visit, enum visit_state state) {
    if (visit->x) {
        visit->attempts = visit->x->attempt;
        visit->reason = visit->x->reason;
    }
    visit->x = NULL;
    visit->state = state;
}

static struct conn *detach_client(struct exchange *x, struct queue *ret_read) {
    struct visit *visit = x->down_owner;
    (void)ret_read;
    leave(visit, VISIT_TUNNEL);
    return visit->client->conn;
}

static void finished(struct exchange *x, bool aborted, enum close_reason reason) {
    struct visit *visit = x->down_owner;
    leave(visit, aborted ? VISIT_ABORTED : VISIT_ANSWERED);
    visit->reason = reason;
}

static const struct downstream_ops downstream = {
    .interim = write_interim,
    .head = write_head,
    .body = write_body,
    .backlog = nothing_waits,
    .want_body = want_request_body,
    .conn = conn_of,
    .detach = detach_client,
    .finished = finished,
};

static int head_complete(struct h1_parser *parser) {
    (void)parser;
    return 0;
}
static const struct h1_parser_ops request_ops = { .head = head_complete };

struct visit *traffic_request(struct client *client, struct slice head) {
    struct visit *visit = calloc(1, sizeof *visit);
    check_fatal(visit);
    world.visits = world_grow(world.visits, world.visit_count, sizeof *world.visits);
    world.visits[world.visit_count++] = visit;
    visit->client = client;
    struct exchange *x = exchange_new(frontend_site(client->door->frontend), &downstream, visit);
    check_fatal(x);
    visit->x = x;
    if (client->conn->secure)
        x->req.scheme = SLICE_LIT("https");
    const struct conf_settings *settings = x->settings;
    struct h1_limits limits = {
        .max_head = settings->max_head,
        .max_headers = settings->max_headers,
        .max_uri = settings->max_uri,
        .max_line = settings->max_line,
    };
    h1_parser_request(&visit->parser, &request_ops, limits, &x->arena, &x->req);
    size_t used = head.len;
    enum h1_result result = h1_parser_feed(&visit->parser, head.at, head.len, &used);
    x->at.received = clock_us();
    if (result == H1_BAD) {
        unsigned status = visit->parser.error_status;
        exchange_client_error(
            x, status, status == 413 || status == 414 || status == 431 ? CLOSE_limit : CLOSE_bad_request,
            visit->parser.error_why);
    } else if (!visit->parser.head_done) {
        exchange_client_error(x, 400, CLOSE_bad_request, "the head is not complete");
    } else {
        x->req_ended = result == H1_DONE;
        exchange_start(x);
    }
    return visit;
}

bool traffic_send(struct visit *visit, struct slice piece, bool last) {
    struct exchange *x = visit->x;
    if (!x || visit->paused || x->req_ended || x->req_in_ended)
        return false;
    x->req_bytes += piece.len;
    if (exchange_too_large(x)) {
        exchange_client_error(x, 413, CLOSE_limit, "the body is larger than max_body");
        return true;
    }
    check_fatal(queue_copy(&x->req_body, piece.at, piece.len) == 0);
    x->req_ended = last;
    exchange_run(x);
    return true;
}

void traffic_leave(struct visit *visit) {
    struct exchange *x = visit->x;
    if (!x)
        return;
    leave(visit, VISIT_LEFT);
    visit->reason = CLOSE_client_closed;
    exchange_client_gone(x, CLOSE_client_closed);
}

// ---- connections ------------------------------------------------------------------------------------------

static void decided(struct conn *conn, void *owner, bool reject);

// The next hook of a connection's beginning, if there is one for it.
static enum step_result ask_hook(struct client *client, bool *ret_reject) {
    struct script_chain *chain = client->door->chain;
    struct conn *conn = client->conn;
    switch (client->next++) {
    case HOOK_OF_CONNECT:
        return chain && script_chain_has_connect(chain) ? script_connect(chain, conn, ret_reject, decided, client)
                                                        : STEP_MORE;
    case HOOK_OF_HELLO:
        if (client->tls)
            tls_pretended_use(conn, client->tls, true);
        return client->tls && chain && script_chain_has_tls_hello(chain)
            ? script_tls_hello(chain, conn, ret_reject, decided, client)
            : STEP_MORE;
    default:
        if (client->tls)
            tls_pretended_use(conn, client->tls, false);
        return client->tls && chain && script_chain_has_tls_done(chain)
            ? script_tls_done(chain, conn, ret_reject, decided, client)
            : STEP_MORE;
    }
}

static void ask_hooks(struct client *client) {
    bool reject = false;
    while (client->next < HOOKS_ASKED && !(client->tls && tls_pretended_diversion(client->tls))) {
        if (ask_hook(client, &reject) == STEP_WAIT) {
            client->state = CLIENT_WAITS;
            return;
        }
        if (reject) {
            client->state = CLIENT_REJECTED;
            return;
        }
    }
    client->state = client->next < HOOKS_ASKED ? CLIENT_TUNNELLED : CLIENT_ADMITTED;
}

static void decided(struct conn *conn, void *owner, bool reject) {
    struct client *client = owner;
    (void)conn;
    if (reject)
        client->state = CLIENT_REJECTED;
    else
        ask_hooks(client);
}

struct client *traffic_connect(struct door *door, const struct addr *from, const struct addr *to,
                               struct tls_pretended *tls) {
    struct client *client = calloc(1, sizeof *client);
    check_fatal(client);
    world.clients = world_grow(world.clients, world.client_count, sizeof *world.clients);
    world.clients[world.client_count++] = client;
    client->door = door;
    client->tls = tls;
    client->conn = conn_made_up(from, to);
    check_fatal(client->conn);
    ask_hooks(client);
    return client;
}

void traffic_close(struct client *client) {
    if (client->state == CLIENT_CLOSED)
        return;
    for (unsigned i = 0; i < world.visit_count; i++)
        if (world.visits[i]->client == client)
            traffic_leave(world.visits[i]);
    if (client->state == CLIENT_WAITS)
        script_connect_cancel(client->door->chain, client->conn);
    client->state = CLIENT_CLOSED;
    conn_unmake(client->conn);
    client->conn = NULL;
    tls_pretended_free(client->tls);
    client->tls = NULL;
}

// ---- the server's side: struct upstream_ops ---------------------------------------------------------------

static struct stream *stream_of(struct exchange *x) {
    return x->up_owner;
}

static const struct conf_upstream *conf_of(const struct stream *stream) {
    return stream->server->upstream->conf;
}

static void set_timer(struct stream *stream) {
    if (stream->state == STREAM_BODY && !stream->paused)
        timer_start(&stream->timer, conf_of(stream)->read_timeout);
    else if (stream->state == STREAM_WAITS && stream->received)
        timer_start(&stream->timer, conf_of(stream)->response_timeout);
    else
        timer_stop(&stream->timer);
}

static int send_head(struct exchange *x) {
    struct stream *stream = stream_of(x);
    struct queue out = { 0 };
    int rc = h1_write_request(&out, &x->req, x->req.upgrade ? "upgrade" : NULL);
    text_take(&stream->head, &out);
    tell(EVENT_HEAD, stream);
    return rc;
}

static int send_body(struct exchange *x) {
    struct stream *stream = stream_of(x);
    text_take(&stream->body, &x->req_body);
    if (x->req_ended && !stream->received) {
        stream->received = true;
        set_timer(stream);
        tell(EVENT_RECEIVED, stream);
    }
    return 0;
}

static void want_response_body(struct exchange *x, bool want) {
    struct stream *stream = stream_of(x);
    if (stream->paused == !want || stream->state != STREAM_BODY)
        return;
    stream->paused = !want;
    set_timer(stream);
    if (want)
        tell(EVENT_RESUME, stream);
}

static void let_go(struct stream *stream) {
    timer_stop(&stream->timer);
    stream->x = NULL;
    stream->state = STREAM_GONE;
}

static struct conn *detach_server(struct exchange *x, struct queue *ret_read) {
    (void)ret_read;
    let_go(stream_of(x));
    return NULL;
}

static void release(struct exchange *x, bool reusable) {
    (void)reusable;
    let_go(stream_of(x));
}

static const struct upstream_ops upstream = {
    .head = send_head,
    .body = send_body,
    .backlog = nothing_waits,
    .want_body = want_response_body,
    .detach = detach_server,
    .release = release,
};

static void fail(struct stream *stream, unsigned status, enum close_reason reason) {
    exchange_upstream_failed(stream->x, stream->answered ? UPSTREAM_ANSWERED : UPSTREAM_UNANSWERED, status,
                             reason);
}

static void waited_too_long(struct timer *timer) {
    struct stream *stream = container_of(timer, struct stream, timer);
    if (stream->state == STREAM_DIALS)
        traffic_refuse(stream, ETIMEDOUT);
    else if (stream->x)
        fail(stream, 504, CLOSE_upstream_timeout);
}

// ---- the way to servers: struct exchange_site -------------------------------------------------------------

static void dial_stream(struct exchange_site *site, struct exchange *x) {
    (void)site;
    struct stream *stream = calloc(1, sizeof *stream);
    check_fatal(stream);
    world.streams = world_grow(world.streams, world.stream_count, sizeof *world.streams);
    world.streams[world.stream_count++] = stream;
    bool wait;
    struct server *server = balance_choose(x->upstream, x, &wait);
    check_fatal(server);  // places are not counted here (max_active)
    x->tried |= server->bit;
    x->server = server;
    x->fresh = false;
    x->upstream_name = slice_of(server->name);
    *stream = (struct stream){ .x = x, .server = server };
    if (x->down == &downstream) {  // else a script asks by itself
        stream->visit = x->down_owner;
        snprintf(stream->visit->upstream, sizeof stream->visit->upstream, "%s", conf_of(stream)->name);
    }
    timer_init(&stream->timer, waited_too_long);
    timer_start(&stream->timer, conf_of(stream)->connect_timeout);
    x->dialling = stream;
    tell(EVENT_DIAL, stream);
}

static void dial_cancel(struct exchange_site *site, struct exchange *x) {
    (void)site;
    let_go(x->dialling);
    x->dialling = NULL;
}

static void tunnel(struct exchange_site *site, struct exchange *x, struct conn *client,
                   struct queue *from_client, struct conn *server, struct queue *from_server) {
    (void)site;
    (void)x;
    (void)client;
    (void)server;
    queue_release(from_client);
    queue_release(from_server);
}

static void no_log(struct exchange_site *site, struct exchange *x) {
    (void)site;
    (void)x;
}

void traffic_serve(struct exchange_site *site) {
    site->dial = dial_stream;
    site->dial_cancel = dial_cancel;
    site->tunnel = tunnel;
    site->log = no_log;
}

// ---- what servers do --------------------------------------------------------------------------------------

void traffic_accept(struct stream *stream) {
    struct exchange *x = stream->x;
    if (stream->state != STREAM_DIALS)
        return;
    x->dialling = NULL;
    stream->state = STREAM_WAITS;
    timer_stop(&stream->timer);
    server_succeeded(stream->server);
    exchange_dialled(x, &upstream, stream, false);
}

void traffic_refuse(struct stream *stream, int error) {
    struct exchange *x = stream->x;
    bool timeout = error == ETIMEDOUT;
    if (stream->state != STREAM_DIALS)
        return;
    x->dialling = NULL;
    let_go(stream);
    server_failed(stream->server);
    log_error("upstream \"%s\": connecting to \"%s\" failed: %s (request %s)", conf_of(stream)->name,
              stream->server->name, strerror(error), exchange_id(x));
    exchange_dial_failed(x, true, timeout ? 504 : 502,
                         timeout ? CLOSE_upstream_timeout : CLOSE_upstream_connect);
}

static int response_head(struct h1_parser *parser) {
    struct stream *stream = container_of(parser, struct stream, parser);
    const struct exchange *x = stream->x;
    stream->head_now = x->res.status >= 200 || (x->res.status == 101 && x->req.upgrade);
    return 0;
}
static const struct h1_parser_ops response_ops = { .head = response_head };

bool traffic_answer(struct stream *stream, struct slice head) {
    struct exchange *x = stream->x;
    if (stream->state != STREAM_WAITS)
        return true;
    struct h1_limits limits = {
        .max_head = conf_of(stream)->max_response_head,
        .max_headers = conf_of(stream)->max_response_headers,
        .max_line = conf_of(stream)->max_response_head,
    };
    size_t used = head.len;
    stream->head_now = false;
    stream->answered = true;
    x->res = (struct response){ 0 };
    h1_parser_response(&stream->parser, &response_ops, limits, &x->arena, &x->res, x->req.head);
    enum h1_result result = h1_parser_feed(&stream->parser, head.at, head.len, &used);
    if (result == H1_BAD || !stream->parser.head_done || (x->res.status == 101 && !stream->head_now)) {
        log_warn("upstream server \"%.*s\": bad response: %s (request %s)", SLICE_ARG(x->upstream_name),
                 stream->parser.error_why ? stream->parser.error_why
                                          : "the head is not complete or not asked for",
                 exchange_id(x));
        fail(stream, 502, CLOSE_upstream_protocol);
        return false;
    }
    if (!stream->head_now) {
        exchange_interim(x, x->res.status, &x->res.headers);
        return true;
    }
    stream->state = result == H1_DONE ? STREAM_DONE : STREAM_BODY;
    stream->sized = x->res.framing == BODY_LENGTH && result != H1_DONE;
    stream->left = x->res.length;
    x->at.responded = clock_us();
    x->res_ready = true;
    x->res_ended = result == H1_DONE;
    x->upgraded = x->res.status == 101;
    set_timer(stream);
    exchange_run(x);
    return true;
}

bool traffic_push(struct stream *stream, struct slice piece) {
    struct exchange *x = stream->x;
    if (stream->state != STREAM_BODY)
        return true;
    if (stream->paused)
        return false;
    if (stream->sized) {
        if (piece.len > stream->left)
            piece.len = stream->left;  // what is more belongs to nobody
        stream->left -= piece.len;
        if (stream->left == 0) {
            stream->state = STREAM_DONE;
            x->res_ended = true;
        }
    }
    check_fatal(queue_copy(&x->res_body, piece.at, piece.len) == 0);
    set_timer(stream);
    exchange_run(x);
    return true;
}

void traffic_complete(struct stream *stream) {
    struct exchange *x = stream->x;
    if (stream->state != STREAM_BODY)
        return;
    if (stream->sized && stream->left > 0) {
        traffic_break(stream, CLOSE_upstream_closed);
        return;
    }
    stream->state = STREAM_DONE;
    set_timer(stream);
    x->res_ended = true;
    exchange_run(x);
}

void traffic_break(struct stream *stream, enum close_reason reason) {
    if (stream->state == STREAM_DIALS)
        traffic_accept(stream);
    if (stream->state == STREAM_WAITS || stream->state == STREAM_BODY)
        fail(stream, 502, reason);
}

// ---- the end ----------------------------------------------------------------------------------------------

void traffic_close_all(void) {
    for (unsigned i = 0; i < world.client_count; i++)
        traffic_close(world.clients[i]);
}

void traffic_end(void) {
    for (unsigned i = 0; i < world.client_count; i++)
        free(world.clients[i]);
    for (unsigned i = 0; i < world.visit_count; i++) {
        text_release(&world.visits[i]->head);
        text_release(&world.visits[i]->body);
        text_release(&world.visits[i]->interim);
        free(world.visits[i]);
    }
    for (unsigned i = 0; i < world.stream_count; i++) {
        text_release(&world.streams[i]->head);
        text_release(&world.streams[i]->body);
        free(world.streams[i]);
    }
    free(world.clients);
    free(world.visits);
    free(world.streams);
    free(world.events);
}
