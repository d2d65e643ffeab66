// SPDX-License-Identifier: BSD-2-Clause
// The steps of an exchange with everything around it faked: codecs, site and hooks that write down what they
// are asked to do. Each test drives one and compares the record.
#include "base/clock.h"
#include "base/counters.h"
#include "base/fault.h"
#include "http/exchange.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

enum dial { DIAL_LATER, DIAL_NOW, DIAL_FAILS, DIAL_FAILS_THEN_NOW };
enum hook { HOOK_PASSES, HOOK_WAITS, HOOK_RESPONDS, HOOK_FAILS, HOOK_RESPONDS_AND_WAITS };

// What the fakes do, and what was asked of them.
static struct {
    char trace[4096];
    size_t len;
    enum dial dial;
    int route_rc;
    bool reused;
    enum hook request, route, response;
    char to_client[1024], to_server[1024];
    size_t to_client_len, to_server_len;
    size_t client_backlog, server_backlog;
    bool server_told_end;
    int holds;
    struct slice choice;
} fake;

static struct exchange *x;
static struct conf_settings settings = { .buffer_high = 100, .buffer_low = 10 };
static struct conf_settings route_settings = { .buffer_high = 100, .buffer_low = 10 };

// Tests change it.
static struct conf_upstream upstream;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fake.len += (size_t)vsnprintf(fake.trace + fake.len, sizeof fake.trace - fake.len, format, args);
    va_end(args);
    cr_assert_lt(fake.len, sizeof fake.trace);
}

static void forget(void) {
    fake.len = 0;
    fake.trace[0] = 0;
}

// Compares what happened since the last call.
static void happened(const char *expected) {
    cr_assert_str_eq(fake.trace, expected, "\n%s\ninstead of\n%s", fake.trace, expected);
    forget();
}

static void ended(void) {
    cr_assert_eq(fake.holds, 0, "the exchange is not freed");
    cr_assert_eq(counters->requests_active, 0);
}

static size_t take(struct queue *queue, char *to, size_t *len) {
    struct span span;
    size_t before = *len;
    while (queue_take(queue, &span)) {
        memcpy(to + *len, span.at, span.len);
        *len += span.len;
        block_unref(span.block);
    }
    return *len - before;
}

// ---- the client's side

static int down_interim(struct exchange *e, unsigned status, const struct headers *headers) {
    (void)e, (void)headers;
    note("interim %u;", status);
    return 0;
}
static int down_head(struct exchange *e) {
    note("head %u;", e->res.status);
    return 0;
}
static int down_body(struct exchange *e) {
    take(&e->res_body, fake.to_client, &fake.to_client_len);
    if (e->res_ended)
        note("end;");
    return 0;
}
static size_t down_backlog(struct exchange *e) {
    (void)e;
    return fake.client_backlog;
}
static void down_want(struct exchange *e, bool want) {
    (void)e;
    note(want ? "" : "pause client;");
}
static struct conn *down_conn(struct exchange *e) {
    (void)e;
    return NULL;
}
static struct conn *down_detach(struct exchange *e, struct queue *read) {
    (void)e, (void)read;
    note("detach client;");
    return NULL;
}
static void down_finished(struct exchange *e, bool aborted, enum close_reason reason) {
    (void)e;
    note("%s %s;", aborted ? "aborted" : "finished", close_reason_name(reason));
}
static const struct downstream_ops down = {
    .interim = down_interim,
    .head = down_head,
    .body = down_body,
    .backlog = down_backlog,
    .want_body = down_want,
    .conn = down_conn,
    .detach = down_detach,
    .finished = down_finished,
};

// ---- the server's side

static int up_head(struct exchange *e) {
    note("forward %.*s;", SLICE_ARG(e->req.method));
    fake.server_told_end = false;
    return 0;
}
static int up_body(struct exchange *e) {
    take(&e->req_body, fake.to_server, &fake.to_server_len);
    if (e->req_ended && !fake.server_told_end) {
        note("request ends;");
        fake.server_told_end = true;
    }
    return 0;
}
static size_t up_backlog(struct exchange *e) {
    (void)e;
    return fake.server_backlog;
}
static void up_want(struct exchange *e, bool want) {
    (void)e;
    note(want ? "" : "pause server;");
}
static struct conn *up_detach(struct exchange *e, struct queue *read) {
    (void)e, (void)read;
    note("detach server;");
    return NULL;
}
static void up_release(struct exchange *e, bool reusable) {
    (void)e;
    note("release %s;", reusable ? "reusable" : "spoiled");
}
static const struct upstream_ops up = {
    .head = up_head,
    .body = up_body,
    .backlog = up_backlog,
    .want_body = up_want,
    .detach = up_detach,
    .release = up_release,
};

