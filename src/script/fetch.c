// SPDX-License-Identifier: BSD-2-Clause
// Requests that scripts make (gate.fetch): inner exchanges (http/inner.h), which go through pools, time-outs,
// retries and checks as everybody's requests do. Lua calls the functions at the end through api.h
// (lua/moongate/fetch.lua).
//
// Nothing of an exchange runs while Lua code does: what a script asks for is done in the ring's next flush.
#include "script/host.h"

#include "base/counters.h"
#include "base/handle.h"
#include "base/slab.h"
#include "http/inner.h"
#include "script/api_impl.h"

#include <errno.h>

enum { FETCHES_MAX = 10000 };  // of a worker: a client may be what makes a script start them

struct fetch {
    struct inner inner;
    uint64_t id;      // its handle; 0: the script has let it go
    uint64_t ticket;  // of the task that waits for what comes next, 0: none does
    struct ring_flush flusher;
    struct arena arena;  // of the response's head
    struct headers headers;
    unsigned status;            // 0: there is no response yet
    struct queue body;          // what has come and was not read; bounded by buffer_high
    struct span held;           // was read last: Lua copies it after the call
    enum close_reason failure;  // with `over`: why there is no response, or only a part of one
    bool over;
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

// ---- what comes --------------------------------------------------------------------------------------------

static struct fetch *of_inner(const struct inner *inner) {
    return container_of(inner, struct fetch, inner);
}

// The exchange may be over before the script looks, so the head is copied.
static int take_head(struct inner *inner, const struct response *res) {
    struct fetch *fetch = of_inner(inner);
    for (uint32_t i = 0; i < res->headers.count; i++) {
        const struct header *header = &res->headers.at[i];
        if (header->name.len == 0)
            continue;
        struct slice name = arena_copy(&fetch->arena, header->name);
        struct slice value = arena_copy(&fetch->arena, header->value);
        if (!name.at || !value.at || headers_add(&fetch->headers, &fetch->arena, name, value) < 0)
            return -ENOMEM;
    }
    fetch->status = res->status;
    wake(fetch);
    return 0;
}

static int take_body(struct inner *inner, struct queue *body) {
    struct fetch *fetch = of_inner(inner);
    queue_move(&fetch->body, body);
    wake(fetch);
    return queue_unpin(&fetch->body);  // nobody knows when the script will read it
}

static size_t backlog(const struct inner *inner) {
    return of_inner(inner)->body.bytes;
}

static void over(struct inner *inner, struct exchange *x, enum close_reason failure) {
    (void)x;
    struct fetch *fetch = of_inner(inner);
    fetch->failure = failure;
    counters->fetch_errors += failure != CLOSE_none;
    fetch->over = true;
    wake(fetch);
}

static const struct inner_ops inner_ops = {
    .head = take_head, .body = take_body, .backlog = backlog, .over = over
};

// ---- what the script asked for ----------------------------------------------------------------------------

static void flush(struct ring_flush *flusher) {
    struct fetch *fetch = container_of(flusher, struct fetch, flusher);
    if (fetch->id == 0) {
        inner_cancel(&fetch->inner);
        fetch_free(fetch);
    } else if (inner_is_new(&fetch->inner)) {
        inner_start(&fetch->inner);
    } else {
        inner_more(&fetch->inner);
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
    if (!fetch->id) {
        fetch_free(fetch);
        return mg_error("%s", why);
    }
    struct inner_request request = {
        .method = slice_make(method, method_len),
        .target = slice_make(target, target_len),
        .to = slice_make(to, to_len),
    };
    why = inner_make(&fetch->inner, &inner_ops, site, &request);
    if (fetch->inner.x)
        fetch->inner.x->unguided = task_is_resolving(task_running);
    if (why) {
        mg_fetch_close((double)fetch->id);
        return mg_error("%s", why);
    }
    *ret_fetch = (double)fetch->id;
    return MG_OK;
}

int mg_fetch_field(double id, const char *name_at, size_t name_len, const char *value_at, size_t value_len) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch || !inner_is_new(&fetch->inner))
        return MG_STALE;
    struct slice name = slice_make(name_at, name_len), value = slice_trim(slice_make(value_at, value_len));
    int rc = mg_header_check(MG_REQUEST, name, value);
    if (rc != MG_OK)
        return rc;
    return inner_field(&fetch->inner, name, value) < 0 ? mg_error("memory is out") : MG_OK;
}

int mg_fetch_start(double id, const char *body, size_t len) {
    struct fetch *fetch = fetch_of(id);
    if (!fetch || !inner_is_new(&fetch->inner))
        return MG_STALE;
    if (body && inner_body(&fetch->inner, slice_make(body, len)) < 0)
        return mg_error("memory is out");
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
        if (fetch->inner.x)
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
