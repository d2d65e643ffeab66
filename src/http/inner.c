// SPDX-License-Identifier: BSD-2-Clause
// The downstream side of an exchange that has no client (inner.h): there is nobody to send interim responses to, the
// whole request is there from the start, and what comes goes to the owner.
#include "http/inner.h"

#include "http/target.h"

#include <errno.h>

// ---- the exchange's downstream ----------------------------------------------------------------------------

static int take_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    (void)x, (void)status, (void)headers;
    return 0;
}

static int take_head(struct exchange *x) {
    struct inner *inner = x->down_owner;
    return x->failed ? 0 : inner->ops->head(inner, &x->res);
}

static int take_body(struct exchange *x) {
    struct inner *inner = x->down_owner;
    if (x->failed || x->req.head) {
        queue_release(&x->res_body);
        return 0;
    }
    x->res_bytes += x->res_body.bytes;
    return inner->ops->body(inner, &x->res_body);
}

static size_t backlog(struct exchange *x) {
    const struct inner *inner = x->down_owner;
    return inner->ops->backlog ? inner->ops->backlog(inner) : 0;
}

static void want_body(struct exchange *x, bool want) {
    (void)x, (void)want;
}

static struct conn *conn_of(struct exchange *x) {
    const struct inner *inner = x->down_owner;
    return inner->ops->conn ? inner->ops->conn(inner) : NULL;
}

static void finished(struct exchange *x, bool aborted, enum close_reason reason) {
    struct inner *inner = x->down_owner;
    bool whole = !aborted && !x->failed;
    inner->x = NULL;
    inner->ops->over(inner, x, whole ? CLOSE_none : reason == CLOSE_none ? CLOSE_internal : reason);
}

// No `detach`: it asks for no upgrade, and a 101 that nobody asked for is refused.
static const struct downstream_ops downstream = {
    .interim = take_interim,
    .head = take_head,
    .body = take_body,
    .backlog = backlog,
    .want_body = want_body,
    .conn = conn_of,
    .finished = finished,
};

// ---- the owner's side -------------------------------------------------------------------------------------

struct exchange *inner_new(struct inner *inner, const struct inner_ops *ops, struct exchange_site *site) {
    *inner = (struct inner){ ops, exchange_new(site, &downstream, inner) };
    return inner->x;
}

const char *inner_make(struct inner *inner, const struct inner_ops *ops, struct exchange_site *site,
                       const struct inner_request *request) {
    const char *why = "memory is out";
    struct exchange *x = inner_new(inner, ops, site);
    if (!x)
        return why;
    x->req.major = x->req.minor = 1;
    x->req.method = arena_copy(&x->arena, request->method);
    x->req.target = arena_copy(&x->arena, request->target);
    x->route_choice = arena_copy(&x->arena, request->to);
    if (!x->req.method.at || !x->req.target.at || !x->route_choice.at)
        return why;
    x->req.head = slice_eq(x->req.method, SLICE_LIT("HEAD"));
    x->req.idempotent = method_idempotent(x->req.method);
    x->req_ended = true;
    if (request->host.len > 0 && inner_field(inner, SLICE_LIT("Host"), request->host) < 0)
        return why;
    return target_parse(&x->req, &x->arena, &why) < 0 ? why : NULL;
}

int inner_field(struct inner *inner, struct slice name, struct slice value) {
    struct exchange *x = inner->x;
    bool host = header_id_of(name) == HEADER_host;
    name = arena_copy(&x->arena, name);
    value = arena_copy(&x->arena, value);
    if (!name.at || !value.at)
        return -ENOMEM;
    int rc = host ? headers_set(&x->req.headers, &x->arena, name, value)
                  : headers_add(&x->req.headers, &x->arena, name, value);
    if (rc == 0 && host)
        x->req.authority = value;
    return rc;
}

int inner_body(struct inner *inner, struct slice body) {
    struct exchange *x = inner->x;
    x->req.framing = BODY_LENGTH;
    x->req.length = body.len;
    return queue_copy(&x->req_body, body.at, body.len);
}

void inner_start(struct inner *inner) {
    exchange_start(inner->x);
}

void inner_more(struct inner *inner) {
    if (inner->x && inner->x->started)
        exchange_run(inner->x);
}

void inner_cancel(struct inner *inner) {
    struct exchange *x = inner->x;
    inner->x = NULL;
    if (x)
        exchange_client_gone(x, CLOSE_client_closed);
}
