// SPDX-License-Identifier: BSD-2-Clause
// The bodies of an exchange between its codecs: through the body hooks, held for another attempt, replaced by
// scripts, and both peers kept to the other's pace. The steps of exchange.c call at every turn of events.
#include "base/counters.h"
#include "http/exchange_impl.h"
#include "http/rules.h"

#include <errno.h>

bool exchange_too_large(const struct exchange *x) {
    // A hook that reads the body before there is a route has the limit of the path as it came.
    bool counts = (x->upstream || x->wanted == WANTED_REQUEST || x->req_discard) && !x->upgraded;
    uint64_t most = counts ? x->settings->max_body : 0;
    bool announced = !x->prepared && !x->req_discard && x->req.framing == BODY_LENGTH;
    return most > 0 && (x->req_bytes > most || (announced && x->req.length > most));
}

// Sends a body through its hooks: `body` and *ended are what the codec brought and become what goes on. A
// hook that answers or fails leaves the exchange for the step to look at.
static enum filter_result run_body_hook(struct exchange *x,
                                        enum filter_result (*hook)(void *scripts, struct exchange *x),
                                        struct queue *body, bool *ended, struct queue *in, bool *in_ended) {
    x->hooked = true;
    queue_move(in, body);
    *in_ended |= *ended;
    *ended = false;
    enum filter_result result = hook(x->site->scripts, x);
    if (x->responded || x->up_failed)
        return FILTER_WAITS;
    if (result == FILTER_ENDED) {
        *ended = true;
        queue_release(in);
    } else if (result == FILTER_PASSES) {
        queue_move(body, in);
        *ended = *in_ended;
    }
    return result;
}

void bodies_filter_request(struct exchange *x) {
    if (!x->req_filter)
        return;
    enum filter_result result = run_body_hook(x, x->site->hooks->request_body, &x->req_body, &x->req_ended,
                                              &x->req_in, &x->req_in_ended);
    x->req_filter &= result == FILTER_WAITS;
    if (result == FILTER_ENDED)
        x->req_changed = x->req_discard = true;
}

void bodies_filter_response(struct exchange *x) {
    if (!x->res_filter || x->up_failed)
        return;
    enum filter_result result = run_body_hook(x, x->site->hooks->response_body, &x->res_body, &x->res_ended,
                                              &x->res_in, &x->res_in_ended);
    x->res_filter &= result == FILTER_WAITS;
    x->res_changed |= result == FILTER_ENDED;
}

void bodies_put_in_front(struct queue *first, struct queue *body) {
    if (first->bytes == 0)
        return;
    queue_move(first, body);
    queue_move(body, first);
}

// Keeps what is about to be passed on of the request body, as long as another attempt could need it.
static void hold_body(struct exchange *x) {
    const struct conf_upstream *conf = x->upstream_conf;
    if (x->body_lost || x->req_body.bytes == 0)
        return;
    // What is not idempotent could be sent again only from a pooled connection that took nothing of it, or
    // when the server says that it has not looked at it.
    bool refusable = x->up->refuses && conf->retry & RETRY_REFUSED;
    bool again = x->attempt < conf->tries && (x->req.idempotent ? conf->retry != 0 : x->reused || refusable);
    bool useful = !x->res_ready && (again || (conf->hedge > 0 && x->req.idempotent));
    if (!useful || x->req_held.bytes + x->req_body.bytes > conf->retry_body)
        x->body_lost = true;
    for (const struct piece *piece = x->req_body.head; piece && !x->body_lost; piece = piece->next) {
        block_ref(piece->span.block);
        x->body_lost = queue_put(&x->req_held, piece->span) < 0;
    }
    if (x->body_lost)
        queue_release(&x->req_held);
}

int bodies_push_request(struct exchange *x) {
    if (!x->up)
        return 0;
    if (x->req_discard)
        queue_release(&x->req_body);
    bodies_filter_request(x);
    if (x->responded && !x->head_sent)
        return 0;
    bodies_put_in_front(&x->req_again, &x->req_body);
    if (x->req_discard && !x->req_filter)
        x->req_ended = true;
    if (x->req_replaced)
        x->req.trailers = (struct headers){ 0 };
    if (x->req_body.bytes > 0 || x->req_ended) {
        if (x->req_ended && x->req_changed && rules_body_changed(&x->req.trailers, &x->arena) < 0)
            return -ENOMEM;
        hold_body(x);
        if (x->up->body(x) < 0)
            return -ENOMEM;
    }
    if (x->req_discard) {
        x->down->want_body(x, true);
    } else if (!x->req_ended) {
        size_t backlog = x->up->backlog(x) + x->req_in.bytes;
        if (backlog > x->settings->buffer_high)
            x->down->want_body(x, false);
        else if (backlog <= x->settings->buffer_low)
            x->down->want_body(x, true);
    }
    return 0;
}

static const struct queue *wanted_body(const struct exchange *x, bool response, bool *ret_ended) {
    *ret_ended = response ? x->res_ended || x->up_failed : x->req_ended || x->req_discard;
    return response ? &x->res_body : x->req_discard ? &x->req_again : &x->req_body;
}

