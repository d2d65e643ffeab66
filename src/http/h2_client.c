// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/2 codec towards upstream servers: streams, their time-outs, and what becomes of them when the
// connection or the server gives up. Where the connection waits is dial.c's affair.
//
// nghttp2 calls back while it reads or writes; nothing of an exchange runs then. What happened to a stream is noted in
// it, the stream goes on the list `touched`, and its exchange runs when nghttp2 has returned (run_touched()). Nothing
// is sent at once either: all that is to be sent in a turn leaves together, in flush().
#include "http/h2_client.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h2_response.h"
#include "http/h2_session.h"

#include <errno.h>

enum stream_state {
    WAIT,    // no complete response head yet
    BODY,    // the response body is coming
    DONE,    // the response is complete
    FAILED,  // the exchange was told so, and has not let go yet
};

struct stream {
    struct h2_body body;  // first: it is nghttp2's stream user data
    struct client *client;
    struct exchange *x;
    int32_t id;  // 0: not submitted
    enum stream_state state;
    struct list link;     // of the client's streams
    struct list touched;  // something happened since its exchange ran
    struct list fed;      // its body got something since the last flush
    struct timer timer;
    struct h2_response reader;
    bool request_done;  // all of the request is in `body`
    bool paused;
    bool taken;     // a part of the body left since its exchange ran
    bool answered;  // a part of the response came
    bool left;      // the request's head was handed to the conn
    bool closed;    // nghttp2 has forgotten it
    bool reset;     // by the server
    unsigned interims;
    uint32_t held;         // bytes of the response for which the window was not given back
    uint64_t sent_before;  // conn->bytes_out when the head was handed over
    // What went wrong, when something did:
    enum close_reason failure;
    unsigned status;  // to answer the client
    enum upstream_progress progress;
};

enum client_state {
    SETTLING,  // the server's SETTINGS have not come
    OPEN,
    LEAVING,  // takes no more requests: GOAWAY came, or the ids are used up
    DEAD,     // the conn is gone; freed when the last exchange has let go
};

struct client {
    struct h2_session session;  // first: it is nghttp2's user data
    struct client_codec public;
    const struct conf_upstream *conf;
    enum client_state state;
    struct list streams, touched, fed;
    struct ring_flush flusher;
    struct block *feeding;  // of the span that is being read
    unsigned busy;          // calls on the stack that go on using this object
    bool freed;             // by its owner, while busy
    bool settled;           // SETTINGS came: to be told
    uint32_t told_off;      // the error of a GOAWAY of ours that was sent; 0: none
    bool secure;
    bool pinged;  // and nothing was heard since
    uint64_t heard_ms;
    uint64_t settle_by, ping_by, idle_by;  // on the monotonic clock; 0: not
};

enum {
    INTERIMS_MAX = 32,  // their heads count towards max_response_head, too
    LAST_ID = INT32_MAX - 1024,
    CONNECTION_WINDOW = 16 * 1024 * 1024,
};

static struct slab client_slab = SLAB_INIT(sizeof(struct client), 16);
static struct slab stream_slab = SLAB_INIT(sizeof(struct stream), 256);
static const struct upstream_ops upstream;

static struct client *client_of(struct client_codec *client) {
    return container_of(client, struct client, public);
}

static const char *const state_names[] = { "settling", "open", "leaving", "dead" };

static void set_state(struct client *client, enum client_state state) {
    log_debug("conn %llu: h2 client %s -> %s, %u streams",
              client->public.conn ? (unsigned long long)client->public.conn->id : 0,
              state_names[client->state], state_names[state], client->public.streams);
    client->state = state;
}

static void touch(struct stream *stream) {
    if (!list_linked(&stream->touched))
        list_push_back(&stream->client->touched, &stream->touched);
}

static enum upstream_progress progress(const struct stream *stream) {
    const struct conn *conn = stream->client->public.conn;
    if (stream->answered)
        return UPSTREAM_ANSWERED;
    if (!stream->left)
        return UPSTREAM_UNSENT;
    return conn->bytes_out == stream->sent_before && !conn->send.pending ? UPSTREAM_UNSENT
                                                                         : UPSTREAM_UNANSWERED;
}