// ---- the site

static int site_route(struct exchange_site *site, struct exchange *e, struct error *error) {
    (void)site;
    note("route %u;", e->attempt);
    if (fake.route_rc < 0)
        return error_set(error, fake.route_rc, "nowhere");
    e->settings = &route_settings;
    e->upstream_conf = &upstream;
    return 0;
}
static void site_dial(struct exchange_site *site, struct exchange *e) {
    (void)site;
    note("dial;");
    switch (fake.dial) {
    case DIAL_LATER:
        e->dialling = &fake;
        break;
    case DIAL_NOW:
        exchange_dialled(e, &up, NULL, fake.reused);
        break;
    case DIAL_FAILS:
        exchange_dial_failed(e, false, 502, CLOSE_upstream_connect);
        break;
    case DIAL_FAILS_THEN_NOW:
        fake.dial = DIAL_NOW;
        exchange_dial_failed(e, true, 502, CLOSE_upstream_connect);
        break;
    }
}
static void site_dial_cancel(struct exchange_site *site, struct exchange *e) {
    (void)site;
    note("cancel dial;");
    e->dialling = NULL;
}
static void site_tunnel(struct exchange_site *site, struct exchange *e, struct conn *client,
                        struct queue *from_client, struct conn *server, struct queue *from_server) {
    (void)site, (void)e, (void)client, (void)from_client, (void)server, (void)from_server;
    note("tunnel;");
}
static void site_log(struct exchange_site *site, struct exchange *e) {
    (void)site;
    note("log %u %s;", e->head_sent ? e->res.status : 0, close_reason_name(e->reason));
}
static void site_hold(struct exchange_site *site) {
    (void)site;
    fake.holds++;
}
static void site_drop(struct exchange_site *site) {
    (void)site;
    fake.holds--;
}

static enum step_result hook(const char *name, enum hook what, struct exchange *e) {
    note("%s hook;", name);
    switch (what) {
    case HOOK_PASSES:
        return STEP_MORE;
    case HOOK_WAITS:
        return STEP_WAIT;
    case HOOK_RESPONDS:
    case HOOK_RESPONDS_AND_WAITS:
        cr_assert_eq(exchange_respond(e, 429, NULL, SLICE_LIT("slow down")), 0);
        return what == HOOK_RESPONDS ? STEP_MORE : STEP_WAIT;
    case HOOK_FAILS:
        exchange_fail(e, 500, CLOSE_script_error);
        return STEP_MORE;
    }
    return STEP_MORE;
}
static enum step_result hook_request(void *scripts, struct exchange *e) {
    (void)scripts;
    return hook("request", fake.request, e);
}
static enum step_result hook_route(void *scripts, struct exchange *e) {
    (void)scripts;
    return hook("route", fake.route, e);
}
static enum step_result hook_response(void *scripts, struct exchange *e) {
    (void)scripts;
    return hook("response", fake.response, e);
}
static void hook_ended(void *scripts, struct exchange *e) {
    (void)scripts, (void)e;
    note("hooks end;");
}
static void hook_dropped(void *scripts, struct exchange *e) {
    (void)scripts, (void)e;
    note("hook dropped;");
}
static const struct exchange_hooks all_hooks = {
    .request = hook_request,
    .route = hook_route,
    .response = hook_response,
    .drop = hook_dropped,
    .ended = hook_ended,
    .has_request = true,
    .has_route = true,
    .has_response = true,
};
static struct exchange_site site = {
    .name = "web",
    .settings = &settings,
    .route = site_route,
    .dial = site_dial,
    .dial_cancel = site_dial_cancel,
    .tunnel = site_tunnel,
    .log = site_log,
    .hold = site_hold,
    .drop = site_drop,
};

// ---- driving it

static void set_up(void) {
    memset(&fake, 0, sizeof fake);
    fake.dial = DIAL_NOW;
    upstream = (struct conf_upstream){ .retry = RETRY_CONNECT | RETRY_STALE | RETRY_IDEMPOTENT,
                                       .tries = 3,
                                       .retry_timeout = 10000,
                                       .retry_body = 20 };
    site.hooks = NULL;
    x = exchange_new(&site, &down, NULL);
    cr_assert(x);
    cr_assert_eq(fake.holds, 1);
}

