// SPDX-License-Identifier: BSD-2-Clause
// Requests that scripts make (gate.fetch): an exchange whose downstream is a script instead of a client's
// connection, so that it goes through pools, time-outs, retries and checks as everybody's requests do. Lua
// calls the functions at the end through api.h (lua/moongate/fetch.lua); the exchange tells what has come
// through struct downstream_ops.
//
// Nothing of an exchange runs while Lua code does: what a script asks for is done in the ring's next flush.
#include "script/host.h"

#include "base/counters.h"
#include "base/handle.h"
#include "base/slab.h"
#include "http/target.h"
#include "script/api_impl.h"

#include <errno.h>

enum { FETCHES_MAX = 10000 };  // of a worker: a client may be what makes a script start them

struct fetch {
    struct exchange *x;  // NULL: it is over
    uint64_t id;         // its handle; 0: the script has let it go
    uint64_t ticket;     // of the task that waits for what comes next, 0: none does
    struct ring_flush flusher;
    struct arena arena;  // of the response's head
    struct headers headers;
    unsigned status;            // 0: there is no response yet
    struct queue body;          // what has come and was not read; bounded by buffer_high
    struct span held;           // was read last: Lua copies it after the call
    enum close_reason failure;  // with `over`: why there is no response, or only a part of one
    bool begun, over;
};

static struct slab fetch_slab = SLAB_INIT(sizeof(struct fetch), 64);
static unsigned count;

static void fetch_free(struct fetch *fetch) {
    queue_release(&fetch->body);
    if (fetch->held.block)
        block_unref(fetch->held.block);
    arena_release(&fetch->arena);
    list_remove(&fetch->flusher.link);
    slab_put(&fetch_slab, fetch);
    count--;
}

static void wake(struct fetch *fetch) {
    if (fetch->ticket)
        task_unpark(fetch->ticket);
    fetch->ticket = 0;
}

// ---- the exchange's downstream ----------------------------------------------------------------------------

static int take_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    (void)x, (void)status, (void)headers;
    return 0;
}

// The exchange may be over before the script looks, so the head is copied.
static int take_head(struct exchange *x) {
    struct fetch *fetch = x->down_owner;
    if (x->failed)
        return 0;  // an answer of our own: finished() says why
    for (uint32_t i = 0; i < x->res.headers.count; i++) {
        const struct header *header = &x->res.headers.at[i];
        if (header->name.len == 0)
            continue;
        struct slice name = arena_copy(&fetch->arena, header->name);
        struct slice value = arena_copy(&fetch->arena, header->value);
        if (!name.at || !value.at || headers_add(&fetch->headers, &fetch->arena, name, value) < 0)
            return -ENOMEM;
    }
    fetch->status = x->res.status;
    wake(fetch);
    return 0;
}

static int take_body(struct exchange *x) {
    struct fetch *fetch = x->down_owner;
    if (x->failed || x->req.head) {
        queue_release(&x->res_body);
        return 0;
    }
    x->res_bytes += x->res_body.bytes;
    queue_move(&fetch->body, &x->res_body);
    wake(fetch);
    return queue_unpin(&fetch->body);  // nobody knows when the script will read it
}

static size_t backlog(struct exchange *x) {
    const struct fetch *fetch = x->down_owner;
    return fetch->body.bytes;
}

static void want_body(struct exchange *x, bool want) {
    (void)x, (void)want;  // the whole request is there from the start
}

static struct conn *no_conn(struct exchange *x) {
    (void)x;
    return NULL;
}

static void finished(struct exchange *x, bool aborted, enum close_reason reason) {
    struct fetch *fetch = x->down_owner;
    if (aborted || x->failed)
        fetch->failure = reason == CLOSE_none ? CLOSE_internal : reason;
    counters->fetch_errors += fetch->failure != CLOSE_none;
    fetch->x = NULL;
    fetch->over = true;
    wake(fetch);
}

// No `detach`: a fetch asks for no upgrade, and a 101 that nobody asked for is refused.
static const struct downstream_ops downstream = {
    .interim = take_interim,
    .head = take_head,
    .body = take_body,
    .backlog = backlog,
    .want_body = want_body,
    .conn = no_conn,
    .finished = finished,
};

// ---- what the script asked for ----------------------------------------------------------------------------

static void flush(struct ring_flush *flusher) {
    struct fetch *fetch = container_of(flusher, struct fetch, flusher);
    struct exchange *x = fetch->x;
    if (fetch->id == 0) {
        fetch->x = NULL;
        if (x)
            exchange_client_gone(x, CLOSE_client_closed);
        fetch_free(fetch);
    } else if (x && !fetch->begun) {
        fetch->begun = true;
        exchange_start(x);
    } else if (x) {
        exchange_run(x);  // there is room again
    }
}

static struct fetch *fetch_of(double id) {
    return handle_get(HANDLE_FETCH, mg_handle(id));
}

