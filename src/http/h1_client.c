// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/1 codec towards upstream servers. Writes requests, reads and checks responses, holds the time-outs
// of that side. What the response means is the exchange's affair, where the connection waits is dial.c's.
#include "http/h1_client.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/h1_parser.h"
#include "http/h1_write.h"

enum state {
    IDLE,  // no exchange; any byte or end means the conn is lost
    WAIT,  // x set; no complete response head yet
    BODY,  // the response body is coming
    DONE,  // the response is complete
    TUNNEL,  // behind a 101: bytes are passed on as they come, both ways, as bodies (request.tunnel)
};

struct client {
    struct client_codec public;
    const struct conf_upstream *conf;
    struct exchange *x;
    enum state state;
    bool head_now, paused;
    bool request_done;     // all of the request is on the conn's queue
    bool spoiled;          // must not carry another exchange
    bool answered;         // a byte of the response came
    int end_error;         // how the conn's reading ended
    uint64_t sent_before;  // conn->bytes_out when the exchange began
    unsigned interims;
    size_t interim_bytes;  // of their heads
    struct queue pending;  // received, not parsed (while paused), or what followed a 101
    struct block *feeding;
    struct h1_parser parser;
};

enum { INTERIMS_MAX = 32 };  // their heads count towards max_response_head, too

static struct slab client_slab = SLAB_INIT(sizeof(struct client), 256);
static const struct h1_parser_ops parser_ops;
static const struct upstream_ops upstream;

static struct client *client_of(struct client_codec *client) {
    return container_of(client, struct client, public);
}

static void start_response(struct client *client) {
    struct exchange *x = client->x;
    const struct conf_upstream *conf = client->conf;
    // Small chunks are a server's right, so their overhead has no limit; their lines have.
    struct h1_limits limits = {
        .max_head = conf->max_response_head - client->interim_bytes,
        .max_headers = conf->max_response_headers,
        .max_line = conf->max_response_head,
    };
    x->res = (struct response){ 0 };
    h1_parser_response(&client->parser, &parser_ops, limits, &x->arena, &x->res, x->req.head);
}

// A change of protocol must be one that the client asked for, in full and after it (RFC 9110, 7.8): else the
// client and we would read what follows in two ways. NULL when it is.
static const char *refuse_switch(const struct client *client) {
    const struct exchange *x = client->x;
    const struct header *field;
    struct slice rest, protocol;
    uint32_t at = 0;
    bool named = false;
    if (!x->req.upgrade)
        return "101 to a request that asked for no upgrade";
    if (x->res.minor == 0)
        return "101 in HTTP/1.0";
    if (!client->request_done)
        return "101 before the end of the request";
    while ((field = headers_next(&x->res.headers, header_name_of(HEADER_upgrade), &at)))
        for (rest = field->value; slice_next_element(&rest, &protocol); named = true)
            if (!headers_list_has(&x->req.headers, HEADER_upgrade, protocol))
                return "101 to a protocol that the request did not ask for";
    if (!named || !headers_list_has(&x->res.headers, HEADER_connection, SLICE_LIT("upgrade")))
        return "101 without Upgrade and Connection";
    if (x->req.tunnel && !x->site->websocket_accepted(x))
        return "101 whose Sec-WebSocket-Accept is not the answer to our key";
    return NULL;
}

// "Keep-Alive: timeout=5": a second less, so that it is us who close. What else stands there says nothing.
static uint64_t idle_ms(const struct headers *headers) {
    struct slice rest, element;
    uint64_t seconds;
    if (!headers_get(headers, HEADER_keep_alive, &rest))
        return UINT64_MAX;
    while (slice_next_element(&rest, &element))
        if (slice_istarts(element, SLICE_LIT("timeout=")) &&
            slice_to_u64(slice_from(element, 8), &seconds) == 0 && seconds < UINT32_MAX)
            return seconds > 0 ? (seconds - 1) * 1000 : 0;
    return UINT64_MAX;
}

static int on_head(struct h1_parser *parser) {
    struct client *client = container_of(parser, struct client, parser);
    struct exchange *x = client->x;
    const char *why = x->res.status == 101 ? refuse_switch(client) : NULL;
    if (why) {
        parser->error_status = 502;
        parser->error_why = why;
        return -1;
    }
    if (x->res.status >= 200 || x->res.status == 101) {
        client->head_now = true;
        client->public.idle_ms = idle_ms(&x->res.headers);
    }
    return 0;
}

static int on_body(struct h1_parser *parser, const char *at, size_t len) {
    struct client *client = container_of(parser, struct client, parser);
    block_ref(client->feeding);
    if (queue_put(&client->x->res_body, (struct span){ client->feeding, (char *)at, (uint32_t)len }) == 0)
        return 0;
    parser->error_status = 503;
    parser->error_why = "memory is out";
    return -1;
}

