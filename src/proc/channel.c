// SPDX-License-Identifier: BSD-2-Clause
// Packets with a descriptor between master and worker, as channel.h's table says. Who may send what when is
// decided by the callers: reload.c and workers.c on one side, worker.c on the other.
#include "proc/channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_MAX = 4096 };

// A message that waits, with a descriptor of its own.
struct parcel {
    struct list link;
    int fd;
    size_t size;
    char bytes[];
};

const char *message_name(enum message_type type) {
    static const char *const names[] = { "none",
#define X(name) #name,
                                         CHANNEL_MESSAGES(X)
#undef X
    };
    return type < MESSAGE_TYPE_COUNT ? names[type] : "?";
}

int channel_pair(int ret_fds[2]) {
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) < 0 ? -errno : 0;
}

void channel_init(struct channel *channel, int fd) {
    channel->fd = fd;
    channel->queued = 0;
    list_init(&channel->queue);
}

static void parcel_free(struct channel *channel, struct parcel *parcel) {
    list_remove(&parcel->link);
    channel->queued--;
    if (parcel->fd >= 0)
        close(parcel->fd);
    free(parcel);
}

void channel_release(struct channel *channel) {
    list_each(link, &channel->queue) parcel_free(channel, container_of(link, struct parcel, link));
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
}

// 0, -EAGAIN (try later) or -EPIPE.
static int send_packet(int to, const void *bytes, size_t size, int fd) {
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec vector = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = size };
    struct msghdr header = { .msg_iov = &vector, .msg_iovlen = 1 };
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.room;
        header.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do
        n = sendmsg(to, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0;
    // ETOOMANYREFS: too many descriptors are on their way to processes that have not fetched them yet.
    return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS ? -EAGAIN : -EPIPE;
}

int channel_send(struct channel *channel, enum message_type type, uint64_t number, const char *text, int fd) {
    struct message message = { .type = type, .number = number };
    if (channel->fd < 0)
        return -EPIPE;
    size_t len = text ? strnlen(text, sizeof message.text - 1) : 0;
    memcpy(message.text, text ? text : "", len);
    message.text[len] = 0;
    size_t size = offsetof(struct message, text) + len + 1;

    int code = list_empty(&channel->queue) ? send_packet(channel->fd, &message, size, fd) : -EAGAIN;
    if (code != -EAGAIN)
        return code;
    if (channel->queued >= QUEUE_MAX)
        return -ENOBUFS;
    struct parcel *parcel = malloc(sizeof *parcel + size);
    if (!parcel)
        return -ENOMEM;
    parcel->fd = fd >= 0 ? dup(fd) : -1;
    if (fd >= 0 && parcel->fd < 0) {
        free(parcel);
        return -ENOMEM;
    }
    parcel->size = size;
    memcpy(parcel->bytes, &message, size);
    list_push_back(&channel->queue, &parcel->link);
    channel->queued++;
    return 0;
}

int channel_flush(struct channel *channel) {
    while (!list_empty(&channel->queue)) {
        struct parcel *parcel = container_of(channel->queue.next, struct parcel, link);
        int code =
            channel->fd < 0 ? -EPIPE : send_packet(channel->fd, parcel->bytes, parcel->size, parcel->fd);
        if (code < 0)
            return code;
        parcel_free(channel, parcel);
    }
    return 0;
}

int channel_receive(struct channel *channel, struct message *ret_message, int *ret_fd) {
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec vector = { .iov_base = ret_message, .iov_len = sizeof *ret_message };
    struct msghdr header = {
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof control.room,
    };
    ssize_t n;
    if (channel->fd < 0)
        return -EPIPE;
    // ECONNRESET says once that the other side ended with our messages unread; its own last ones still stand
    // behind it.
    int resets = 0;
    do
        n = recvmsg(channel->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
    if (n < 0)
        return errno == EAGAIN ? -EAGAIN : -EPIPE;
    *ret_fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int)))
            memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
    if ((size_t)n <= offsetof(struct message, text) || ret_message->type == MESSAGE_NONE ||
        ret_message->type >= MESSAGE_TYPE_COUNT) {
        // No packet (the other side closed), or none of ours.
        if (*ret_fd >= 0)
            close(*ret_fd);
        *ret_fd = -1;
        return -EPIPE;
    }
    ((char *)ret_message)[n - 1] = 0;
    return 0;
}
