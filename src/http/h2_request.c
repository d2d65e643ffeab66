// SPDX-License-Identifier: BSD-2-Clause
// Requests of HTTP/2 as they come: fields into the exchange, what RFC 9113 and the limits say of them, what
// frames are allowed when, and what there is too much of. nghttp2 has checked a lot by then (its
// documentation's "HTTP messaging"); here is what it leaves to us, and what HTTP/1 behind us could not
// express or would read in another way.
//
// Malformed is what RFC 9113, 8.1.1 calls so: the stream is reset with PROTOCOL_ERROR. What a client of
// HTTP/1 would be answered 400, 414, 431 or 501 for is answered so here.
#include "http/h2_server_impl.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "http/rules.h"
#include "http/target.h"

#include <errno.h>

enum { RECENT_RESET = 1u << 31, METHOD_MAX = 64, BOMB_FACTOR = 8 };

static void log_bad(const struct h2_server *server, int32_t id, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_info("conn %llu: stream %d: %s (%u others were not logged)",
                 (unsigned long long)server->mux.session.conn->id, id, why, suppressed);
}

// ---- limits -----------------------------------------------------------------------------------------------

static int flooded(struct h2_server *server, const char *why) {
    struct conn *conn = server->mux.session.conn;
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 1, &suppressed)) {
        char ip[ADDR_IP_MAX];
        addr_print_ip(conn_remote(conn), ip);
        log_info("conn %llu: client %s: %s: the connection is ended (%u others were before)",
                 (unsigned long long)conn->id, ip, why, suppressed);
    }
    h2_mux_fail(&server->mux, NGHTTP2_ENHANCE_YOUR_CALM, CLOSE_limit);
    return -1;
}

static int count(struct h2_server *server, enum h2_guard_kind kind) {
    const char *why = h2_guard_count(&server->guard, kind, &server->limits);
    return why ? flooded(server, why) : 0;
}

// ---- frames -----------------------------------------------------------------------------------------------

static void remember(struct h2_server *server, int32_t id, bool reset) {
    server->recent[server->recent_at++ % H2_RECENT] = (uint32_t)id | (reset ? RECENT_RESET : 0);
}

void h2_request_closed(struct h2_stream *stream) {
    struct h2_request *request = h2_request_of(stream);
    if (request->server->reading == request)
        request->server->reading = NULL;
    bool by_client = request->taken_back || (stream->error == NGHTTP2_NO_ERROR && request->ended);
    remember(request->server, stream->id, !by_client);
}

static int broken(struct h2_server *server, uint32_t error, int32_t id, const char *why) {
    log_bad(server, id, why);
    h2_mux_fail(&server->mux, error, CLOSE_bad_request);
    return -1;
}

// DATA or HEADERS for a stream that we do not have: it is over. What was under way when we reset it is passed
// over.
static int check_over(struct h2_server *server, const nghttp2_frame_hd *head) {
    uint32_t id = (uint32_t)head->stream_id;
    if (server->draining == H2_DRAINING && head->stream_id > server->final_id)
        return count(server, H2_GUARD_empty);
    for (unsigned i = 0; i < H2_RECENT; i++) {
        if (server->recent[i] == (id | RECENT_RESET))
            return count(server, H2_GUARD_empty);
        if (server->recent[i] == id)
            return broken(server, NGHTTP2_STREAM_CLOSED, head->stream_id, "a frame behind END_STREAM");
    }
    return broken(server, head->type == NGHTTP2_HEADERS ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_STREAM_CLOSED,
                  head->stream_id, "a frame for a stream that is over");
}