static const struct h1_parser_ops parser_ops = { .head = on_head, .body = on_body };

// Nothing of the request was taken by the kernel: no server can have seen it. While a send is under way
// nobody knows.
static bool unsent(const struct client *client) {
    const struct conn *conn = client->public.conn;
    return conn->bytes_out == client->sent_before && !conn->send.pending;
}

static enum upstream_progress progress(const struct client *client) {
    return client->answered ? UPSTREAM_ANSWERED : unsent(client) ? UPSTREAM_UNSENT : UPSTREAM_UNANSWERED;
}

static void fail(struct client *client, unsigned status, enum close_reason reason) {
    client->spoiled = true;
    exchange_upstream_failed(client->x, progress(client), status, reason);
}

static void set_read_timer(struct client *client) {
    if (client->state == DONE || client->paused)
        timer_stop(&client->public.conn->timer);
    else if (client->state == TUNNEL)
        timer_start(&client->public.conn->timer, client->x->settings->tunnel_timeout);
    else if (client->state == BODY)
        timer_start(&client->public.conn->timer, client->conf->read_timeout);
    else if (client->request_done)
        timer_start(&client->public.conn->timer, exchange_answer_ms(client->x));
    else
        timer_stop(&client->public.conn->timer);
}

// Takes the span. The exchange runs once, after all of it was parsed; then the client may be gone.
static void parse(struct client *client, struct span span) {
    struct exchange *x = client->x;
    if (client->state == TUNNEL) {
        set_read_timer(client);
        if (queue_put_whole(&x->res_body, span) < 0)
            fail(client, 502, CLOSE_memory);
        else
            exchange_run(x);
        return;
    }
    bool restart = client->state != WAIT;  // a head has its time as a whole, each interim one anew
    client->head_now = false;
    while (span.len > 0) {
        size_t used = span.len;
        client->feeding = span.block;
        enum h1_result result = h1_parser_feed(&client->parser, span.at, span.len, &used);
        if (result == H1_BAD) {
            static struct log_limit limit;
            uint32_t suppressed;
            if (log_limit_pass(&limit, 10, &suppressed))
                log_warn("upstream server \"%.*s\": bad response: %s (request %s)",
                         SLICE_ARG(x->upstream_name), client->parser.error_why, exchange_id(x));
            block_unref(span.block);
            fail(client, 502, client->parser.error_status == 503 ? CLOSE_memory : CLOSE_upstream_protocol);
            return;
        }
        span.at += used;
        span.len -= (uint32_t)used;
        if (client->head_now && client->state == WAIT) {
            client->state = BODY;
            x->at.responded = clock_us();
            x->res_ready = restart = true;
        }
        if (result == H1_MORE)
            break;
        if (x->res.status < 200 && x->res.status != 101) {
            if (++client->interims > INTERIMS_MAX) {
                block_unref(span.block);
                fail(client, 502, CLOSE_upstream_protocol);
                return;
            }
            client->interim_bytes += client->parser.head_bytes;
            exchange_interim(x, x->res.status, &x->res.headers);
            start_response(client);
            restart = true;
            continue;
        }
        client->state = DONE;
        x->res_ended = true;
        if (!x->res.keep_alive || span.len > 0)
            client->spoiled = true;  // bytes after a response belong to nobody
        if (x->res.status == 101 && x->req.tunnel) {
            client->state = TUNNEL;
            client->request_done = false;
            x->upgraded = true;
            x->req_ended = x->res_ended = false;
            if (span.len > 0) {
                block_ref(span.block);
                if (queue_put_whole(&x->res_body, span) < 0)
                    log_warn("no memory for the first bytes of a tunnel");
            }
        } else if (x->res.status == 101) {
            x->upgraded = true;
            if (span.len > 0) {
                block_ref(span.block);
                if (queue_put_whole(&client->pending, span) < 0)
                    log_warn("no memory for the first bytes of a tunnel");
            }
        }
        break;
    }
    block_unref(span.block);
    if (restart)
        set_read_timer(client);
    exchange_run(x);
}

static void on_data(struct conn *conn, struct span span) {
    struct client *client = client_of(conn->owner);
    if (client->state == IDLE || client->state == DONE) {
        block_unref(span.block);
        client->spoiled = true;
        if (client->state == IDLE)
            client->public.callbacks->lost(&client->public);
        return;
    }
    if (client->state == WAIT && conn->bytes_out == client->sent_before) {
        // An answer to nothing, which must not become the one to this request: what a send has taken is
        // always reported before what came after it.
        block_unref(span.block);
        log_info("upstream server \"%.*s\" answered before it was asked (request %s)",
                 SLICE_ARG(client->x->upstream_name), exchange_id(client->x));
        fail(client, 502, client->public.requests > 1 ? CLOSE_upstream_closed : CLOSE_upstream_protocol);
        return;
    }
    client->answered = true;
    if (client->paused) {
        if (queue_put_whole(&client->pending, span) < 0)
            fail(client, 502, CLOSE_memory);
        else if (queue_unpin(&client->pending) < 0)
            log_warn("no memory to copy a response out of receive buffers");
        return;
    }
    parse(client, span);
}

