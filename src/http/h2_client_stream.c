// SPDX-License-Identifier: BSD-2-Clause
// One exchange as a stream of HTTP/2 towards a server: struct upstream_ops, its time-outs, and what becomes
// of it when something goes wrong.
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h2_client_impl.h"

#include <errno.h>

static struct slab stream_slab = SLAB_INIT(sizeof(struct h2_up), 256);

void h2_up_touch(struct h2_up *stream) {
    if (!list_linked(&stream->touched))
        list_push_back(&stream->client->touched, &stream->touched);
}

static enum upstream_progress progress(const struct h2_up *stream) {
    const struct conn *conn = stream->client->public.conn;
    if (stream->answered)
        return UPSTREAM_ANSWERED;
    if (!stream->left)
        return UPSTREAM_UNSENT;
    return conn->bytes_out == stream->sent_before && !conn->send.pending ? UPSTREAM_UNSENT
                                                                         : UPSTREAM_UNANSWERED;
}

void h2_up_note(struct h2_up *stream, unsigned status, enum close_reason reason) {
    if (stream->failure == CLOSE_none && stream->state != DONE && stream->state != FAILED) {
        stream->failure = reason;
        stream->status = status;
        stream->progress = progress(stream);
    }
    h2_up_touch(stream);
}

void h2_up_note_refused(struct h2_up *stream) {
    counters->upstream_refused++;
    h2_up_note(stream, 502, CLOSE_upstream_closed);
    if (stream->progress != UPSTREAM_ANSWERED)
        stream->progress = UPSTREAM_REFUSED;
}

void h2_up_note_bad(struct h2_up *stream, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (stream->failure == CLOSE_none && log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream server \"%.*s\": bad response: %s (request %s)",
                 SLICE_ARG(stream->x->upstream_name), why, exchange_id(stream->x));
    h2_up_note(stream, 502, stream->reader.memory ? CLOSE_memory : CLOSE_upstream_protocol);
}

void h2_up_set_timer(struct h2_up *stream) {
    if (stream->state == BODY && stream->x->upgraded) {
        timer_start(&stream->timer, stream->x->settings->tunnel_timeout);
        return;
    }
    bool sent = stream->request_done || stream->x->req.upgrade;
    if (stream->state == WAIT && sent && stream->body.queue.bytes == 0)
        timer_start(&stream->timer, exchange_answer_ms(stream->x));
    else if (stream->state == WAIT && stream->body.queue.bytes > 0)
        timer_start(&stream->timer, stream->client->conf->write_timeout);
    else if (stream->state == BODY && !stream->paused)
        timer_start(&stream->timer, stream->client->conf->read_timeout);
    else
        timer_stop(&stream->timer);
}

// ---- what happened to streams -----------------------------------------------------------------------------

static void give_window_back(struct h2_up *stream) {
    if (stream->held == 0 || stream->closed || stream->client->state == DEAD)
        return;
    nghttp2_session_consume_stream(stream->client->session.ng, stream->id, stream->held);
    stream->held = 0;
    h2_client_send_later(stream->client);
}

static void fail(struct h2_up *stream) {
    stream->state = FAILED;
    timer_stop(&stream->timer);
    exchange_upstream_failed(stream->x, stream->progress, stream->status, stream->failure);
}

void h2_client_run(struct h2_client *client) {
    client->busy++;
    while (!list_empty(&client->touched)) {
        struct h2_up *stream = container_of(client->touched.next, struct h2_up, touched);
        list_remove(&stream->touched);
        bool taken = stream->taken;
        stream->taken = false;
        if (stream->state == FAILED)
            continue;
        if (stream->failure != CLOSE_none) {
            fail(stream);
            continue;
        }
        if (taken && (stream->state == WAIT || stream->x->upgraded))
            h2_up_set_timer(stream);
        if (!stream->paused)
            give_window_back(stream);
        exchange_run(stream->x);
    }
    client->busy--;
}

// ---- struct upstream_ops ----------------------------------------------------------------------------------

// What an upgrade is in HTTP/2 (RFC 8441, 4): a CONNECT with a protocol. Both sides' keys are HTTP/1's
// affair.
static int make_connect(struct h2_up *stream, struct h2_fields *fields) {
    struct headers *headers = &stream->x->req.headers;
    struct headers kept = { 0 };
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->name.len > 0 && !slice_ieq(header->name, SLICE_LIT("sec-websocket-key")) &&
            headers_add(&kept, fields->arena, header->name, header->value) < 0)
            return -ENOMEM;
    }
    return h2_fields_add(fields, SLICE_LIT(":protocol"), SLICE_LIT("websocket")) < 0 ||
            h2_fields_add_all(fields, &kept) < 0
        ? -ENOMEM
        : 0;
}