// nghttp2 judges what a frame is; here is when it may come, and how often.
int h2_request_frame(struct h2_mux *mux, const nghttp2_frame_hd *head) {
    struct h2_server *server = h2_server_of(mux);
    bool end = head->flags & NGHTTP2_FLAG_END_STREAM, known = false;
    if (head->stream_id > 0 && head->stream_id <= server->last_id)
        known = nghttp2_session_get_stream_user_data(mux->session.ng, head->stream_id) != NULL;
    bool over =
        head->stream_id > 0 && head->stream_id <= server->last_id && head->stream_id % 2 == 1 && !known;
    switch (head->type) {
    case NGHTTP2_DATA:
        if (over)
            return check_over(server, head);
        return head->length == 0 && !end ? count(server, H2_GUARD_empty) : 0;
    case NGHTTP2_HEADERS:
        server->continuations = 0;
        if (over)
            return check_over(server, head);
        if (head->stream_id % 2 == 1 && head->stream_id > server->last_id)
            server->last_id = head->stream_id;
        return head->length == 0 ? count(server, H2_GUARD_empty) : 0;
    case NGHTTP2_CONTINUATION:
        if (++server->continuations > server->limits.max_continuations && server->limits.max_continuations) {
            counters->http2_continuation_floods++;
            return flooded(server, "too many CONTINUATION frames");
        }
        return head->length == 0 ? count(server, H2_GUARD_empty) : 0;
    case NGHTTP2_RST_STREAM:
        return count(server, H2_GUARD_reset);
    case NGHTTP2_SETTINGS:
        return count(server, H2_GUARD_settings);
    case NGHTTP2_PING:
        return count(server, H2_GUARD_ping);
    case NGHTTP2_WINDOW_UPDATE:
        return count(server, H2_GUARD_window_update);
    case NGHTTP2_PRIORITY:
        // nghttp2 takes no notice of these any more.
        if (head->stream_id == 0)
            return broken(server, NGHTTP2_PROTOCOL_ERROR, 0, "PRIORITY on stream 0");
        return count(server, H2_GUARD_priority);
    case NGHTTP2_PRIORITY_UPDATE:
        return count(server, H2_GUARD_priority);
    case NGHTTP2_PUSH_PROMISE:
        return 0;
    default:
        return count(server, H2_GUARD_empty);
    }
}

// ---- fields -----------------------------------------------------------------------------------------------

static void refuse(struct h2_request *request, unsigned status, const char *why) {
    if (!request->status) {
        request->status = (uint16_t)status;
        request->why = why;
    }
}