static void on_ended(struct conn *conn, int error) {
    struct client *client = client_of(conn->owner);
    client->spoiled = true;
    client->end_error = error;
    if (client->state == IDLE) {
        client->public.callbacks->lost(&client->public);
    } else if (client->state != DONE && queue_empty(&client->pending)) {
        if (error == 0 && (client->state == TUNNEL || h1_parser_eof(&client->parser))) {
            client->state = DONE;
            client->x->res_ended = true;
            set_read_timer(client);
            exchange_run(client->x);
        } else {
            fail(client, 502, error ? CLOSE_upstream_reset : CLOSE_upstream_closed);
        }
    }
    // With bytes pending the end is looked at again when these have been parsed (want_body).
}

static void on_written(struct conn *conn) {
    struct client *client = client_of(conn->owner);
    struct exchange *x = client->x;
    if (!x)
        return;
    if (conn_waiting(conn) > 0 && client->state == WAIT)
        timer_start(&conn->timer, client->conf->write_timeout);
    else if ((conn_waiting(conn) == 0 && client->state == WAIT) ||
             (client->state == BODY && !client->request_done) || client->state == TUNNEL)
        set_read_timer(client);
    if (!x->req_ended && conn_waiting(conn) <= x->settings->buffer_low)
        exchange_run(x);
}

// A server may answer and close before it has read the whole request: the response, or the end, is still to
// come.
static void on_broken(struct conn *conn, int error) {
    struct client *client = client_of(conn->owner);
    client->spoiled = true;
    log_debug("conn %llu: upstream send failed: %d", (unsigned long long)conn->id, error);
    if (!client->x)
        return;
    if (client->state != DONE && conn_ended(conn) && queue_empty(&client->pending))
        fail(client, 502, CLOSE_upstream_reset);
    else if (client->state == WAIT)
        timer_start(&conn->timer, exchange_answer_ms(client->x));
}

static void on_timeout(struct conn *conn) {
    struct client *client = client_of(conn->owner);
    uint64_t more = 0;
    if (client->state == WAIT && client->request_done && conn_waiting(conn) == 0)
        more = exchange_overdue(client->x, progress(client));
    if (more > 0) {
        timer_start(&conn->timer, more);
        return;
    }
    client->spoiled = true;
    if (client->state == IDLE)
        client->public.callbacks->lost(&client->public);
    else if (client->state != DONE)
        fail(client, 504, client->state == TUNNEL ? CLOSE_tunnel_timeout : CLOSE_upstream_timeout);
}

static const struct conn_handler handler = {
    .data = on_data,
    .ended = on_ended,
    .written = on_written,
    .broken = on_broken,
    .timeout = on_timeout,
};

// ---- struct upstream_ops ----------------------------------------------------------------------------------

static int write_head(struct exchange *x) {
    struct client *client = x->up_owner;
    const char *connection = x->req.upgrade ? "upgrade" : client->conf->keepalive == 0 ? "close" : NULL;
    int rc = h1_write_request(&client->public.conn->out, &x->req, connection);
    if (rc < 0)
        return rc;
    client->public.requests++;
    conn_flush(client->public.conn);
    return 0;
}

static int write_body(struct exchange *x) {
    struct client *client = x->up_owner;
    struct conn *conn = client->public.conn;
    int rc = 0;
    if (client->request_done)
        return 0;
    if (conn->broken) {
        queue_release(&x->req_body);
    } else {
        bool chunked = x->req.framing == BODY_CHUNKED;
        rc = h1_write_body(&conn->out, &x->req_body, chunked);
        if (rc == 0 && x->req_ended && chunked)
            rc = h1_write_last_chunk(&conn->out, &x->req.trailers);
        // Now, not only after a short send: there is none when what went before has just filled the server's
        // window.
        if (client->state == WAIT && conn_waiting(conn) > 0 && !timer_running(&conn->timer))
            timer_start(&conn->timer, client->conf->write_timeout);
    }
    if (client->state == TUNNEL)
        set_read_timer(client);
    if (x->req_ended) {
        client->request_done = true;
        if (client->state == TUNNEL)
            conn_shutdown(conn);
        if (client->state == WAIT)
            set_read_timer(client);
    }
    conn_flush(conn);
    return rc;
}

static size_t backlog(struct exchange *x) {
    return conn_waiting(((struct client *)x->up_owner)->public.conn);
}

