// SPDX-License-Identifier: BSD-2-Clause
// What codecs, dialler and scripts tell an exchange: it begins, a side is gone, failed or there, a script answers;
// and whether a request may be sent once more (retry()). What follows from it are the steps of exchange.c.
#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "http/exchange_impl.h"
#include "http/rules.h"

#include <errno.h>
#include <stdio.h>

static void let_go(struct exchange *x, bool reusable) {
    if (x->dialling)
        x->site->dial_cancel(x->site, x);
    if (x->up) {
        const struct upstream_ops *up = x->up;
        x->up = NULL;
        up->release(x, reusable);
    }
}

void exchange_drop_upstream(struct exchange *x, bool reusable) {
    if (x->hedge)
        hedge_end(x);
    let_go(x, reusable);
}

static void log_refused(struct exchange *x, unsigned status, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_info("request refused with %u: %s (request %s)", status, why, exchange_id(x));
}

// What came before the client has proven to be there may be a copy (RFC 8470): it goes on when a second time
// does no harm, and the server is told. Others are to come again.
static void admit_early(struct exchange *x) {
    static const struct slice safe[] = { SLICE_LIT("GET"), SLICE_LIT("HEAD"), SLICE_LIT("OPTIONS"),
                                         SLICE_LIT("TRACE") };
    bool good = x->req.framing == BODY_NONE, known = false;
    for (size_t i = 0; i < sizeof safe / sizeof *safe; i++)
        known = known || slice_eq(x->req.method, safe[i]);
    good = good && known &&
        headers_set(&x->req.headers, &x->arena, SLICE_LIT("early-data"), SLICE_LIT("1")) == 0;
    if (good)
        return;
    counters->requests_too_early++;
    exchange_fail(x, 425, CLOSE_none);
    exchange_go(x, EXCHANGE_reply);
}

static void admit(struct exchange *x) {
    const char *why = "", *allow = NULL;
    unsigned status = x->site->admit ? x->site->admit(x->site, x, &why, &allow) : 0;
    if (!status)
        return;
    log_refused(x, status, why);
    exchange_fail(x, status, status == 503 ? CLOSE_memory : CLOSE_bad_request);
    if (allow && headers_add(&x->res.headers, &x->arena, SLICE_LIT("allow"), slice_of(allow)) < 0)
        log_warn("no memory for a field (request %s)", exchange_id(x));
    exchange_go(x, EXCHANGE_reply);
}

void exchange_start(struct exchange *x) {
    const struct conn *conn = x->down->conn ? x->down->conn(x) : NULL;
    x->started = true;
    x->wire_target = x->req.target;
    x->req.takes_trailers = headers_list_has(&x->req.headers, HEADER_te, SLICE_LIT("trailers"));
    counters->requests += !x->site->inner;
    rules_strip_hop_by_hop(&x->req.headers, x->req.upgrade);
    if (request_is_http10(&x->req))
        headers_remove_id(&x->req.headers, HEADER_expect);
    admit(x);
    if (conn && conn->early && x->step != EXCHANGE_reply)
        admit_early(x);
    exchange_run(x);
}

void exchange_hook_done(struct exchange *x) {
    if (!check_soft(x->hook_waits))
        return;
    x->hook_waits = false;
    x->hook_ran = true;
    exchange_run(x);
}

void exchange_client_gone(struct exchange *x, enum close_reason reason) {
    x->client_gone = true;
    x->hook_waits = false;
    if (x->reason == CLOSE_none)
        x->reason = reason;
    exchange_run(x);
}

void exchange_client_error(struct exchange *x, unsigned status, enum close_reason reason, const char *why) {
    log_refused(x, status, why);
    if (!x->started)
        x->wire_target = x->req.target;
    x->started = true;
    if (x->hook_waits) {
        x->site->hooks->drop(x->site->scripts, x);
        x->hook_waits = false;
        x->wanted = WANTED_NONE;
    }
    bool begun = x->head_sent;
    exchange_fail(x, status, reason);
    if (!begun)
        exchange_go(x, EXCHANGE_reply);
    exchange_run(x);
}

void exchange_dialled(struct exchange *x, const struct upstream_ops *up, void *up_owner, bool reused) {
    x->up = up;
    x->up_owner = up_owner;
    x->reused = reused;
    x->at.dialled = clock_us();
    if (reused)
        counters->upstream_reused++;
    exchange_run(x);
}

