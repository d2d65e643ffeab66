// SPDX-License-Identifier: BSD-2-Clause
// Listening sockets: bound by the master (as root), accepted from by a worker. One socket for each worker
// index and address (SO_REUSEPORT), kept open by the master, so that an accept queue outlives its worker.
#ifndef MOONGATE_NET_LISTENER_H
#define MOONGATE_NET_LISTENER_H

#include "base/addr.h"
#include "base/error.h"
#include "base/list.h"
#include "ring/ring.h"

// Binds and listens. shared: one socket serves all workers (unix sockets; no SO_REUSEPORT). Returns a
// non-blocking, close-on-exec descriptor or a negative errno with what to do about it ("address in use by
// another program", "needs root", ...).
int listener_bind(const struct addr *addr, unsigned backlog, bool shared, struct error *error)
    __attribute__((warn_unused_result));

// How many bytes of output the kernel takes for a connection accepted from then on beyond what it may send at
// once; 0: its own default. Nothing for unix sockets.
void listener_set_notsent_lowat(int fd, uint64_t bytes);

// Whether no other program listens there: with SO_REUSEPORT a second one of the same user would be let in and
// get a part of the connections. Removes the file of a unix socket at which nobody answers. Ask before the
// first listener_bind().
int listener_check_free(const struct addr *addr, struct error *error) __attribute__((warn_unused_result));

struct listener {
    struct list link;          // the worker's list
    char name[ADDR_TEXT_MAX];  // canonical address: conf_listen.name
    int fd;
    struct op accept;
    bool accepting, stopping;
    // A new descriptor: the callee takes it.
    void (*accepted)(struct listener *listener, int fd);
    void (*stopped)(struct listener *listener);  // last completion drained, fd closed; may free it
    void *owner;               // struct frontend of the current generation
};

// Takes fd.
struct listener *listener_new(const char *name, int fd, void (*accepted)(struct listener *listener, int fd),
                              void *owner);
// Accepting that fails for want of descriptors or memory is told to conn_exhausted(), who must pause the
// listener and start it when there is hope: it does not try by itself.
void listener_start(struct listener *listener);
// Stops taking from the queue without closing; listener_start() goes on.
void listener_pause(struct listener *listener);
// Cancels, drains what was accepted already (accepted() is still called for it), closes, calls stopped().
void listener_stop(struct listener *listener, void (*stopped)(struct listener *listener));

#endif