// Notes the first thing that went wrong.
static void note(struct stream *stream, unsigned status, enum close_reason reason) {
    if (stream->failure == CLOSE_none && stream->state != DONE && stream->state != FAILED) {
        stream->failure = reason;
        stream->status = status;
        stream->progress = progress(stream);
    }
    touch(stream);
}

// The server says that it has not looked at the request.
static void note_refused(struct stream *stream) {
    counters->upstream_refused++;
    note(stream, 502, CLOSE_upstream_closed);
    if (stream->progress != UPSTREAM_ANSWERED)
        stream->progress = UPSTREAM_REFUSED;
}

static void note_bad(struct stream *stream, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (stream->failure == CLOSE_none && log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream server \"%.*s\": bad response: %s (request %s)",
                 SLICE_ARG(stream->x->upstream_name), why, exchange_id(stream->x));
    note(stream, 502, stream->reader.memory ? CLOSE_memory : CLOSE_upstream_protocol);
}

static void set_read_timer(struct stream *stream) {
    if (stream->state == WAIT && stream->request_done && stream->body.queue.bytes == 0)
        timer_start(&stream->timer, stream->client->conf->response_timeout);
    else if (stream->state == WAIT && stream->body.queue.bytes > 0)
        timer_start(&stream->timer, stream->client->conf->write_timeout);
    else if (stream->state == BODY && !stream->paused)
        timer_start(&stream->timer, stream->client->conf->read_timeout);
    else
        timer_stop(&stream->timer);
}

static void send_later(struct client *client) {
    if (client->state != DEAD)
        ring_flush_later(&client->flusher);
}

// ---- what happened to streams -----------------------------------------------------------------------------

static void give_window_back(struct stream *stream) {
    if (stream->held == 0 || stream->closed || stream->client->state == DEAD)
        return;
    nghttp2_session_consume_stream(stream->client->session.ng, stream->id, stream->held);
    stream->held = 0;
    send_later(stream->client);
}

static void fail(struct stream *stream) {
    stream->state = FAILED;
    timer_stop(&stream->timer);
    exchange_upstream_failed(stream->x, stream->progress, stream->status, stream->failure);
}

// Nothing of nghttp2 may be on the stack. Any stream, and other ones of this client, may be gone afterwards.
static void run_touched(struct client *client) {
    client->busy++;
    while (!list_empty(&client->touched)) {
        struct stream *stream = container_of(client->touched.next, struct stream, touched);
        list_remove(&stream->touched);
        bool taken = stream->taken;
        stream->taken = false;
        if (stream->state == FAILED)
            continue;
        if (stream->failure != CLOSE_none) {
            fail(stream);
            continue;
        }
        if (taken && stream->state == WAIT)
            set_read_timer(stream);
        if (!stream->paused)
            give_window_back(stream);
        exchange_run(stream->x);
    }
    client->busy--;
}

static void leave(struct client *client);

// The connection is over. `reason` becomes of what has begun.
static void die(struct client *client, int error, unsigned status, enum close_reason reason) {
    if (client->state == DEAD)
        return;
    bool settling = client->state == SETTLING;
    list_each(link, &client->streams) note(container_of(link, struct stream, link), status, reason);
    client->busy++;
    set_state(client, DEAD);
    conn_close(client->public.conn, reason);
    client->public.conn = client->session.conn = NULL;
    list_remove(&client->flusher.link);
    if (settling)
        client->public.callbacks->settled(&client->public, error);
    run_touched(client);
    client->busy--;
    if (client->public.streams == 0 && !client->freed)
        client->public.callbacks->lost(&client->public);
}

static void broken_session(struct client *client, int error) {
    bool memory = error == -ENOMEM;
    die(client, error, memory ? 503 : 502, memory ? CLOSE_memory : CLOSE_upstream_protocol);
}

