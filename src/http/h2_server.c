// SPDX-License-Identifier: BSD-2-Clause
// The connection of h2_server.h: its beginning and end, its time-outs, and what the exchanges say (struct
// downstream_ops). Requests come by h2_request.c.
#include "http/h2_server.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h2_server_impl.h"

#include <errno.h>

enum { OUTBOUND_ACKS = 10000 };  // to a client that does not read them; http2_max_pings is the limit before
enum { FIRST_REQUEST_MS = 1000, STREAM_ROOM_MIN = 16 * 1024 };
// The share that a connection has of a turn: requests begun, as h1_server.c has it, and what frames cost
// (h2_mux.h); the smaller ones are for who is not trusted.
enum {
    TURN_REQUESTS = 16,
    TURN_REQUESTS_FIRST = 2,
    TURN_COST = 1000,
    TURN_COST_FIRST = 250
};

static struct slab server_slab = SLAB_INIT(sizeof(struct h2_server), 64);
static struct slab request_slab = SLAB_INIT(sizeof(struct h2_request), 256);

static const struct downstream_ops downstream;

// ---- the end ----------------------------------------------------------------------------------------------

static void request_free(struct h2_request *request) {
    h2_stream_release(&request->stream);
    queue_release(&request->early);
    counters->tunnels_active -= request->tunnelled;
    slab_put(&request_slab, request);
}

static void keep_site(struct h2_server *server, struct exchange_site *site) {
    struct exchange_site *old = server->site;
    server->site = site;
    if (site)
        site->hold(site);
    if (old)
        old->drop(old);
}

// Everything ends. Frames that were made still leave when at_once is not set.
static void end(struct h2_server *server, enum close_reason reason, bool at_once) {
    struct conn *conn = server->mux.session.conn;
    if (!conn)
        return;
    h2_mux_enter(&server->mux);
    while (!list_empty(&server->mux.streams)) {
        struct h2_stream *stream = container_of(server->mux.streams.next, struct h2_stream, link);
        struct exchange *x = stream->x;
        stream->x = NULL;
        if (x)
            exchange_client_gone(x, reason);
        request_free(h2_request_of(stream));
    }
    keep_site(server, NULL);
    server->mux.session.conn = NULL;
    timer_stop(&conn->timer);
    conn->linger_left = server->linger_max;
    if (at_once)
        conn_close(conn, reason);
    else
        conn_finish(conn, reason, server->linger_ms);
    h2_mux_leave(&server->mux);
}

static void gone(struct h2_mux *mux) {
    struct h2_server *server = h2_server_of(mux);
    h2_mux_release(mux);
    server->callbacks->gone(server->owner);
    slab_put(&server_slab, server);
}

static void over(struct h2_mux *mux, uint32_t error, enum close_reason reason) {
    struct h2_server *server = h2_server_of(mux);
    if (reason == CLOSE_none)
        reason = server->draining != H2_TAKING ? CLOSE_drain : CLOSE_client_closed;
    end(server, reason, error == NGHTTP2_INTERNAL_ERROR);
}

// ---- streams ----------------------------------------------------------------------------------------------

static struct pace_limits body_limits(const struct conf_settings *settings) {
    return (struct pace_limits){ settings->body_timeout, settings->body_min_rate.bytes,
                                 settings->body_min_rate.grace };
}

