// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/1 codec towards clients. Reads and checks requests, feeds the exchange, writes what the exchange
// says, keeps the connection alive and its time-outs. One exchange at a time; pipelined requests wait
// unparsed.
#include "http/h1_server.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_parser.h"
#include "http/h1_write.h"

enum state {
    IDLE,    // no exchange; between requests, or before the first
    HEAD,    // x set; the head is being parsed, its steps have not begun
    BODY,    // x runs; its body is being parsed
    REPLY,   // x runs; the request is complete, further bytes wait in `pending`
    TUNNEL,  // x runs, behind a 101: bytes are passed on as they come, both ways, as bodies (request.tunnel)
    GONE,    // conn given away; freed when nothing is on the stack
};

enum timer_kind { TIMER_NONE, TIMER_HEADER, TIMER_BODY, TIMER_SEND, TIMER_KEEPALIVE };

struct h1_server {
    struct server_codec codec;
    struct conn *conn;
    const struct server_callbacks *callbacks;
    void *owner;
    struct exchange *x;
    enum state state;
    enum timer_kind timer_kind;
    unsigned busy;  // calls on the stack that go on using this object
    uint64_t requests;
    struct queue pending;     // received, not parsed
    struct ring_later later;  // goes on parsing: this turn's share was used up
    uint32_t turn;            // in which the two below were counted
    uint16_t turn_requests;   // begun
    uint16_t turn_pieces;     // of bodies, parsed; stays at the most that it can hold
    struct block *feeding;    // of the span that is being parsed
    uint32_t keepalive_ms;    // of the last exchange, for the time until the next
    uint32_t pending_max;     // bytes of `pending` at which reading stops
    bool keep_alive;
    bool cut;  // what follows a refused request is not read as HTTP: it may be its rest
    bool draining;
    bool half_closed;       // the client sends no more; what it has sent in full is still answered
    bool body_paused;       // the exchange wants no more of the body for the time being
    bool head_now;          // the head became complete in this feed
    bool chunked;           // the response goes out in chunks
    bool skip_body;         // HEAD: the response's body is dropped
    bool to_close;          // HTTP/1.0: the end of the connection ends the response
    struct reader *reader;  // of x, in its arena: who is idle needs none
};

struct reader {
    struct h1_parser parser;
    struct h1_server *server;
};

static struct slab server_slab = SLAB_INIT(sizeof(struct h1_server), 512);

enum { FIRST_REQUEST_MS = 1000 };  // for a first request, from the moment the connection is to drain

// The share that a connection has of a turn, whoever else waits: requests of a client that pipelines, and
// body pieces, each of which may be a chunk of one byte. After the first request what others wait for comes
// first.
enum { TURN_REQUESTS = 16, TURN_PIECES = 1024 };

static void advance(struct h1_server *server);

static void set_timer(struct h1_server *server, enum timer_kind kind, uint64_t ms) {
    server->timer_kind = kind;
    if (kind == TIMER_NONE || ms == 0)
        timer_stop(&server->conn->timer);
    else
        timer_start(&server->conn->timer, ms);
}

// What TIMER_BODY and TIMER_SEND are about: how a count of bytes goes on.
static struct pace_limits pace_limits(const struct h1_server *server) {
    const struct conf_settings *settings = server->x ? server->x->settings : NULL;
    if (server->timer_kind == TIMER_SEND || !settings)
        return server->conn->send_limits;
    return (struct pace_limits){ settings->body_timeout, settings->body_min_rate.bytes,
                                 settings->body_min_rate.grace };
}

static uint64_t pace_count(const struct h1_server *server) {
    return server->timer_kind == TIMER_SEND ? conn_taken(server->conn) : server->conn->bytes_in;
}

static void watch(struct h1_server *server, enum timer_kind kind) {
    if (server->timer_kind == kind)
        return;
    server->timer_kind = kind;
    pace_begin(&server->conn->pace, pace_count(server));
    struct pace_limits limits = pace_limits(server);
    timer_start(&server->conn->timer, pace_next_ms(&server->conn->pace, &limits));
}

