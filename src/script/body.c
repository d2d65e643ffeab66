// SPDX-License-Identifier: BSD-2-Clause
// Bodies on their way through scripts: each script that has the hook is a stage with a coroutine of its own
// that reads pieces and writes pieces. exchange_body.c calls at every turn of events, and everything that can go
// on does; between two calls a stage waits for input, for its output to leave, or for time. Memory is bounded
// by the watermarks: a stage that wrote more than buffer_high waits, and what it does not read holds the
// codec back.
#include "script/host.h"

#include "script/api.h"

#include <lauxlib.h>

struct body_stage *body_stage_running(const struct exchange *x, int whose) {
    const struct exchange_record *record = x->script;
    struct body_filter *filter =
        record ? record->bodies[whose == MG_REQUEST ? MG_REQUEST : MG_RESPONSE] : NULL;
    for (unsigned i = 0; filter && i < filter->count; i++)
        if (&filter->stages[i].task == task_running)
            return &filter->stages[i];
    return NULL;
}

bool body_stage_input_ended(const struct body_stage *stage) {
    const struct exchange *x = stage->filter->x;
    if (stage != stage->filter->stages)
        return stage[-1].state == STAGE_ENDED;
    return stage->filter->whose == MG_REQUEST ? x->req_in_ended : x->res_in_ended;
}

bool body_stage_has_room(const struct body_stage *stage, uint64_t most) {
    const struct body_filter *filter = stage->filter;
    struct exchange *x = filter->x;
    size_t waiting = stage->out->bytes;
    if (stage == &filter->stages[filter->count - 1]) {
        if (filter->whose == MG_RESPONSE)
            waiting += x->down->backlog(x);
        else if (x->up)
            waiting += x->up->backlog(x);
    }
    return waiting <= most;
}

static void stage_release(struct body_stage *stage) {
    task_end(&stage->task);
    if (stage->held.block)
        block_unref(stage->held.block);
    stage->held = (struct span){ 0 };
    queue_release(&stage->own);
    queue_release(&stage->tail);
}

static void stage_wake(struct timer *timer) {
    struct body_stage *stage = container_of(timer, struct body_stage, task.timer);
    stage->state = STAGE_AWAKE;
    exchange_run(stage->task.x);  // which calls the filter again; x may be gone now
}

static struct body_filter *filter_make(struct script_chain *chain, struct exchange *x, int whose) {
    enum hook_id hook = whose == MG_REQUEST ? HOOK_request_body : HOOK_response_body;
    struct body_filter *filter =
        arena_zalloc(&x->arena, sizeof *filter + chain->count * sizeof *filter->stages);
    if (!filter)
        return NULL;
    filter->whose = whose;
    filter->x = x;
    for (unsigned i = 0; i < chain->count; i++) {
        if (chain->scripts[i].hooks[hook] == LUA_NOREF)
            continue;
        struct body_stage *stage = &filter->stages[filter->count++];
        stage->filter = filter;
        stage->task = (struct task){ .x = x, .at = i, .hook = hook };
        task_init(&stage->task, chain, stage_wake);
        stage->in = &stage->own;
        stage->out = whose == MG_REQUEST ? &x->req_body : &x->res_body;
        if (filter->count > 1)
            stage[-1].out = &stage->own;
        else
            stage->in = whose == MG_REQUEST ? &x->req_in : &x->res_in;
    }
    return filter;
}

static bool can_go_on(const struct body_stage *stage) {
    switch (stage->state) {
    case STAGE_NEW:
    case STAGE_AWAKE:
        return true;
    case STAGE_WAITS:
        if (stage->task.wait == WAIT_INPUT)
            return !queue_empty(stage->in) || body_stage_input_ended(stage);
        return stage->task.wait == WAIT_ROOM &&
            body_stage_has_room(stage, stage->filter->x->settings->buffer_low);
    case STAGE_PASSES:
        return queue_empty(stage->in) && body_stage_input_ended(stage);
    case STAGE_ENDED:
        break;
    }
    return false;
}

// What a hook does not look at goes on, whatever the hook waits for, as fast as there is room. Whether
// something did.
static bool pass_on(struct body_stage *stage) {
    if (!stage->passes || stage->state == STAGE_ENDED || queue_empty(stage->in) ||
        !body_stage_has_room(stage, stage->filter->x->settings->buffer_high))
        return false;
    queue_move(stage->out, stage->in);
    return true;
}