static struct pace_limits send_limits(const struct conf_settings *settings) {
    return (struct pace_limits){ settings->send_timeout, settings->send_min_rate.bytes,
                                 settings->send_min_rate.grace };
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

// What holds for the connection is what holds for the request that came last.
static void take_settings(struct h2_server *server, const struct conf_settings *settings) {
    uint64_t ms = least(least(settings->body_timeout, settings->send_timeout), settings->header_timeout) / 4;
    if (settings->body_min_rate.bytes)
        ms = least(ms, settings->body_min_rate.grace / 2);
    if (settings->send_min_rate.bytes)
        ms = least(ms, settings->send_min_rate.grace / 2);
    server->busy_ms = ms > 0 ? (uint32_t)ms : 1;
    server->limits = settings->http2;
    server->keepalive_ms = (uint32_t)settings->keepalive_timeout;
    server->header_ms = (uint32_t)settings->header_timeout;
    server->linger_ms = (uint32_t)settings->linger_timeout;
    server->linger_max = settings->linger_max ? settings->linger_max : UINT64_MAX;
    server->keepalive_requests = settings->keepalive_requests;
    server->mux.session.conn->send_limits = send_limits(settings);
}

struct h2_request *h2_server_begin(struct h2_server *server, int32_t id) {
    struct exchange_site *site = server->callbacks->site(server->owner);
    if (!site)
        site = server->site;
    struct h2_request *request = site ? slab_get(&request_slab) : NULL;
    struct conn *conn = server->mux.session.conn;
    if (request) {
        *request = (struct h2_request){ .server = server };
        h2_stream_init(&request->stream, &server->mux, id);
        request->stream.x = exchange_new(site, &downstream, request);
        if (!request->stream.x) {
            request_free(request);
            request = NULL;
        }
    }
    if (!request) {
        nghttp2_submit_rst_stream(server->mux.session.ng, NGHTTP2_FLAG_NONE, id,
                                  site ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_REFUSED_STREAM);
        return NULL;
    }
    server->mux.unanswered++;
    if (conn->secure)
        request->stream.x->req.scheme = SLICE_LIT("https");
    take_settings(server, site->settings);
    if (server->site != site)
        keep_site(server, site);
    if (server->idle) {
        server->idle = false;
        if (server->callbacks->idle)
            server->callbacks->idle(server->owner, false);
        timer_start(&conn->timer, server->busy_ms);
    }
    return request;
}

static void drain(struct server_codec *codec);

static bool overloaded(const struct h2_server *server) {
    return server->callbacks->overloaded && server->callbacks->overloaded(server->owner);
}

// What is read at once of each response, when as many could come and none be taken.
static uint32_t bulk(const struct h2_server *server) {
    unsigned count = server->mux.stream_count;
    return (count <= 8 ? 64 : count <= 32 ? 32 : 16) * 1024;
}

// Whether the client's windows, or what waits, leave no room for a response that comes as a whole.
static bool crowded(struct h2_request *request) {
    struct h2_server *server = request->server;
    nghttp2_session *ng = server->mux.session.ng;
    if (server->mux.queued == 0)
        server->bounding = false;
    return server->bounding ||
        nghttp2_session_get_stream_remote_window_size(ng, request->stream.id) < STREAM_ROOM_MIN ||
        nghttp2_session_get_remote_window_size(ng) / (int32_t)server->mux.stream_count < STREAM_ROOM_MIN;
}

// Much waits: what is still to come of any response comes in small parts.
static void bound_all(struct h2_server *server) {
    server->bounding = true;
    list_each(link, &server->mux.streams) {
        struct exchange *x = container_of(link, struct h2_stream, link)->x;
        if (!x || x->bulk)
            continue;
        x->bulk = bulk(server);
        if (x->up && x->up->bound)
            x->up->bound(x);
    }
}

static void start(struct h2_request *request) {
    struct h2_server *server = request->server;
    struct exchange *x = request->stream.x;
    enum close_reason reason = CLOSE_bad_request;
    server->turn_begun++;
    server->requests++;
    request->started = true;
    request->body_pace = (struct pace){ 0 };
    pace_begin(&request->body_pace, 0);
    x->at.received = clock_us();
    x->bulk = crowded(request) ? bulk(server) : 0;
    x->req_ended = request->ended;
    if (server->keepalive_requests > 0 && server->requests >= server->keepalive_requests)
        drain(&server->codec);
    if (h2_request_check(request) == 0) {
        if (!overloaded(server)) {
            exchange_start(x);
            return;
        }
        counters->requests_refused++;
        request->status = 503;
        request->why = "the worker is at its memory_limit";
        reason = CLOSE_overload;
    } else if (request->status == 503) {
        reason = CLOSE_memory;
    } else if (request->status == 414 || request->status == 431) {
        reason = CLOSE_limit;
    }
    exchange_client_error(x, request->status, reason, request->why);
}

static void lose(struct h2_request *request) {
    struct h2_server *server = request->server;
    struct exchange *x = request->stream.x;
    request->stream.x = NULL;
    server->answered += request->answered && request->stream.error == NGHTTP2_NO_ERROR;
    if (x) {
        server->mux.unanswered--;
        exchange_client_gone(x, request->reason != CLOSE_none ? request->reason : CLOSE_client_reset);
    }
    request_free(request);
    if (server->mux.stream_count > 0 || !server->mux.session.conn)
        return;
    check_debug(server->mux.unanswered == 0);
    server->idle = true;
    keep_site(server, NULL);
    timer_start(&server->mux.session.conn->timer, server->keepalive_ms);
    if (server->callbacks->idle)
        server->callbacks->idle(server->owner, true);
    if (server->half_closed)
        h2_mux_fail(&server->mux, NGHTTP2_NO_ERROR, CLOSE_client_closed);
}

static void event(struct h2_stream *stream, unsigned events) {
    struct h2_request *request = h2_request_of(stream);
    if (events & H2_CLOSED) {
        lose(request);
        return;
    }
    if (events & H2_HEAD && stream->x) {
        start(request);
        return;  // what came with it is on the exchange's queue
    }
    if (stream->x && request->status && !request->answered && !stream->x->responded) {
        exchange_client_error(stream->x, request->status, CLOSE_limit, request->why);
        return;
    }
    if (!queue_empty(&request->early) && queue_unpin(&request->early) < 0)
        log_warn("no memory to copy a body out of receive buffers");
    if (stream->x && request->started && (!stream->x->req.tunnel || stream->x->upgraded)) {
        stream->x->req_ended |= request->ended;
        exchange_run(stream->x);
    }
}

// A client earns its share by requests that come to their end: one that is new has not, and one that sends
// more of what h2_guard.h counts than that has lost it. Floods come on new connections, since each ends its
// own.
static uint32_t share(const struct h2_mux *mux) {
    const struct h2_server *server = container_of(mux, struct h2_server, mux);
    return server->answered > h2_guard_sum(&server->guard) ? TURN_COST : TURN_COST_FIRST;
}

static bool trusted(const struct h2_server *server) {
    return server->mux.turn_share == TURN_COST;
}

static enum h2_wait wait(struct h2_stream *stream) {
    struct h2_server *server = h2_request_of(stream)->server;
    uint32_t turn = (uint32_t)counters->ring_turns;
    if (!(stream->events & H2_HEAD))
        return H2_NO_WAIT;
    if (server->mux.queued > server->limits.output_buffer) {
        counters->http2_held++;
        return H2_LESS_OUTPUT;
    }
    if (server->turn != turn) {
        server->turn = turn;
        server->turn_begun = 0;
    }
    return server->turn_begun >= (trusted(server) ? TURN_REQUESTS : TURN_REQUESTS_FIRST) ||
            (server->turn_begun > 0 && ring_others_wait())
        ? H2_NEXT_TURN
        : H2_NO_WAIT;
}

static struct queue *body(struct h2_stream *stream, size_t len) {
    struct h2_request *request = h2_request_of(stream);
    struct exchange *x = stream->x;
    if (!x || request->status || x->responded)
        return NULL;
    x->req_bytes += len;
    if (exchange_too_large(x)) {
        request->status = 413;
        request->why = "the body is larger than max_body";
        h2_stream_note(stream, H2_DATA);
        return NULL;
    }
    return x->req.tunnel && !x->upgraded ? &request->early : &x->req_body;
}

static const struct h2_mux_ops mux_ops = {
    .event = event,
    .wait = wait,
    .share = share,
    .frame = h2_request_frame,
    .closed = h2_request_closed,
    .body = body,
    .over = over,
    .gone = gone,
};

// ---- time -------------------------------------------------------------------------------------------------

static void give_up(struct h2_request *request, enum close_reason reason) {
    request->reason = reason;
    counters->http2_stalled++;
    h2_stream_reset(&request->stream, NGHTTP2_CANCEL);
}

static void look_at_body(struct h2_request *request) {
    struct exchange *x = request->stream.x;
    // A client whose window is used up waits for us, not we for it.
    if (!x || !request->started || x->req.tunnel || request->ended || request->paused || x->responded ||
        request->stream.unread > 0) {
        pace_begin(&request->body_pace, x ? x->req_bytes : 0);
        return;
    }
    struct pace_limits limits = body_limits(x->settings);
    switch (pace_look(&request->body_pace, &limits, x->req_bytes)) {
    case PACE_GOOD:
        break;
    case PACE_STALLED:
        exchange_client_error(x, 408, CLOSE_body_timeout, "the request body came to a stop");
        break;
    case PACE_SLOW:
        exchange_client_error(x, 408, CLOSE_min_rate, "the request body came too slowly");
        break;
    }
}

static void look_at_response(struct h2_request *request) {
    struct h2_stream *stream = &request->stream;
    if (stream->queued == 0 || stream->closed)
        return;
    enum pace_verdict verdict = pace_look(&request->send_pace, &request->send_limits, stream->sent);
    if (verdict != PACE_GOOD)
        give_up(request, verdict == PACE_STALLED ? CLOSE_send_timeout : CLOSE_min_rate);
}

// Output that waits for the connection: whether the client takes anything at all.
static bool look_at_output(struct h2_server *server) {
    struct conn *conn = server->mux.session.conn;
    uint64_t now = conn_taken(conn);
    if (conn_waiting(conn) == 0) {
        server->sending = false;
        return true;
    }
    if (!server->sending) {
        server->sending = true;
        pace_begin(&conn->pace, now);
        return true;
    }
    enum pace_verdict verdict = pace_look(&conn->pace, &conn->send_limits, now);
    if (verdict == PACE_GOOD)
        return true;
    end(server, verdict == PACE_STALLED ? CLOSE_send_timeout : CLOSE_min_rate, true);
    return false;
}

static void look(struct h2_server *server) {
    struct conn *conn = server->mux.session.conn;
    if (!look_at_output(server))
        return;
    if (server->reading && clock_ms() - server->reading_ms >= server->header_ms) {
        h2_mux_fail(&server->mux, NGHTTP2_CANCEL, CLOSE_header_timeout);
        return;
    }
    list_each(link, &server->mux.streams) {
        struct h2_request *request = h2_request_of(container_of(link, struct h2_stream, link));
        look_at_response(request);
        look_at_body(request);
    }
    timer_start(&conn->timer, server->busy_ms);
}

static void say_goodbye(struct h2_server *server);

static void on_timeout(struct conn *conn) {
    struct h2_server *server = conn->owner;
    h2_mux_enter(&server->mux);
    if (server->draining == H2_WARNED)
        say_goodbye(server);
    if (!server->idle)
        look(server);
    else if (server->requests == 0 && server->draining == H2_TAKING)
        end(server, CLOSE_header_timeout, true);
    else if (conn_waiting(conn) > 0)  // the end of the last response
        look(server);
    else if (server->draining == H2_TAKING)
        h2_mux_fail(&server->mux, NGHTTP2_NO_ERROR, CLOSE_keepalive_timeout);
    h2_mux_leave(&server->mux);
}

// ---- the conn ---------------------------------------------------------------------------------------------

static void on_data(struct conn *conn, struct span span) {
    struct h2_server *server = conn->owner;
    counters->bytes_from_clients += span.len;
    h2_mux_received(&server->mux, span);
}

// Whether somebody still waits for a response that the client is said to take.
static bool answers_wanted(const struct h2_server *server) {
    list_each(link, &server->mux.streams) {
        const struct h2_stream *stream = container_of(link, struct h2_stream, link);
        if (!stream->x || stream->x->settings->half_close)
            return true;
    }
    return false;
}

static void on_ended(struct conn *conn, int error) {
    struct h2_server *server = conn->owner;
    server->half_closed = true;
    if (error)
        end(server, CLOSE_client_reset, true);
    else if (!answers_wanted(server))
        end(server, CLOSE_client_closed, server->mux.stream_count > 0);
}

static void on_written(struct conn *conn) {
    struct h2_server *server = conn->owner;
    if (nghttp2_session_want_write(server->mux.session.ng))
        h2_mux_flush(&server->mux);
}

static void on_broken(struct conn *conn, int error) {
    (void)error;
    end(conn->owner, CLOSE_client_reset, true);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

// ---- responses: struct downstream_ops ---------------------------------------------------------------------

static int add_status(struct h2_request *request, struct h2_fields *fields, unsigned status) {
    request->code[0] = (char)('0' + status / 100 % 10);
    request->code[1] = (char)('0' + status / 10 % 10);
    request->code[2] = (char)('0' + status % 10);
    return h2_fields_add(fields, SLICE_LIT(":status"), slice_make(request->code, 3));
}

static int write_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    struct h2_request *request = x->down_owner;
    struct h2_stream *stream = &request->stream;
    struct h2_fields fields = { .arena = &x->arena };
    if (stream->closed)
        return 0;
    if (add_status(request, &fields, status) < 0 || h2_fields_add_all(&fields, headers) < 0)
        return -ENOMEM;
    int rc = nghttp2_submit_headers(stream->mux->session.ng, NGHTTP2_FLAG_NONE, stream->id, NULL, fields.at,
                                    fields.count, NULL);
    h2_mux_flush(stream->mux);
    return rc < 0 ? -ENOMEM : 0;
}

// The server agreed to an upgrade: what follows are bodies, both ways.
static int open_tunnel(struct exchange *x) {
    struct h2_request *request = x->down_owner;
    struct h2_stream *stream = &request->stream;
    struct h2_fields fields = { .arena = &x->arena };
    headers_remove(&x->res.headers, SLICE_LIT("sec-websocket-accept"));
    request->skip_body = false;
    request->tunnelled = true;
    counters->tunnels++;
    counters->tunnels_active++;
    queue_move(&x->req_body, &request->early);
    x->req_ended = request->ended;
    if (add_status(request, &fields, 200) < 0 || h2_fields_add_all(&fields, &x->res.headers) < 0)
        return -ENOMEM;
    int rc = nghttp2_submit_response(stream->mux->session.ng, stream->id, fields.at, fields.count,
                                     &h2_body_provider);
    h2_mux_flush(stream->mux);
    return rc < 0 ? -ENOMEM : 0;
}

static int write_head(struct exchange *x) {
    struct h2_request *request = x->down_owner;
    struct h2_stream *stream = &request->stream;
    struct response *res = &x->res;
    struct h2_fields fields = { .arena = &x->arena };
    bool bodiless = res->status < 200 || res->status == 204 || res->status == 304;
    struct slice length;
    request->answered = true;
    request->send_limits = send_limits(x->settings);
    request->skip_body = x->req.head || bodiless || res->framing == BODY_NONE ||
        (res->framing == BODY_LENGTH && res->length == 0);
    if (stream->closed)
        return 0;
    if (x->upgraded)
        return open_tunnel(x);
    if (x->req.tunnel && res->status >= 200 && res->status < 300)
        res->status = 502;  // the server did not agree, and the client would take this for its consent
    if (add_status(request, &fields, res->status) < 0)
        return -ENOMEM;
    // HEAD, 304: the length of another response's content.
    if (res->framing == BODY_NONE && res->status != 204 && (bodiless || x->req.head)) {
        if (headers_get(&res->headers, HEADER_content_length, &length) &&
            h2_fields_add(&fields, SLICE_LIT("content-length"), length) < 0)
            return -ENOMEM;
    } else if (!bodiless && (res->framing == BODY_LENGTH || res->framing == BODY_NONE)) {
        uint64_t number = res->framing == BODY_LENGTH ? res->length : 0;
        if (h2_fields_add_number(&fields, SLICE_LIT("content-length"), number) < 0)
            return -ENOMEM;
    }
    if (h2_fields_add_all(&fields, &res->headers) < 0)
        return -ENOMEM;
    int rc = nghttp2_submit_response(stream->mux->session.ng, stream->id, fields.at, fields.count,
                                     request->skip_body ? NULL : &h2_body_provider);
    h2_mux_flush(stream->mux);
    return rc < 0 ? -ENOMEM : 0;
}

static int write_body(struct exchange *x) {
    struct h2_request *request = x->down_owner;
    struct h2_stream *stream = &request->stream;
    if (request->skip_body) {
        queue_release(&x->res_body);
        return 0;
    }
    x->res_bytes += x->res_body.bytes;
    if (stream->queued == 0)
        pace_begin(&request->send_pace, stream->sent);
    int rc = h2_stream_write(stream, &x->res_body, x->res_ended, &x->res.trailers);
    struct h2_server *server = request->server;
    if (!server->bounding && server->mux.queued > server->limits.output_buffer / 2)
        bound_all(server);
    return rc;
}

// While the connection holds more than its share its streams are held to theirs, so that one that the client
// does not read stalls no other.
static size_t backlog(struct exchange *x) {
    struct h2_request *request = x->down_owner;
    const struct h2_mux *mux = &request->server->mux;
    size_t queued = request->stream.queued;
    if (mux->queued > request->server->limits.output_buffer / 2) {
        size_t share = request->server->limits.output_buffer / mux->stream_count;
        if (queued > (share > STREAM_ROOM_MIN ? share : STREAM_ROOM_MIN))
            return SIZE_MAX / 2;
    }
    return queued;
}

static void want_body(struct exchange *x, bool want) {
    struct h2_request *request = x->down_owner;
    request->paused = !want;
    if (want)
        h2_stream_taken(&request->stream);
}

static struct conn *conn_of(struct exchange *x) {
    return ((struct h2_request *)x->down_owner)->server->mux.session.conn;
}

// Only an upgrade of HTTP/1 leaves its exchange.
static struct conn *detach(struct exchange *x, struct queue *ret_read) {
    (void)x, (void)ret_read;
    check_fatal(!"an HTTP/2 stream has no conn of its own");
    return NULL;
}

static void finished(struct exchange *x, bool aborted, enum close_reason reason) {
    struct h2_request *request = x->down_owner;
    request->stream.x = NULL;
    request->server->mux.unanswered--;
    counters->bytes_to_clients += x->res_bytes;
    h2_stream_taken(&request->stream);
    if (aborted) {
        request->reason = reason;
        h2_stream_reset(&request->stream, NGHTTP2_INTERNAL_ERROR);
    }
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

static void say_goodbye(struct h2_server *server) {
    server->draining = H2_DRAINING;
    server->final_id = nghttp2_session_get_last_proc_stream_id(server->mux.session.ng);
    if (nghttp2_submit_goaway(server->mux.session.ng, NGHTTP2_FLAG_NONE, server->final_id, NGHTTP2_NO_ERROR,
                              NULL, 0) != 0)
        h2_mux_fail(&server->mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    h2_mux_flush(&server->mux);
}

void h2_server_pinged(struct h2_server *server) {
    if (server->draining == H2_WARNED)
        say_goodbye(server);
}

static void drain(struct server_codec *codec) {
    struct h2_server *server = container_of(codec, struct h2_server, codec);
    nghttp2_session *ng = server->mux.session.ng;
    if (server->draining != H2_TAKING)
        return;
    server->draining = H2_WARNED;
    if (nghttp2_submit_shutdown_notice(ng) != 0 || nghttp2_submit_ping(ng, NGHTTP2_FLAG_NONE, NULL) != 0)
        h2_mux_fail(&server->mux, NGHTTP2_INTERNAL_ERROR, CLOSE_memory);
    if (server->idle || server->busy_ms > FIRST_REQUEST_MS)  // a client that does not answer the PING
        timer_start(&server->mux.session.conn->timer, FIRST_REQUEST_MS);
    h2_mux_flush(&server->mux);
}

static bool shed(struct server_codec *codec) {
    struct h2_server *server = container_of(codec, struct h2_server, codec);
    if (server->mux.stream_count > 0 || server->mux.busy > 0 || !queue_empty(&server->mux.pending))
        return false;
    nghttp2_session_terminate_session(server->mux.session.ng, NGHTTP2_NO_ERROR);
    if (h2_session_send(&server->mux.session) < 0)
        log_debug("a connection is shed without a GOAWAY");
    end(server, CLOSE_shed, false);
    return true;
}

static void close_now(struct server_codec *codec, enum close_reason reason) {
    end(container_of(codec, struct h2_server, codec), reason, true);
}

static const struct server_codec_ops codec_ops = { .drain = drain, .shed = shed, .close = close_now };

// What we say of ourselves, and of how much a client may do.
static int greet(nghttp2_session *ng, const struct conf_settings *settings) {
    const struct conf_http2 *http2 = &settings->http2;
    nghttp2_settings_entry entries[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)http2->max_streams },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)http2->stream_window },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
          (uint32_t)(settings->max_head + 32 * settings->max_headers) },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
        { NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
        { NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, (uint32_t)http2->header_table },
    };
    int rc = nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, entries, sizeof entries / sizeof *entries);
    if (rc == 0)
        rc = nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0,
                                                   (int32_t)http2->connection_window);
    return rc;
}

