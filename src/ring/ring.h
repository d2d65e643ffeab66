// SPDX-License-Identifier: BSD-2-Clause
// The worker's io_uring: the only way to the kernel on the data path, and the only folder that includes
// liburing.
//
// Glossary
//   op          one request to the kernel, embedded in the object it serves. From ring_*() to the completion
//               without `more` the op and the memory it names belong to the kernel: an owner with a pending
//               op must not be freed.
//   completion  what the kernel says of an op; a multishot op has many, all but the last with `more`
//   turn        flush, submit everything and wait for completions or the next timer, handle them all, run the
//               timers, wake those who wait for receive buffers
//   flush       work that was put off to the turn's begin (struct ring_flush), so that it is done once
//   later       work of somebody who has had his share of this turn (struct ring_later): goes on in the next
//   buffer      a receive buffer lent to the kernel; data arrives as a span of it (base/block.h)
//
// To add an operation: a prep function here and in op.c; the handler goes with its owner.
#ifndef MOONGATE_RING_RING_H
#define MOONGATE_RING_RING_H

#include "base/block.h"
#include "base/error.h"
#include "base/list.h"

#include <sys/socket.h>

struct op;

struct completion {
    int res;           // as of the system call; negative errno
    bool more;         // the op stays armed
    struct span span;  // recv: the data, span.block NULL when there is none. The handler takes it.
};

struct op {
    void (*done)(struct op *op, const struct completion *c);
    bool pending;   // the kernel has it
    uint8_t group;  // of receive buffers: the ring's own use
#ifdef MOONGATE_FAULTS
    int forced;  // the result, instead of the kernel's
#endif
};

static inline void op_init(struct op *op, void (*done)(struct op *op, const struct completion *c)) {
    op->done = done;
    op->pending = false;
}

// Work to be done once before the ring submits: a conn with output, or one that ends. Linked at most once.
struct ring_flush {
    struct list link;
    void (*flush)(struct ring_flush *flush);
};

// What its owner does not do at once so that others get their turn: run() is called once, in the next turn or,
// when much was put off, in a later one, after what arrived until then; the ring does not sleep meanwhile.
// Linked at most once; list_remove(&link) takes it back.
struct ring_later {
    struct list link;
    void (*run)(struct ring_later *later);
};

struct ring_options {
    unsigned entries;      // of the submission queue
    size_t receive_bytes;  // memory for receive buffers
};

// Call in the process that will drive the ring (after fork). The error says why io_uring is refused and how
// to allow it.
int ring_init(const struct ring_options *options, struct error *error) __attribute__((warn_unused_result));
void ring_release(void);

// One turn: flush, submit, wait (at most until the next timer or max_wait_ms), handle. Negative errno when
// the ring broke.
int ring_turn(uint64_t max_wait_ms) __attribute__((warn_unused_result));
void ring_flush_later(struct ring_flush *flush);
// For what runs without a ring (tests of scripts): what was put off is kept, and done when told; whether there
// was something.
void ring_do_without(void);
bool ring_flush_now(void);
void ring_go_on_later(struct ring_later *later);
// Whether completions wait, of this turn or since: who has more work of his own should let them pass.
bool ring_others_wait(void);

// Features found at run time, for -V: a line each, "name: yes (meaning)". Returns how many lines were
// printed.
int ring_print_features(void (*print)(void *to, const char *line), void *to);
// 0 when io_uring may be used here; else the error with cause and cure.
int ring_probe(struct error *error) __attribute__((warn_unused_result));

// Each op below must not be pending. They never fail at once: a failure arrives as a completion.
void ring_accept_multishot(struct op *op, int fd);
void ring_recv_multishot(struct op *op, int fd);
void ring_recv_once(struct op *op, int fd, size_t max);  // at most max bytes, into a receive buffer
void ring_send(struct op *op, int fd, const void *at, size_t len);
enum { RING_VECTORS = 16 };
// The bytes are the kernel's until the completion, the vectors are not.
void ring_sendv(struct op *op, int fd, const struct iovec *vectors, unsigned count);
void ring_connect(struct op *op, int fd, const struct sockaddr *addr, socklen_t len);
void ring_poll_multishot(struct op *op, int fd, unsigned events);
// One completion, at once when the descriptor is ready already: for who reads a part and asks again.
void ring_poll_once(struct op *op, int fd, unsigned events);
void ring_write(struct op *op, int fd, const void *at, size_t len);  // opened for appending
// Asks the kernel to end a pending op early; its last completion still comes (-ECANCELED or what was done by
// then).
void ring_cancel(struct op *op);
// Closes a descriptor with no op of its own: nothing of it may be pending.
void ring_close(int fd);

// True when receive buffers run short: what waits on slow receivers should be copied out (queue_unpin).
bool ring_buffers_scarce(void);
// True while somebody waits for a buffer and there is none in reserve: nothing may begin to hold one then
// that could hold it for long.
bool ring_buffers_awaited(void);
// Waits for buffers after op, a recv, failed with -ENOBUFS. fed() is called once, from a turn, in the order
// in which they began to wait and for no more of them at a time than there may be buffers: it may fail again.
struct ring_starved {
    struct list link;
    void (*fed)(struct ring_starved *starved);
};
void ring_wait_buffers(struct ring_starved *starved, const struct op *op);

#endif