static void want_body(struct exchange *x, bool want) {
    struct client *client = x->up_owner;
    struct conn *conn = client->public.conn;
    if (client->paused == !want || (client->state != BODY && client->state != TUNNEL))
        return;
    client->paused = !want;
    if (!want) {
        conn->bulk = x->bulk ? x->bulk : (uint32_t)x->settings->buffer_high;
        conn_pause(conn);
        set_read_timer(client);
        return;
    }
    if (x->bulk)
        conn->bulk = x->bulk;
    struct span span;
    if (queue_take(&client->pending, &span)) {
        // exchange_run() is on the stack: parse() only notes that there is more, and we look again.
        parse(client, span);
        if (!queue_empty(&client->pending)) {
            client->paused = true;
            return;
        }
    }
    if (conn_ended(conn) && client->state != DONE)
        on_ended(conn, client->end_error);
    else
        conn_read(conn);
    set_read_timer(client);
}

static void bound(struct exchange *x) {
    struct client *client = x->up_owner;
    struct conn *conn = client->public.conn;
    conn->bulk = x->bulk;
    if (conn->reading != READING_MULTI)
        return;
    conn_pause(conn);
    if (!client->paused)
        conn_read(conn);
}

static struct conn *detach(struct exchange *x, struct queue *ret_read) {
    struct client *client = x->up_owner;
    struct conn *conn = client->public.conn;
    queue_move(ret_read, &client->pending);
    timer_stop(&conn->timer);
    client->public.conn = NULL;
    client->x = NULL;
    client->state = IDLE;
    client->public.streams = 0;
    client->public.callbacks->released(&client->public, CLIENT_TUNNEL);
    return conn;
}

static void move(struct exchange *from, struct exchange *to) {
    struct client *client = from->up_owner;
    client->x = to;
    client->parser.arena = &to->arena;
    client->parser.response = &to->res;
}

static void release(struct exchange *x, bool reusable) {
    struct client *client = x->up_owner;
    struct conn *conn = client->public.conn;
    reusable = reusable && client->state == DONE && client->request_done && !client->spoiled &&
        !conn->broken && conn_waiting(conn) == 0 && !conn_ended(conn);
    client->x = NULL;
    client->state = IDLE;
    queue_release(&client->pending);
    timer_stop(&conn->timer);
    if (reusable) {
        conn->bulk = x->bulk;  // the next one is likely to be of the same kind
        conn_read(conn);
    }
    client->public.streams = 0;
    client->public.callbacks->released(&client->public, reusable ? CLIENT_REUSABLE : CLIENT_SPENT);
}

static const struct upstream_ops upstream = {
    .head = write_head,
    .body = write_body,
    .backlog = backlog,
    .want_body = want_body,
    .bound = bound,
    .detach = detach,
    .move = move,
    .release = release,
};

// ---- life -------------------------------------------------------------------------------------------------

static void h1_free(struct client_codec *public, enum close_reason reason) {
    struct client *client = client_of(public);
    list_remove(&public->link);
    queue_release(&client->pending);
    if (public->conn)
        conn_close(public->conn, reason);
    slab_put(&client_slab, client);
}

static void h1_idle(struct client_codec *public, uint64_t ms) {
    conn_read(public->conn);  // an end is noticed
    timer_start(&public->conn->timer, ms);
}

static void h1_carry(struct client_codec *public, struct exchange *x, const struct conf_upstream *conf) {
    struct client *client = client_of(public);
    bool reused = client_codec_is_old(public);
    timer_stop(&public->conn->timer);
    public->streams = 1;
    client->conf = conf;
    client->x = x;
    client->state = WAIT;
    client->request_done = client->spoiled = client->paused = client->answered = false;
    client->sent_before = public->conn->bytes_out;
    client->interims = 0;
    client->interim_bytes = 0;
    start_response(client);
    public->conn->bulk = x->bulk;
    if (x->bulk && public->conn->reading == READING_MULTI)
        conn_pause(public->conn);
    conn_read(public->conn);
    exchange_dialled(x, &upstream, client, reused);
}

static unsigned h1_room(const struct client_codec *public) {
    return public->streams == 0;
}

static const struct client_codec_ops codec = {
    .carry = h1_carry,
    .room = h1_room,
    .idle = h1_idle,
    .free = h1_free,
};

struct client_codec *h1_client_new(struct conn *conn, const struct conf_upstream *conf,
                                   const struct client_codec_callbacks *callbacks, void *owner) {
    struct client *client = slab_get(&client_slab);
    if (!client) {
        conn_close(conn, CLOSE_memory);
        return NULL;
    }
    *client = (struct client){
        .public = { .ops = &codec,
                    .callbacks = callbacks,
                    .owner = owner,
                    .conn = conn,
                    .idle_ms = UINT64_MAX },
        .conf = conf,
    };
    list_init(&client->public.link);
    conn_adopt(conn, &handler, &client->public);
    return &client->public;
}