TestSuite(exchange, .init = set_up);

// The head of a request arrives; without content it is complete.
static void start(const char *method, enum body_framing framing) {
    x->req.method = slice_of(method);
    x->req.target = x->req.path = SLICE_LIT("/");
    x->req.major = x->req.minor = 1;
    x->req.idempotent = method_idempotent(x->req.method);
    x->req.framing = framing;
    x->req_ended = framing == BODY_NONE;
    exchange_start(x);
}

static void server_answers(unsigned status) {
    x->res = (struct response){ .status = (uint16_t)status, .major = 1, .minor = 1, .framing = BODY_CHUNKED };
    x->res_ready = true;
    exchange_run(x);
}

static void server_sends(const char *text, bool end) {
    cr_assert_eq(queue_copy(&x->res_body, text, strlen(text)), 0);
    x->res_ended = end;
    exchange_run(x);
}

static void client_sends(const char *text, bool end) {
    cr_assert_eq(queue_copy(&x->req_body, text, strlen(text)), 0);
    x->req_ended = end;
    exchange_run(x);
}

static void client_got(const char *text) {
    cr_assert_eq(fake.to_client_len, strlen(text), "%.*s", (int)fake.to_client_len, fake.to_client);
    cr_assert_eq(memcmp(fake.to_client, text, strlen(text)), 0, "%.*s", (int)fake.to_client_len,
                 fake.to_client);
}

static void client_got_error(const char *first_line) {
    fake.to_client[fake.to_client_len] = 0;
    cr_assert(strncmp(fake.to_client, first_line, strlen(first_line)) == 0, "%s", fake.to_client);
    cr_assert(strstr(fake.to_client, "\nrequest "), "no request id: %s", fake.to_client);
}

// ---- tests

#ifdef MOONGATE_FAULTS
// With the n-th allocation failing, for every n until none fails: the exchange ends, is logged and freed, the server's
// connection let go, and the client has the whole response, an error, or is told that it is cut short.
Test(exchange, each_allocation_may_fail) {
    exchange_client_gone(x, CLOSE_client_closed);
    unsigned whole = 0, n = 0;
    do {
        memset(&fake, 0, sizeof fake);
        fake.dial = DIAL_NOW;
        site.hooks = n % 2 ? &all_hooks : NULL;
        fault_alloc_at(++n / 2 + 1);
        x = exchange_new(&site, &down, NULL);
        if (!x) {
            cr_assert_eq(fake.holds, 0);
            continue;
        }
        start("POST", BODY_CHUNKED);
        if (fake.holds && queue_copy(&x->req_body, "abc", 3) == 0) {
            x->req_ended = true;
            exchange_run(x);
        }
        if (fake.holds)
            server_answers(200);
        if (fake.holds && queue_copy(&x->res_body, "body", 4) == 0) {
            x->res_ended = true;
            exchange_run(x);
        }
        if (fake.holds)  // the codec could not take a piece: it loses its peer
            exchange_client_gone(x, CLOSE_memory);
        cr_assert_eq(fake.holds, 0, "allocation %u: %s", n / 2 + 1, fake.trace);
        cr_assert(strstr(fake.trace, "log "), "allocation %u: %s", n / 2 + 1, fake.trace);
        whole += strstr(fake.trace, "end;log 200 none;") != NULL;
    } while (fault_alloc_at(0) || n < 6);
    cr_assert_geq(whole, 1);
    cr_assert_gt(n, 6);
    ended();
}
#endif

Test(exchange, goes_its_way) {
    start("GET", BODY_NONE);
    happened("route 1;dial;forward GET;request ends;");
    server_answers(200);
    happened("head 200;");
    server_sends("one", false);
    happened("");
    server_sends("two", true);
    happened("end;log 200 none;release reusable;finished none;");
    client_got("onetwo");
    ended();
}

Test(exchange, the_servers_connection_is_free_before_the_clients_next_request) {
    start("GET", BODY_NONE);
    server_answers(200);
    forget();
    server_sends("", true);
    cr_assert_lt(strstr(fake.trace, "release") - fake.trace, strstr(fake.trace, "finished") - fake.trace);
    ended();
}

