// SPDX-License-Identifier: BSD-2-Clause
// What the files of the ring share among themselves: ring.c (set-up and turn), op.c (preparing operations),
// buffers.c (receive buffers), faults.c (failures on purpose, in builds for tests). Nobody else includes it.
#ifndef MOONGATE_RING_ENGINE_H
#define MOONGATE_RING_ENGINE_H

#include "ring/compat.h"
#include "ring/ring.h"

// Two groups, because the order of completions is the order of bytes in a shared incremental buffer only
// among operations of one kind: multishot completions are posted at once, single ones at the end of a batch.
enum buffer_group { GROUP_MULTI, GROUP_ONCE, GROUP_COUNT };

struct engine {
    struct io_uring ring;
    bool ready;
    struct list flushes;  // struct ring_flush
    struct list later;    // struct ring_later, for the next turn
    unsigned unhandled;   // completions of this turn whose handlers are still to be called
};
extern struct engine engine;

struct io_uring_sqe *engine_sqe(struct op *op);
void op_submitted(void);  // the submission queue was emptied
void op_cancel_now(struct op *op);

int buffers_init(size_t bytes, struct error *error);
void buffers_release(void);
// The span of a completion of op that carries a buffer; span.block NULL when res <= 0.
struct span buffers_received(const struct op *op, int res, unsigned cqe_flags);
void buffers_feed(void);     // wakes the starved for whom there are buffers
bool buffers_to_feed(void);  // more could be woken: the next turn must not wait
bool buffers_incremental(void);

#ifdef MOONGATE_FAULTS
void faults_prepared(struct io_uring_sqe *sqe, struct op *op);  // may change the entry, or put a fault in its place
int faults_completed(struct op *op, int res, bool more);        // the result that its owner is told
bool faults_put_off(struct op *op);                             // whether a cancel of it waits: faults_turn() will do it
bool faults_turn(void);                                         // whether some wait still
#else
static inline void faults_prepared(struct io_uring_sqe *sqe, struct op *op) {
    (void)sqe, (void)op;
}
static inline int faults_completed(struct op *op, int res, bool more) {
    (void)op, (void)more;
    return res;
}
static inline bool faults_put_off(struct op *op) {
    (void)op;
    return false;
}
static inline bool faults_turn(void) {
    return false;
}
#endif

#endif
