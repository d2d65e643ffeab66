// SPDX-License-Identifier: BSD-2-Clause
// Hedged requests (`hedge`): one whose server is slow is sent to another server too, and the first answer counts.
//
// The second request is an exchange of its own, an inner one (inner.h) that the hedge of the first owns: it has
// its own way to a server, connection, time-outs, place and generation, and no hooks, no log, no second try. So
// the steps know of it in four places:
//   forward    the request is all sent: hedge_arm() starts the timer; when it fires the second goes its way
//   forward    the second has a head: hedge_answered() cancels the first's connection and has the second's codec
//              carry the first from then on (upstream_ops.move); the second is gone. Everything behind (response
//              hook, reply, bodies, log) happens once, to the first, as if its own server had answered
//   failure    the first's server fails while the second is out: hedge_put_off() keeps that until the second is
//              over; only when it has failed too, a retry or the error follows from it
//   drop       whoever lets go of the first's upstream (its own head, a client that goes, a script's answer) ends
//              the hedge (hedge_end()): the second is cancelled
// Where an upstream has no `hedge`, a request pays three comparisons for all this.
#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/slab.h"
#include "base/timer.h"
#include "http/exchange_impl.h"
#include "http/inner.h"

#include <errno.h>
#include <string.h>

// Of the first, from hedge_arm() until that is freed.
struct hedge {
    struct exchange *first;
    struct inner inner;  // the second; its `x` is set in HEDGED_RACING and HEDGED_ALONE
    struct timer timer;  // runs in HEDGED_ARMED
    // In HEDGED_ALONE, what came of the first:
    enum upstream_progress progress;
    unsigned status;
    enum close_reason reason;
};

static struct slab hedge_slab = SLAB_INIT(sizeof(struct hedge), 64);

static void set_state(struct exchange *first, enum hedged state) {
    static const char *const names[] = { "no", "armed", "withheld", "racing", "alone", "lost", "won" };
    log_debug("request %s: hedge: %s -> %s", exchange_id(first), names[first->hedged], names[state]);
    first->hedged = state;
}

// ---- the second -------------------------------------------------------------------------------------------

static struct hedge *of_inner(const struct inner *inner) {
    return container_of(inner, struct hedge, inner);
}

static struct conn *client_of_first(const struct inner *inner) {
    struct exchange *first = of_inner(inner)->first;
    return first->down && first->down->conn ? first->down->conn(first) : NULL;
}

// It has failed, or was not sent at all.
static void over(struct inner *inner, struct exchange *second, enum close_reason failure) {
    struct hedge *hedge = of_inner(inner);
    struct exchange *first = hedge->first;
    bool alone = first->hedged == HEDGED_ALONE;
    (void)failure;
    first->tried |= second->tried;
    set_state(first, second->server ? HEDGED_LOST : HEDGED_WITHHELD);
    if (alone)
        exchange_give_up(first, hedge->progress, hedge->status, hedge->reason);
}

// Heads do not come that way: hedge_answered() has them.
static const struct inner_ops inner_ops = { .conn = client_of_first, .over = over };

// The request as it went to the first server. What it points to is the first's, which ends later.
static int copy_request(struct exchange *second, struct exchange *first) {
    second->req = first->req;
    second->req.headers = (struct headers){ 0 };
    for (uint32_t i = 0; i < first->req.headers.count; i++) {
        const struct header *header = &first->req.headers.at[i];
        if (header->name.len > 0 &&
            headers_add(&second->req.headers, &second->arena, header->name, header->value) < 0)
            return -ENOMEM;
    }
    for (const struct piece *piece = first->req_held.head; piece; piece = piece->next) {
        block_ref(piece->span.block);
        if (queue_put(&second->req_body, piece->span) < 0)
            return -ENOMEM;
    }
    second->req_ended = second->prepared = second->body_lost = true;
    second->settings = first->settings;
    second->upstream = first->upstream;  // the site's route() counts it
    second->upstream_conf = first->upstream_conf;
    second->balance_key = first->balance_key;
    second->tried = first->tried;
    memcpy(second->id, exchange_id(first), sizeof second->id);
    return 0;
}