Test(exchange, hooks_are_called_once_each_in_order) {
    site.hooks = &all_hooks;
    start("GET", BODY_NONE);
    happened("request hook;route hook;route 1;dial;forward GET;request ends;");
    server_answers(200);
    happened("response hook;head 200;");
    server_sends("x", true);
    happened("end;log 200 none;release reusable;finished none;hooks end;");
    ended();
}

Test(exchange, a_hook_that_waits_holds_everything) {
    site.hooks = &all_hooks;
    fake.request = fake.route = fake.response = HOOK_WAITS;
    start("POST", BODY_CHUNKED);
    happened("request hook;");
    client_sends("abc", false);
    exchange_run(x);
    happened("");
    exchange_hook_done(x);
    happened("route hook;");
    client_sends("def", true);
    happened("");
    exchange_hook_done(x);
    happened("route 1;dial;forward POST;request ends;");
    cr_assert_eq(fake.to_server_len, 6);
    server_answers(200);
    happened("response hook;");
    server_sends("body", false);
    happened("");
    exchange_hook_done(x);
    happened("head 200;");
    client_got("body");
    server_sends("", true);
    ended();
}

Test(exchange, a_waiting_hook_bounds_what_is_held) {
    char text[102];
    memset(text, 'b', 101);
    text[101] = 0;
    site.hooks = &all_hooks;
    fake.request = HOOK_WAITS;
    start("POST", BODY_CHUNKED);
    forget();
    client_sends(text, false);
    happened("pause client;");
    exchange_client_gone(x, CLOSE_client_closed);
    ended();
}

Test(exchange, the_request_hook_answers) {
    site.hooks = &all_hooks;
    fake.request = HOOK_RESPONDS;
    start("GET", BODY_NONE);
    happened("request hook;head 429;end;log 429 none;finished none;hooks end;");
    client_got("slow down");
    ended();
}

Test(exchange, the_route_hook_answers) {
    site.hooks = &all_hooks;
    fake.route = HOOK_RESPONDS;
    start("GET", BODY_NONE);
    happened("request hook;route hook;head 429;end;log 429 none;finished none;hooks end;");
    ended();
}

Test(exchange, the_response_hook_answers_and_the_servers_body_is_dropped) {
    site.hooks = &all_hooks;
    fake.response = HOOK_RESPONDS;
    start("GET", BODY_NONE);
    forget();
    cr_assert_eq(queue_copy(&x->res_body, "secret", 6), 0);
    server_answers(200);
    happened("response hook;release spoiled;head 429;end;log 429 none;finished none;hooks end;");
    client_got("slow down");
    ended();
}

// What the server sends on while the hook that has answered still waits belongs to nobody.
Test(exchange, a_hook_answers_and_then_waits) {
    site.hooks = &all_hooks;
    fake.response = HOOK_RESPONDS_AND_WAITS;
    start("GET", BODY_NONE);
    forget();
    server_answers(200);
    cr_assert_null(x->up, "the server can still add to the answer");
    exchange_hook_done(x);
    client_got("slow down");
    ended();
}

Test(exchange, a_hook_fails) {
    site.hooks = &all_hooks;
    fake.request = HOOK_FAILS;
    start("GET", BODY_NONE);
    happened("request hook;head 500;end;log 500 script_error;finished script_error;hooks end;");
    client_got_error("500 Internal Server Error\n");
    ended();
}

Test(exchange, no_route) {
    fake.route_rc = -ENOENT;
    start("GET", BODY_NONE);
    happened("route 1;head 404;end;log 404 no_route;finished no_route;");
    client_got_error("404 Not Found\n");
    ended();
}

Test(exchange, a_script_chose_what_there_is_not) {
    fake.route_rc = -EINVAL;
    start("GET", BODY_NONE);
    happened("route 1;head 502;end;log 502 no_route;finished no_route;");
    ended();
}

Test(exchange, the_client_goes_while_a_hook_waits) {
    site.hooks = &all_hooks;
    fake.request = HOOK_WAITS;
    start("GET", BODY_NONE);
    forget();
    exchange_client_gone(x, CLOSE_client_reset);
    happened("log 0 client_reset;hooks end;");
    ended();
}

Test(exchange, the_client_goes_while_dialling) {
    fake.dial = DIAL_LATER;
    start("GET", BODY_NONE);
    happened("route 1;dial;");
    exchange_client_gone(x, CLOSE_client_closed);
    happened("log 0 client_closed;cancel dial;");
    ended();
}

