// SPDX-License-Identifier: BSD-2-Clause
// What the kernel may do to operations and seldom does, done on purpose (base/fault.h): entries are changed on their way
// into the submission queue. Each change is one that a kernel might have made itself, so whoever cannot bear it has a
// defect. Called by op.c and ring.c; empty without --enable-faults.
#include "ring/engine.h"

#ifdef MOONGATE_FAULTS

#include "base/fault.h"

#include <errno.h>
#include <sys/uio.h>

enum { LATE_MAX = 64 };

// Cancels that wait. The op of each is pending still: faults_ended() takes out the others, as the kernel, which goes by
// order, would not find a later operation either.
static struct late {
    struct op *op;
    unsigned turns;
} late[LATE_MAX];
static unsigned late_count;

// The op ends with `error` and nothing has been done.
static void fail(struct io_uring_sqe *sqe, struct op *op, int error) {
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, op);
    op->forced = error;
}

static int again(void) {
    return fault_random(2) ? -EINTR : -EAGAIN;
}

static void receive(struct io_uring_sqe *sqe, struct op *op) {
    bool multi = sqe->ioprio & IORING_RECV_MULTISHOT;
    if (fault_hit(FAULT_recv_nobufs)) {
        fail(sqe, op, -ENOBUFS);
    } else if (fault_hit(FAULT_again)) {
        fail(sqe, op, again());
    } else if (fault_hit(FAULT_canceled)) {
        fail(sqe, op, -ECANCELED);
    } else {
        bool brief = fault_hit(FAULT_recv_short);
        if (brief || (multi && fault_hit(FAULT_once))) {
            // Single receives have buffers of their own: see enum buffer_group.
            sqe->ioprio &= (uint16_t)~IORING_RECV_MULTISHOT;
            sqe->buf_group = GROUP_ONCE;
            op->group = GROUP_ONCE;
        }
        if (brief)
            sqe->len = 1;
    }
}

static void transmit(struct io_uring_sqe *sqe, struct op *op) {
    if (fault_hit(FAULT_again)) {
        fail(sqe, op, again());
    } else if (fault_hit(FAULT_canceled)) {
        fail(sqe, op, -ECANCELED);
    } else if (fault_hit(FAULT_send_short)) {
        unsigned most = 1 + fault_random(32);
        if (sqe->opcode == IORING_OP_SEND) {
            sqe->len = sqe->len < most ? sqe->len : most;
        } else {
            struct msghdr *header = (struct msghdr *)(uintptr_t)sqe->addr;
            header->msg_iovlen = 1;
            if (header->msg_iov->iov_len > most)
                header->msg_iov->iov_len = most;
        }
    }
}

static struct op *accepts[16];  // last asked for

static void remember_accept(struct op *op) {
    static unsigned next;
    for (unsigned i = 0; i < sizeof accepts / sizeof *accepts; i++)
        if (accepts[i] == op)
            return;
    accepts[next++ % (sizeof accepts / sizeof *accepts)] = op;
}

void faults_prepared(struct io_uring_sqe *sqe, struct op *op) {
    op->forced = 0;
    switch (sqe->opcode) {
    case IORING_OP_RECV:
        receive(sqe, op);
        break;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        transmit(sqe, op);
        break;
    case IORING_OP_ACCEPT:
        remember_accept(op);
        if (fault_hit(FAULT_accept))
            fail(sqe, op, fault_random(2) ? -EMFILE : -ENFILE);
        else if (fault_hit(FAULT_again))
            fail(sqe, op, again());
        else if (fault_hit(FAULT_canceled))
            fail(sqe, op, -ECANCELED);
        else if (fault_hit(FAULT_once))
            sqe->ioprio &= (uint16_t)~IORING_ACCEPT_MULTISHOT;
        break;
    case IORING_OP_POLL_ADD:
        if (fault_hit(FAULT_once))
            sqe->len &= ~(uint32_t)IORING_POLL_ADD_MULTI;
        break;
    case IORING_OP_WRITE:
        if (fault_hit(FAULT_again))
            fail(sqe, op, -EINTR);
        else if (fault_hit(FAULT_write_short) && sqe->len > 1)
            sqe->len = 1;
        break;
    default:
        break;
    }
}

int faults_completed(struct op *op, int res, bool more) {
    for (unsigned i = 0; i < late_count && !more;)
        if (late[i].op == op)
            late[i] = late[--late_count];
        else
            i++;
    for (unsigned i = 0; i < sizeof accepts / sizeof *accepts; i++)
        if (accepts[i] == op && res >= 0 && !op->forced)
            fault_client_came();
    return op->forced ? op->forced : res;
}

bool faults_put_off(struct op *op) {
    if (late_count == LATE_MAX || !fault_hit(FAULT_cancel_late))
        return false;
    late[late_count++] = (struct late){ op, 1 + fault_random(3) };
    return true;
}

bool faults_turn(void) {
    for (unsigned i = 0; i < late_count;)
        if (--late[i].turns == 0) {
            struct op *op = late[i].op;
            late[i] = late[--late_count];
            op_cancel_now(op);
        } else {
            i++;
        }
    return late_count > 0;
}

#endif