int mg_fetch_new(const char *method, size_t method_len, const char *target, size_t target_len, const char *to,
                 size_t to_len, double *ret_fetch) {
    struct exchange_site *site = task_running ? task_running->chain->inner : NULL;
    const char *why = "memory is out";
    if (!site)
        return mg_error("gate.fetch is for hooks, timers and tasks: a script must not wait while it loads");
    if (count >= FETCHES_MAX)
        return mg_error("%u fetches are under way already", count);
    if (!method_valid(slice_make(method, method_len)) ||
        slice_eq(slice_make(method, method_len), SLICE_LIT("CONNECT")))
        return mg_error("\"%.*s\" is no method for a fetch", method_len > 100 ? 100 : (int)method_len,
                        method);
    struct fetch *fetch = slab_get(&fetch_slab);
    if (!fetch)
        return mg_error("%s", why);
    count++;
    *fetch = (struct fetch){ .flusher.flush = flush };
    list_init(&fetch->flusher.link);
    fetch->id = handle_new(HANDLE_FETCH, fetch);
    struct exchange *x = fetch->x = fetch->id ? exchange_new(site, &downstream, fetch) : NULL;
    if (!x) {
        handle_drop(fetch->id);
        fetch_free(fetch);
        return mg_error("%s", why);
    }
    x->req.major = x->req.minor = 1;
    x->req.method = arena_copy(&x->arena, slice_make(method, method_len));
    x->req.target = arena_copy(&x->arena, slice_make(target, target_len));
    x->route_choice = arena_copy(&x->arena, slice_make(to, to_len));
    x->req.head = slice_eq(x->req.method, SLICE_LIT("HEAD"));
    x->req.idempotent = method_idempotent(x->req.method);
    x->req_ended = true;
    if (!x->req.method.at || !x->req.target.at || !x->route_choice.at ||
        target_parse(&x->req, &x->arena, &why) < 0) {
        mg_fetch_close((double)fetch->id);
        return mg_error("%s", why);
    }
    *ret_fetch = (double)fetch->id;
    return MG_OK;
}

int mg_fetch_field(double id, const char *name_at, size_t name_len, const char *value_at, size_t value_len) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch || !fetch->x || fetch->begun)
        return MG_STALE;
    struct exchange *x = fetch->x;
    struct slice name = slice_make(name_at, name_len), value = slice_trim(slice_make(value_at, value_len));
    int rc = mg_header_check(MG_REQUEST, name, value);
    if (rc != MG_OK)
        return rc;
    name = arena_copy(&x->arena, name);
    value = arena_copy(&x->arena, value);
    bool host = header_id_of(name) == HEADER_host;
    if (!name.at || !value.at ||
        (host ? headers_set(&x->req.headers, &x->arena, name, value)
              : headers_add(&x->req.headers, &x->arena, name, value)) < 0)
        return mg_error("memory is out");
    if (host)
        x->req.authority = value;
    return MG_OK;
}

int mg_fetch_start(double id, const char *body, size_t len) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch || !fetch->x || fetch->begun)
        return MG_STALE;
    struct exchange *x = fetch->x;
    if (body) {
        x->req.framing = BODY_LENGTH;
        x->req.length = len;
        if (queue_copy(&x->req_body, body, len) < 0)
            return mg_error("memory is out");
    }
    counters->fetches++;
    ring_flush_later(&fetch->flusher);
    return MG_OK;
}

// Waits for what comes next: the caller parks.
static int await(struct fetch *fetch) {
    fetch->ticket = task_running ? task_running->ticket : 0;
    return fetch->ticket ? MG_WAIT : mg_error("nothing could wake it");
}

static int failed(const struct fetch *fetch) {
    return mg_error("%s", close_reason_name(fetch->failure));
}

int mg_fetch_status(double id, double *ret_status) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch)
        return MG_STALE;
    if (fetch->status == 0)
        return fetch->over ? failed(fetch) : await(fetch);
    *ret_status = fetch->status;
    return MG_OK;
}

int mg_fetch_header(double id, uint32_t *position, struct mg_text *ret_name, struct mg_text *ret_value) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch)
        return MG_STALE;
    if (*position >= fetch->headers.count)
        return MG_NONE;
    const struct header *header = &fetch->headers.at[(*position)++];
    mg_text_set(ret_name, header->name);
    mg_text_set(ret_value, header->value);
    return MG_OK;
}

int mg_fetch_read(double id, struct mg_text *ret_text) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch)
        return MG_STALE;
    if (fetch->held.block)
        block_unref(fetch->held.block);
    fetch->held = (struct span){ 0 };
    if (queue_take(&fetch->body, &fetch->held)) {
        if (fetch->x)
            ring_flush_later(&fetch->flusher);
        mg_text_set(ret_text, slice_make(fetch->held.at, fetch->held.len));
        return MG_OK;
    }
    if (!fetch->over)
        return await(fetch);
    return fetch->failure == CLOSE_none ? MG_NONE : failed(fetch);
}

int mg_fetch_close(double id) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch)
        return MG_NONE;
    handle_drop(fetch->id);
    fetch->id = fetch->ticket = 0;
    ring_flush_later(&fetch->flusher);
    return MG_OK;
}