Test(exchange, the_client_goes_while_the_server_thinks) {
    start("GET", BODY_NONE);
    forget();
    exchange_client_gone(x, CLOSE_client_closed);
    happened("log 0 client_closed;release spoiled;");
    ended();
}

Test(exchange, the_client_goes_in_the_middle_of_its_body) {
    start("POST", BODY_CHUNKED);
    client_sends("half", false);
    forget();
    exchange_client_gone(x, CLOSE_client_closed);
    happened("log 0 client_closed;release spoiled;");
    ended();
}

Test(exchange, the_client_goes_in_the_middle_of_the_response) {
    start("GET", BODY_NONE);
    server_answers(200);
    server_sends("half", false);
    forget();
    exchange_client_gone(x, CLOSE_client_reset);
    happened("log 200 client_reset;release spoiled;");
    ended();
}

Test(exchange, dialling_takes_its_time) {
    fake.dial = DIAL_LATER;
    start("POST", BODY_CHUNKED);
    client_sends("early", false);
    happened("route 1;dial;");
    cr_assert_eq(fake.to_server_len, 0);
    x->dialling = NULL;
    exchange_dialled(x, &up, NULL, false);
    happened("forward POST;");
    cr_assert_eq(fake.to_server_len, 5);
    client_sends("", true);
    happened("request ends;");
    server_answers(200);
    server_sends("", true);
    ended();
}

Test(exchange, dialling_fails) {
    fake.dial = DIAL_FAILS;
    start("GET", BODY_NONE);
    happened("route 1;dial;head 502;end;log 502 upstream_connect;finished upstream_connect;");
    client_got_error("502 Bad Gateway\n");
    ended();
}

Test(exchange, dialling_fails_and_the_next_server_is_asked) {
    fake.dial = DIAL_FAILS_THEN_NOW;
    start("POST", BODY_NONE);
    happened("route 1;dial;route 2;dial;forward POST;request ends;");
    cr_assert_eq(counters->upstream_retries, 1);
    server_answers(200);
    server_sends("", true);
    ended();
}

Test(exchange, the_route_hook_is_asked_again_for_each_attempt) {
    site.hooks = &all_hooks;
    fake.dial = DIAL_FAILS_THEN_NOW;
    fake.route = HOOK_WAITS;
    start("GET", BODY_NONE);
    happened("request hook;route hook;");
    exchange_hook_done(x);
    happened("route 1;dial;route hook;");
    exchange_hook_done(x);
    happened("route 2;dial;forward GET;request ends;");
    exchange_client_gone(x, CLOSE_client_closed);
    ended();
}

Test(exchange, the_server_fails_before_its_head) {
    upstream.retry = 0;
    start("GET", BODY_NONE);
    forget();
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_closed);
    happened("release spoiled;head 502;end;log 502 upstream_closed;finished upstream_closed;");
    client_got_error("502 Bad Gateway\n");
    ended();
}

Test(exchange, the_server_is_silent) {
    fake.reused = true;
    start("GET", BODY_NONE);
    forget();
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 504, CLOSE_upstream_timeout);
    happened("release spoiled;head 504;end;log 504 upstream_timeout;finished upstream_timeout;");
    client_got_error("504 Gateway Timeout\n");
    ended();
}

Test(exchange, the_server_fails_after_its_head) {
    start("GET", BODY_NONE);
    server_answers(200);
    server_sends("half", false);
    forget();
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_reset);
    happened("log 200 upstream_reset;release spoiled;aborted upstream_reset;");
    cr_assert_eq(counters->aborted, 1);
    client_got("half");
    ended();
}

Test(exchange, the_server_fails_while_the_response_hook_waits) {
    site.hooks = &all_hooks;
    fake.response = HOOK_WAITS;
    start("GET", BODY_NONE);
    server_answers(200);
    server_sends("half", false);
    forget();
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_reset);
    happened("");
    exchange_hook_done(x);
    client_got_error("502 Bad Gateway\n");
    ended();
}

// ---- once more

// A request on a pooled (or new) connection, which then ends.
static void fails(const char *method, bool reused, enum upstream_progress progress) {
    fake.reused = reused;
    start(method, BODY_NONE);
    forget();
    fake.reused = false;
    exchange_upstream_failed(x, progress, 502, CLOSE_upstream_closed);
}

