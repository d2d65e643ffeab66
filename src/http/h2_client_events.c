// SPDX-License-Identifier: BSD-2-Clause
// What nghttp2 says of a connection to a server, noted in its streams (h2_client_impl.h).
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "http/h2_client_impl.h"

enum { INTERIMS_MAX = 32 };  // their heads count towards max_response_head, too

// ---- nghttp2 says: the list of fields ---------------------------------------------------------------------

static struct h2_up *stream_of(nghttp2_session *ng, int32_t id) {
    struct h2_body *body = nghttp2_session_get_stream_user_data(ng, id);
    return body ? container_of(body, struct h2_up, body) : NULL;
}

static bool deaf(const struct h2_up *stream) {
    return !stream || stream->failure != CLOSE_none || stream->state == FAILED;
}

static void start_head(struct h2_up *stream) {
    stream->x->res = (struct response){ 0 };
    stream->reader.fields = stream->client->conf->max_response_headers;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    (void)user;
    struct h2_up *stream = stream_of(ng, frame->hd.stream_id);
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
    struct h2_up *stream = stream_of(ng, frame->hd.stream_id);
    if (deaf(stream))
        return 0;
    if (h2_response_field(&stream->reader, slice_make((const char *)name, name_len),
                          slice_make((const char *)value, value_len)) == 0)
        return 0;
    h2_up_note_bad(stream, stream->reader.why);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// nghttp2 would leave such a field out.
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                             void *user) {
    (void)name, (void)name_len, (void)value, (void)value_len, (void)flags, (void)user;
    struct h2_up *stream = stream_of(ng, frame->hd.stream_id);
    if (!deaf(stream))
        h2_up_note_bad(stream, "a field that HTTP/2 does not allow");
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// A response head, interim or final, or trailers are complete.
static void take_headers(struct h2_up *stream, bool end) {
    struct exchange *x = stream->x;
    if (stream->state != WAIT)
        return;
    if (h2_response_head(&stream->reader, end) < 0) {
        h2_up_note_bad(stream, stream->reader.why);
        return;
    }
    if (x->res.status < 200) {
        if (++stream->interims > INTERIMS_MAX) {
            h2_up_note_bad(stream, "too many interim responses");
            return;
        }
        exchange_interim(x, x->res.status, &x->res.headers);
        start_head(stream);
        h2_up_set_timer(stream);
        return;
    }
    stream->state = BODY;
    if (x->req.upgrade && x->res.status < 300 && h2_up_open_tunnel(stream) < 0) {
        h2_up_note(stream, 503, CLOSE_memory);
        return;
    }
    x->at.responded = clock_us();
    x->res_ready = true;
    h2_up_set_timer(stream);
    h2_up_touch(stream);
}

static void take_end(struct h2_up *stream) {
    stream->state = DONE;
    stream->x->res_ended = true;
    timer_stop(&stream->timer);
    h2_up_touch(stream);
}

// ---- nghttp2 says: frames ---------------------------------------------------------------------------------

// Another connection will do, one of HTTP/1.1: this one takes no more requests.
static bool falls_back(struct h2_client *client) {
    if (!client->public.callbacks->http1_required(&client->public))
        return false;
    if (client->state == SETTLING)
        client->settled = true;
    h2_client_set_state(client, LEAVING);
    return true;
}

static void take_goaway(struct h2_client *client, const nghttp2_goaway *goaway) {
    counters->upstream_goaways++;
    log_info("upstream \"%s\": conn %llu: GOAWAY (%s), last stream %d", client->conf->name,
             (unsigned long long)client->public.conn->id, nghttp2_http2_strerror(goaway->error_code),
             (int)goaway->last_stream_id);
    if (goaway->error_code == NGHTTP2_HTTP_1_1_REQUIRED && falls_back(client))
        return;
    if (client->state == SETTLING)
        client->settled = true;
    h2_client_set_state(client, LEAVING);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_client *client = user;
    struct h2_up *stream = frame->hd.stream_id ? stream_of(ng, frame->hd.stream_id) : NULL;
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
    struct h2_client *client = user;
    struct h2_up *stream = stream_of(ng, id);
    nghttp2_session_consume_connection(ng, len);
    if (deaf(stream))
        return 0;
    if (stream->x->res.status == 205) {
        h2_up_note_bad(stream, "content in a 205 response");
        return 0;
    }
    block_ref(client->feeding);
    struct span span = { client->feeding, (char *)(uintptr_t)at, (uint32_t)len };
    stream->held += (uint32_t)len;
    if (queue_put(&stream->x->res_body, span) < 0)
        h2_up_note(stream, 503, CLOSE_memory);
    if (!stream->paused)
        h2_up_set_timer(stream);
    h2_up_touch(stream);
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct h2_client *client = user;
    struct h2_up *stream = stream_of(ng, id);
    if (!stream)
        return 0;
    stream->closed = true;
    if (deaf(stream) || stream->state == DONE)
        return 0;
    if (code == NGHTTP2_REFUSED_STREAM && (stream->reset || client->state == LEAVING)) {
        h2_up_note_refused(stream);
    } else if (code == NGHTTP2_HTTP_1_1_REQUIRED && stream->reset && falls_back(client)) {
        h2_up_note_refused(stream);
    } else if (stream->reset) {
        log_info("upstream server \"%.*s\": RST_STREAM (%s) (request %s)",
                 SLICE_ARG(stream->x->upstream_name), nghttp2_http2_strerror(code), exchange_id(stream->x));
        h2_up_note(stream, 502, CLOSE_upstream_reset);
    } else {
        h2_up_note_bad(stream, "what it sent breaks the rules of HTTP/2");
    }
    return 0;
}

static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_client *client = user;
    struct h2_up *stream = frame->hd.type == NGHTTP2_HEADERS ? stream_of(ng, frame->hd.stream_id) : NULL;
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
    struct h2_client *client = user;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    list_each(link, &client->streams) {
        struct h2_up *stream = container_of(link, struct h2_up, link);
        if (stream->id != frame->hd.stream_id)
            continue;
        log_debug("request %s was not sent: %s", exchange_id(stream->x), nghttp2_strerror(error));
        stream->closed = true;
        if (!stream->left && error == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED) {
            h2_up_note_refused(stream);
        } else {
            h2_up_note(stream, 503, CLOSE_memory);
        }
    }
    return 0;
}

void h2_client_taken(struct h2_session *session, struct h2_body *body) {
    (void)session;
    struct h2_up *stream = container_of(body, struct h2_up, body);
    stream->taken = true;
    if (stream->state == WAIT || body->queue.bytes <= stream->x->settings->buffer_low)
        h2_up_touch(stream);
}

nghttp2_session_callbacks *h2_client_callbacks(void) {
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