static int malformed(struct h2_request *request, const char *why) {
    struct h2_stream *stream = &request->stream;
    if (!request->malformed) {
        log_bad(request->server, stream->id, why);
        request->malformed = true;
        request->reason = CLOSE_bad_request;
        if (nghttp2_submit_rst_stream(stream->mux->session.ng, NGHTTP2_FLAG_NONE, stream->id,
                                      NGHTTP2_PROTOCOL_ERROR) != 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// The sizes of a head in HTTP/1, so that the limits mean the same. What is beyond them is not kept; a head
// that goes on and on costs the connection.
static int measure(struct h2_request *request, size_t name, size_t value) {
    const struct conf_settings *settings = request->stream.x->settings;
    request->head_bytes += name + value + 4;
    request->field_count++;
    request->server->mux.turn_cost++;
    if (name + value + 4 > settings->max_line)
        refuse(request, 431, "a field is longer than max_line");
    if (request->head_bytes > settings->max_head)
        refuse(request, 431, "the head is larger than max_head");
    if (request->field_count > settings->max_headers + 4)  // the pseudo-fields make up a line of HTTP/1
        refuse(request, 431, "the head has more fields than max_headers");
    if (request->head_bytes > BOMB_FACTOR * settings->max_head ||
        request->field_count > BOMB_FACTOR * settings->max_headers) {
        counters->http2_header_bombs++;
        return flooded(request->server, "a head of many times max_head");
    }
    return 0;
}

static int keep(struct h2_request *request, struct slice *to, struct slice from) {
    *to = arena_copy(&request->stream.x->arena, from);
    if (!to->at)
        refuse(request, 503, "memory is out");
    return 0;
}

static int add(struct h2_request *request, struct headers *headers, struct slice name, struct slice value) {
    struct arena *arena = &request->stream.x->arena;
    enum header_id id = header_id_of(name);
    struct slice known = id != HEADER_OTHER ? header_name_of(id) : arena_copy(arena, name);
    struct slice copy = arena_copy(arena, value);
    if (!known.at || !copy.at || headers_add(headers, arena, known, copy) < 0)
        refuse(request, 503, "memory is out");
    return 0;
}

static int take_pseudo(struct h2_request *request, struct slice name, struct slice value) {
    struct exchange *x = request->stream.x;
    struct request *req = &x->req;
    if (slice_eq(name, SLICE_LIT(":method")))
        return value.len > METHOD_MAX
            ? (refuse(request, 501, "the method is longer than any that there is"), 0)
            : keep(request, &req->method, value);
    if (slice_eq(name, SLICE_LIT(":scheme")))
        return keep(request, &request->scheme, value);
    if (slice_eq(name, SLICE_LIT(":path"))) {
        if (value.len > x->settings->max_uri)
            refuse(request, 414, "the request target is longer than max_uri");
        return keep(request, &req->target, value);
    }
    if (slice_eq(name, SLICE_LIT(":authority"))) {
        if (value.len == 0 || memchr(value.at, '@', value.len))
            return malformed(request, ":authority is empty or names a user");
        keep(request, &req->authority, value);
        request->has_host = true;
        return add(request, &req->headers, header_name_of(HEADER_host), value);
    }
    if (slice_eq(name, SLICE_LIT(":protocol")))
        return keep(request, &request->protocol, value);
    return malformed(request, "an unknown pseudo-field");
}

static int take_field(struct h2_request *request, struct slice name, struct slice value) {
    struct request *req = &request->stream.x->req;
    enum header_id id = header_id_of(name);
    if (!header_name_valid(name) || !header_value_valid(value))
        return malformed(request, "a field name or value holds a character that is not allowed");
    if (id == HEADER_OTHER && header_poses_as_framing(name))
        refuse(request, 400, "a field named as Content-Length or Transfer-Encoding, with \"_\" for \"-\"");
    if (id == HEADER_host) {
        if (request->has_host)
            return slice_ieq(value, req->authority) ? 0 : malformed(request, "Host differs from :authority");
        request->has_host = true;
        keep(request, &req->authority, value);
    }
    return add(request, &req->headers, name, value);
}

static int take_trailer(struct h2_request *request, struct slice name, struct slice value) {
    struct request *req = &request->stream.x->req;
    if (!header_name_valid(name) || !header_value_valid(value))
        return malformed(request, "a field name or value holds a character that is not allowed");
    enum rules_trailer rule = rules_trailer(name);
    if (rule == TRAILER_REFUSED || header_poses_as_framing(name))
        return malformed(request, "a trailer field that would frame or route the message");
    if (rule == TRAILER_PASSED)
        add(request, &req->trailers, name, value);
    return 0;
}

// Whose head it is. nghttp2 would look it up by its number, for each field.
static struct h2_request *reading(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_request *request = h2_server_of(h2_mux_of(user))->reading;
    return request && request->stream.id == frame->hd.stream_id
        ? request
        : nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
}

static int on_field(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name_at, size_t name_len,
                    const uint8_t *value_at, size_t value_len, uint8_t flags, void *user) {
    (void)flags;
    struct h2_request *request = reading(ng, frame, user);
    if (!request || request->malformed)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!request->stream.x)
        return 0;  // trailers of a request that has been answered
    if (measure(request, name_len, value_len) < 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (request->status)
        return 0;
    struct slice name = slice_make((const char *)name_at, name_len);
    struct slice value = slice_make((const char *)value_at, value_len);
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return take_trailer(request, name, value);
    return name.at[0] == ':' ? take_pseudo(request, name, value) : take_field(request, name, value);
}

// nghttp2 would leave such a field out and go on.
static int on_bad_field(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                        const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
    (void)name, (void)name_len, (void)value, (void)value_len, (void)flags, (void)user;
    struct h2_request *request = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    return request ? malformed(request, "a field name or value holds a character that is not allowed")
                   : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// ---- streams ----------------------------------------------------------------------------------------------

static int on_begin(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_server *server = h2_server_of(h2_mux_of(user));
    struct h2_request *request;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        request = h2_server_begin(server, frame->hd.stream_id);
    else
        request = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    server->reading = request;
    server->reading_ms = clock_ms();
    if (request)
        return 0;
    remember(server, frame->hd.stream_id, true);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_server *server = h2_server_of(h2_mux_of(user));
    struct h2_request *request = reading(ng, frame, user);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        server->reading = NULL;
        if (request && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
            request->bodiless = end;
            h2_stream_note(&request->stream, H2_HEAD);
        }
        break;
    case NGHTTP2_DATA:
        // Padding and nothing else.
        if (frame->hd.length > 0 && frame->hd.length == frame->data.padlen && !end &&
            count(server, H2_GUARD_empty) < 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        break;
    case NGHTTP2_RST_STREAM:
        counters->http2_resets++;
        if (request)
            request->taken_back = true;
        return 0;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            h2_server_pinged(server);
        return 0;
    default:
        return 0;
    }
    if (request && end) {
        request->ended = true;
        h2_stream_note(&request->stream, H2_END);
    }
    return 0;
}

// A stream that nghttp2 refuses to begin: frames of it may be under way.
static int on_bad_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user) {
    struct h2_server *server = h2_server_of(h2_mux_of(user));
    if (frame->hd.stream_id > 0 && !nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id))
        remember(server, frame->hd.stream_id, true);
    if (error == NGHTTP2_ERR_REFUSED_STREAM)
        counters->http2_refused++;
    return 0;
}

// What a client makes us reset costs as much as what it resets itself.
static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_server *server = h2_server_of(h2_mux_of(user));
    struct h2_request *request;
    switch (frame->hd.type) {
    case NGHTTP2_GOAWAY:
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            counters->http2_connection_errors++;
            h2_mux_fail(&server->mux, frame->goaway.error_code, CLOSE_bad_request);
        }
        return 0;
    case NGHTTP2_RST_STREAM:
        switch (frame->rst_stream.error_code) {
        case NGHTTP2_NO_ERROR:
        case NGHTTP2_INTERNAL_ERROR:
        case NGHTTP2_CANCEL:
            return 0;
        default:
            counters->http2_errors++;
            count(server, H2_GUARD_error);  // GOAWAY is made next
            return 0;
        }
    case NGHTTP2_DATA:
        h2_guard_allow(&server->guard, H2_GUARD_window_update, 2);
        break;
    case NGHTTP2_HEADERS:
        break;
    default:
        return 0;
    }
    // The whole response to a part of a request: the rest is not wanted (RFC 9113, 8.1).
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    request = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (request && !request->ended)
        h2_stream_reset(&request->stream, NGHTTP2_NO_ERROR);
    return 0;
}

