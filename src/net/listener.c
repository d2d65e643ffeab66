// SPDX-License-Identifier: BSD-2-Clause
// The accepting half of listener.h: one multishot accept a listener, drained before it is closed so that no
// connection that the kernel handed over is lost. Binding is bind.c's. Called by the worker.
#include "net/listener.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 100 };

static void end(struct listener *listener) {
    timer_stop(&listener->retry);
    list_remove(&listener->link);
    ring_close(listener->fd);
    listener->stopped(listener);
}

static void accept_done(struct op *op, const struct completion *c) {
    struct listener *listener = container_of(op, struct listener, accept);
    if (c->res >= 0) {
        counters->connections_accepted++;
        listener->accepted(listener, c->res);
    }
    if (c->more)
        return;
    if (listener->stopping) {
        end(listener);
        return;
    }
    if (!listener->accepting)
        return;
    if (c->res == -EMFILE || c->res == -ENFILE || c->res == -ENOMEM || c->res == -ENOBUFS) {
        static struct log_limit limit;
        uint32_t suppressed;
        counters->connections_limited++;
        if (log_limit_pass(&limit, 1, &suppressed))
            log_error("listener \"%s\": accepting failed: %s; new connections wait, trying again every %d ms "
                      "(raise the limit of open files, or lower `connections`)",
                      listener->name, strerror(-c->res), RETRY_MS);
        timer_start(&listener->retry, RETRY_MS);
        return;
    }
    // Errors of one connection (ECONNABORTED and the like) end the multishot as well.
    ring_accept_multishot(&listener->accept, listener->fd);
}

static void retry(struct timer *timer) {
    struct listener *listener = container_of(timer, struct listener, retry);
    if (listener->accepting && !listener->accept.pending)
        ring_accept_multishot(&listener->accept, listener->fd);
}

struct listener *listener_new(const char *name, int fd, void (*accepted)(struct listener *listener, int fd),
                              void *owner) {
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return NULL;
    snprintf(listener->name, sizeof listener->name, "%s", name);
    listener->fd = fd;
    listener->accepted = accepted;
    listener->owner = owner;
    list_init(&listener->link);
    timer_init(&listener->retry, retry);
    op_init(&listener->accept, accept_done);
    return listener;
}

void listener_start(struct listener *listener) {
    listener->accepting = true;
    if (!listener->accept.pending)
        ring_accept_multishot(&listener->accept, listener->fd);
    // else a pause's cancel is under way: its completion finds `accepting` and arms again
}

void listener_pause(struct listener *listener) {
    if (!listener->accepting)
        return;
    listener->accepting = false;
    timer_stop(&listener->retry);
    ring_cancel(&listener->accept);
}

void listener_stop(struct listener *listener, void (*stopped)(struct listener *listener)) {
    listener->accepting = false;
    listener->stopping = true;
    listener->stopped = stopped;
    if (listener->accept.pending)
        ring_cancel(&listener->accept);
    else
        end(listener);
}