static int make_head(struct h2_up *stream, struct h2_fields *fields) {
    const struct exchange *x = stream->x;
    const struct request *req = &x->req;
    struct slice path = request_origin_form(req, fields->arena), host = { 0 };
    struct slice scheme = stream->client->secure ? SLICE_LIT("https") : SLICE_LIT("http");
    headers_get(&req->headers, HEADER_host, &host);
    if (!path.at ||
        h2_fields_add(fields, SLICE_LIT(":method"), req->upgrade ? SLICE_LIT("CONNECT") : req->method) < 0 ||
        h2_fields_add(fields, SLICE_LIT(":scheme"), scheme) < 0 ||
        (host.len > 0 && h2_fields_add(fields, SLICE_LIT(":authority"), host) < 0) ||
        h2_fields_add(fields, SLICE_LIT(":path"), path) < 0)
        return -ENOMEM;
    if (req->upgrade)
        return make_connect(stream, fields);
    if (h2_fields_add_all(fields, &req->headers) < 0)
        return -ENOMEM;
    if (req->framing == BODY_LENGTH &&
        h2_fields_add_number(fields, SLICE_LIT("content-length"), req->length) < 0)
        return -ENOMEM;
    if (req->takes_trailers && h2_fields_add(fields, SLICE_LIT("te"), SLICE_LIT("trailers")) < 0)
        return -ENOMEM;
    return 0;
}

