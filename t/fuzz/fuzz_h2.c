// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for HTTP/2 towards clients: what follows the preface and SETTINGS, cut as the first byte says (its
// highest bit asks for narrow limits, the next for answers that come late), on a connection without a socket.
// Requests that are let through must be what HTTP/1 can express, and read the same by its parser; what is sent must be
// whole frames; and in the end nothing is left.
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "h1_feed.h"
#include "http/h1_write.h"
#include "http/h2_server.h"

#include <nghttp2/nghttp2.h>

enum { TIGHT = 0x80, LATE = 0x40, WAITING_MAX = 8 };

static struct conf_settings settings, narrow;
static struct conn conn;
static struct list flushes = { &flushes, &flushes }, laters = { &laters, &laters };
static int holds;
static bool codec_gone, closed, late;
static size_t frames_seen;
static struct exchange *waiting[WAITING_MAX];

// ---- instead of a ring and a conn -------------------------------------------------------------------------

void ring_flush_later(struct ring_flush *flush) {
    if (!list_linked(&flush->link))
        list_push_back(&flushes, &flush->link);
}
void ring_go_on_later(struct ring_later *later) {
    if (!list_linked(&later->link))
        list_push_back(&laters, &later->link);
}
bool ring_others_wait(void) {
    return false;
}
void conn_adopt(struct conn *c, const struct conn_handler *handler, void *owner) {
    c->handler = handler;
    c->owner = owner;
}
void conn_read(struct conn *c) {
    c->want_read = true;
}
void conn_pause(struct conn *c) {
    c->want_read = false;
}
void conn_flush(struct conn *c) {
    (void)c;
}
void conn_shutdown(struct conn *c) {
    (void)c;
}
bool conn_ended(const struct conn *c) {
    (void)c;
    return false;
}
uint64_t conn_taken(const struct conn *c) {
    return c->bytes_out;
}
size_t conn_layer_waiting(const struct conn_layer *layer) {
    (void)layer;
    return 0;
}
void conn_close(struct conn *c, enum close_reason reason) {
    (void)c, (void)reason;
    closed = true;
}
void conn_finish(struct conn *c, enum close_reason reason, uint64_t linger) {
    (void)c, (void)reason, (void)linger;
    closed = true;
}
const struct addr *conn_remote(struct conn *c) {
    static const struct addr nobody;
    (void)c;
    return &nobody;
}
const struct addr *conn_local(struct conn *c) {
    return conn_remote(c);
}
const char *close_reason_name(enum close_reason reason) {
    (void)reason;
    return "";
}

// ---- instead of an upstream -------------------------------------------------------------------------------

static int up_head(struct exchange *x) {
    (void)x;
    return 0;
}

// The answer is the body, once it has come; half of the requests are answered before.
static int up_body(struct exchange *x) {
    queue_move(&x->res_body, &x->req_body);
    if (x->req_ended) {
        x->res_ended = x->res_ready = true;
        must(x->req.framing != BODY_LENGTH || x->req_bytes == x->req.length);
    }
    return 0;
}
static size_t up_backlog(struct exchange *x) {
    (void)x;
    return 0;
}
static void up_want(struct exchange *x, bool want) {
    (void)x, (void)want;
}
static void up_release(struct exchange *x, bool reusable) {
    (void)x, (void)reusable;
}
static const struct upstream_ops up = {
    .head = up_head,
    .body = up_body,
    .backlog = up_backlog,
    .want_body = up_want,
    .release = up_release,
};

// What goes on is one request, whoever reads it.
static void check_request(struct exchange *x) {
    const struct request *req = &x->req;
    unsigned hosts = 0, cookies = 0;
    must(method_valid(req->method) && req->target.len > 0 && req->major == 2);
    must(req->target.at[0] == '/' || (req->target.at[0] == '*' && req->target.len == 1));
    for (uint32_t i = 0; i < req->headers.count; i++) {
        const struct header *header = &req->headers.at[i];
        if (header->name.len == 0)
            continue;
        must(header_name_valid(header->name) && header_value_valid(header->value) &&
             header->name.at[0] != ':');
        must(header->id != HEADER_transfer_encoding && header->id != HEADER_connection &&
             header->id != HEADER_te);
        hosts += header->id == HEADER_host;
        cookies += header->id == HEADER_cookie;
    }
    must(hosts == 1 && cookies <= 1);
    struct queue out;
    size_t len;
    queue_init(&out);
    must(h1_write_request(&out, req, NULL) == 0);
    char *text = feed_text(&out, &len);
    struct feed_input input = { .text = slice_make(text, len), .roomy = true };
    struct feed *feed = feed_new(&input, CUT_NOWHERE, 0);
    must(feed->result != H1_BAD && (feed->result == H1_MORE || feed->used == len));
    must(slice_eq(feed->request.method, req->method) && slice_eq(feed->request.path, req->path));
    must(slice_eq(feed->request.authority, req->authority));
    feed_free(feed);
    free(text);
}

static void dialled(struct exchange *x) {
    x->res = (struct response){ .status = 200, .major = 1, .minor = 1, .framing = BODY_CHUNKED };
    exchange_dialled(x, &up, NULL, false);
}

