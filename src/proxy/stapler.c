// SPDX-License-Identifier: BSD-2-Clause
// The inner exchanges (http/inner.h) that ask OCSP responders (stapler.h): a request of a few bytes, a response of at
// most OCSP_MAX, in OCSP_PATIENCE.
//
// What came of an exchange is judged in the ring's next flush: nothing is ended from within its own calls.
#include "proxy/stapler.h"

#include "base/clock.h"
#include "base/timer.h"
#include "http/inner.h"
#include "tls/ocsp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    AT_ONCE = 8,       // questions of one worker
    CROWDED_MS = 100,  // until there may be room for another
};

struct question {
    struct question *next;
    struct stapler *stapler;
    struct ocsp *ocsp;
    struct exchange_site site;  // the frontend's for requests of its own, with other settings
    struct conf_settings settings;
    uint64_t due_ms;  // when to look whether to ask
    struct inner inner;
    bool asking;  // `flusher` or `inner` will end it
    unsigned status;
    struct queue body;
    const char *why;  // it failed
    struct timer patience;
    struct ring_flush flusher;
};

struct stapler {
    struct question *questions;
    unsigned asking;
    struct timer timer;
};

// ---- what comes --------------------------------------------------------------------------------------------

static struct question *of_inner(struct inner *inner) {
    return container_of(inner, struct question, inner);
}

static int take_head(struct inner *inner, const struct response *res) {
    of_inner(inner)->status = res->status;
    return 0;
}

static int take_body(struct inner *inner, struct queue *body) {
    struct question *question = of_inner(inner);
    if (question->why || question->status != 200) {
        queue_release(body);
        return 0;
    }
    queue_move(&question->body, body);
    if (question->body.bytes > OCSP_MAX) {
        question->why = "the response is too large";
        queue_release(&question->body);
        ring_flush_later(&question->flusher);
        return 0;
    }
    return queue_unpin(&question->body);
}

static void over(struct inner *inner, struct exchange *x, enum close_reason failure) {
    (void)x;
    struct question *question = of_inner(inner);
    if (failure != CLOSE_none && !question->why)
        question->why = close_reason_text(failure);
    ring_flush_later(&question->flusher);
}

static const struct inner_ops inner_ops = { .head = take_head, .body = take_body, .over = over };

// ---- asking -----------------------------------------------------------------------------------------------

static void let_go(struct question *question) {
    inner_cancel(&question->inner);
    timer_stop(&question->patience);
    list_remove(&question->flusher.link);
    queue_release(&question->body);
    question->stapler->asking -= question->asking;
    question->asking = false;
    question->why = NULL;
    question->status = 0;
}

static void judge(struct question *question) {
    static char body[OCSP_MAX];
    size_t len = 0;
    struct span span;
    char text[64];
    if (!question->why && question->status != 200) {
        snprintf(text, sizeof text, "it answers with status %u", question->status);
        question->why = text;
    }
    while (!question->why && queue_take(&question->body, &span)) {
        memcpy(body + len, span.at, span.len);
        len += span.len;
        block_unref(span.block);
    }
    if (question->why)
        ocsp_failed(question->ocsp, question->why);
    else
        ocsp_answered(question->ocsp, slice_make(body, len));
    let_go(question);
    question->due_ms = clock_ms();
    timer_start(&question->stapler->timer, 1);
}

static void flush(struct ring_flush *flusher) {
    struct question *question = container_of(flusher, struct question, flusher);
    if (!question->why && inner_is_new(&question->inner))
        inner_start(&question->inner);
    else
        judge(question);
}

static void too_late(struct timer *timer) {
    struct question *question = container_of(timer, struct question, patience);
    question->why = "no response within ten seconds";
    ring_flush_later(&question->flusher);
}

// NULL: the exchange is ready to be started.
static const char *prepare(struct question *question) {
    const struct ocsp *ocsp = question->ocsp;
    struct inner *inner = &question->inner;
    struct inner_request request = {
        .method = SLICE_LIT("POST"),
        .target = slice_of(ocsp->target),
        .to = slice_of(ocsp->to),
        .host = slice_of(ocsp->host),
    };
    const char *why = inner_make(inner, &inner_ops, &question->site, &request);
    if (!why && (inner_field(inner, SLICE_LIT("Content-Type"), SLICE_LIT("application/ocsp-request")) < 0 ||
                 inner_field(inner, SLICE_LIT("Accept"), SLICE_LIT("application/ocsp-response")) < 0 ||
                 inner_body(inner, slice_make(ocsp->request.at, ocsp->request.len)) < 0))
        why = "memory is out";
    return why;
}

static void ask(struct question *question) {
    question->asking = true;
    question->stapler->asking++;
    question->why = prepare(question);
    timer_start(&question->patience, OCSP_PATIENCE);
    ring_flush_later(&question->flusher);
}

static void look(struct timer *timer) {
    struct stapler *stapler = container_of(timer, struct stapler, timer);
    uint64_t next = UINT64_MAX;
    for (struct question *question = stapler->questions; question; question = question->next) {
        uint64_t wait = 0;
        if (question->asking)
            continue;
        if (question->due_ms > clock_ms())
            wait = question->due_ms - clock_ms();
        else if (stapler->asking >= AT_ONCE)
            wait = CROWDED_MS;
        else if (ocsp_due(question->ocsp, &wait)) {
            ask(question);
            continue;
        }
        question->due_ms = clock_ms() + wait;
        if (wait < next)
            next = wait;
    }
    if (next != UINT64_MAX)
        timer_start(&stapler->timer, next);
}

void stapler_go(struct stapler *stapler) {
    timer_start(&stapler->timer, 1);
}

// ---- life -------------------------------------------------------------------------------------------------

static int add(struct stapler *stapler, struct frontend *frontend, struct ocsp *ocsp) {
    // Where the responder is says the certificate, or the configuration: no client, and no script.
    static const struct conf_allow anywhere = { .any = true };
    struct question *question = calloc(1, sizeof *question);
    if (!question)
        return -ENOMEM;
    question->stapler = stapler;
    question->ocsp = ocsp;
    question->site = *frontend_inner_site(frontend);
    question->settings = *question->site.settings;
    question->settings.route_allow = &anywhere;
    question->site.settings = &question->settings;
    timer_init(&question->patience, too_late);
    list_init(&question->flusher.link);
    question->flusher.flush = flush;
    question->next = stapler->questions;
    stapler->questions = question;
    return 0;
}

int stapler_add(struct stapler **stapler, struct frontend *frontend, struct error *error) {
    unsigned at = 0;
    for (struct ocsp *list; (list = frontend_staples(frontend, &at));)
        for (struct ocsp *ocsp = list; ocsp; ocsp = ocsp->next) {
            if (ocsp->why)
                continue;
            if (!*stapler) {
                *stapler = calloc(1, sizeof **stapler);
                if (*stapler)
                    timer_init(&(*stapler)->timer, look);
            }
            if (!*stapler || add(*stapler, frontend, ocsp) < 0)
                return error_set(error, -ENOMEM, "memory is out");
        }
    return 0;
}

void stapler_stop(struct stapler *stapler) {
    timer_stop(&stapler->timer);
    for (struct question *question = stapler->questions; question; question = question->next) {
        if (question->asking)
            ocsp_dropped(question->ocsp);
        let_go(question);
    }
}

void stapler_free(struct stapler *stapler) {
    if (!stapler)
        return;
    stapler_stop(stapler);
    while (stapler->questions) {
        struct question *question = stapler->questions;
        stapler->questions = question->next;
        free(question);
    }
    free(stapler);
}