static void is_sent_again(const char *method) {
    char expected[100];
    snprintf(expected, sizeof expected, "release spoiled;route 2;dial;forward %s;request ends;", method);
    happened(expected);
    cr_assert_eq(counters->upstream_retries, 1);
    server_answers(200);
    server_sends("ok", true);
    client_got("ok");
    ended();
}

static void is_refused(void) {
    client_got_error("502 Bad Gateway\n");
    cr_assert_eq(counters->upstream_retries, 0);
    ended();
}

Test(exchange, a_stale_pooled_connection_is_replaced) {
    fails("GET", true, UPSTREAM_UNANSWERED);
    cr_assert_eq(counters->retries_stale, 1);
    is_sent_again("GET");
}

Test(exchange, by_a_new_one) {
    fails("GET", true, UPSTREAM_UNANSWERED);
    cr_assert(x->fresh);
    is_sent_again("GET");
}

Test(exchange, unless_the_conditions_leave_it_out) {
    upstream.retry &= ~(unsigned)RETRY_STALE;
    fails("GET", true, UPSTREAM_UNANSWERED);
    is_refused();
}

Test(exchange, a_new_connection_that_gave_no_answer_is_another_condition) {
    fails("GET", false, UPSTREAM_UNANSWERED);
    cr_assert_eq(counters->retries_idempotent, 1);
    is_sent_again("GET");
}

Test(exchange, which_may_be_left_out_too) {
    upstream.retry &= ~(unsigned)RETRY_IDEMPOTENT;
    fails("GET", false, UPSTREAM_UNANSWERED);
    is_refused();
}

Test(exchange, not_for_a_method_that_may_have_done_something) {
    fails("POST", true, UPSTREAM_UNANSWERED);
    is_refused();
}

Test(exchange, not_for_it_on_a_new_connection_either) {
    fails("POST", false, UPSTREAM_UNANSWERED);
    is_refused();
}

Test(exchange, any_method_of_which_nothing_was_sent) {
    fails("POST", true, UPSTREAM_UNSENT);
    is_sent_again("POST");
}

Test(exchange, and_any_that_the_server_has_not_looked_at) {
    upstream.retry = RETRY_REFUSED;
    fails("POST", true, UPSTREAM_REFUSED);
    cr_assert_eq(counters->retries_refused, 1);
    is_sent_again("POST");
}

Test(exchange, unless_that_is_left_out) {
    fails("POST", false, UPSTREAM_REFUSED);
    is_refused();
}

Test(exchange, not_when_something_came_back) {
    fails("GET", true, UPSTREAM_ANSWERED);
    is_refused();
}

Test(exchange, not_when_the_server_broke_the_protocol) {
    fake.reused = true;
    start("GET", BODY_NONE);
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_protocol);
    is_refused();
}

Test(exchange, a_silent_server_only_when_asked_for) {
    upstream.retry |= RETRY_TIMEOUT;
    start("GET", BODY_NONE);
    forget();
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 504, CLOSE_upstream_timeout);
    cr_assert_eq(counters->retries_timeout, 1);
    is_sent_again("GET");
}

Test(exchange, and_never_for_post) {
    upstream.retry |= RETRY_TIMEOUT;
    start("POST", BODY_NONE);
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 504, CLOSE_upstream_timeout);
    client_got_error("504 Gateway Timeout\n");
    ended();
}

Test(exchange, no_more_than_tries) {
    start("GET", BODY_NONE);
    for (int i = 0; i < 2; i++)
        exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_closed);
    cr_assert_eq(fake.holds, 1);
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_closed);
    client_got_error("502 Bad Gateway\n");
    ended();
}

Test(exchange, connecting_counts_too) {
    upstream.tries = 1;
    fake.dial = DIAL_FAILS_THEN_NOW;
    start("GET", BODY_NONE);
    is_refused();
}

Test(exchange, not_after_retry_timeout) {
    clock_update();
    start("GET", BODY_NONE);
    x->asked_ms -= 10000;
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_closed);
    is_refused();
}

// Sends a part of a body to a server that then fails.
static void fails_with_body(const char *method, const char *text) {
    start(method, BODY_CHUNKED);
    client_sends(text, false);
    cr_assert_eq(fake.to_server_len, strlen(text));
    forget();
    fake.to_server_len = 0;
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_reset);
}

