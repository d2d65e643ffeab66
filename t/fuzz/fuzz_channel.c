// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the packets between master and worker: the input, cut into packets by its own lengths, comes in by the
// socket. A packet that is none of ours ends the channel; one that is taken has a known type and a text that ends.
#include "fuzz.h"
#include "proc/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    int fds[2], fd = -1;
    struct channel channel;
    struct message message;
    must(channel_pair(fds) == 0);
    channel_init(&channel, fds[1]);
    for (size_t at = 0; at + 2 < len;) {
        size_t n = (size_t)(bytes[at] | bytes[at + 1] << 8) % (sizeof message + 64);
        at += 2;
        n = n < len - at ? n : len - at;
        char *packet = fuzz_copy(bytes + at, n);
        must(n == 0 || send(fds[0], packet, n, MSG_NOSIGNAL) == (ssize_t)n || errno == EAGAIN || errno == EPIPE);
        free(packet);
        at += n;
        int rc = channel_receive(&channel, &message, &fd);
        must(rc == 0 || rc == -EAGAIN || rc == -EPIPE);
        if (rc == 0) {
            must(message.type > MESSAGE_NONE && message.type < MESSAGE_TYPE_COUNT);
            must(strnlen(message.text, sizeof message.text) < sizeof message.text);
            must(*message_name((enum message_type)message.type));
            must(fd == -1);
        } else if (rc == -EPIPE) {
            break;
        }
    }
    close(fds[0]);
    channel_release(&channel);
    return 0;
}
