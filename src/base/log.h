// SPDX-License-Identifier: BSD-2-Clause
// The error log: levels, where it goes (a file descriptor or syslog), one line a message. One per process.
// The layer that decides writes the message; what failed stands first, the subject in quotes, lower case.
// To add a level, add it to LOG_LEVELS.
#ifndef MOONGATE_BASE_LOG_H
#define MOONGATE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

//  X(name, syslog priority, documentation)
#define LOG_LEVELS(X) \
    X(crit, LOG_CRIT, "a process cannot go on") \
    X(error, LOG_ERR, "something failed that an operator should mend") \
    X(warn, LOG_WARNING, "something failed that was worked around") \
    X(notice, LOG_NOTICE, "starts, stops, reloads") \
    X(info, LOG_INFO, "what a peer did wrong") \
    X(debug, LOG_DEBUG, "every change of state")

enum log_level {
#define X(name, priority, doc) LOG_LEVEL_##name,
    LOG_LEVELS(X)
#undef X
    LOG_LEVEL_COUNT
};

extern enum log_level log_threshold;

static inline bool log_enabled(enum log_level level) {
    return level <= log_threshold;
}

const char *log_level_name(enum log_level level);
// -EINVAL for an unknown name.
int log_level_parse(const char *name, enum log_level *ret_level) __attribute__((warn_unused_result));

// fd: where lines go, or -1 for syslog (facility daemon). The descriptor stays the caller's; it must stay
// open until the next call. Times are printed on files; on a terminal the level is coloured.
void log_open(int fd, enum log_level threshold);
// A short name of this process that stands in each line: "master", "worker 0". Copied.
void log_identify(const char *role);
// Lines go to taker() instead, unescaped and without time or role: for what runs scripts without a server.
void log_divert(void (*taker)(enum log_level level, const char *message));
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define LOG_AT(level, ...) (log_enabled(level) ? log_write(level, __VA_ARGS__) : (void)0)
#define log_crit(...) LOG_AT(LOG_LEVEL_crit, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_LEVEL_error, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_LEVEL_warn, __VA_ARGS__)
#define log_notice(...) LOG_AT(LOG_LEVEL_notice, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_info, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_LEVEL_debug, __VA_ARGS__)

// True at most `burst` times in a second for one gate, for messages that a peer can cause at will. When it
// opens again after a closed second, *ret_suppressed says how many were held back.
struct log_limit {
    uint64_t second;
    uint32_t count, suppressed;
};
bool log_limit_pass(struct log_limit *limit, uint32_t burst, uint32_t *ret_suppressed);

#endif
