// SPDX-License-Identifier: BSD-2-Clause
// The step machine of one exchange: request hook, route, dial, forward, response hook, reply, relay, finish.
// One function a step, in the order in which they happen; what interrupts them (a client that goes, an
// upstream that fails, a hook that answers) stands below them. Called by both codecs, the dialler and the
// scripts.
#include "http/exchange.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/handle.h"
#include "base/slab.h"
#include "http/rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static struct slab exchange_slab = SLAB_INIT(sizeof(struct exchange), 256);

static const char *const step_names[] = {
#define X(name, doc) #name,
    EXCHANGE_STEPS(X)
#undef X
};

const char *exchange_step_name(enum exchange_step step) {
    return step < EXCHANGE_STEP_COUNT ? step_names[step] : "?";
}

static enum step_result go(struct exchange *x, enum exchange_step step) {
    if (log_enabled(LOG_LEVEL_debug))
        log_debug("request %s: %s -> %s", exchange_id(x), step_names[x->step], step_names[step]);
    x->step = step;
    x->hook_ran = false;
    return STEP_MORE;
}

struct exchange *exchange_new(struct exchange_site *site, const struct downstream_ops *down,
                              void *down_owner) {
    struct exchange *x = slab_get(&exchange_slab);
    if (!x)
        return NULL;
    memset(x, 0, sizeof *x);
    x->site = site;
    x->settings = site->settings;
    x->down = down;
    x->down_owner = down_owner;
    x->req.scheme = SLICE_LIT("http");
    x->at.started = clock_us();
    site->hold(site);
    counters->requests_active++;
    return x;
}