static void note_failure(struct exchange *x, bool asked, bool stale, enum close_reason reason) {
    struct exchange_failure *failure = arena_zalloc(&x->arena, sizeof *failure);
    if (!failure)
        return;  // nobody is told
    *failure = (struct exchange_failure){
        .before = x->failures, .choice = x->route_choice, .reason = reason, .stale = stale
    };
    if (asked)
        failure->server = arena_copy(&x->arena, x->upstream_name);
    x->failures = failure;
}

// What a server did, or did not do. That a connection of HTTP/1 ended which it had kept for a while is in order.
static void blame(struct exchange *x, enum upstream_progress progress, enum close_reason reason) {
    bool closed = reason == CLOSE_upstream_closed || reason == CLOSE_upstream_reset;
    bool kept = x->reused && !(x->up && x->up->refuses);
    if (!x->site->asked || progress == UPSTREAM_REFUSED || (closed && kept))
        return;
    if (closed || reason == CLOSE_upstream_timeout || reason == CLOSE_upstream_protocol)
        x->site->asked(x->site, x, reason);
}

// Never when a part of the request is not ours any more; as often and as long as the upstream's configuration allows.
static bool has_another_try(const struct exchange *x) {
    const struct conf_upstream *conf = x->upstream_conf;
    return !x->head_sent && !x->res_ready && !x->responded && !x->client_gone && !x->body_lost &&
        x->attempt < conf->tries && (conf->retry_timeout == 0 || clock_ms() - x->asked_ms < conf->retry_timeout);
}

static bool is_last_try(const struct exchange *x) {
    return x->waits_on || !x->req.idempotent || !has_another_try(x);
}

uint64_t exchange_answer_ms(const struct exchange *x) {
    const struct conf_upstream *conf = x->upstream_conf;
    bool shorter = conf->try_timeout > 0 && conf->try_timeout < conf->response_timeout;
    return shorter && !is_last_try(x) ? conf->try_timeout : conf->response_timeout;
}

uint64_t exchange_overdue(struct exchange *x, enum upstream_progress progress) {
    const struct conf_upstream *conf = x->upstream_conf;
    if (exchange_answer_ms(x) == conf->response_timeout)
        return 0;
    if (progress != UPSTREAM_ANSWERED) {
        x->may_retry = !x->site->may_retry || x->site->may_retry(x->site, x);
        if (x->may_retry)
            return 0;
        counters->retries_over_budget++;
    }
    x->waits_on = true;
    return conf->response_timeout - conf->try_timeout;
}

// Whether the request may be sent once more, and then sends the steps there. Never when a server may have
// acted on it, unless doing it twice is as good as once.
static bool retry(struct exchange *x, bool connecting, enum upstream_progress progress,
                  enum close_reason reason) {
    const struct conf_upstream *conf = x->upstream_conf;
    if (progress == UPSTREAM_ANSWERED || !has_another_try(x))
        return false;
    bool harmless = progress == UPSTREAM_UNSENT || progress == UPSTREAM_REFUSED || x->req.idempotent;
    // What no server has worked for is nobody's load.
    bool free_of_charge = false, fresh = false;
    const char *why;
    uint64_t *count;
    if (connecting && conf->retry & RETRY_CONNECT) {
        why = "no connection";
        count = &counters->retries_connect;
    } else if (connecting || !harmless) {
        return false;
    } else if (progress == UPSTREAM_REFUSED) {
        if (!(conf->retry & RETRY_REFUSED))
            return false;
        why = "refused unseen";
        count = &counters->retries_refused;
        free_of_charge = true;
    } else if (reason == CLOSE_upstream_timeout && (x->may_retry || conf->retry & RETRY_TIMEOUT)) {
        why = "no answer in time";
        count = &counters->retries_timeout;
    } else if (reason != CLOSE_upstream_closed && reason != CLOSE_upstream_reset) {
        return false;
    } else if (x->reused && conf->retry & RETRY_STALE) {
        why = "the pooled connection had ended";
        count = &counters->retries_stale;
        free_of_charge = fresh = true;
    } else if (!x->reused && conf->retry & RETRY_IDEMPOTENT) {
        why = "closed without an answer";
        count = &counters->retries_idempotent;
    } else {
        return false;
    }
    if (!free_of_charge && !x->may_retry && x->site->may_retry && !x->site->may_retry(x->site, x)) {
        counters->retries_over_budget++;
        return false;
    }
    x->may_retry = x->waits_on = false;
    x->fresh |= fresh;
    ++*count;
    counters->upstream_retries++;
    log_info("upstream server \"%.*s\": %s, %.*s is sent again after attempt %u (request %s)",
             SLICE_ARG(x->upstream_name), why, SLICE_ARG(x->req.method), x->attempt, exchange_id(x));
    exchange_drop_upstream(x, false);
    x->req_sent = false;
    queue_move(&x->req_held, &x->req_again);  // in front of what is still to go and of what has come since
    queue_move(&x->req_again, &x->req_held);
    exchange_go(x, EXCHANGE_route);
    return true;
}

