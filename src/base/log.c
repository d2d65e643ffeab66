// SPDX-License-Identifier: BSD-2-Clause
// Writes the error log with one write(2) or syslog(3) a line. Bytes that could forge a line or drive a
// terminal are escaped here, so callers may print what a peer sent. Called from everywhere.
#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum log_level log_threshold = LOG_LEVEL_notice;

static struct {
    int fd;
    bool terminal;
    bool syslog_open;
    char role[24];
    void (*taker)(enum log_level level, const char *message);
} sink = { .fd = STDERR_FILENO };

static const struct {
    const char *name;
    int priority;
} levels[] = {
#define X(name, priority, doc) { #name, priority },
    LOG_LEVELS(X)
#undef X
};

const char *log_level_name(enum log_level level) {
    return level < LOG_LEVEL_COUNT ? levels[level].name : "?";
}

int log_level_parse(const char *name, enum log_level *ret_level) {
    for (int i = 0; i < LOG_LEVEL_COUNT; i++)
        if (strcmp(name, levels[i].name) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    return -EINVAL;
}

void log_open(int fd, enum log_level threshold) {
    sink.fd = fd;
    sink.terminal = fd >= 0 && isatty(fd);
    log_threshold = threshold;
    if (fd < 0 && !sink.syslog_open) {
        openlog("moongate", LOG_PID | LOG_NDELAY, LOG_DAEMON);
        sink.syslog_open = true;
    }
}

void log_identify(const char *role) {
    snprintf(sink.role, sizeof sink.role, "%s", role);
}

void log_divert(void (*taker)(enum log_level level, const char *message)) {
    sink.taker = taker;
}

static size_t escape(char *to, size_t room, const char *from) {
    size_t n = 0;
    for (; *from && n + 5 < room; from++) {
        unsigned char c = (unsigned char)*from;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            n += (size_t)snprintf(to + n, room - n, "\\x%02x", c);
        else if (c == '\n')  // a traceback: kept readable, yet no line of it looks like a message of ours
            n += (size_t)snprintf(to + n, room - n, "\n  ");
        else
            to[n++] = (char)c;
    }
    to[n] = 0;
    return n;
}

void log_write(enum log_level level, const char *format, ...) {
    char message[4096], line[6144];
    int saved = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (sink.taker) {
        sink.taker(level, message);
        errno = saved;
        return;
    }
    size_t n = 0;
    if (sink.fd >= 0) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        n = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S", &tm);
        const char *on = "", *off = "";
        if (sink.terminal && level <= LOG_LEVEL_error)
            on = "\033[31m", off = "\033[0m";
        else if (sink.terminal && level == LOG_LEVEL_warn)
            on = "\033[33m", off = "\033[0m";
        n += (size_t)snprintf(line + n, sizeof line - n, ".%03ld %s%s%s [%s %d] ", now.tv_nsec / 1000000, on,
                              levels[level].name, off, sink.role[0] ? sink.role : "moongate", (int)getpid());
    }
    n += escape(line + n, sizeof line - n - 1, message);
    if (sink.fd >= 0) {
        line[n++] = '\n';
        ssize_t done = write(sink.fd, line, n);
        (void)done;  // there is nowhere left to report it
    } else {
        syslog(levels[level].priority, "%s%s%s", sink.role, sink.role[0] ? ": " : "", line);
    }
    errno = saved;
}

bool log_limit_pass(struct log_limit *limit, uint32_t burst, uint32_t *ret_suppressed) {
    uint64_t second = clock_ms() / 1000;
    *ret_suppressed = 0;
    if (second != limit->second) {
        *ret_suppressed = limit->suppressed;
        limit->second = second;
        limit->count = limit->suppressed = 0;
    }
    if (limit->count++ < burst)
        return true;
    limit->suppressed++;
    return false;
}