Test(exchange, a_held_body_is_sent_again_from_its_beginning) {
    fails_with_body("PUT", "beginning ");
    happened("release spoiled;route 2;dial;forward PUT;");
    client_sends("and end", true);
    cr_assert_eq(fake.to_server_len, 17);
    cr_assert_eq(memcmp(fake.to_server, "beginning and end", 17), 0);
    server_answers(200);
    cr_assert_eq(x->req_held.bytes, 0, "held longer than needed");
    server_sends("", true);
    ended();
}

Test(exchange, and_again) {
    fails_with_body("PUT", "beginning ");
    fake.to_server_len = 0;
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_reset);
    client_sends("and end", true);
    cr_assert_eq(memcmp(fake.to_server, "beginning and end", 17), 0);
    server_answers(200);
    server_sends("", true);
    ended();
}

Test(exchange, not_when_the_body_outgrew_retry_body) {
    fails_with_body("PUT", "a body of more than it");
    is_refused();
}

Test(exchange, nothing_is_held_for_what_is_not_sent_again) {
    start("POST", BODY_CHUNKED);
    client_sends("some", false);
    cr_assert_eq(x->req_held.bytes, 0);
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_reset);
    is_refused();
}

Test(exchange, the_last_attempt_holds_nothing) {
    upstream.tries = 1;
    start("PUT", BODY_CHUNKED);
    client_sends("some", false);
    cr_assert_eq(x->req_held.bytes, 0);
    exchange_client_gone(x, CLOSE_client_closed);
    ended();
}

Test(exchange, a_body_that_was_not_passed_on_is_sent_to_the_next) {
    fake.reused = true;
    start("PUT", BODY_LENGTH);
    forget();
    fake.reused = false;
    exchange_upstream_failed(x, UPSTREAM_UNANSWERED, 502, CLOSE_upstream_closed);
    happened("release spoiled;route 2;dial;forward PUT;");
    client_sends("whole", true);
    cr_assert_eq(fake.to_server_len, 5);
    server_answers(200);
    server_sends("", true);
    ended();
}

// ---- and so on

Test(exchange, a_100_only_for_who_expects_it) {
    struct headers none = { 0 };
    start("GET", BODY_NONE);
    forget();
    exchange_interim(x, 100, &none);
    happened("");
    x->req.expect_continue = true;
    exchange_interim(x, 100, &none);
    happened("interim 100;");
    exchange_client_gone(x, CLOSE_client_closed);
    ended();
}

Test(exchange, a_busy_upstream_says_when_to_come_again) {
    fake.dial = DIAL_LATER;
    start("GET", BODY_NONE);
    x->dialling = NULL;
    exchange_fail(x, 503, CLOSE_upstream_busy);
    cr_assert_eq(headers_remove(&x->res.headers, SLICE_LIT("retry-after")), 1);
    exchange_run(x);
    client_got_error("503 Service Unavailable\n");
    ended();
}

Test(exchange, interim_responses_pass_before_the_head_only) {
    struct headers none = { 0 };
    start("GET", BODY_NONE);
    forget();
    exchange_interim(x, 103, &none);
    happened("interim 103;");
    server_answers(200);
    forget();
    exchange_interim(x, 103, &none);
    happened("");
    server_sends("", true);
    ended();
}

Test(exchange, a_slow_client_holds_the_server_and_lets_it_go_on) {
    start("GET", BODY_NONE);
    server_answers(200);
    forget();
    fake.client_backlog = 101;
    server_sends("x", false);
    happened("pause server;");
    fake.client_backlog = 50;  // between the marks nothing changes
    server_sends("x", false);
    happened("");
    fake.client_backlog = 0;
    server_sends("x", true);
    ended();
}

Test(exchange, a_slow_server_holds_the_client) {
    start("POST", BODY_CHUNKED);
    forget();
    fake.server_backlog = 101;
    client_sends("x", false);
    happened("pause client;");
    exchange_client_gone(x, CLOSE_client_closed);
    ended();
}

Test(exchange, an_answer_before_the_request_is_complete) {
    start("POST", BODY_CHUNKED);
    client_sends("part", false);
    forget();
    server_answers(413);
    server_sends("no", true);
    happened("head 413;end;log 413 none;release spoiled;finished none;");
    ended();
}

