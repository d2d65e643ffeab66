// SPDX-License-Identifier: BSD-2-Clause
// The step machine of one exchange: request hook, route, dial, forward, response hook, reply, relay, finish.
// One function a step, in the order in which they happen. What interrupts them (a client that goes, an upstream
// that fails, a hook that answers) is in exchange_event.c, what waits between both sides in exchange_body.c.
#include "base/clock.h"
#include "base/counters.h"
#include "base/handle.h"
#include "base/slab.h"
#include "http/exchange_impl.h"
#include "http/rules.h"

#include <errno.h>
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

enum step_result exchange_go(struct exchange *x, enum exchange_step step) {
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
    return exchange_go(x, x->responded ? EXCHANGE_reply : EXCHANGE_route);
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
        return exchange_go(x, EXCHANGE_reply);
    int rc = x->attempt == 1 && !x->site->inner ? rules_max_forwards(&x->req, &x->arena) : 0;
    if (rc != 0) {
        if (rc < 0 || exchange_respond(x, 200, NULL, slice_make(NULL, 0)) < 0)
            exchange_fail(x, 503, CLOSE_memory);
        return exchange_go(x, EXCHANGE_reply);
    }
    rc = x->site->route(x->site, x, &error);
    if (rc < 0) {
        static struct log_limit limit;
        uint32_t suppressed;
        if (log_limit_pass(&limit, 10, &suppressed))
            log_info("no route: %s (request %s)", error.text, exchange_id(x));
        exchange_fail(x, no_route_status(rc), CLOSE_no_route);
        return exchange_go(x, EXCHANGE_reply);
    }
    if (exchange_too_large(x)) {
        exchange_fail(x, 413, CLOSE_limit);
        return exchange_go(x, EXCHANGE_reply);
    }
    exchange_go(x, EXCHANGE_dial);
    x->site->dial(x->site, x);  // exchange_dialled() or exchange_dial_failed() moves on, perhaps at once
    return STEP_MORE;
}

static enum step_result step_dial(struct exchange *x) {
    return x->responded ? exchange_go(x, EXCHANGE_reply) : x->up ? exchange_go(x, EXCHANGE_forward) : STEP_WAIT;
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
        bodies_filter_request(x);
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
    if (!x->responded && bodies_push_request(x) < 0)
        exchange_fail(x, 503, CLOSE_memory);
    if (x->responded)
        return exchange_go(x, EXCHANGE_reply);
    if (!x->res_ready) {
        if (x->upstream_conf->hedge > 0 && x->hedged == HEDGED_NO && x->req_ended && !x->second)
            hedge_arm(x);
        return STEP_WAIT;
    }
    if (x->site->asked)
        x->site->asked(x->site, x, CLOSE_none);
    if (x->second)
        return hedge_answered(x);
    if (x->hedge)
        hedge_end(x);
    return exchange_go(x, EXCHANGE_response);
}

// What changes in the response, before a script looks at it.
static int prepare_response(struct exchange *x) {
    rules_strip_hop_by_hop(&x->res.headers, x->upgraded);
    if (rules_add_date(&x->res.headers, &x->arena) < 0)
        return -ENOMEM;
    if (x->site->answered && x->upstream_conf->sticky && x->site->answered(x) < 0)
        return -ENOMEM;
    return x->site->inner
        ? 0
        : rules_add_via(&x->res.headers, &x->arena, x->res.major, x->res.minor, x->settings->via);
}

// While the response hook waits the request's body goes on: the server may need it for its response. What a
// script says about the body overtakes that hook.
static enum step_result push_meanwhile(struct exchange *x) {
    bool before = x->responded;
    if (bodies_push_request(x) < 0)
        exchange_fail(x, 503, CLOSE_memory);
    if (before || !x->responded)
        return STEP_WAIT;
    x->site->hooks->drop(x->site->scripts, x);
    x->hook_waits = false;
    x->wanted = WANTED_NONE;
    return exchange_go(x, EXCHANGE_reply);
}

static enum step_result step_response(struct exchange *x) {
    const struct exchange_hooks *hooks = x->site->hooks;
    queue_release(&x->req_held);
    if (!x->hook_ran && !x->hook_waits && prepare_response(x) < 0) {
        exchange_fail(x, 503, CLOSE_memory);
        return exchange_go(x, EXCHANGE_reply);
    }
    if (hooks && run_hook(x, hooks->has_response, hooks->response) == STEP_WAIT)
        return push_meanwhile(x);
    if (x->up_failed && !x->responded)
        exchange_fail(x, 502, x->reason);
    if (hooks && hooks->has_response_body && !x->responded && !x->upgraded) {
        bool bodiless = x->res.framing == BODY_NONE;
        x->res_filter = !bodiless;
        bodies_filter_response(x);
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
    return exchange_go(x, EXCHANGE_reply);
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
        return exchange_go(x, EXCHANGE_finish);
    }
    return exchange_go(x, x->upgraded && !x->responded && !x->req.tunnel ? EXCHANGE_tunnel : EXCHANGE_relay);
}

static enum step_result step_relay(struct exchange *x) {
    bodies_filter_response(x);
    bodies_put_in_front(&x->res_first, &x->res_body);
    if (bodies_push_request(x) < 0 ||
        (x->res_ended && x->res_changed && rules_body_changed(&x->res.trailers, &x->arena) < 0) ||
        ((x->res_body.bytes > 0 || x->res_ended) && x->down->body(x) < 0)) {
        x->reason = CLOSE_memory;
        x->up_failed = true;
    }
    if (x->res_ended || x->up_failed)
        return exchange_go(x, EXCHANGE_finish);
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
        exchange_go(x, EXCHANGE_finish);
    return x->started && hooks ? run_hook(x, hooks->has_log, hooks->log) : STEP_MORE;
}

void exchange_free(struct exchange *x) {
    struct exchange_site *site = x->site;
    if (x->hedge)
        hedge_free(x);
    if (x->hooked)
        site->hooks->ended(site->scripts, x);
    if (x->upstream && site->forget)
        site->forget(site, x);
    handle_drop(x->handle);
    bodies_release(x);
    arena_release(&x->arena);
    counters->requests_active--;
    slab_put(&exchange_slab, x);
    site->drop(site);
}

// Neither side knows x any more.
static enum step_result leave(struct exchange *x, enum step_result log_hook) {
    x->down = NULL;
    if (log_hook == STEP_WAIT) {
        bodies_release(x);
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
    exchange_drop_upstream(x, x->res_ended && x->req_ended && !x->up_failed && !x->client_gone);
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
                exchange_go(x, EXCHANGE_finish);
            else if (x->hook_waits && (x->step != EXCHANGE_response || push_meanwhile(x) == STEP_WAIT))
                break;
            result = steps[x->step](x);
        }
        if (result == STEP_DONE)
            return;
        if (x->wanted)
            bodies_want_whole(x);
    } while (x->again);
    bodies_hold_back(x);
    bodies_unpin(x);
    x->running = false;
}