static void release(struct h1_server *server) {
    if (server->state != GONE || server->busy > 0)
        return;
    list_remove(&server->later.link);
    queue_release(&server->pending);
    server->callbacks->gone(server->owner);
    slab_put(&server_slab, server);
}

static void set_gone(struct h1_server *server) {
    counters->tunnels_active -= server->state == TUNNEL;
    server->state = GONE;
    server->conn = NULL;
}

// Ends the connection; the exchange, if any, is over already. The object may be freed.
static void end(struct h1_server *server, enum close_reason reason, uint64_t linger_ms, bool at_once) {
    struct conn *conn = server->conn;
    if (server->state == GONE)
        return;
    set_gone(server);
    if (at_once)
        conn_close(conn, reason);
    else
        conn_finish(conn, reason, linger_ms);
    release(server);
}

static void lose_client(struct h1_server *server, enum close_reason reason) {
    struct exchange *x = server->x;
    server->x = NULL;
    server->busy++;
    if (x)
        exchange_client_gone(x, reason);
    server->busy--;
    end(server, reason, 0, true);
}

// ---- requests ---------------------------------------------------------------------------------------------

static bool overloaded(const struct h1_server *server) {
    return server->callbacks->overloaded && server->callbacks->overloaded(server->owner);
}

static int on_head(struct h1_parser *parser) {
    struct h1_server *server = container_of(parser, struct reader, parser)->server;
    struct exchange *x = server->x;
    const struct conf_settings *settings = x->settings;
    struct request *request = &x->req;
    x->at.received = clock_us();
    bool close = headers_list_has(&request->headers, HEADER_connection, SLICE_LIT("close"));
    bool keep = headers_list_has(&request->headers, HEADER_connection, SLICE_LIT("keep-alive"));
    server->requests++;
    server->keep_alive = !server->draining && !close && (!request_is_http10(request) || keep) &&
        (settings->keepalive_requests == 0 || server->requests < settings->keepalive_requests);
    if (overloaded(server)) {
        counters->requests_refused++;
        parser->error_status = 503;
        parser->error_why = "the worker is at its memory_limit";
        return -1;
    }
    if (slice_eq(request->method, SLICE_LIT("CONNECT"))) {
        parser->error_status = 501;
        parser->error_why = "CONNECT is not offered here";
        return -1;
    }
    server->head_now = true;
    server->state = BODY;
    return 0;
}

static int on_body(struct h1_parser *parser, const char *at, size_t len) {
    struct h1_server *server = container_of(parser, struct reader, parser)->server;
    struct exchange *x = server->x;
    server->turn_pieces += server->turn_pieces < UINT16_MAX;
    x->req_bytes += len;
    if (exchange_too_large(x)) {
        parser->error_status = 413;
        parser->error_why = "the body is larger than max_body";
        return -1;
    }
    block_ref(server->feeding);
    if (queue_put(&x->req_body, (struct span){ server->feeding, (char *)at, (uint32_t)len }) < 0) {
        parser->error_status = 503;
        parser->error_why = "memory is out";
        return -1;
    }
    return 0;
}

static const struct h1_parser_ops parser_ops = { .head = on_head, .body = on_body };
static const struct downstream_ops downstream;

static void set_send_limits(struct h1_server *server, const struct conf_settings *settings) {
    server->conn->send_limits = (struct pace_limits){ settings->send_timeout, settings->send_min_rate.bytes,
                                                      settings->send_min_rate.grace };
}

static bool begin_exchange(struct h1_server *server) {
    struct exchange_site *site = server->callbacks->site(server->owner);
    if (!site) {
        end(server, CLOSE_drain, 0, false);
        return false;
    }
    server->x = exchange_new(site, &downstream, server);
    if (!server->x) {
        log_error("conn %llu: no memory for a request", (unsigned long long)server->conn->id);
        end(server, CLOSE_memory, 0, true);
        return false;
    }
    server->reader = arena_alloc(&server->x->arena, sizeof *server->reader);
    if (!server->reader) {
        lose_client(server, CLOSE_memory);
        return false;
    }
    server->reader->server = server;
    if (server->conn->secure)
        server->x->req.scheme = SLICE_LIT("https");
    const struct conf_settings *settings = server->x->settings;
    struct h1_limits limits = { settings->max_head, settings->max_headers, settings->max_uri,
                                settings->max_line, settings->max_chunk_overhead };
    h1_parser_request(&server->reader->parser, &parser_ops, limits, &server->x->arena, &server->x->req);
    set_send_limits(server, settings);
    server->pending_max = (uint32_t)settings->max_pipelined;
    if (server->callbacks->idle)
        server->callbacks->idle(server->owner, false);
    server->state = HEAD;
    server->turn_requests++;
    server->body_paused = server->chunked = server->skip_body = server->to_close = false;
    return true;
}