Test(exchange, a_bad_request_is_answered_and_logged) {
    x->req.method = SLICE_LIT("GET");
    exchange_client_error(x, 400, CLOSE_bad_request, "nonsense");
    happened("head 400;end;log 400 bad_request;finished bad_request;");
    client_got_error("400 Bad Request\n");
    ended();
}

Test(exchange, a_bad_body_before_the_response) {
    start("POST", BODY_CHUNKED);
    forget();
    exchange_client_error(x, 400, CLOSE_bad_request, "bad chunk");
    happened("release spoiled;head 400;end;log 400 bad_request;finished bad_request;");
    ended();
}

Test(exchange, a_bad_body_while_dialling) {
    fake.dial = DIAL_LATER;
    start("POST", BODY_CHUNKED);
    forget();
    exchange_client_error(x, 408, CLOSE_body_timeout, "too slow");
    happened("cancel dial;head 408;end;log 408 body_timeout;finished body_timeout;");
    ended();
}

Test(exchange, a_bad_body_while_a_hook_waits) {
    site.hooks = &all_hooks;
    fake.request = HOOK_WAITS;
    start("POST", BODY_CHUNKED);
    forget();
    exchange_client_error(x, 400, CLOSE_bad_request, "bad chunk");
    happened("hook dropped;head 400;end;log 400 bad_request;finished bad_request;hooks end;");
    ended();
}

Test(exchange, a_bad_body_after_the_response_has_begun) {
    start("POST", BODY_CHUNKED);
    server_answers(200);
    forget();
    exchange_client_error(x, 400, CLOSE_bad_request, "bad chunk");
    happened("log 200 bad_request;release spoiled;aborted bad_request;");
    ended();
}

Test(exchange, an_upgrade_becomes_a_tunnel) {
    site.hooks = &all_hooks;
    x->req.upgrade = true;
    start("GET", BODY_NONE);
    forget();
    x->upgraded = true;
    x->res_ended = true;
    server_answers(101);
    happened("response hook;head 101;detach server;log 101 none;detach client;tunnel;hooks end;");
    ended();
}

Test(exchange, a_script_forbids_an_upgrade) {
    site.hooks = &all_hooks;
    fake.response = HOOK_RESPONDS;
    x->req.upgrade = true;
    start("GET", BODY_NONE);
    forget();
    x->upgraded = true;
    x->res_ended = true;
    server_answers(101);
    happened("response hook;release spoiled;head 429;end;log 429 none;finished none;hooks end;");
    ended();
}

Test(exchange, respond_twice_and_too_late) {
    start("GET", BODY_NONE);
    cr_assert_eq(exchange_respond(x, 200, NULL, SLICE_LIT("first")), 0);
    cr_assert_eq(exchange_respond(x, 201, NULL, SLICE_LIT("second")), 0);
    exchange_run(x);
    client_got("second");
    ended();
    set_up();
    start("GET", BODY_NONE);
    server_answers(200);
    cr_assert_eq(exchange_respond(x, 500, NULL, SLICE_LIT("late")), -EALREADY);
    server_sends("", true);
    ended();
}

Test(exchange, hop_by_hop_fields_are_stripped_both_ways) {
    cr_assert_eq(headers_add(&x->req.headers, &x->arena, SLICE_LIT("Connection"), SLICE_LIT("x-a")), 0);
    cr_assert_eq(headers_add(&x->req.headers, &x->arena, SLICE_LIT("X-A"), SLICE_LIT("1")), 0);
    start("GET", BODY_NONE);
    cr_assert_null(headers_find(&x->req.headers, HEADER_connection));
    cr_assert_eq(headers_remove(&x->req.headers, SLICE_LIT("x-a")), 0);
    x->res = (struct response){ .status = 200, .framing = BODY_CHUNKED };
    cr_assert_eq(headers_add(&x->res.headers, &x->arena, SLICE_LIT("Keep-Alive"), SLICE_LIT("timeout=1")), 0);
    x->res_ready = true;
    exchange_run(x);
    cr_assert_null(headers_find(&x->res.headers, HEADER_keep_alive));
    server_sends("", true);
    ended();
}

Test(exchange, ids_differ) {
    struct exchange *other = exchange_new(&site, &down, NULL);
    cr_assert_str_neq(exchange_id(x), exchange_id(other));
    cr_assert_str_eq(exchange_id(x), exchange_id(x));
    exchange_client_gone(x, CLOSE_client_closed);
    exchange_client_gone(other, CLOSE_client_closed);
    ended();
}
