// SPDX-License-Identifier: BSD-2-Clause
// Collects the access log's lines in memory, two buffers a file, and writes them through the ring: one buffer
// is filled while the kernel has the other. Traffic never waits for a disk: when both are full, lines are
// dropped and counted. What a line looks like is log_format.c's.
#include "proxy/access_log.h"

#include "base/counters.h"
#include "base/list.h"
#include "base/log.h"
#include "base/timer.h"
#include "proxy/log_format.h"
#include "ring/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 1 << 19,  // what a busy turn or a slow moment of the disk brings; untouched until it is needed
    BUFFER_WRITE = 32768,    // written as soon as it holds so much
    LINE_BYTES = 65536,      // the longest line
    LINE_WAIT_MS = 1000,  // the longest that a line waits in memory, and a new file for the old one
    VALUE_SHORT = 512,    // bytes of each value of a line that does not fit as it is
};

// bytes[0] is kept free for a newline that ends somebody's torn line; lines begin at 1.
struct buffer {
    size_t used;
    char bytes[1 + BUFFER_BYTES];
};

// While the op is pending, buffers[!filling] and fd are the kernel's; otherwise that buffer is empty.
struct access_log_sink {
    struct list link;
    struct op op;
    struct timer timer;  // since the first line in the buffer that is filled, or since next_fd came
    int fd;
    int next_fd;             // takes the place of fd; -1: none
    unsigned next_after;     // buffers that the old file still gets
    unsigned filling;        // index of the buffer that takes lines
    bool due;                // what it holds is to be written as soon as the other one is done
    bool torn;               // the last byte in the file is not a newline
    bool failing;            // the last write failed
    size_t from, until;      // of the buffer that is written: what is left of it
    uint64_t dropped;        // lines lost that the error log has not told yet
    struct log_limit limit;  // of these messages
    struct buffer buffers[2];
    char path[];
};

struct access_log {
    struct log_format *format;
    struct access_log_sink *sink;
};

static struct list sinks = { &sinks, &sinks };

// ---- writing ----------------------------------------------------------------------------------------------

static void tell_dropped(struct access_log_sink *sink, int error) {
    uint32_t suppressed;
    if (sink->dropped == 0 || !log_limit_pass(&sink->limit, 1, &suppressed))
        return;
    log_warn("access log \"%s\": %llu lines lost: %s", sink->path, (unsigned long long)sink->dropped,
             error ? strerror(-error) : "it cannot be written as fast as lines come");
    sink->dropped = 0;
}

static void write_rest(struct access_log_sink *sink) {
    ring_write(&sink->op, sink->fd, sink->buffers[!sink->filling].bytes + sink->from,
               sink->until - sink->from);
}

// Hands the buffer that was being filled to the kernel; the other one takes the lines from here on. Not while
// an op is pending.
static void write_buffer(struct access_log_sink *sink) {
    struct buffer *buffer = &sink->buffers[sink->filling];
    sink->due = false;
    if (sink->next_fd < 0)
        timer_stop(&sink->timer);
    if (buffer->used == 0)
        return;
    buffer->bytes[0] = '\n';
    sink->from = sink->torn ? 0 : 1;
    sink->until = 1 + buffer->used;
    sink->filling = !sink->filling;
    write_rest(sink);
}

static void use_next_fd(struct access_log_sink *sink) {
    ring_close(sink->fd);
    sink->fd = sink->next_fd;
    sink->next_fd = -1;
    sink->torn = false;
}

// The old file takes nothing, so the new one gets what is left, from the beginning of the line that was torn.
static void move_rest(struct access_log_sink *sink) {
    const char *bytes = sink->buffers[!sink->filling].bytes;
    if (sink->from == 0)
        sink->from = 1;
    while (sink->from > 1 && bytes[sink->from - 1] != '\n')
        sink->from--;
    use_next_fd(sink);
    write_rest(sink);
}

// The buffer that was written is free again, whether its bytes reached the file or not.
static void buffer_done(struct access_log_sink *sink) {
    sink->buffers[!sink->filling].used = 0;
    if (sink->next_fd >= 0 && --sink->next_after == 0)
        use_next_fd(sink);
    if (sink->due || sink->buffers[sink->filling].used >= BUFFER_WRITE)
        write_buffer(sink);
}