static void cut(struct h1_server *server) {
    server->keep_alive = false;
    server->cut = true;
    server->state = REPLY;
}

static void refuse(struct h1_server *server) {
    struct exchange *x = server->x;
    unsigned status = server->reader->parser.error_status;
    enum close_reason reason = CLOSE_bad_request;
    if (status == 413 || status == 414 || status == 431)
        reason = CLOSE_limit;
    else if (status == 503)
        reason = overloaded(server) ? CLOSE_overload : CLOSE_memory;
    cut(server);
    exchange_client_error(x, status, reason, server->reader->parser.error_why);
}

// Whether this turn's share was used up and the rest must wait for the next one.
static bool share_used(struct h1_server *server) {
    uint32_t turn = (uint32_t)counters->ring_turns;
    if (server->turn != turn) {
        server->turn = turn;
        server->turn_requests = server->turn_pieces = 0;
    }
    if (server->state == BODY)
        return server->turn_pieces >= TURN_PIECES;
    return server->state == IDLE && server->turn_requests > 0 &&
        (server->turn_requests >= TURN_REQUESTS || server->turn_pieces >= TURN_PIECES || ring_others_wait());
}

// Takes the span. Parses as far as the state and this turn's share allow; the rest waits in front of
// `pending`.
static void parse(struct h1_server *server, struct span span) {
    while (span.len > 0 && server->state != GONE) {
        if (server->state == REPLY || (server->state == BODY && server->body_paused) || share_used(server)) {
            if (queue_unget(&server->pending, span) < 0)
                lose_client(server, CLOSE_memory);
            return;
        }
        if (server->state == IDLE && !begin_exchange(server))
            break;
        struct exchange *x = server->x;
        size_t used = span.len;
        server->feeding = span.block;
        server->head_now = false;
        bool was_head = server->state == HEAD;
        enum h1_result result = h1_parser_feed(&server->reader->parser, span.at, span.len, &used);
        span.at += used;
        span.len -= (uint32_t)used;
        if (result == H1_BAD) {
            span.len = 0;
            refuse(server);
            break;
        }
        if (result == H1_DONE) {
            x->req_ended = true;
            server->state = REPLY;
            server->conn->bulk = 0;
            set_timer(server, TIMER_NONE, 0);
        } else if (server->state == BODY) {
            watch(server, TIMER_BODY);
        } else if (was_head && server->timer_kind != TIMER_HEADER) {
            set_timer(server, TIMER_HEADER, x->settings->header_timeout);
        }
        if (server->head_now)
            exchange_start(x);
        else if (server->state != HEAD)
            exchange_run(x);
    }
    block_unref(span.block);
}

// The client sends no more, and nothing that it sent is under way between `pending` and a parser.
static void end_of_input(struct h1_server *server) {
    if (!queue_empty(&server->pending))
        return;  // looked at again when that was parsed
    switch (server->state) {
    case IDLE:
        end(server, CLOSE_client_closed, 0, false);  // what is queued still goes out
        break;
    case HEAD:
    case BODY:
        lose_client(server, CLOSE_client_closed);  // a request that will never be whole
        break;
    case REPLY:
        server->keep_alive = false;
        break;
    case TUNNEL:
        server->x->req_ended = true;
        exchange_run(server->x);
        break;
    case GONE:
        break;
    }
}

