// SPDX-License-Identifier: BSD-2-Clause
// The accepting half of listener.h: one multishot accept a listener, drained before it is closed so that no
// connection that the kernel handed over is lost. Binding is bind.c's. Called by the worker.
#include "net/listener.h"

#include "base/counters.h"
#include "net/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void end(struct listener *listener) {
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
    if (c->res < 0 && conn_means_exhausted(-c->res)) {
        conn_exhausted(-c->res);
        return;
    }
    // Errors of one connection (ECONNABORTED and the like) end the multishot as well.
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