static bool takes_upgrades(const struct h2_client *client) {
    return nghttp2_session_get_remote_settings(client->session.ng,
                                               NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

static int write_head(struct exchange *x) {
    struct h2_up *stream = x->up_owner;
    struct h2_client *client = stream->client;
    struct h2_fields fields = { .arena = &x->arena };
    if (client->state == DEAD)
        return 0;  // h2_client_run() will say so
    if (x->req.upgrade && client->state == SETTLING) {
        stream->offered = true;
        return 0;
    }
    if (make_head(stream, &fields) < 0)
        return -ENOMEM;
    bool bodiless = x->req.framing == BODY_NONE && !x->req.upgrade;
    int32_t id = nghttp2_submit_request(client->session.ng, NULL, fields.at, fields.count,
                                        bodiless ? NULL : &h2_body_provider, &stream->body);
    if (id < 0)
        return -ENOMEM;
    stream->id = id;
    if (id >= H2_LAST_ID && client->state != LEAVING)
        h2_client_set_state(client, LEAVING);
    client->public.requests++;
    counters->upstream_streams++;
    if (x->req.upgrade)
        h2_up_set_timer(stream);
    h2_client_send_later(client);
    return 0;
}

static void tell_no_upgrades(const struct exchange *x) {
    log_info("upstream server \"%.*s\" is spoken to in HTTP/2, which has no such upgrade there (request %s)",
             SLICE_ARG(x->upstream_name), exchange_id((struct exchange *)(uintptr_t)x));
}

void h2_up_settled(struct h2_client *client) {
    list_each(link, &client->streams) {
        struct h2_up *stream = container_of(link, struct h2_up, link);
        if (!stream->offered)
            continue;
        stream->offered = false;
        if (!takes_upgrades(client)) {
            tell_no_upgrades(stream->x);
            h2_up_note(stream, 501, CLOSE_upstream_protocol);
        } else if (write_head(stream->x) < 0) {
            h2_up_note(stream, 503, CLOSE_memory);
        }
    }
}

int h2_up_open_tunnel(struct h2_up *stream) {
    struct exchange *x = stream->x;
    struct response *res = &x->res;
    if (headers_set(&res->headers, &x->arena, header_name_of(HEADER_upgrade), SLICE_LIT("websocket")) < 0 ||
        (!x->req.tunnel && x->site->websocket_accept(x) < 0))
        return -ENOMEM;
    res->status = 101;
    res->reason = slice_make(NULL, 0);
    res->framing = BODY_NONE;
    headers_remove_id(&res->headers, HEADER_content_length);
    x->req.tunnel = x->upgraded = true;
    x->req_ended = false;
    return 0;
}

static int write_body(struct exchange *x) {
    struct h2_up *stream = x->up_owner;
    struct h2_client *client = stream->client;
    if (stream->request_done || (x->req.upgrade && !x->upgraded))
        return 0;  // an upgrade has nothing to send before it is agreed to
    if (stream->closed || client->state == DEAD || stream->state == FAILED) {
        queue_release(&x->req_body);
    } else {
        queue_move(&stream->body.queue, &x->req_body);
        if (!list_linked(&stream->fed))
            list_push_back(&client->fed, &stream->fed);
    }
    if (x->req_ended) {
        stream->request_done = stream->body.ended = true;
        stream->body.trailers = &x->req.trailers;
    }
    if (stream->state == WAIT && (x->req_ended || !timer_running(&stream->timer)))
        h2_up_set_timer(stream);
    if (!stream->closed && client->state != DEAD) {
        h2_body_more(&client->session, stream->id, &stream->body);
        h2_client_send_later(client);
    }
    return 0;
}

static size_t backlog(struct exchange *x) {
    return ((struct h2_up *)x->up_owner)->body.queue.bytes;
}

static void want_body(struct exchange *x, bool want) {
    struct h2_up *stream = x->up_owner;
    if (stream->paused == !want || stream->state == FAILED)
        return;
    stream->paused = !want;
    if (want)
        give_window_back(stream);
    if (stream->state == BODY)
        h2_up_set_timer(stream);
}

static void move(struct exchange *from, struct exchange *to) {
    struct h2_up *stream = from->up_owner;
    stream->x = to;
    stream->body.arena = stream->reader.arena = &to->arena;
    stream->reader.response = &to->res;
    if (stream->body.trailers)
        stream->body.trailers = &to->req.trailers;
}

static void release(struct exchange *x, bool reusable) {
    struct h2_up *stream = x->up_owner;
    struct h2_client *client = stream->client;
    (void)reusable;  // of a stream only
    if (stream->id && !stream->closed && client->state != DEAD) {
        nghttp2_session_set_stream_user_data(client->session.ng, stream->id, NULL);
        nghttp2_submit_rst_stream(client->session.ng, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
        h2_client_send_later(client);
    } else if (stream->id && client->state != DEAD) {
        nghttp2_session_set_stream_user_data(client->session.ng, stream->id, NULL);
    }
    timer_stop(&stream->timer);
    list_remove(&stream->link);
    list_remove(&stream->touched);
    list_remove(&stream->fed);
    queue_release(&stream->body.queue);
    slab_put(&stream_slab, stream);
    client->public.streams--;
    client->public.callbacks->released(&client->public,
                                       client->state >= LEAVING ? CLIENT_SPENT : CLIENT_REUSABLE);
}

// No `detach`: HTTP/2 has no upgrade, and nghttp2 refuses a 101.
static const struct upstream_ops upstream = {
    .head = write_head,
    .body = write_body,
    .backlog = backlog,
    .want_body = want_body,
    .move = move,
    .release = release,
    .refuses = true,
};

// ---- life -------------------------------------------------------------------------------------------------

static void stream_timed_out(struct timer *timer) {
    struct h2_up *stream = container_of(timer, struct h2_up, timer);
    struct h2_client *client = stream->client;
    uint64_t more = 0;
    if (stream->state == WAIT && stream->body.queue.bytes == 0)
        more = exchange_overdue(stream->x, progress(stream));
    if (more > 0) {
        timer_start(timer, more);
        return;
    }
    client->busy++;
    h2_up_note(stream, 504, stream->x->upgraded ? CLOSE_tunnel_timeout : CLOSE_upstream_timeout);
    // A connection that takes nothing is no good for others either.
    if (stream->state == WAIT && stream->body.queue.bytes > 0 && client->state == OPEN &&
        conn_waiting(client->public.conn) >= H2_WAITING_MAX)
        h2_client_set_state(client, LEAVING);
    h2_client_run(client);
    client->busy--;
    h2_client_leave(client);
}

// As a client of HTTP/1 asks for it, in full: we answer its key.
static bool is_websocket(const struct exchange *x) {
    uint32_t at = 0;
    struct slice protocol;
    const struct header *key = headers_next(&x->req.headers, SLICE_LIT("sec-websocket-key"), &at);
    return headers_get(&x->req.headers, HEADER_upgrade, &protocol) && x->site->websocket_accept &&
        slice_ieq(protocol, SLICE_LIT("websocket")) && slice_eq(x->req.method, SLICE_LIT("GET")) && key &&
        key->value.len == 24;
}

static void not_carried(struct h2_client *client, struct exchange *x, unsigned status,
                        enum close_reason reason) {
    client->public.callbacks->released(&client->public,
                                       client->state >= LEAVING ? CLIENT_SPENT : CLIENT_REUSABLE);
    exchange_dial_failed(x, false, status, reason);
}

void h2_up_carry(struct client_codec *public, struct exchange *x, const struct conf_upstream *conf) {
    struct h2_client *client = h2_client_of(public);
    if (x->req.upgrade && (!is_websocket(x) || (client->state != SETTLING && !takes_upgrades(client)))) {
        tell_no_upgrades(x);
        not_carried(client, x, 501, CLOSE_upstream_protocol);
        return;
    }
    struct h2_up *stream = slab_get(&stream_slab);
    if (!stream) {
        not_carried(client, x, 503, CLOSE_memory);
        return;
    }
    *stream = (struct h2_up){
        .body.arena = &x->arena,
        .client = client,
        .x = x,
        .state = WAIT,
        .reader = { .response = &x->res,
                    .arena = &x->arena,
                    .room = conf->max_response_head,
                    .to_head = x->req.head },
    };
    queue_init(&stream->body.queue);
    list_init(&stream->touched);
    list_init(&stream->fed);
    timer_init(&stream->timer, stream_timed_out);
    list_push_back(&client->streams, &stream->link);
    public->streams++;
    client->idle_by = 0;
    x->res = (struct response){ 0 };
    exchange_dialled(x, &upstream, stream, client_codec_is_old(public));
}