// Parses what waits, request after request, without recursion: an exchange that ends at once only marks IDLE.
static void advance(struct h1_server *server) {
    if (server->busy > 0)
        return;
    server->busy++;
    while (server->state != GONE && server->state != REPLY &&
           !(server->state == BODY && server->body_paused)) {
        struct span span;
        // A client that sends requests and reads no answers gets no further ones started.
        if (server->state == IDLE && server->conn->slow)
            break;
        if (!queue_empty(&server->pending) && share_used(server)) {
            counters->turns_shared++;
            ring_go_on_later(&server->later);
            break;
        }
        if (!queue_take(&server->pending, &span))
            break;
        parse(server, span);
    }
    if (server->half_closed)
        end_of_input(server);
    if (server->state != GONE) {
        if (server->pending.bytes > server->pending_max || (server->state == BODY && server->body_paused))
            conn_pause(server->conn);
        else
            conn_read(server->conn);
        if (!queue_empty(&server->pending) && queue_unpin(&server->pending) < 0)
            log_warn("conn %llu: no memory to copy input out of receive buffers",
                     (unsigned long long)server->conn->id);
    }
    server->busy--;
    release(server);
}

static void go_on(struct ring_later *later) {
    advance(container_of(later, struct h1_server, later));
}

static void on_data(struct conn *conn, struct span span) {
    struct h1_server *server = conn->owner;
    counters->bytes_from_clients += span.len;
    bool tunnel = server->state == TUNNEL;
    if (queue_put_whole(tunnel ? &server->x->req_body : &server->pending, span) < 0) {
        lose_client(server, CLOSE_memory);
        return;
    }
    if (tunnel) {
        exchange_run(server->x);
        return;
    }
    advance(server);
}

static void on_ended(struct conn *conn, int error) {
    struct h1_server *server = conn->owner;
    server->half_closed = true;
    if (error)
        lose_client(server, CLOSE_client_reset);
    else if (server->x && !server->x->settings->half_close && server->state != TUNNEL)
        lose_client(server, CLOSE_client_closed);
    else
        end_of_input(server);
}

static void on_written(struct conn *conn) {
    struct h1_server *server = conn->owner;
    struct exchange *x = server->x;
    if (server->timer_kind == TIMER_SEND && conn_waiting(conn) == 0)
        set_timer(server, server->state == IDLE ? TIMER_KEEPALIVE : TIMER_NONE, server->keepalive_ms);
    else if (server->timer_kind == TIMER_KEEPALIVE && conn_waiting(conn) > 0)
        watch(server, TIMER_SEND);
    if (x && x->step == EXCHANGE_relay && conn_waiting(conn) <= x->settings->buffer_low)
        exchange_run(x);
    else if (!x && conn_waiting(conn) == 0 && !queue_empty(&server->pending))
        advance(server);
}

static void on_broken(struct conn *conn, int error) {
    (void)error;
    lose_client(conn->owner, CLOSE_client_reset);
}

// The timer of a pace fired: whether that is the end, or it is only time to look.
static enum pace_verdict look(struct h1_server *server) {
    struct conn *conn = server->conn;
    struct pace_limits limits = pace_limits(server);
    enum pace_verdict verdict = pace_look(&conn->pace, &limits, pace_count(server));
    if (verdict == PACE_GOOD)
        timer_start(&conn->timer, pace_next_ms(&conn->pace, &limits));
    return verdict;
}