// False: it failed, and that fails the exchange.
static bool stage_run(struct body_stage *stage) {
    struct task *task = &stage->task;
    const char *text = NULL;
    if (stage->state == STAGE_PASSES) {
        queue_move(stage->out, &stage->tail);
        stage->state = STAGE_ENDED;
        return true;
    }
    enum outcome outcome =
        stage->state == STAGE_NEW ? task_start(task, &text) : coroutine_resume(task, &text);
    if (stage->held.block)  // a receive buffer must not wait with the hook
        block_unref(stage->held.block);
    stage->held = (struct span){ 0 };
    if (outcome == OUTCOME_WAITS) {
        stage->state = STAGE_WAITS;
        return true;
    }
    if (outcome == OUTCOME_ENDED) {
        bool bad = lua_type(task->co.lua, 2) != LUA_TNIL && !task->x->responded && !task->x->up_failed;
        if (bad)
            text = task_bad_value(task, "nothing, for the body is what it writes");
        coroutine_done(task);
        if (!bad) {
            stage->state = stage->passes ? STAGE_PASSES : STAGE_ENDED;
            return true;
        }
    }
    task_report(task, text);
    if (!task_passes_errors(task))
        return false;
    // What it read and did not write is lost; from here on everything goes through.
    stage->state = STAGE_PASSES;
    stage->passes = true;
    return true;
}

// No hook looks at the body any more, and none has something to put behind it: what has come this far goes
// on, oldest first, and the exchange needs the hooks no longer.
static bool dissolve(struct body_filter *filter) {
    for (unsigned i = 0; i < filter->count; i++)
        if (filter->stages[i].state != STAGE_PASSES || !queue_empty(&filter->stages[i].tail))
            return false;
    struct queue *out = filter->stages[filter->count - 1].out;
    for (unsigned i = filter->count; i-- > 0;)
        queue_move(out, filter->stages[i].in);
    return true;
}

// What waits between two hooks must not pin receive buffers.
static void unpin(struct body_filter *filter) {
    for (unsigned i = 1; i < filter->count; i++)
        if (filter->stages[i].own.head && queue_unpin(&filter->stages[i].own) < 0)
            log_warn("no memory to copy a body out of receive buffers (request %s)", exchange_id(filter->x));
}

static enum filter_result filter_run(struct script_chain *chain, struct exchange *x, int whose) {
    struct exchange_record *record = exchange_record_need(chain, x);
    if (!record || (!record->bodies[whose] && !(record->bodies[whose] = filter_make(chain, x, whose)))) {
        exchange_fail(x, 503, CLOSE_memory);
        return FILTER_WAITS;
    }
    struct body_filter *filter = record->bodies[whose];
    const struct body_stage *last = &filter->stages[filter->count - 1];
    bool moved;
    do {
        moved = false;
        if (dissolve(filter))
            return FILTER_PASSES;
        for (unsigned i = 0; i < filter->count && last->state != STAGE_ENDED; i++) {
            struct body_stage *stage = &filter->stages[i];
            if (stage->state == STAGE_ENDED)
                queue_release(stage->in);  // nobody reads it any more
            moved |= pass_on(stage);
            if (!can_go_on(stage))
                continue;
            moved = true;
            if (!stage_run(stage)) {
                exchange_fail(x, hook_failure_status(stage->task.hook), CLOSE_script_error);
                return FILTER_WAITS;
            }
            if (x->responded || x->up_failed)
                return FILTER_WAITS;  // it has answered, or cut the response off
        }
    } while (moved && last->state != STAGE_ENDED);
    if (last->state == STAGE_ENDED)
        return FILTER_ENDED;
    unpin(filter);
    return FILTER_WAITS;
}

enum filter_result body_request(void *scripts, struct exchange *x) {
    return filter_run(scripts, x, MG_REQUEST);
}

enum filter_result body_response(void *scripts, struct exchange *x) {
    return filter_run(scripts, x, MG_RESPONSE);
}

void body_drop(struct exchange_record *record) {
    for (int whose = 0; whose < 2; whose++) {
        struct body_filter *filter = record->bodies[whose];
        for (unsigned i = 0; filter && i < filter->count; i++)
            stage_release(&filter->stages[i]);
        record->bodies[whose] = NULL;
    }
}