static void send_second(struct timer *timer) {
    struct hedge *hedge = container_of(timer, struct hedge, timer);
    struct exchange *first = hedge->first;
    if (!check_soft(first->step == EXCHANGE_forward && first->up))
        return;
    struct exchange *second = inner_new(&hedge->inner, &inner_ops, first->site->second);
    if (!second || copy_request(second, first) < 0) {
        if (second)
            second->upstream = NULL;
        inner_cancel(&hedge->inner);
        set_state(first, HEDGED_WITHHELD);
        return;
    }
    second->second = true;
    set_state(first, HEDGED_RACING);
    exchange_run(second);
}

// ---- the first --------------------------------------------------------------------------------------------

// Idempotent, and whole in our hands. A client that sticks to a server is not lured away from it.
static bool hedgeable(const struct exchange *x) {
    bool whole = x->req.framing == BODY_NONE || !x->body_lost;
    bool upgrade = x->req.upgrade || x->req.tunnel;
    return x->up && x->up->move && x->site->second && x->req.idempotent && whole && !upgrade && x->sticky == 0;
}

void hedge_arm(struct exchange *x) {
    if (!hedgeable(x))
        return;
    if (!x->hedge) {
        x->hedge = slab_get(&hedge_slab);
        if (!x->hedge)
            return;
        *x->hedge = (struct hedge){ .first = x };
        timer_init(&x->hedge->timer, send_second);
    }
    set_state(x, HEDGED_ARMED);
    timer_start(&x->hedge->timer, x->upstream_conf->hedge);
}

bool hedge_put_off(struct exchange *x, enum upstream_progress progress, unsigned status,
                   enum close_reason reason) {
    struct hedge *hedge = x->hedge;
    if (x->hedged != HEDGED_RACING)
        return false;
    hedge->progress = progress;
    hedge->status = status;
    hedge->reason = reason;
    set_state(x, HEDGED_ALONE);
    return true;
}

void hedge_end(struct exchange *x) {
    struct hedge *hedge = x->hedge;
    if (x->hedged == HEDGED_ARMED) {
        timer_stop(&hedge->timer);
        set_state(x, HEDGED_NO);
    } else if (x->hedged == HEDGED_RACING || x->hedged == HEDGED_ALONE) {
        struct exchange *second = hedge->inner.x;
        set_state(x, HEDGED_LOST);
        if (x->res_ready && second->up && second->site->asked)
            second->site->asked(second->site, second, CLOSE_outrun);
        inner_cancel(&hedge->inner);
    }
}

void hedge_free(struct exchange *x) {
    hedge_end(x);
    slab_put(&hedge_slab, x->hedge);
    x->hedge = NULL;
}

// The first has the second's connection and all that came by it.
static void move(struct exchange *first, struct exchange *second) {
    second->up->move(second, first);
    first->up = second->up;
    first->up_owner = second->up_owner;
    second->up = NULL;
    arena_join(&first->arena, &second->arena);
    first->server = second->server;
    first->upstream_name = second->upstream_name;
    first->tried |= second->tried;
    first->reused = second->reused;
    first->at.dialled = second->at.dialled;
    first->at.responded = second->at.responded;
    first->res = second->res;
    queue_release(&first->res_body);
    queue_move(&first->res_body, &second->res_body);
    first->res_ended = second->res_ended;
    first->res_ready = true;
    if (second->up_failed) {  // behind its head, in the same turn
        first->up_failed = true;
        first->reason = second->reason;
    }
    if (first->bulk && first->up->bound)
        first->up->bound(first);
}

enum step_result hedge_answered(struct exchange *second) {
    struct hedge *hedge = of_inner(second->down_owner);
    struct exchange *first = hedge->first;
    // An error, or half an answer, is not what was hoped for, while there may be something better.
    bool bad = second->res.status >= 500 || second->up_failed;
    if (bad && first->hedged == HEDGED_RACING) {
        first->tried |= second->tried;
        set_state(first, HEDGED_LOST);
        inner_cancel(&hedge->inner);
        return STEP_MORE;
    }
    if (first->up && first->site->asked)
        first->site->asked(first->site, first, CLOSE_outrun);
    set_state(first, HEDGED_WON);
    counters->upstream_hedge_won++;
    exchange_drop_upstream(first, false);
    hedge->inner.x = NULL;
    move(first, second);
    exchange_free(second);
    exchange_run(first);
    return STEP_DONE;
}
