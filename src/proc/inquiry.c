// SPDX-License-Identifier: BSD-2-Clause
// Both sides of an inquiry (inquiry.h). What a worker hands over is read as what a network sends is: it may have been taken
// over.
#include "proc/inquiry.h"

#include "base/log.h"
#include "net/resolver.h"
#include "proc/generation.h"
#include "proc/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000 };

// ---- the master -------------------------------------------------------------------------------------------

static void finish(struct inquiry *inquiry) {
    timer_stop(&inquiry->patience);
    inquiry->done();
    for (unsigned i = 0; i < inquiry->count; i++)
        free(inquiry->answers[i].text);
    free(inquiry->answers);
    inquiry->answers = NULL;
    inquiry->count = 0;
}

static void finish_when_complete(struct inquiry *inquiry) {
    for (unsigned i = 0; i < inquiry->count; i++)
        if (inquiry->answers[i].awaited)
            return;
    finish(inquiry);
}

static void impatient(struct timer *timer) {
    finish(container_of(timer, struct inquiry, patience));
}

void inquiry_init(struct inquiry *inquiry, void (*done)(void)) {
    *inquiry = (struct inquiry){ .done = done };
    timer_init(&inquiry->patience, impatient);
}

void inquiry_start(struct inquiry *inquiry, struct worker *workers, unsigned count) {
    if (inquiry->answers)
        return;
    inquiry->answers = calloc(count, sizeof *inquiry->answers);
    if (!inquiry->answers) {
        inquiry->done();
        return;
    }
    inquiry->count = count;
    inquiry->number++;
    timer_start(&inquiry->patience, PATIENCE_MS);
    for (unsigned i = 0; i < count; i++) {
        inquiry->answers[i].awaited = workers[i].state == WORKER_IS_serving;
        if (inquiry->answers[i].awaited)
            worker_send(&workers[i], MESSAGE_ASK, inquiry->number);
    }
    finish_when_complete(inquiry);
}

// A file in memory and no other: reading it cannot block.
static ssize_t read_file(int fd, char *text, size_t room) {
    size_t len = 0;
    if (fcntl(fd, F_GET_SEALS) < 0)
        return -errno;
    while (len < room) {
        ssize_t n = pread(fd, text + len, room - len, (off_t)len);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

// -EINVAL: not whole lines of text.
static int take(struct inquiry_answer *answer, int fd) {
    char *text = malloc(INQUIRY_TEXT_MAX + 1);
    if (!text)
        return -ENOMEM;
    ssize_t len = read_file(fd, text, INQUIRY_TEXT_MAX);
    for (ssize_t i = 0; i < len; i++)
        if ((text[i] < ' ' && text[i] != '\t' && text[i] != '\n') || text[i] > '~')
            len = -EINVAL;
    if (len > 0 && text[len - 1] != '\n')
        len = -EINVAL;
    if (len < 0) {
        free(text);
        return (int)len;
    }
    text[len] = 0;
    answer->text = text;
    answer->len = (size_t)len;
    return 0;
}

void inquiry_told(struct inquiry *inquiry, unsigned worker, uint64_t number, int fd) {
    if (worker >= inquiry->count || number != inquiry->number || !inquiry->answers[worker].awaited)
        return;
    int code = fd < 0 ? -EBADF : take(&inquiry->answers[worker], fd);
    if (code < 0)
        log_error("cannot read what worker %u knows: %s", worker, strerror(-code));
    inquiry->answers[worker].awaited = false;
    finish_when_complete(inquiry);
}

void inquiry_lost(struct inquiry *inquiry, unsigned worker) {
    if (worker >= inquiry->count || !inquiry->answers[worker].awaited)
        return;
    inquiry->answers[worker].awaited = false;
    finish_when_complete(inquiry);
}

// ---- a worker ---------------------------------------------------------------------------------------------

// What does not fit ends with the last line that does.
static void write_answer(FILE *out, const struct generation *generation) {
    enum { LINE_MAX_BYTES = 64 << 10 };
    if (generation && generation->resolver)
        resolver_print(generation->resolver, out, INQUIRY_TEXT_MAX - LINE_MAX_BYTES);
}

void inquiry_answer(struct channel *channel, uint64_t number, const struct generation *generation) {
    int fd = memfd_create("moongate-answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    FILE *out = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (out) {
        write_answer(out, generation);
        fclose(out);
    } else {
        log_error("cannot make a file in memory: %s", strerror(errno));
        if (copy >= 0)
            close(copy);
    }
    (void)channel_send(channel, MESSAGE_TELL, number, NULL, out ? fd : -1);
    if (fd >= 0)
        close(fd);
}