// A worker's ids never repeat: 32 random bits drawn when it starts, 32 bits of its start's time, a count.
const char *exchange_id(struct exchange *x) {
    static uint32_t seed[2];
    static uint64_t count;
    if (x->id[0])
        return x->id;
    if (!seed[0]) {
        if (getrandom(seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
            seed[1] = (uint32_t)clock_cached.mono_ns;
        seed[0] = (uint32_t)(clock_cached.wall_us / 1000000) | 1;
    }
    uint64_t parts[2] = { (uint64_t)seed[0] << 32 | seed[1], ++count };
    static const char hex[] = "0123456789abcdef";
    char *to = x->id;
    for (int shift = 60; shift >= 0; shift -= 4)
        *to++ = hex[parts[0] >> shift & 15];
    for (int shift = 40; shift >= 0; shift -= 4)
        *to++ = hex[parts[1] >> shift & 15];
    *to = 0;
    return x->id;
}

// ---- steps ------------------------------------------------------------------------------------------------

// Calls a hook of this step once. STEP_MORE when it is not there or has run to its end.
static enum step_result run_hook(struct exchange *x, bool has,
                                 enum step_result (*hook)(void *scripts, struct exchange *x)) {
    if (!has || x->hook_ran)
        return STEP_MORE;
    x->hooked = true;
    if (hook(x->site->scripts, x) == STEP_WAIT) {
        x->hook_waits = true;
        return STEP_WAIT;
    }
    x->hook_ran = true;
    return STEP_MORE;
}

static enum step_result step_request(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    if (hooks && run_hook(x, hooks->has_request, hooks->request) == STEP_WAIT)
        return STEP_WAIT;
    return go(x, x->responded ? EXCHANGE_reply : EXCHANGE_route);
}

bool exchange_too_large(const struct exchange *x) {
    // A hook that reads the body before there is a route has the limit of the path as it came.
    bool counts = (x->upstream || x->wanted == WANTED_REQUEST || x->req_discard) && !x->upgraded;
    uint64_t most = counts ? x->settings->max_body : 0;
    bool announced = !x->prepared && !x->req_discard && x->req.framing == BODY_LENGTH;
    return most > 0 && (x->req_bytes > most || (announced && x->req.length > most));
}

// By what the site's route() says.
static unsigned no_route_status(int rc) {
    switch (rc) {
    case -ENOENT:
        return 404;
    case -EBADMSG:
        return 400;
    case -ENOMEM:
        return 503;
    default:
        return 502;
    }
}

static enum step_result step_route(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    struct error error;
    if (!x->hook_ran && !x->hook_waits && x->attempt++ == 0)
        x->asked_ms = clock_ms();
    if (hooks && run_hook(x, hooks->has_route, hooks->route) == STEP_WAIT)
        return STEP_WAIT;
    if (x->responded)
        return go(x, EXCHANGE_reply);
    int rc = x->attempt == 1 && !x->site->inner ? rules_max_forwards(&x->req, &x->arena) : 0;
    if (rc != 0) {
        if (rc < 0 || exchange_respond(x, 200, NULL, slice_make(NULL, 0)) < 0)
            exchange_fail(x, 503, CLOSE_memory);
        return go(x, EXCHANGE_reply);
    }
    rc = x->site->route(x->site, x, &error);
    if (rc < 0) {
        static struct log_limit limit;
        uint32_t suppressed;
        if (log_limit_pass(&limit, 10, &suppressed))
            log_info("no route: %s (request %s)", error.text, exchange_id(x));
        exchange_fail(x, no_route_status(rc), CLOSE_no_route);
        return go(x, EXCHANGE_reply);
    }
    if (exchange_too_large(x)) {
        exchange_fail(x, 413, CLOSE_limit);
        return go(x, EXCHANGE_reply);
    }
    go(x, EXCHANGE_dial);
    x->site->dial(x->site, x);  // exchange_dialled() or exchange_dial_failed() moves on, perhaps at once
    return STEP_MORE;
}

static enum step_result step_dial(struct exchange *x) {
    return x->responded ? go(x, EXCHANGE_reply) : x->up ? go(x, EXCHANGE_forward) : STEP_WAIT;
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

static void filter_request(struct exchange *x) {
    if (!x->req_filter)
        return;
    enum filter_result result = run_body_hook(x, x->site->hooks->request_body, &x->req_body, &x->req_ended,
                                              &x->req_in, &x->req_in_ended);
    x->req_filter &= result == FILTER_WAITS;
    if (result == FILTER_ENDED)
        x->req_changed = x->req_discard = true;
}

static void filter_response(struct exchange *x) {
    if (!x->res_filter || x->up_failed)
        return;
    enum filter_result result = run_body_hook(x, x->site->hooks->response_body, &x->res_body, &x->res_ended,
                                              &x->res_in, &x->res_in_ended);
    x->res_filter &= result == FILTER_WAITS;
    x->res_changed |= result == FILTER_ENDED;
}

static void put_in_front(struct queue *first, struct queue *body) {
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
    bool useful = !x->res_ready && x->attempt < conf->tries &&
        (x->req.idempotent ? conf->retry != 0 : x->reused || refusable);
    if (!useful || x->req_held.bytes + x->req_body.bytes > conf->retry_body)
        x->body_lost = true;
    for (const struct piece *piece = x->req_body.head; piece && !x->body_lost; piece = piece->next) {
        block_ref(piece->span.block);
        x->body_lost = queue_put(&x->req_held, piece->span) < 0;
    }
    if (x->body_lost)
        queue_release(&x->req_held);
}

// Pushes what there is of the request body and holds the client to the pace of the upstream.
static int push_request(struct exchange *x) {
    if (!x->up)
        return 0;
    if (x->req_discard)
        queue_release(&x->req_body);
    filter_request(x);
    if (x->responded && !x->head_sent)
        return 0;
    put_in_front(&x->req_again, &x->req_body);
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

// What changes in the request on its way to a server, whichever server it is; done once.
static int prepare_request(struct exchange *x) {
    if (x->prepared)
        return 0;
    x->prepared = true;
    if (x->site->hooks && x->site->hooks->has_request_body && x->req.framing != BODY_NONE) {
        queue_move(&x->req_in, &x->req_again);
        if (x->req_discard) {
            x->req_in_ended = true;
            queue_release(&x->req_body);
        }
        x->req_filter = true;
        filter_request(x);
        if (x->responded)
            return 0;
        queue_move(&x->req_again, &x->req_body);
        if (x->req_filter || x->req_changed) {
            x->req.framing = BODY_CHUNKED;  // nobody knows yet how long it will be
            if (rules_body_changed(&x->req.headers, &x->arena) < 0)
                return -ENOMEM;
        }
    }
    // HTTP/1.0 clients may send no Host; HTTP/1.1 servers want one (RFC 9112, 3.2).
    if (!headers_find(&x->req.headers, HEADER_host)) {
        struct slice host =
            slice_starts(x->upstream_name, SLICE_LIT("unix:")) ? SLICE_LIT("localhost") : x->upstream_name;
        if (headers_add(&x->req.headers, &x->arena, SLICE_LIT("host"), host) < 0)
            return -ENOMEM;
    }
    if (x->site->inner)
        return 0;  // a script's own: nothing is forwarded
    if (rules_add_via(&x->req.headers, &x->arena, x->req.major, x->req.minor, x->settings->via) < 0)
        return -ENOMEM;
    if (!x->settings->forwarded && x->settings->x_forwarded == X_FORWARDED_OFF)
        return 0;
    struct conn *client = x->down->conn(x);
    return rules_add_forwarded(&x->req, &x->arena, x->settings, conn_remote(client), conn_local(client));
}

static enum step_result step_forward(struct exchange *x) {
    if (!x->req_sent && !x->responded) {
        x->req_sent = true;
        if (prepare_request(x) < 0 || (!x->responded && x->up->head(x) < 0))
            exchange_fail(x, 503, CLOSE_memory);
    }
    if (!x->responded && push_request(x) < 0)
        exchange_fail(x, 503, CLOSE_memory);
    if (x->responded)
        return go(x, EXCHANGE_reply);
    return x->res_ready ? go(x, EXCHANGE_response) : STEP_WAIT;
}

// What changes in the response, before a script looks at it.
static int prepare_response(struct exchange *x) {
    rules_strip_hop_by_hop(&x->res.headers, x->upgraded);
    if (rules_add_date(&x->res.headers, &x->arena) < 0)
        return -ENOMEM;
    return x->site->inner
        ? 0
        : rules_add_via(&x->res.headers, &x->arena, x->res.major, x->res.minor, x->settings->via);
}

// While the response hook waits the request's body goes on: the server may need it for its response. What a
// script says about the body overtakes that hook.
static enum step_result push_meanwhile(struct exchange *x) {
    bool before = x->responded;
    if (push_request(x) < 0)
        exchange_fail(x, 503, CLOSE_memory);
    if (before || !x->responded)
        return STEP_WAIT;
    x->site->hooks->drop(x->site->scripts, x);
    x->hook_waits = false;
    x->wanted = WANTED_NONE;
    return go(x, EXCHANGE_reply);
}

static enum step_result step_response(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    queue_release(&x->req_held);
    if (!x->hook_ran && !x->hook_waits && prepare_response(x) < 0) {
        exchange_fail(x, 503, CLOSE_memory);
        return go(x, EXCHANGE_reply);
    }
    if (hooks && run_hook(x, hooks->has_response, hooks->response) == STEP_WAIT)
        return push_meanwhile(x);
    if (x->up_failed && !x->responded)
        exchange_fail(x, 502, x->reason);
    if (hooks && hooks->has_response_body && !x->responded && !x->upgraded) {
        bool bodiless = x->res.framing == BODY_NONE;
        x->res_filter = !bodiless;
        filter_response(x);
        if (x->res_filter)
            queue_move(&x->res_first, &x->res_body);  // the hooks' output must not become their input
        // What comes out of the hooks has a length that nobody knows yet, also where only a head tells it
        // (HEAD, 304).
        if (!x->responded && (bodiless || x->res_filter || x->res_changed)) {
            headers_remove_id(&x->res.headers, HEADER_content_length);
            if (!bodiless)
                x->res.framing = BODY_CHUNKED;
            if (rules_body_changed(&x->res.headers, &x->arena) < 0)
                exchange_fail(x, 503, CLOSE_memory);
        }
    }
    return go(x, EXCHANGE_reply);
}

// Lets go of the upstream when the answer is our own.
static void drop_upstream(struct exchange *x, bool reusable) {
    if (x->dialling)
        x->site->dial_cancel(x->site, x);
    if (x->up) {
        const struct upstream_ops *up = x->up;
        x->up = NULL;
        up->release(x, reusable);
    }
}

static enum step_result step_reply(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    if (x->failed && hooks && run_hook(x, hooks->has_error, hooks->error) == STEP_WAIT)
        return STEP_WAIT;
    if (x->responded)
        queue_release(&x->req_body);
    x->at.first_byte = clock_us();
    x->head_sent = true;
    if (x->down->head(x) < 0) {
        x->reason = CLOSE_memory;
        x->up_failed = true;
        return go(x, EXCHANGE_finish);
    }
    return go(x, x->upgraded && !x->responded && !x->req.tunnel ? EXCHANGE_tunnel : EXCHANGE_relay);
}

static enum step_result step_relay(struct exchange *x) {
    filter_response(x);
    put_in_front(&x->res_first, &x->res_body);
    if (push_request(x) < 0 ||
        (x->res_ended && x->res_changed && rules_body_changed(&x->res.trailers, &x->arena) < 0) ||
        ((x->res_body.bytes > 0 || x->res_ended) && x->down->body(x) < 0)) {
        x->reason = CLOSE_memory;
        x->up_failed = true;
    }
    if (x->res_ended || x->up_failed)
        return go(x, EXCHANGE_finish);
    size_t backlog = x->down->backlog(x) + x->res_in.bytes;
    if (!x->up)
        return STEP_WAIT;  // a script's body is on its way through the hooks
    if (backlog > x->settings->buffer_high)
        x->up->want_body(x, false);
    else if (backlog <= x->settings->buffer_low)
        x->up->want_body(x, true);
    return STEP_WAIT;  // what want_body() brought at once was noted by exchange_run()
}

// The log hook begins while both conns are still there to be asked about. STEP_WAIT when it has not ended.
static enum step_result conclude(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    x->at.ended = clock_us();
    x->hook_waits = false;
    if (x->started) {
        unsigned class = x->res.status / 100;
        if (x->head_sent && !x->site->inner) {
            counters->responses_2xx += class == 2;
            counters->responses_3xx += class == 3;
            counters->responses_4xx += class == 4;
            counters->responses_5xx += class == 5;
        }
        x->site->log(x->site, x);
    }
    if (x->step != EXCHANGE_finish)
        go(x, EXCHANGE_finish);
    return x->started && hooks ? run_hook(x, hooks->has_log, hooks->log) : STEP_MORE;
}

static void release_bodies(struct exchange *x) {
    struct queue *all[] = { &x->req_body, &x->req_held, &x->req_again, &x->req_in,
                            &x->res_body, &x->res_in,   &x->res_first };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        queue_release(all[i]);
}

static void exchange_free(struct exchange *x) {
    struct exchange_site *site = x->site;
    if (x->hooked)
        site->hooks->ended(site->scripts, x);
    if (x->upstream && site->forget)
        site->forget(site, x);
    handle_drop(x->handle);
    release_bodies(x);
    arena_release(&x->arena);
    counters->requests_active--;
    slab_put(&exchange_slab, x);
    site->drop(site);
}

// Neither side knows x any more.
static enum step_result leave(struct exchange *x, enum step_result log_hook) {
    x->down = NULL;
    if (log_hook == STEP_WAIT) {
        release_bodies(x);
        x->step = EXCHANGE_linger;
        return STEP_WAIT;
    }
    exchange_free(x);
    return STEP_DONE;
}

static enum step_result step_tunnel(struct exchange *x) {
    struct queue from_client, from_server;
    queue_init(&from_client);
    queue_init(&from_server);
    struct exchange_site *site = x->site;
    struct conn *server = x->up->detach(x, &from_server);
    x->up = NULL;
    enum step_result log_hook = conclude(x);
    struct conn *client = x->down->detach(x, &from_client);
    // The relay outlives the exchange, not the generation: tunnel() holds it for itself.
    site->tunnel(site, x, client, &from_client, server, &from_server);
    return leave(x, log_hook);
}

static void tell_memory(struct exchange *x) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_error("memory is out: request %s is %s", exchange_id(x),
                  x->up_failed ? "cut short" : "answered 503");
}

static enum step_result step_finish(struct exchange *x) {
    bool aborted = x->up_failed;
    if (x->reason == CLOSE_memory && !x->client_gone)
        tell_memory(x);
    if (aborted)
        counters->aborted++;
    enum step_result log_hook = conclude(x);
    // The upstream connection first: the client's next request, which may be pipelined, can then take it.
    drop_upstream(x, x->res_ended && x->req_ended && !x->up_failed && !x->client_gone);
    if (!x->client_gone)
        x->down->finished(x, aborted, x->reason);
    return leave(x, log_hook);
}

static enum step_result step_linger(struct exchange *x) {
    exchange_free(x);
    return STEP_DONE;
}

static enum step_result (*const steps[])(struct exchange *x) = {
#define X(name, doc) step_##name,
    EXCHANGE_STEPS(X)
#undef X
};

static const struct queue *wanted_body(const struct exchange *x, bool response, bool *ret_ended) {
    *ret_ended = response ? x->res_ended || x->up_failed : x->req_ended || x->req_discard;
    return response ? &x->res_body : x->req_discard ? &x->req_again : &x->req_body;
}

// While a hook waits for a whole body its peer goes on beyond the watermarks.
static void want_whole(struct exchange *x) {
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

// Both sides are held back while nothing takes what they send; the steps that push let them go on.
static void hold_back(struct exchange *x) {
    size_t high = x->settings->buffer_high, wanted = x->wanted_most > high ? x->wanted_most : high;
    if (x->req_discard)
        queue_release(&x->req_body);
    if (x->req_body.bytes + x->req_in.bytes > (x->wanted == WANTED_REQUEST ? wanted : high))
        x->down->want_body(x, false);
    if (x->up && x->res_body.bytes + x->res_in.bytes > (x->wanted == WANTED_RESPONSE ? wanted : high))
        x->up->want_body(x, false);
}

// What waits must not pin receive buffers: others need them.
static void unpin_bodies(struct exchange *x) {
    struct queue *all[] = { &x->req_body, &x->req_held, &x->req_again, &x->req_in,
                            &x->res_body, &x->res_in,   &x->res_first };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->head && queue_unpin(all[i]) < 0)
            log_warn("no memory to copy a body out of receive buffers (request %s)", exchange_id(x));
}

void exchange_run(struct exchange *x) {
    if (x->running) {
        x->again = true;
        return;
    }
    x->running = true;
    do {
        x->again = false;
        enum step_result result = STEP_MORE;
        while (result == STEP_MORE) {
            if (x->client_gone && x->step < EXCHANGE_finish)
                go(x, EXCHANGE_finish);
            else if (x->hook_waits && (x->step != EXCHANGE_response || push_meanwhile(x) == STEP_WAIT))
                break;
            result = steps[x->step](x);
        }
        if (result == STEP_DONE)
            return;
        if (x->wanted)
            want_whole(x);
    } while (x->again);
    hold_back(x);
    unpin_bodies(x);
    x->running = false;
}

// ---- what codecs, dialler and scripts say -----------------------------------------------------------------

static void log_refused(struct exchange *x, unsigned status, const char *why) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_info("request refused with %u: %s (request %s)", status, why, exchange_id(x));
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
    go(x, EXCHANGE_reply);
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
    go(x, EXCHANGE_reply);
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
        go(x, EXCHANGE_reply);
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

// Whether the request may be sent once more, and then sends the steps there. Never when a server may have
// acted on it, unless doing it twice is as good as once; never when a part of it is not ours any more; as
// often and as long as the upstream's configuration allows.
static bool retry(struct exchange *x, bool connecting, enum upstream_progress progress,
                  enum close_reason reason) {
    const struct conf_upstream *conf = x->upstream_conf;
    if (x->head_sent || x->res_ready || x->responded || x->client_gone || x->body_lost ||
        progress == UPSTREAM_ANSWERED || x->attempt >= conf->tries ||
        (conf->retry_timeout > 0 && clock_ms() - x->asked_ms >= conf->retry_timeout))
        return false;
    bool harmless = progress == UPSTREAM_UNSENT || progress == UPSTREAM_REFUSED || x->req.idempotent;
    const char *why;
    if (connecting && conf->retry & RETRY_CONNECT) {
        why = "no connection";
        counters->retries_connect++;
    } else if (connecting || !harmless) {
        return false;
    } else if (progress == UPSTREAM_REFUSED) {
        if (!(conf->retry & RETRY_REFUSED))
            return false;
        why = "refused unseen";
        counters->retries_refused++;
    } else if (reason == CLOSE_upstream_timeout && conf->retry & RETRY_TIMEOUT) {
        why = "no answer in time";
        counters->retries_timeout++;
    } else if (reason != CLOSE_upstream_closed && reason != CLOSE_upstream_reset) {
        return false;
    } else if (x->reused && conf->retry & RETRY_STALE) {
        why = "the pooled connection had ended";
        x->fresh = true;
        counters->retries_stale++;
    } else if (!x->reused && conf->retry & RETRY_IDEMPOTENT) {
        why = "closed without an answer";
        counters->retries_idempotent++;
    } else {
        return false;
    }
    counters->upstream_retries++;
    log_info("upstream server \"%.*s\": %s, %.*s is sent again after attempt %u (request %s)",
             SLICE_ARG(x->upstream_name), why, SLICE_ARG(x->req.method), x->attempt, exchange_id(x));
    drop_upstream(x, false);
    x->req_sent = false;
    queue_move(&x->req_held, &x->req_again);  // in front of what is still to go and of what has come since
    queue_move(&x->req_again, &x->req_held);
    go(x, EXCHANGE_route);
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
    // A 100 that the client did not ask for would be taken for the final response by some (RFC 9110, 15.2).
    if (x->head_sent || x->hook_waits || (status == 100 && !x->req.expect_continue))
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
    if (x->head_sent || x->res_ready) {
        x->up_failed = true;
        x->reason = reason;
    } else if (!retry(x, false, progress, reason)) {
        exchange_fail(x, status, reason);
    }
    exchange_run(x);
}

int exchange_respond(struct exchange *x, unsigned status, const struct headers *headers, struct slice body) {
    if (x->head_sent)
        return -EALREADY;
    // At once: a server that goes on sending would add to this answer, should a hook wait behind it.
    drop_upstream(x, false);
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
        drop_upstream(x, x->res_ended && x->req_ended && !x->up_failed);
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
    if (rc == 0 && reason == CLOSE_upstream_busy)
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