void exchange_dial_failed(struct exchange *x, bool connect, unsigned status, enum close_reason reason) {
    note_failure(x, connect, false, reason);
    if (!connect || !retry(x, true, UPSTREAM_UNSENT, reason))
        exchange_fail(x, status, reason);
    exchange_run(x);
}

void exchange_interim(struct exchange *x, unsigned status, const struct headers *headers) {
    struct headers copy = *headers;
    // A 100 that the client did not ask for would be taken for the final response by some (RFC 9110, 15.2). Nobody
    // waits for those of what moongate itself asks.
    if (x->site->inner || x->head_sent || x->hook_waits || (status == 100 && !x->req.expect_continue))
        return;
    rules_strip_hop_by_hop(&copy, false);
    counters->responses_1xx++;
    if (x->down->interim(x, status, &copy) < 0)
        log_warn("no memory for an interim response (request %s)", exchange_id(x));
}

void exchange_upstream_failed(struct exchange *x, enum upstream_progress progress, unsigned status,
                              enum close_reason reason) {
    note_failure(x, true, x->reused && (reason == CLOSE_upstream_closed || reason == CLOSE_upstream_reset),
                 reason);
    if (!x->res_ready && !x->client_gone)
        blame(x, progress, reason);
    if (x->head_sent || x->res_ready) {
        x->up_failed = true;
        x->reason = reason;
    } else if (hedge_put_off(x, progress, status, reason)) {
        let_go(x, false);
        return;
    } else if (!retry(x, false, progress, reason)) {
        exchange_fail(x, status, reason);
    }
    exchange_run(x);
}

void exchange_give_up(struct exchange *x, enum upstream_progress progress, unsigned status,
                      enum close_reason reason) {
    if (!retry(x, false, progress, reason))
        exchange_fail(x, status, reason);
    exchange_run(x);
}

int exchange_respond(struct exchange *x, unsigned status, const struct headers *headers, struct slice body) {
    if (x->head_sent)
        return -EALREADY;
    // At once: a server that goes on sending would add to this answer, should a hook wait behind it.
    exchange_drop_upstream(x, false);
    x->res = (struct response){
        .status = (uint16_t)status, .major = 1, .minor = 1, .framing = BODY_LENGTH, .length = body.len
    };
    queue_release(&x->res_body);
    queue_release(&x->res_first);
    if (headers)
        for (uint32_t i = 0; i < headers->count; i++) {
            const struct header *header = &headers->at[i];
            if (header->name.len > 0 &&
                headers_add(&x->res.headers, &x->arena, header->name, header->value) < 0)
                return -ENOMEM;
        }
    if (rules_add_date(&x->res.headers, &x->arena) < 0)
        return -ENOMEM;
    if (queue_copy(&x->res_body, body.at, body.len) < 0)
        return -ENOMEM;
    x->res_ended = true;
    x->responded = true;
    x->failed = false;
    x->upgraded = x->up_failed = x->req_filter = x->res_filter = false;
    return 0;
}

void exchange_fail(struct exchange *x, unsigned status, enum close_reason reason) {
    char body[160];
    struct headers headers = { 0 };
    x->reason = reason;
    if (x->head_sent) {  // too late for another status: the response ends here, visibly short
        x->up_failed = true;
        return;
    }
    int n = snprintf(body, sizeof body, "%u %s\nrequest %s\n", status, status_reason(status), exchange_id(x));
    int rc =
        headers_add(&headers, &x->arena, SLICE_LIT("content-type"), SLICE_LIT("text/plain; charset=utf-8"));
    if (rc == 0 && (reason == CLOSE_upstream_busy || reason == CLOSE_upstream_none))
        rc = headers_add(&headers, &x->arena, SLICE_LIT("retry-after"), SLICE_LIT("1"));
    if (rc == 0)
        rc = exchange_respond(x, status, &headers, slice_make(body, (size_t)n));
    if (rc == -ENOMEM) {
        // Not even an error can be said: the status alone.
        x->res =
            (struct response){ .status = (uint16_t)status, .major = 1, .minor = 1, .framing = BODY_LENGTH };
        x->res_ended = x->responded = true;
    }
    x->failed = true;
}