static void on_timeout(struct conn *conn) {
    struct h1_server *server = conn->owner;
    struct exchange *x = server->x;
    enum pace_verdict verdict;
    switch (server->timer_kind) {
    case TIMER_HEADER:
        if (!x || (!x->req.method.len && !x->req.target.len)) {
            lose_client(server, CLOSE_header_timeout);
            break;
        }
        cut(server);
        exchange_client_error(x, 408, CLOSE_header_timeout, "the request head was not complete in time");
        break;
    case TIMER_BODY:
        verdict = look(server);
        if (verdict == PACE_GOOD)
            break;
        cut(server);
        if (verdict == PACE_STALLED)
            exchange_client_error(x, 408, CLOSE_body_timeout, "the request body came to a stop");
        else
            exchange_client_error(x, 408, CLOSE_min_rate, "the request body came too slowly");
        break;
    case TIMER_SEND:
        verdict = look(server);
        if (verdict != PACE_GOOD)
            lose_client(server, verdict == PACE_STALLED ? CLOSE_send_timeout : CLOSE_min_rate);
        break;
    case TIMER_KEEPALIVE:
        if (conn_waiting(conn) > 0)  // not idle yet: the end of the last response still waits for the client
            watch(server, TIMER_SEND);
        else
            lose_client(server, CLOSE_keepalive_timeout);
        break;
    case TIMER_NONE:
        check_soft(server->timer_kind != TIMER_NONE);
        break;
    }
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

// ---- responses: struct downstream_ops ---------------------------------------------------------------------

static int write_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    struct h1_server *server = x->down_owner;
    if (request_is_http10(&x->req))
        return 0;  // RFC 9110, 15.2: never to an HTTP/1.0 client
    int rc = h1_write_response(&server->conn->out, status, slice_of(status_reason(status)), headers,
                               BODY_NONE, 0, false, NULL);
    conn_flush(server->conn);
    return rc;
}

// The server agreed to an upgrade, and has no conn that could leave for a relay: what follows are bodies.
static void open_tunnel(struct h1_server *server) {
    struct exchange *x = server->x;
    server->state = TUNNEL;
    server->keep_alive = server->skip_body = server->body_paused = false;
    counters->tunnels++;
    counters->tunnels_active++;
    set_timer(server, TIMER_NONE, 0);
    queue_move(&x->req_body, &server->pending);
    x->req_ended = server->half_closed;
    conn_read(server->conn);
}

static int write_head(struct exchange *x) {
    struct h1_server *server = x->down_owner;
    struct response *res = &x->res;
    set_send_limits(server, x->settings);
    bool bodiless = res->status < 200 || res->status == 204 || res->status == 304;
    enum body_framing framing = res->framing;
    const char *connection = NULL;
    bool keep_length = false;
    server->skip_body = x->req.head || bodiless;
    if (x->upgraded) {
        connection = "upgrade";
        framing = BODY_NONE;
    } else {
        if (bodiless || (x->req.head && framing == BODY_NONE)) {
            framing = BODY_NONE;
            keep_length = res->status != 204;
        } else if (framing == BODY_NONE) {
            framing = BODY_LENGTH;
        } else if (framing != BODY_LENGTH && !x->req.head) {
            framing = request_is_http10(&x->req) ? BODY_CLOSE : BODY_CHUNKED;
        }
        if (framing == BODY_CLOSE || server->state != REPLY || server->draining)
            server->keep_alive = false;
        if (!server->keep_alive)
            connection = "close";
        else if (request_is_http10(&x->req))
            connection = "keep-alive";
    }
    server->chunked = framing == BODY_CHUNKED && !server->skip_body;
    server->to_close = framing == BODY_CLOSE;
    struct slice reason = res->reason.len > 0 ? res->reason : slice_of(status_reason(res->status));
    int rc = h1_write_response(&server->conn->out, res->status, reason, &res->headers, framing,
                               framing == BODY_LENGTH ? res->length : 0, keep_length, connection);
    if (x->upgraded && x->req.tunnel)
        open_tunnel(server);
    conn_flush(server->conn);
    return rc;
}

static int write_body(struct exchange *x) {
    struct h1_server *server = x->down_owner;
    struct conn *conn = server->conn;
    int rc = 0;
    if (server->skip_body) {
        queue_release(&x->res_body);
        return 0;
    }
    x->res_bytes += x->res_body.bytes;
    rc = h1_write_body(&conn->out, &x->res_body, server->chunked);
    if (rc == 0 && x->res_ended && server->chunked)
        rc = h1_write_last_chunk(&conn->out, &x->res.trailers);
    if (conn_waiting(conn) > 0 && !x->res_ended && server->timer_kind == TIMER_NONE)
        watch(server, TIMER_SEND);
    conn_flush(conn);
    return rc;
}

static size_t backlog(struct exchange *x) {
    struct h1_server *server = x->down_owner;
    return conn_waiting(server->conn);
}