// nghttp2 has told the server what rule it broke, and reads no more. That still leaves; the streams end here.
static void end_broken(struct client *client) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("upstream \"%s\": conn %llu: the server broke the rules of HTTP/2: %s", client->conf->name,
                 (unsigned long long)client->public.conn->id, nghttp2_http2_strerror(client->told_off));
    list_each(link, &client->streams)
        note(container_of(link, struct stream, link), 502, CLOSE_upstream_protocol);
    conn_finish(client->public.conn, CLOSE_upstream_protocol, 0);
    client->public.conn = NULL;
    die(client, -EPROTO, 502, CLOSE_upstream_protocol);
}

static void flush(struct ring_flush *flusher) {
    struct client *client = container_of(flusher, struct client, flusher);
    client->busy++;
    int rc = h2_session_send(&client->session);
    list_each(link, &client->fed) {
        struct stream *stream = container_of(link, struct stream, fed);
        list_remove(link);
        if (rc == 0 && queue_unpin(&stream->body.queue) < 0)
            log_warn("no memory to copy a body out of receive buffers (request %s)", exchange_id(stream->x));
    }
    if (rc < 0)
        broken_session(client, rc);
    else if (client->told_off)
        end_broken(client);
    else
        run_touched(client);
    client->busy--;
    leave(client);
}

// ---- nghttp2 says: the list of fields ---------------------------------------------------------------------

static struct stream *stream_of(nghttp2_session *ng, int32_t id) {
    struct h2_body *body = nghttp2_session_get_stream_user_data(ng, id);
    return body ? container_of(body, struct stream, body) : NULL;
}

static bool deaf(const struct stream *stream) {
    return !stream || stream->failure != CLOSE_none || stream->state == FAILED;
}

static void start_head(struct stream *stream) {
    stream->x->res = (struct response){ 0 };
    stream->reader.fields = stream->client->conf->max_response_headers;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    (void)user;
    struct stream *stream = stream_of(ng, frame->hd.stream_id);
    if (deaf(stream))
        return 0;
    stream->answered = true;
    stream->reader.trailing = stream->state != WAIT;
    if (stream->state == WAIT)
        start_head(stream);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
    (void)flags, (void)user;
    struct stream *stream = stream_of(ng, frame->hd.stream_id);
    if (deaf(stream))
        return 0;
    if (h2_response_field(&stream->reader, slice_make((const char *)name, name_len),
                          slice_make((const char *)value, value_len)) == 0)
        return 0;
    note_bad(stream, stream->reader.why);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// nghttp2 would leave such a field out.
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                             void *user) {
    (void)name, (void)name_len, (void)value, (void)value_len, (void)flags, (void)user;
    struct stream *stream = stream_of(ng, frame->hd.stream_id);
    if (!deaf(stream))
        note_bad(stream, "a field that HTTP/2 does not allow");
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// A response head, interim or final, or trailers are complete.
static void take_headers(struct stream *stream, bool end) {
    struct exchange *x = stream->x;
    if (stream->state != WAIT)
        return;
    if (h2_response_head(&stream->reader, end) < 0) {
        note_bad(stream, stream->reader.why);
        return;
    }
    if (x->res.status < 200) {
        if (++stream->interims > INTERIMS_MAX) {
            note_bad(stream, "too many interim responses");
            return;
        }
        exchange_interim(x, x->res.status, &x->res.headers);
        start_head(stream);
        set_read_timer(stream);
        return;
    }
    stream->state = BODY;
    x->at.responded = clock_us();
    x->res_ready = true;
    set_read_timer(stream);
    touch(stream);
}

static void take_end(struct stream *stream) {
    stream->state = DONE;
    stream->x->res_ended = true;
    timer_stop(&stream->timer);
    touch(stream);
}

// ---- nghttp2 says: frames ---------------------------------------------------------------------------------

static void take_goaway(struct client *client, const nghttp2_goaway *goaway) {
    counters->upstream_goaways++;
    log_info("upstream \"%s\": conn %llu: GOAWAY (%s), last stream %d", client->conf->name,
             (unsigned long long)client->public.conn->id, nghttp2_http2_strerror(goaway->error_code),
             (int)goaway->last_stream_id);
    if (client->state == SETTLING)
        client->settled = true;
    set_state(client, LEAVING);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct client *client = user;
    struct stream *stream = frame->hd.stream_id ? stream_of(ng, frame->hd.stream_id) : NULL;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (!deaf(stream))
            take_headers(stream, end);
        break;
    case NGHTTP2_DATA:
        break;
    case NGHTTP2_RST_STREAM:
        if (stream)
            stream->reset = true;
        return 0;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            client->settled = true;
        return 0;
    case NGHTTP2_GOAWAY:
        take_goaway(client, &frame->goaway);
        return 0;
    default:
        return 0;
    }
    if (end && !deaf(stream) && stream->state == BODY)
        take_end(stream);
    return 0;
}