static int make_session(struct h2_server *server, const struct conf_settings *settings) {
    static nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    if (!callbacks) {
        if (nghttp2_session_callbacks_new(&callbacks) != 0)
            return -ENOMEM;
        h2_mux_callbacks(callbacks);
        h2_request_callbacks(callbacks);
    }
    if (nghttp2_option_new(&option) != 0)
        return -ENOMEM;
    const struct conf_http2 *http2 = &settings->http2;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_PRIORITY_UPDATE);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, http2->header_table);
    nghttp2_option_set_max_send_header_block_length(option, 1 << 20);
    // Ours are looked at first.
    nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
    nghttp2_option_set_max_continuations(option, SIZE_MAX);
    nghttp2_option_set_max_outbound_ack(option, OUTBOUND_ACKS);
    int rc = nghttp2_session_server_new3(&server->mux.session.ng, callbacks, &server->mux.session, option,
                                         &h2_memory);
    nghttp2_option_del(option);
    return rc == 0 && greet(server->mux.session.ng, settings) == 0 ? 0 : -ENOMEM;
}

struct server_codec *h2_server_new(struct conn *conn, const struct server_callbacks *callbacks, void *owner) {
    struct exchange_site *site = callbacks->site(owner);
    struct h2_server *server = site ? slab_get(&server_slab) : NULL;
    if (!server) {
        conn_close(conn, site ? CLOSE_memory : CLOSE_drain);
        return NULL;
    }
    *server =
        (struct h2_server){ .codec.ops = &codec_ops, .callbacks = callbacks, .owner = owner, .idle = true };
    h2_mux_init(&server->mux, conn, &mux_ops);
    if (make_session(server, site->settings) < 0) {
        h2_mux_release(&server->mux);
        slab_put(&server_slab, server);
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    counters->http2_connections++;
    take_settings(server, site->settings);
    conn_adopt(conn, &handler, server);
    timer_start(&conn->timer, server->header_ms);
    h2_mux_flush(&server->mux);
    conn_read(conn);
    return &server->codec;
}