// Gives up what is left of the buffer: a line that was half written is ended by the next write.
static void write_failed(struct access_log_sink *sink, int error) {
    const char *at = sink->buffers[!sink->filling].bytes + sink->from;
    const char *end = sink->buffers[!sink->filling].bytes + sink->until;
    uint64_t lines = 0;
    for (; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    lines -= sink->from == 0;  // the newline in front is no line
    counters->log_lines_dropped += lines;
    sink->dropped += lines;
    sink->failing = true;
    tell_dropped(sink, error);
    buffer_done(sink);
}

static void written(struct op *op, const struct completion *c) {
    struct access_log_sink *sink = container_of(op, struct access_log_sink, op);
    if (c->res == -ECANCELED && sink->next_fd >= 0) {
        move_rest(sink);
        return;
    }
    if (c->res == -EINTR) {
        write_rest(sink);
        return;
    }
    if (c->res <= 0) {
        write_failed(sink, c->res < 0 ? c->res : -EIO);
        return;
    }
    sink->from += (size_t)c->res;
    sink->torn = sink->buffers[!sink->filling].bytes[sink->from - 1] != '\n';
    if (sink->from < sink->until) {
        write_rest(sink);  // a short write: the next one takes more or says why not
        return;
    }
    if (sink->failing) {
        sink->failing = false;
        log_notice("access log \"%s\": written again", sink->path);
    }
    tell_dropped(sink, 0);
    buffer_done(sink);
}

static void timer_fired(struct timer *timer) {
    struct access_log_sink *sink = container_of(timer, struct access_log_sink, timer);
    if (!sink->op.pending) {
        write_buffer(sink);
        return;
    }
    sink->due = true;
    if (sink->next_fd >= 0) {  // a pipe that nobody reads must not keep the new file waiting
        ring_cancel(&sink->op);
        timer_start(&sink->timer, LINE_WAIT_MS);
    }
}

// ---- sinks ------------------------------------------------------------------------------------------------

static struct access_log_sink *find_sink(const char *path) {
    list_each(link, &sinks) {
        struct access_log_sink *sink = container_of(link, struct access_log_sink, link);
        if (strcmp(sink->path, path) == 0)
            return sink;
    }
    return NULL;
}

// What is buffered belongs into the old file: at most the buffer that is being written and the one that is
// filled.
static void reopen(struct access_log_sink *sink, int fd) {
    if (sink->next_fd >= 0) {  // the one before has not been used yet
        close(sink->next_fd);
        sink->next_fd = fd;
        return;
    }
    sink->next_fd = fd;
    sink->next_after = sink->op.pending + (sink->buffers[sink->filling].used > 0);
    if (sink->next_after == 0) {
        use_next_fd(sink);
        return;
    }
    timer_start(&sink->timer, LINE_WAIT_MS);
    if (sink->op.pending)
        sink->due = true;
    else
        write_buffer(sink);
}

struct access_log_sink *access_log_sink_open(const char *path, int fd) {
    struct access_log_sink *sink = find_sink(path);
    if (sink) {
        reopen(sink, fd);
        return sink;
    }
    sink = calloc(1, sizeof *sink + strlen(path) + 1);
    if (!sink) {
        close(fd);
        return NULL;
    }
    op_init(&sink->op, written);
    timer_init(&sink->timer, timer_fired);
    sink->fd = fd;
    sink->next_fd = -1;
    memcpy(sink->path, path, strlen(path) + 1);
    list_push_back(&sinks, &sink->link);
    return sink;
}

void access_log_flush_all(void) {
    list_each(link, &sinks) {
        struct access_log_sink *sink = container_of(link, struct access_log_sink, link);
        if (sink->op.pending)
            sink->due = true;
        else
            write_buffer(sink);
    }
}

bool access_log_idle(void) {
    list_each(link, &sinks) {
        const struct access_log_sink *sink = container_of(link, struct access_log_sink, link);
        if (sink->op.pending || sink->buffers[sink->filling].used > 0)
            return false;
    }
    return true;
}

// ---- logs -------------------------------------------------------------------------------------------------

void access_log_set_worker(unsigned worker) {
    log_format_set_worker(worker);
}

int access_log_check(const char *format, struct error *error) {
    struct log_format *compiled;
    int rc = log_format_new(LOG_STYLE_FORMAT, format, &compiled, error);
    if (rc == 0)
        log_format_free(compiled);
    return rc;
}

void access_log_print_variables(void (*print)(void *to, const char *name, const char *doc), void *to) {
    log_format_print_variables(print, to);
}

int access_log_new(const struct conf_access_log *conf, struct access_log **ret_log, struct error *error) {
    struct access_log_sink *sink = find_sink(conf->path);
    if (!sink)
        return error_set(error, -ENOENT, "access log \"%s\": no descriptor was opened for it", conf->path);
    struct access_log *log = calloc(1, sizeof *log);
    if (!log)
        return error_set(error, -ENOMEM, "access log \"%s\": memory is out", conf->path);
    log->sink = sink;
    int rc = log_format_new(conf->style, conf->format ? conf->format->text : NULL, &log->format, error);
    if (rc < 0) {
        free(log);
        return error_prefix(error, rc, "access log \"%s\"", conf->path);
    }
    *ret_log = log;
    return 0;
}

void access_log_free(struct access_log *log) {
    if (!log)
        return;
    log_format_free(log->format);
    free(log);
}

static size_t print_line(const struct access_log *log, struct exchange *x, size_t limit) {
    struct buffer *buffer = &log->sink->buffers[log->sink->filling];
    size_t room = BUFFER_BYTES - buffer->used;
    return log_format_line(log->format, x, buffer->bytes + 1 + buffer->used,
                           room < LINE_BYTES ? room : LINE_BYTES, limit);
}

void access_log_write(struct access_log *log, struct exchange *x) {
    struct access_log_sink *sink = log->sink;
    size_t len = print_line(log, x, SIZE_MAX);
    if (len == 0 && !sink->op.pending) {
        write_buffer(sink);
        len = print_line(log, x, SIZE_MAX);
    }
    if (len == 0)
        len = print_line(log, x, VALUE_SHORT);
    if (len == 0) {
        counters->log_lines_dropped++;
        sink->dropped++;
        tell_dropped(sink, 0);
        return;
    }
    struct buffer *buffer = &sink->buffers[sink->filling];
    bool first = buffer->used == 0;
    buffer->used += len;
    if (!sink->op.pending && buffer->used >= BUFFER_WRITE)
        write_buffer(sink);
    else if (first && !timer_running(&sink->timer))
        timer_start(&sink->timer, LINE_WAIT_MS);
}