static int on_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *at, size_t len,
                    void *user) {
    (void)flags;
    struct client *client = user;
    struct stream *stream = stream_of(ng, id);
    nghttp2_session_consume_connection(ng, len);
    if (deaf(stream))
        return 0;
    if (stream->x->res.status == 205) {
        note_bad(stream, "content in a 205 response");
        return 0;
    }
    block_ref(client->feeding);
    struct span span = { client->feeding, (char *)(uintptr_t)at, (uint32_t)len };
    stream->held += (uint32_t)len;
    if (queue_put(&stream->x->res_body, span) < 0)
        note(stream, 503, CLOSE_memory);
    if (!stream->paused)
        timer_start(&stream->timer, client->conf->read_timeout);
    touch(stream);
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct client *client = user;
    struct stream *stream = stream_of(ng, id);
    if (!stream)
        return 0;
    stream->closed = true;
    if (deaf(stream) || stream->state == DONE)
        return 0;
    if (code == NGHTTP2_REFUSED_STREAM && (stream->reset || client->state == LEAVING)) {
        note_refused(stream);
    } else if (stream->reset) {
        log_info("upstream server \"%.*s\": RST_STREAM (%s) (request %s)",
                 SLICE_ARG(stream->x->upstream_name), nghttp2_http2_strerror(code), exchange_id(stream->x));
        note(stream, 502, CLOSE_upstream_reset);
    } else {
        note_bad(stream, "what it sent breaks the rules of HTTP/2");
    }
    return 0;
}

static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct client *client = user;
    struct stream *stream = frame->hd.type == NGHTTP2_HEADERS ? stream_of(ng, frame->hd.stream_id) : NULL;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        client->told_off = frame->goaway.error_code;
    if (stream && !stream->left) {
        stream->left = true;
        stream->sent_before = client->public.conn->bytes_out;
    }
    return 0;
}

// A request that was not sent: because of GOAWAY, or memory.
static int on_frame_unsent(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user) {
    (void)ng;
    struct client *client = user;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    list_each(link, &client->streams) {
        struct stream *stream = container_of(link, struct stream, link);
        if (stream->id != frame->hd.stream_id)
            continue;
        log_debug("request %s was not sent: %s", exchange_id(stream->x), nghttp2_strerror(error));
        stream->closed = true;
        if (!stream->left && error == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED) {
            note_refused(stream);
        } else {
            note(stream, 503, CLOSE_memory);
        }
    }
    return 0;
}

static void on_taken(struct h2_session *session, struct h2_body *body) {
    (void)session;
    struct stream *stream = container_of(body, struct stream, body);
    stream->taken = true;
    if (stream->state == WAIT || body->queue.bytes <= stream->x->settings->buffer_low)
        touch(stream);
}

