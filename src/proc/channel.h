// SPDX-License-Identifier: BSD-2-Clause
// The channel between the master and one worker: a pair of SOCK_SEQPACKET sockets. A message is a packet with
// a type, a number, a text and at most one descriptor. Sending never blocks: what a busy worker does not take
// yet waits in a queue of the sender's, in order. A closed channel means that the other side is dead.
//
//   type        from    number      text       descriptor    means
//   LISTENER    master  -           name       socket        for the next LOAD; replaces one of that name
//   ACCESS_LOG  master  -           path       file          write there from now on; after reopening too
//   ERROR_LOG   master  level       -          file or none  the error log from now on; without a file
//                                                            syslog with MESSAGE_SYSLOG, else stderr
//   DICT        master  bytes       name       memfd         for the next LOAD; a known one is ignored
//   LOAD        master  generation  main file  memfd         a source: load it beside the one in use,
//                                                            answer READY or REFUSED
//   COMMIT      master  generation  -          -             take it into use; listeners start and stop
//   ABORT       master  generation  -          -             forget it, and listeners that came for it
//   QUIT        master  -           -          -             end gracefully: connections drain
//   STOP        master  -           -          -             end now
//   ASK         master  question    -          -             what the worker alone knows (inquiry.h); answer TELL
//   READY       worker  generation  -          -             loaded
//   COMMITTED   worker  generation  -          -             in use; removed listeners are closed
//   REFUSED     worker  generation  why        -             not loaded; 0: it cannot run at all
//   TELL        worker  question    -          memfd         the answer to ASK; none: it knows nothing
//
// The order for a worker that was just forked: LISTENER*, ACCESS_LOG*, DICT*, LOAD, (READY), COMMIT,
// (COMMITTED). A reload sends only those LISTENER, ACCESS_LOG and DICT that the worker does not have yet. A
// second LOAD before COMMIT replaces the first.
// To add a message: a row here and in CHANNEL_MESSAGES, a case in worker.c (orders) or workers.c (answers).
#ifndef MOONGATE_PROC_CHANNEL_H
#define MOONGATE_PROC_CHANNEL_H

#include "base/list.h"

#include <stdint.h>

#define CHANNEL_MESSAGES(X) \
    X(LISTENER) \
    X(ACCESS_LOG) \
    X(ERROR_LOG) \
    X(DICT) \
    X(LOAD) \
    X(COMMIT) \
    X(ABORT) \
    X(QUIT) \
    X(STOP) \
    X(ASK) \
    X(READY) \
    X(COMMITTED) \
    X(REFUSED) \
    X(TELL)

enum message_type {
    MESSAGE_NONE,
#define X(name) MESSAGE_##name,
    CHANNEL_MESSAGES(X)
#undef X
    MESSAGE_TYPE_COUNT
};
const char *message_name(enum message_type type);

enum { MESSAGE_TEXT_MAX = 4200, MESSAGE_SYSLOG = 1 << 8 };

struct message {
    uint32_t type;
    uint32_t reserved;
    uint64_t number;
    char text[MESSAGE_TEXT_MAX];  // with a NUL; only what is used of it travels
};

struct channel {
    int fd;
    struct list queue;   // struct parcel, of channel.c
    unsigned queued;
};

// Two connected ends: [0] the master's, [1] the worker's. Both close-on-exec and non-blocking.
int channel_pair(int ret_fds[2]) __attribute__((warn_unused_result));
void channel_init(struct channel *channel, int fd);
// Closes it; what was queued is dropped. May be called again.
void channel_release(struct channel *channel);

// fd: -1 for none; stays the caller's. A text that is too long is cut. 0 when sent or queued; -EPIPE when the
// other side is gone, -ENOBUFS when it has not taken the last few thousand messages, -ENOMEM.
int channel_send(struct channel *channel, enum message_type type, uint64_t number, const char *text, int fd);
// Sends on from the queue: 0 when nothing is left in it, -EAGAIN when something is, or -EPIPE.
int channel_flush(struct channel *channel);
// 0 and a message, with *ret_fd (the caller's to close) or -1; -EAGAIN when there is none; -EPIPE when the
// other side is gone.
int channel_receive(struct channel *channel, struct message *ret_message, int *ret_fd)
    __attribute__((warn_unused_result));

#endif