static void want_body(struct exchange *x, bool want) {
    struct h1_server *server = x->down_owner;
    if ((server->state != BODY && server->state != TUNNEL) || server->body_paused == !want)
        return;
    server->body_paused = !want;
    if (server->state == TUNNEL) {
        server->conn->bulk = (uint32_t)x->settings->buffer_high;
        want ? conn_read(server->conn) : conn_pause(server->conn);
        return;
    }
    if (want) {
        watch(server, TIMER_BODY);
        advance(server);
    } else {
        server->conn->bulk = (uint32_t)x->settings->buffer_high;
        if (server->timer_kind == TIMER_BODY)
            set_timer(server, TIMER_NONE, 0);
        conn_pause(server->conn);
    }
}

static struct conn *conn_of(struct exchange *x) {
    return ((struct h1_server *)x->down_owner)->conn;
}

static struct conn *detach(struct exchange *x, struct queue *ret_read) {
    struct h1_server *server = x->down_owner;
    struct conn *conn = server->conn;
    queue_move(ret_read, &server->pending);
    timer_stop(&conn->timer);
    server->x = NULL;
    set_gone(server);
    release(server);
    return conn;
}

static void finished(struct exchange *x, bool aborted, enum close_reason reason) {
    struct h1_server *server = x->down_owner;
    server->x = NULL;
    counters->bytes_to_clients += x->res_bytes;
    if (aborted) {
        server->conn->reset = server->to_close;
        end(server, reason, 0, true);
        return;
    }
    server->conn->linger_left = x->settings->linger_max ? x->settings->linger_max : UINT64_MAX;
    bool unread = server->cut || server->state != REPLY || !queue_empty(&server->pending);
    if (!server->keep_alive || server->state != REPLY) {
        end(server, reason, unread ? x->settings->linger_timeout : 0, false);
        return;
    }
    server->state = IDLE;
    server->keepalive_ms = (uint32_t)x->settings->keepalive_timeout;
    set_timer(server, TIMER_KEEPALIVE, server->keepalive_ms);
    if (server->callbacks->idle)
        server->callbacks->idle(server->owner, true);
    if (server->draining)
        end(server, CLOSE_drain, 0, false);
    else if (!queue_empty(&server->pending) || server->half_closed)
        advance(server);
}

static const struct downstream_ops downstream = {
    .interim = write_interim,
    .head = write_head,
    .body = write_body,
    .backlog = backlog,
    .want_body = want_body,
    .conn = conn_of,
    .detach = detach,
    .finished = finished,
};

// ---- life -------------------------------------------------------------------------------------------------

static void drain(struct server_codec *codec) {
    struct h1_server *server = container_of(codec, struct h1_server, codec);
    if (server->draining)
        return;
    server->draining = true;
    if (server->state != IDLE || !queue_empty(&server->pending))
        return;
    if (server->requests > 0)
        end(server, CLOSE_drain, 0, false);
    else  // its first request may be on its way
        set_timer(server, TIMER_HEADER, FIRST_REQUEST_MS);
}

static bool shed(struct server_codec *codec) {
    struct h1_server *server = container_of(codec, struct h1_server, codec);
    if (server->state != IDLE || !queue_empty(&server->pending))
        return false;
    end(server, CLOSE_shed, 0, false);
    return true;
}

static void close_now(struct server_codec *codec, enum close_reason reason) {
    lose_client(container_of(codec, struct h1_server, codec), reason);
}

static const struct server_codec_ops codec_ops = { .drain = drain, .shed = shed, .close = close_now };

struct server_codec *h1_server_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner) {
    struct exchange_site *site = callbacks->site(owner);
    struct h1_server *server = site ? slab_get(&server_slab) : NULL;
    if (!server) {
        conn_close(conn, site ? CLOSE_memory : CLOSE_drain);
        return NULL;
    }
    *server = (struct h1_server){
        .codec.ops = &codec_ops, .conn = conn, .callbacks = callbacks, .owner = owner, .state = IDLE
    };
    list_init(&server->later.link);
    server->later.run = go_on;
    conn_adopt(conn, &handler, server);
    server->pending_max = (uint32_t)site->settings->max_pipelined;
    set_timer(server, TIMER_HEADER, site->settings->header_timeout);
    conn_read(conn);
    return &server->codec;
}