static nghttp2_session_callbacks *callbacks(void) {
    static nghttp2_session_callbacks *set;
    if (set || nghttp2_session_callbacks_new(&set) != 0)
        return set;
    h2_session_set_callbacks(set);
    nghttp2_session_callbacks_set_on_begin_headers_callback(set, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(set, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(set, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(set, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(set, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(set, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(set, on_frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(set, on_frame_unsent);
    return set;
}

// ---- the conn ---------------------------------------------------------------------------------------------

static void sooner(uint64_t *ms, uint64_t at) {
    uint64_t now = clock_ms(), left = at > now ? at - now : 1;
    if (at && left < *ms)
        *ms = left;
}

static void set_timer(struct client *client) {
    uint64_t ms = UINT64_MAX, ping = client->conf->http2_ping;
    if (client->state == DEAD)
        return;
    sooner(&ms, client->settle_by);
    sooner(&ms, client->idle_by);
    sooner(&ms, client->pinged ? client->ping_by : ping ? client->heard_ms + ping : 0);
    if (ms == UINT64_MAX)
        timer_stop(&client->public.conn->timer);
    else
        timer_start(&client->public.conn->timer, ms);
}

static void on_data(struct conn *conn, struct span span) {
    struct client *client = client_of(conn->owner);
    bool settling = client->state == SETTLING;
    unsigned room = client->public.ops->room(&client->public);
    client->busy++;
    client->heard_ms = clock_ms();
    if (client->pinged) {
        client->pinged = false;
        set_timer(client);
    }
    client->feeding = span.block;
    ssize_t n = nghttp2_session_mem_recv(client->session.ng, (const uint8_t *)span.at, span.len);
    block_unref(span.block);
    if (n < 0) {
        broken_session(client, n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO);
    } else {
        if (settling && client->settled) {
            client->settle_by = 0;
            if (client->state == SETTLING)
                set_state(client, OPEN);
            client->public.callbacks->settled(&client->public, 0);
        }
        run_touched(client);
    }
    if (client->state != DEAD) {
        send_later(client);
        if (!settling && client->public.ops->room(&client->public) > room)
            client->public.callbacks->roomier(&client->public);
        // Nothing holds a connection that takes no more requests and has none.
        if (client->state == LEAVING && client->public.streams == 0 && !client->freed)
            client->public.callbacks->lost(&client->public);
    }
    client->busy--;
    leave(client);
}

static void on_ended(struct conn *conn, int error) {
    struct client *client = client_of(conn->owner);
    client->busy++;
    die(client, error ? error : -ECONNRESET, 502, error ? CLOSE_upstream_reset : CLOSE_upstream_closed);
    client->busy--;
    leave(client);
}

static void on_written(struct conn *conn) {
    struct client *client = client_of(conn->owner);
    if (conn_waiting(conn) < H2_WAITING_MAX && nghttp2_session_want_write(client->session.ng))
        send_later(client);
}

// What it still has to say, GOAWAY above all, comes before its end.
static void on_broken(struct conn *conn, int error) {
    struct client *client = client_of(conn->owner);
    log_debug("conn %llu: upstream send failed: %d", (unsigned long long)conn->id, error);
    if (conn_ended(conn)) {
        on_ended(conn, error);
        return;
    }
    if (client->state == OPEN)
        set_state(client, LEAVING);
}

static void on_timeout(struct conn *conn) {
    struct client *client = client_of(conn->owner);
    uint64_t now = clock_ms();
    client->busy++;
    if (client->settle_by && now >= client->settle_by) {
        log_warn("upstream \"%s\": a server did not begin HTTP/2 in connect_timeout", client->conf->name);
        die(client, -ETIMEDOUT, 504, CLOSE_upstream_timeout);
    } else if (client->pinged && now >= client->ping_by) {
        counters->upstream_pings_lost++;
        log_warn("upstream \"%s\": conn %llu: no answer to PING in connect_timeout", client->conf->name,
                 (unsigned long long)conn->id);
        die(client, -ETIMEDOUT, 504, CLOSE_upstream_reset);
    } else if (client->idle_by && now >= client->idle_by && client->public.streams == 0) {
        client->public.callbacks->lost(&client->public);
    } else if (!client->pinged && client->conf->http2_ping &&
               now >= client->heard_ms + client->conf->http2_ping) {
        client->pinged = true;
        client->ping_by = now + client->conf->connect_timeout;
        if (nghttp2_submit_ping(client->session.ng, NGHTTP2_FLAG_NONE, NULL) == 0)
            send_later(client);
    }
    if (!client->freed)
        set_timer(client);
    client->busy--;
    leave(client);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

// ---- struct upstream_ops ----------------------------------------------------------------------------------

static int make_head(struct stream *stream, struct h2_fields *fields) {
    const struct exchange *x = stream->x;
    const struct request *req = &x->req;
    struct slice path = request_origin_form(req, fields->arena), host = { 0 };
    struct slice scheme = stream->client->secure ? SLICE_LIT("https") : SLICE_LIT("http");
    headers_get(&req->headers, HEADER_host, &host);
    if (!path.at || h2_fields_add(fields, SLICE_LIT(":method"), req->method) < 0 ||
        h2_fields_add(fields, SLICE_LIT(":scheme"), scheme) < 0 ||
        (host.len > 0 && h2_fields_add(fields, SLICE_LIT(":authority"), host) < 0) ||
        h2_fields_add(fields, SLICE_LIT(":path"), path) < 0 || h2_fields_add_all(fields, &req->headers) < 0)
        return -ENOMEM;
    if (req->framing == BODY_LENGTH &&
        h2_fields_add_number(fields, SLICE_LIT("content-length"), req->length) < 0)
        return -ENOMEM;
    if (req->takes_trailers && h2_fields_add(fields, SLICE_LIT("te"), SLICE_LIT("trailers")) < 0)
        return -ENOMEM;
    return 0;
}

static int write_head(struct exchange *x) {
    struct stream *stream = x->up_owner;
    struct client *client = stream->client;
    struct h2_fields fields = { .arena = &x->arena };
    if (client->state == DEAD)
        return 0;  // run_touched() will say so
    if (make_head(stream, &fields) < 0)
        return -ENOMEM;
    int32_t id =
        nghttp2_submit_request(client->session.ng, NULL, fields.at, fields.count,
                               x->req.framing == BODY_NONE ? NULL : &h2_body_provider, &stream->body);
    if (id < 0)
        return -ENOMEM;
    stream->id = id;
    if (id >= LAST_ID && client->state != LEAVING)
        set_state(client, LEAVING);
    client->public.requests++;
    counters->upstream_streams++;
    send_later(client);
    return 0;
}

static int write_body(struct exchange *x) {
    struct stream *stream = x->up_owner;
    struct client *client = stream->client;
    if (stream->request_done)
        return 0;
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
        set_read_timer(stream);
    if (!stream->closed && client->state != DEAD) {
        h2_body_more(&client->session, stream->id, &stream->body);
        send_later(client);
    }
    return 0;
}

static size_t backlog(struct exchange *x) {
    return ((struct stream *)x->up_owner)->body.queue.bytes;
}

static void want_body(struct exchange *x, bool want) {
    struct stream *stream = x->up_owner;
    if (stream->paused == !want || stream->state == FAILED)
        return;
    stream->paused = !want;
    if (want)
        give_window_back(stream);
    if (stream->state == BODY)
        set_read_timer(stream);
}

static void release(struct exchange *x, bool reusable) {
    struct stream *stream = x->up_owner;
    struct client *client = stream->client;
    (void)reusable;  // of a stream only
    if (stream->id && !stream->closed && client->state != DEAD) {
        nghttp2_session_set_stream_user_data(client->session.ng, stream->id, NULL);
        nghttp2_submit_rst_stream(client->session.ng, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
        send_later(client);
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
    .release = release,
    .refuses = true,
};

// ---- struct client_codec_ops ------------------------------------------------------------------------------

static void stream_timed_out(struct timer *timer) {
    struct stream *stream = container_of(timer, struct stream, timer);
    struct client *client = stream->client;
    client->busy++;
    note(stream, 504, CLOSE_upstream_timeout);
    // A connection that takes nothing is no good for others either.
    if (stream->state == WAIT && stream->body.queue.bytes > 0 && client->state == OPEN &&
        conn_waiting(client->public.conn) >= H2_WAITING_MAX)
        set_state(client, LEAVING);
    run_touched(client);
    client->busy--;
    leave(client);
}

static void not_carried(struct client *client, struct exchange *x, unsigned status,
                        enum close_reason reason) {
    client->public.callbacks->released(&client->public,
                                       client->state >= LEAVING ? CLIENT_SPENT : CLIENT_REUSABLE);
    exchange_dial_failed(x, false, status, reason);
}

static void h2_carry(struct client_codec *public, struct exchange *x, const struct conf_upstream *conf) {
    struct client *client = client_of(public);
    if (x->req.upgrade) {
        log_info("upstream server \"%.*s\" is spoken to in HTTP/2, which has no upgrades (request %s)",
                 SLICE_ARG(x->upstream_name), exchange_id(x));
        not_carried(client, x, 501, CLOSE_upstream_protocol);
        return;
    }
    struct stream *stream = slab_get(&stream_slab);
    if (!stream) {
        not_carried(client, x, 503, CLOSE_memory);
        return;
    }
    *stream = (struct stream){
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
    exchange_dialled(x, &upstream, stream, public->requests > 0);
}

static unsigned h2_room(const struct client_codec *public) {
    const struct client *client = container_of(public, struct client, public);
    if (client->state >= LEAVING)
        return 0;
    uint64_t most = client->conf->http2_streams;
    uint32_t theirs =
        nghttp2_session_get_remote_settings(client->session.ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (client->state == OPEN && theirs < most)
        most = theirs;
    return most > public->streams ? (unsigned)(most - public->streams) : 0;
}

static void h2_idle(struct client_codec *public, uint64_t ms) {
    struct client *client = client_of(public);
    client->idle_by = clock_ms() + ms;
    set_timer(client);
}

// The object goes when nothing on the stack uses it.
static void leave(struct client *client) {
    if (!client->freed || client->busy > 0)
        return;
    check_soft(list_empty(&client->streams));
    list_remove(&client->flusher.link);
    nghttp2_session_del(client->session.ng);
    slab_put(&client_slab, client);
}

static void h2_free(struct client_codec *public, enum close_reason reason) {
    struct client *client = client_of(public);
    list_remove(&public->link);
    if (client->state != DEAD) {
        struct conn *conn = public->conn;
        bool orderly = nghttp2_session_terminate_session(client->session.ng, NGHTTP2_NO_ERROR) == 0 &&
            h2_session_send(&client->session) == 0;
        set_state(client, DEAD);
        if (orderly)
            conn_finish(conn, reason, 0);
        else
            conn_close(conn, reason);
        public->conn = client->session.conn = NULL;
        list_remove(&client->flusher.link);
    }
    client->freed = true;
    leave(client);
}

static const struct client_codec_ops codec = {
    .carry = h2_carry,
    .room = h2_room,
    .idle = h2_idle,
    .free = h2_free,
};

// ---- life -------------------------------------------------------------------------------------------------

static int begin(struct client *client) {
    const struct conf_upstream *conf = client->conf;
    nghttp2_option *option;
    if (!callbacks() || nghttp2_option_new(&option) != 0)
        return -ENOMEM;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_send_header_block_length(option, 4 << 20);
    nghttp2_option_set_max_continuations(option, conf->max_response_head / 4096 + 16);
    int rc =
        nghttp2_session_client_new3(&client->session.ng, callbacks(), &client->session, option, &h2_memory);
    nghttp2_option_del(option);
    if (rc != 0)
        return -ENOMEM;
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)conf->http2_window },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)conf->max_response_head },
    };
    if (nghttp2_submit_settings(client->session.ng, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0 ||
        nghttp2_session_set_local_window_size(client->session.ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) !=
            0) {
        nghttp2_session_del(client->session.ng);
        return -ENOMEM;
    }
    return 0;
}

struct client_codec *h2_client_new(struct conn *conn, const struct conf_upstream *conf, bool secure,
                                   const struct client_codec_callbacks *calls, void *owner) {
    struct client *client = slab_get(&client_slab);
    if (!client) {
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    *client = (struct client){
        .session = { .conn = conn, .taken = on_taken },
        .public = { .many = true, .ops = &codec, .callbacks = calls, .owner = owner, .conn = conn, .idle_ms = UINT64_MAX },
        .conf = conf,
        .state = SETTLING,
        .secure = secure,
        .heard_ms = clock_ms(),
        .settle_by = clock_ms() + conf->connect_timeout,
    };
    list_init(&client->public.link);
    list_init(&client->streams);
    list_init(&client->touched);
    list_init(&client->fed);
    list_init(&client->flusher.link);
    client->flusher.flush = flush;
    if (begin(client) < 0) {
        slab_put(&client_slab, client);
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    conn_adopt(conn, &handler, &client->public);
    set_timer(client);
    conn_read(conn);
    send_later(client);
    return &client->public;
}
