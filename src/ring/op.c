// SPDX-License-Identifier: BSD-2-Clause
// One function an operation: fills a submission entry and marks the op as the kernel's. Called by conns,
// listeners, logs.
#include "ring/engine.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/fault.h"

#include <errno.h>
#include <string.h>

static struct io_uring_sqe *next_sqe(void) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&engine.ring);
    while (!sqe) {
        // The submission queue is full: what stands in it goes now; entries are copied by the kernel at once.
        int rc = io_uring_submit(&engine.ring);
        check_fatal(rc >= 0 || rc == -EBUSY || rc == -EINTR || rc == -EAGAIN);
        sqe = io_uring_get_sqe(&engine.ring);
    }
    counters->ring_submissions++;
    return sqe;
}

struct io_uring_sqe *engine_sqe(struct op *op) {
    check_fatal(!op->pending);
    op->pending = true;
    return next_sqe();
}

// After a prep function, which clears user_data in some versions of liburing.
static void own(struct io_uring_sqe *sqe, struct op *op, enum buffer_group group) {
    op->group = (uint8_t)group;
    io_uring_sqe_set_data(sqe, op);
    faults_prepared(sqe, op);
}

void ring_accept_multishot(struct op *op, int fd) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    own(sqe, op, GROUP_MULTI);
}

void ring_recv_multishot(struct op *op, int fd) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP_MULTI;
    own(sqe, op, GROUP_MULTI);
}

void ring_recv_once(struct op *op, int fd, size_t max) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_recv(sqe, fd, NULL, max, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP_ONCE;
    own(sqe, op, GROUP_ONCE);
}

void ring_send(struct op *op, int fd, const void *at, size_t len) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_send(sqe, fd, at, len, MSG_NOSIGNAL);
    own(sqe, op, GROUP_MULTI);
}

// The kernel copies message headers and vectors when it takes the submission (SUBMIT_STABLE), so they need to
// live only until then: a few are kept here and reused after each submission.
static struct {
    struct msghdr header;
    struct iovec vectors[RING_VECTORS];
} messages[256];
static unsigned messages_used;

void op_submitted(void) {
    messages_used = 0;
}

void ring_sendv(struct op *op, int fd, const struct iovec *vectors, unsigned count) {
    check_fatal(count <= RING_VECTORS);
    if (messages_used == sizeof messages / sizeof *messages) {
        int rc = io_uring_submit(&engine.ring);
        check_fatal(rc >= 0 || rc == -EBUSY || rc == -EINTR || rc == -EAGAIN);
        if (io_uring_sq_ready(&engine.ring) == 0)
            messages_used = 0;
    }
    check_fatal(messages_used < sizeof messages / sizeof *messages);
    struct msghdr *header = &messages[messages_used].header;
    memcpy(messages[messages_used].vectors, vectors, count * sizeof *vectors);
    *header = (struct msghdr){ .msg_iov = messages[messages_used].vectors, .msg_iovlen = count };
    messages_used++;
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_sendmsg(sqe, fd, header, MSG_NOSIGNAL);
    own(sqe, op, GROUP_MULTI);
}

void ring_connect(struct op *op, int fd, const struct sockaddr *addr, socklen_t len) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_connect(sqe, fd, addr, len);
    own(sqe, op, GROUP_MULTI);
}

void ring_poll_multishot(struct op *op, int fd, unsigned events) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_poll_multishot(sqe, fd, events);
    own(sqe, op, GROUP_MULTI);
}

void ring_poll_once(struct op *op, int fd, unsigned events) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_poll_add(sqe, fd, events);
    own(sqe, op, GROUP_MULTI);
}

void ring_write(struct op *op, int fd, const void *at, size_t len) {
    struct io_uring_sqe *sqe = engine_sqe(op);
    io_uring_prep_write(sqe, fd, at, (unsigned)len, (uint64_t)-1);  // -1: at the file's own position
    own(sqe, op, GROUP_MULTI);
}

// Cancelling and closing have no op: nobody waits for their completion, whose user_data of 0 is passed over.
void ring_cancel(struct op *op) {
    if (op->pending && !faults_put_off(op))
        op_cancel_now(op);
}

void op_cancel_now(struct op *op) {
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data64(sqe, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    if (fault_hit(FAULT_cancel_early))
        io_uring_submit(&engine.ring);
}

void ring_close(int fd) {
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_close(sqe, fd);
    io_uring_sqe_set_data64(sqe, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}