void bodies_want_whole(struct exchange *x) {
    bool response = x->wanted == WANTED_RESPONSE, ended;
    if (!x->hook_waits)
        return;
    if (wanted_body(x, response, &ended)->bytes > x->wanted_most || ended) {
        x->wanted = WANTED_NONE;
        x->site->hooks->wake(x->site->scripts, x);
    } else if (!response) {
        x->down->want_body(x, true);
    } else if (x->up) {
        x->up->want_body(x, true);
    }
}

void bodies_hold_back(struct exchange *x) {
    size_t high = x->settings->buffer_high, wanted = x->wanted_most > high ? x->wanted_most : high;
    if (x->req_discard)
        queue_release(&x->req_body);
    if (x->req_body.bytes + x->req_in.bytes > (x->wanted == WANTED_REQUEST ? wanted : high))
        x->down->want_body(x, false);
    if (x->up && x->res_body.bytes + x->res_in.bytes > (x->wanted == WANTED_RESPONSE ? wanted : high))
        x->up->want_body(x, false);
}

void bodies_unpin(struct exchange *x) {
    struct queue *all[] = { &x->req_body, &x->req_held, &x->req_again, &x->req_in,
                            &x->res_body, &x->res_in,   &x->res_first };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->head && queue_unpin(all[i]) < 0)
            log_warn("no memory to copy a body out of receive buffers (request %s)", exchange_id(x));
}

void bodies_release(struct exchange *x) {
    struct queue *all[] = { &x->req_body, &x->req_held, &x->req_again, &x->req_in,
                            &x->res_body, &x->res_in,   &x->res_first };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        queue_release(all[i]);
}

// A client that waits for 100 (Continue) gets it here when there is no server yet that could say so; what
// goes on to one then has no need of it (RFC 9110, 10.1.1).
static void ask_for_body(struct exchange *x, bool interim) {
    struct headers none = { 0 };
    if (!x->req.expect_continue)
        return;
    x->req.expect_continue = false;
    headers_remove_id(&x->req.headers, HEADER_expect);
    if (!interim || x->req_bytes > 0)
        return;
    counters->responses_1xx++;
    if (x->down->interim(x, 100, &none) < 0)
        log_warn("no memory for an interim response (request %s)", exchange_id(x));
}

static bool body_open(const struct exchange *x, bool response) {
    if (response)
        return x->step == EXCHANGE_response && !x->responded && !x->upgraded;
    return (x->step == EXCHANGE_request || x->step == EXCHANGE_route) && !x->prepared && !x->responded;
}

int exchange_body_whole(struct exchange *x, bool response, size_t most, const struct queue **ret_body) {
    bool ended;
    if (!body_open(x, response))
        return -EALREADY;
    const struct queue *body = wanted_body(x, response, &ended);
    bool sized = (response ? x->res.framing : x->req.framing) == BODY_LENGTH;
    uint64_t announced = sized ? (response ? x->res.length : x->req.length) : 0;
    uint64_t max_body =
        !response && !x->req_discard && x->settings->max_body > 0 ? x->settings->max_body : UINT64_MAX;
    if (response && x->up_failed)
        return -EPIPE;
    // What came with the head was counted before anybody asked for it.
    if (body->bytes > most || announced > most || announced > max_body || body->bytes > max_body)
        return -EFBIG;
    if (ended) {
        *ret_body = body;
        return 0;
    }
    if (!response)
        ask_for_body(x, true);
    x->wanted = response ? WANTED_RESPONSE : WANTED_REQUEST;
    x->wanted_most = most;
    return -EAGAIN;
}

int exchange_replace_body(struct exchange *x, bool response, struct slice text) {
    struct queue body = { 0 };
    if (!body_open(x, response))
        return -EALREADY;
    if (response && (x->res.status == 204 || x->res.status == 304))
        return -EINVAL;
    struct headers *headers = response ? &x->res.headers : &x->req.headers;
    if (rules_body_changed(headers, &x->arena) < 0 || queue_copy(&body, text.at, text.len) < 0)
        return -ENOMEM;
    headers_remove_id(headers, HEADER_trailer);
    if (response) {
        exchange_drop_upstream(x, x->res_ended && x->req_ended && !x->up_failed);
        queue_release(&x->res_body);
        x->res_body = body;
        x->res.framing = BODY_LENGTH;
        x->res.length = text.len;
        x->res.trailers = (struct headers){ 0 };
        x->res_ended = true;
        if (x->up_failed)
            x->reason = CLOSE_none;
        x->up_failed = false;
        return 0;
    }
    ask_for_body(x, false);
    queue_release(&x->req_again);
    x->req_again = body;
    x->req_discard = x->req_replaced = true;
    if (text.len > 0 || x->req.framing != BODY_NONE)
        x->req.framing = BODY_LENGTH;
    x->req.length = text.len;
    return 0;
}
