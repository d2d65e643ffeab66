// SPDX-License-Identifier: BSD-2-Clause
// Bodies for scripts: piece by piece in the body hooks (their coroutines are body.c's), as a whole in the
// hooks before, replaced, passed on, and cut off. lua/moongate.lua makes iterators and waits of it.
#include "script/api_impl.h"

#include "base/handle.h"
#include "script/host.h"

#include <errno.h>

static struct exchange *exchange_of(double handle) {
    return handle_get(HANDLE_EXCHANGE, mg_handle(handle));
}

static const char *hook_of(int whose) {
    return whose == MG_REQUEST ? "request_body" : "response_body";
}

// ---- in the body hooks ------------------------------------------------------------------------------------

// The stage that calls; MG_STALE, or MG_ERROR for a call in another place.
static int stage_of(double handle, int whose, const char *call, struct body_stage **ret_stage) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    *ret_stage = body_stage_running(x, whose);
    return *ret_stage ? MG_OK : mg_error("%s() is for the %s hook", call, hook_of(whose));
}

static void changed(const struct body_stage *stage) {
    struct exchange *x = stage->filter->x;
    if (stage->filter->whose == MG_REQUEST)
        x->req_changed = true;
    else
        x->res_changed = true;
}

static void let_go_of_held(struct body_stage *stage) {
    if (stage->held.block)
        block_unref(stage->held.block);
    stage->held = (struct span){ 0 };
}

int mg_body_read(double handle, int whose, struct mg_text *ret_text) {
    struct body_stage *stage;
    int rc = stage_of(handle, whose, "body", &stage);
    if (rc != MG_OK)
        return rc;
    if (stage->passes)
        return mg_error("the rest of the body was passed on: there is nothing more to read");
    let_go_of_held(stage);
    if (queue_take(stage->in, &stage->held)) {
        changed(stage);
        mg_text_set(ret_text, slice_make(stage->held.at, stage->held.len));
        return MG_OK;
    }
    if (body_stage_input_ended(stage))
        return MG_NONE;
    stage->task.wait = WAIT_INPUT;
    return MG_WAIT;
}

int mg_body_write(double handle, int whose, const char *at, size_t len) {
    struct body_stage *stage;
    int rc = stage_of(handle, whose, "write", &stage);
    if (rc != MG_OK)
        return rc;
    if (stage->passes)
        return mg_error("the rest of the body was passed on: only append() can add to it");
    if (queue_copy(stage->out, at, len) < 0)
        return mg_error("memory is out");
    if (len > 0)
        changed(stage);
    if (body_stage_has_room(stage, stage->filter->x->settings->buffer_high))
        return MG_OK;
    stage->task.wait = WAIT_ROOM;
    return MG_WAIT;
}

int mg_body_pass(double handle, int whose) {
    struct body_stage *stage;
    int rc = stage_of(handle, whose, "pass", &stage);
    if (rc != MG_OK)
        return rc;
    let_go_of_held(stage);
    stage->passes = true;
    return MG_OK;
}

int mg_body_append(double handle, int whose, const char *at, size_t len) {
    struct body_stage *stage;
    int rc = stage_of(handle, whose, "append", &stage);
    if (rc != MG_OK)
        return rc;
    uint64_t most = stage->filter->x->settings->script_body_limit;
    if (stage->tail.bytes + len > most)
        return mg_error("more than %llu bytes are to be appended (script_body_limit)",
                        (unsigned long long)most);
    if (queue_copy(&stage->tail, at, len) < 0)
        return mg_error("memory is out");
    if (len > 0)
        changed(stage);
    let_go_of_held(stage);
    stage->passes = true;
    return MG_OK;
}

int mg_body_abort(double handle, int whose, int status) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    if (!body_stage_running(x, whose))
        return mg_error("abort() is for the %s hook: elsewhere a request is answered with req:respond(...)",
                        hook_of(whose));
    if (status < 400 || status > 599)
        return mg_error("the status of an error is 400 to 599");
    exchange_fail(x, (unsigned)status, CLOSE_script_abort);
    return MG_OK;
}

// ---- in the hooks before ----------------------------------------------------------------------------------

static int too_late(int whose) {
    return whose == MG_REQUEST
        ? mg_error(
              "the body of the request is on its way: this is for the request hook, and for the route hook "
              "until the request was sent")
        : mg_error("this is for the response hook, when an upstream server has answered");
}

// Only the hook itself is woken when the body is there, no task beside it.
static bool hook_runs(const struct exchange *x) {
    const struct exchange_record *record = x->script;
    return record && task_running == &record->task;
}

int mg_body_whole(double handle, int whose, double limit, struct mg_text *ret_text) {
    struct exchange *x = exchange_of(handle);
    const struct queue *body;
    if (!x)
        return MG_STALE;
    if (!hook_runs(x))
        return mg_error("read_body() is for the hook of the request itself");
    double most = (double)x->settings->script_body_limit;
    if (limit < 0)
        limit = most;
    if (!(limit <= most))
        return mg_error("read_body() takes a limit of at most %.0f bytes (script_body_limit)", most);
    switch (exchange_body_whole(x, whose == MG_RESPONSE, (size_t)limit, &body)) {
    case 0:
        break;
    case -EAGAIN:
        task_running->wait = WAIT_INPUT;
        return MG_WAIT;
    case -EFBIG:
        return MG_NONE;
    case -EPIPE:
        return MG_CUT;
    default:
        return too_late(whose);
    }
    if (body->bytes == 0 || !body->head->next) {
        mg_text_set(ret_text, body->bytes == 0 ? slice_make("", 0)
                                               : slice_make(body->head->span.at, body->head->span.len));
        return MG_OK;
    }
    char *text = mg_scratch(body->bytes), *to = text;
    if (!text)
        return mg_error("memory is out");
    for (const struct piece *piece = body->head; piece; piece = piece->next) {
        memcpy(to, piece->span.at, piece->span.len);
        to += piece->span.len;
    }
    mg_text_set(ret_text, slice_make(text, body->bytes));
    return MG_OK;
}

int mg_body_replace(double handle, int whose, const char *at, size_t len) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    if (!hook_runs(x))
        return mg_error("set_body() is for the hook of the request itself");
    switch (exchange_replace_body(x, whose == MG_RESPONSE, slice_make(at, len))) {
    case 0:
        return MG_OK;
    case -EINVAL:
        return mg_error("a response %u has no body", x->res.status);
    case -ENOMEM:
        return mg_error("memory is out");
    default:
        return too_late(whose);
    }
}