static void dial(struct exchange_site *site, struct exchange *x) {
    (void)site;
    check_request(x);
    for (unsigned i = 0; late && i < WAITING_MAX; i++)
        if (!waiting[i]) {
            waiting[i] = x;
            x->dialling = &waiting[i];
            return;
        }
    dialled(x);
}
static void dial_cancel(struct exchange_site *site, struct exchange *x) {
    (void)site;
    *(struct exchange **)x->dialling = NULL;
    x->dialling = NULL;
}
static int route(struct exchange_site *site, struct exchange *x, struct error *error) {
    static struct conf_upstream upstream = { .tries = 1 };
    (void)site, (void)error;
    x->upstream = (struct upstream *)&upstream;
    x->upstream_conf = &upstream;
    x->upstream_name = SLICE_LIT("127.0.0.1:1");
    return 0;
}
static void hold(struct exchange_site *site) {
    (void)site;
    holds++;
}
static void drop(struct exchange_site *site) {
    (void)site;
    holds--;
}
static void log_nothing(struct exchange_site *site, struct exchange *x) {
    (void)site, (void)x;
}
static struct exchange_site the_site = {
    .route = route,
    .dial = dial,
    .dial_cancel = dial_cancel,
    .log = log_nothing,
    .hold = hold,
    .drop = drop,
};
static struct exchange_site *site_of(void *owner) {
    (void)owner;
    return &the_site;
}
static void gone(void *owner) {
    (void)owner;
    codec_gone = true;
}
static const struct server_callbacks callbacks = { .site = site_of, .gone = gone };

// ---- turns ------------------------------------------------------------------------------------------------

// Whole frames of a size that is allowed; the first is SETTINGS.
static void take_output(void) {
    size_t len;
    char *text = feed_text(&conn.out, &len);
    for (size_t at = 0; at < len;) {
        must(len - at >= 9);
        const unsigned char *head = (const unsigned char *)text + at;
        size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        must(size <= 16384 && size <= len - at - 9);
        must(frames_seen++ > 0 || head[3] == NGHTTP2_SETTINGS);
        must(head[3] <= NGHTTP2_CONTINUATION && head[3] != NGHTTP2_PUSH_PROMISE);
        at += 9 + size;
    }
    conn.bytes_out += len;
    queue_release(&conn.out);
    free(text);
}

static void turn(void) {
    struct list now;
    while (!list_empty(&flushes)) {
        struct ring_flush *flush = container_of(flushes.next, struct ring_flush, link);
        list_remove(&flush->link);
        flush->flush(flush);
    }
    take_output();
    if (!closed && conn.handler->written)
        conn.handler->written(&conn);
    counters->ring_turns++;
    list_init(&now);
    list_splice(&now, &laters);
    while (!list_empty(&now)) {
        struct ring_later *later = container_of(now.next, struct ring_later, link);
        list_remove(&later->link);
        later->run(later);
    }
}

static void feed_bytes(const char *at, size_t len, size_t cut) {
    while (len > 0 && !closed) {
        size_t n = len < cut ? len : cut;
        struct block *block = block_new(n);
        must(block);
        memcpy(block->base, at, n);
        block->used = (uint32_t)n;
        conn.handler->data(&conn, (struct span){ block, block->base, (uint32_t)n });
        turn();
        at += n;
        len -= n;
    }
}

static void fired(struct timer *timer) {
    (void)timer;
}

static void prepare(void) {
    settings = (struct conf_settings){
        .header_timeout = 10000,
        .body_timeout = 10000,
        .send_timeout = 10000,
        .keepalive_timeout = 10000,
        .keepalive_requests = 50,
        .max_head = 16384,
        .max_headers = 100,
        .max_uri = 8192,
        .max_line = 8192,
        .max_body = 100000,
        .buffer_high = 65536,
        .buffer_low = 16384,
        .http2 = { .max_streams = 100,
                   .stream_window = 131072,
                   .connection_window = 1 << 20,
                   .output_buffer = 2 << 20,
                   .header_table = 4096,
                   .max_continuations = 16,
                   .on = true },
    };
    narrow = settings;
    narrow.max_head = 512;
    narrow.max_headers = 10;
    narrow.max_uri = narrow.max_line = 64;
    narrow.max_body = 100;
    narrow.buffer_high = 100;
    narrow.buffer_low = 10;
    narrow.http2 = (struct conf_http2){
        .max_streams = 2,
        .stream_window = 1024,
        .connection_window = 65535,
        .output_buffer = 65536,
        .header_table = 64,
        .max_continuations = 2,
        .max_resets = 3,
        .max_errors = 3,
        .max_empty_frames = 3,
        .max_pings = 3,
        .max_settings = 3,
        .max_window_updates = 3,
        .max_priorities = 3,
        .on = true,
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const char begin[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    if (len == 0)
        return 0;
    if (settings.max_head == 0)
        prepare();
    clock_update();
    log_threshold = LOG_LEVEL_crit;
    late = bytes[0] & LATE;
    the_site.settings = bytes[0] & TIGHT ? &narrow : &settings;
    size_t cut = (bytes[0] & 0x3f) == 0 ? 65536 : (size_t)(bytes[0] & 0x3f) * 3;
    conn = (struct conn){ .fd = -1, .state = CONN_OPEN };
    timer_init(&conn.timer, fired);
    codec_gone = closed = false;
    frames_seen = 0;
    struct server_codec *codec = h2_server_new(&conn, &callbacks, NULL);
    must(codec);
    feed_bytes(begin, sizeof begin, 65536);  // its NUL is the last of the empty SETTINGS
    feed_bytes((const char *)bytes + 1, len - 1, cut);
    for (unsigned i = 0; i < WAITING_MAX; i++)
        if (waiting[i]) {
            struct exchange *x = waiting[i];
            waiting[i] = NULL;
            x->dialling = NULL;
            dialled(x);
        }
    for (unsigned i = 0; i < 8; i++)
        turn();
    if (!closed)
        codec->ops->close(codec, CLOSE_drain);
    turn();
    must(closed && codec_gone && holds == 0 && counters->requests_active == 0);
    must(list_empty(&flushes) && list_empty(&laters));
    queue_release(&conn.out);
    timer_stop(&conn.timer);
    return 0;
}
