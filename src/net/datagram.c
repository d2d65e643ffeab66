// SPDX-License-Identifier: BSD-2-Clause
// Datagrams: sent and received by plain system calls that never wait, because a datagram goes whole or not
// at all and a provided buffer of the ring may have less room than one; the ring says when a call is worth
// making again. The buffer is the caller's, so a socket that waits holds none.
#include "net/datagram.h"

#include "base/slab.h"
#include "net/conn.h"
#include "ring/ring.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

struct datagram {
    int fd;
    bool closing;  // waits for the last completions
    struct op input, output;
    void (*ready)(void *owner, bool output);
    void *owner;
};

static struct slab datagram_slab = SLAB_INIT(sizeof(struct datagram), 64);
static unsigned count;

unsigned datagram_count(void) {
    return count;
}

static void drain(struct datagram *datagram) {
    if (datagram->input.pending || datagram->output.pending)
        return;  // the last completion brings us back here
    close(datagram->fd);
    slab_put(&datagram_slab, datagram);
    count--;
}

static void polled(struct datagram *datagram, bool output) {
    if (datagram->closing)
        drain(datagram);
    else
        datagram->ready(datagram->owner, output);
}

// Whatever the result: the next call finds out.
static void input_polled(struct op *op, const struct completion *c) {
    (void)c;
    polled(container_of(op, struct datagram, input), false);
}

static void output_polled(struct op *op, const struct completion *c) {
    (void)c;
    polled(container_of(op, struct datagram, output), true);
}

static int set_up(int fd, const struct addr *to) {
    const int queue = DATAGRAM_QUEUE / 2;  // the kernel doubles it
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
    // Without a name of its own a unix socket could get no answer: the kernel makes one up.
    const struct sockaddr nameless = { .sa_family = AF_UNIX };
    if (addr_family(to) == AF_UNIX && bind(fd, &nameless, sizeof nameless.sa_family) < 0)
        return -errno;
    return connect(fd, &to->sa, to->len) < 0 ? -errno : 0;
}

struct datagram *datagram_open(const struct addr *to, void (*ready)(void *owner, bool output), void *owner) {
    int fd = socket(addr_family(to), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        int error = errno;
        if (conn_means_exhausted(error))
            conn_exhausted(error);
        errno = error;
        return NULL;
    }
    struct datagram *datagram = NULL;
    int rc = set_up(fd, to);
    if (rc == 0 && !(datagram = slab_get(&datagram_slab)))
        rc = -ENOMEM;
    if (rc < 0) {
        close(fd);
        errno = -rc;
        return NULL;
    }
    *datagram = (struct datagram){ .fd = fd, .ready = ready, .owner = owner };
    op_init(&datagram->input, input_polled);
    op_init(&datagram->output, output_polled);
    count++;
    return datagram;
}

int datagram_send(struct datagram *datagram, const void *at, size_t len) {
    ssize_t n;
    do
        n = send(datagram->fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int datagram_receive(struct datagram *datagram, void *at, size_t room, size_t *ret_len) {
    ssize_t n;
    do
        n = recv(datagram->fd, at, room, MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if ((size_t)n > room)
        return -EMSGSIZE;
    *ret_len = (size_t)n;
    return 0;
}

void datagram_await(struct datagram *datagram, bool output) {
    struct op *op = output ? &datagram->output : &datagram->input;
    if (!op->pending)
        ring_poll_once(op, datagram->fd, output ? POLLOUT : POLLIN);
}

void datagram_close(struct datagram *datagram) {
    if (!datagram)
        return;
    datagram->closing = true;
    ring_cancel(&datagram->input);
    ring_cancel(&datagram->output);
    drain(datagram);
}