void h2_request_callbacks(nghttp2_session_callbacks *callbacks) {
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_bad_field);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_bad_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
}

// ---- the head as a whole ----------------------------------------------------------------------------------

static int refuse_now(struct h2_request *request, unsigned status, const char *why) {
    refuse(request, status, why);
    return -1;
}

// A WebSocket becomes what it is in HTTP/1, for scripts and servers: a GET with an Upgrade. 0 or -1.
static int check_tunnel(struct h2_request *request) {
    struct exchange *x = request->stream.x;
    struct request *req = &x->req;
    if (!slice_ieq(request->protocol, SLICE_LIT("websocket")) || !x->site->websocket_offer)
        return refuse_now(request, 501, "no protocol is tunnelled but websocket");
    if (request->bodiless || headers_find(&req->headers, HEADER_content_length))
        return refuse_now(request, 400, "a tunnel with an end or a length");
    req->method = SLICE_LIT("GET");
    req->upgrade = req->tunnel = true;
    if (headers_add(&req->headers, &x->arena, header_name_of(HEADER_upgrade), SLICE_LIT("websocket")) < 0 ||
        x->site->websocket_offer(x) < 0)
        return refuse_now(request, 503, "memory is out");
    x->req_ended = true;  // as far as the handshake goes
    return 0;
}

int h2_request_check(struct h2_request *request) {
    struct exchange *x = request->stream.x;
    struct request *req = &x->req;
    struct slice length;
    const char *why = NULL;
    req->major = 2;
    req->minor = 0;
    if (request->status)
        return -1;
    if (request->protocol.len > 0) {
        if (check_tunnel(request) < 0)
            return -1;
    } else if (slice_eq(req->method, SLICE_LIT("CONNECT"))) {
        return refuse_now(request, 501, "CONNECT is not offered here");
    }
    if (!slice_ieq(request->scheme, SLICE_LIT("http")) && !slice_ieq(request->scheme, SLICE_LIT("https")))
        return refuse_now(request, 400, "the scheme is neither http nor https");
    if (!method_valid(req->method))
        return refuse_now(request, 400, "the method is no token");
    if (!authority_valid(req->authority))
        return refuse_now(request, 400, ":authority is not host[:port]");
    req->head = slice_eq(req->method, SLICE_LIT("HEAD"));
    req->idempotent = method_idempotent(req->method);
    struct slice authority = req->authority;
    int rc = target_parse(req, &x->arena, &why);
    req->authority = authority;
    if (rc < 0)
        return refuse_now(request, rc == -ENOMEM ? 503 : 400, why);
    if (headers_get(&req->headers, HEADER_content_length, &length)) {
        // nghttp2 has seen to it that there is one, and that the content is as long.
        if (slice_to_u64(length, &req->length) < 0 || req->length > INT64_MAX)
            return refuse_now(request, 400, "Content-Length is not a number, or too large a one");
        req->framing = BODY_LENGTH;
    } else {
        req->framing = request->bodiless || req->tunnel ? BODY_NONE : BODY_CHUNKED;
    }
    if (rules_join_cookies(&req->headers, &x->arena) < 0)
        return refuse_now(request, 503, "memory is out");
    req->expect_continue = headers_list_has(&req->headers, HEADER_expect, SLICE_LIT("100-continue"));
    return 0;
}
