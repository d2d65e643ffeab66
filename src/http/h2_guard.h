// SPDX-License-Identifier: BSD-2-Clause
// What a client of HTTP/2 may send that costs us more than it costs him: counted over windows of time, each
// kind with its limit and its counter. Asked by h2_request.c; who passes a limit loses the connection.
#ifndef MOONGATE_HTTP_H2_GUARD_H
#define MOONGATE_HTTP_H2_GUARD_H

#include "conf/conf.h"

//  X(kind, the limit in conf_http2, the counter, what it was)
#define H2_GUARDS(X)                                                                  \
    X(reset, max_resets, http2_reset_floods, "requests taken back")                   \
    X(error, max_errors, http2_error_floods, "requests that had to be reset")         \
    X(empty, max_empty_frames, http2_empty_floods, "frames that bring nothing")       \
    X(ping, max_pings, http2_ping_floods, "PING frames")                              \
    X(settings, max_settings, http2_settings_floods, "SETTINGS frames")               \
    X(window_update, max_window_updates, http2_window_floods, "WINDOW_UPDATE frames") \
    X(priority, max_priorities, http2_priority_floods, "PRIORITY frames")

enum h2_guard_kind {
#define X(kind, limit, counter, what) H2_GUARD_##kind,
    H2_GUARDS(X)
#undef X
        H2_GUARD_COUNT
};

enum { H2_GUARD_WINDOW_MS = 10000 };

// A window begins with the first of a kind after the last one ended.
struct h2_guard {
    uint64_t began_ms[H2_GUARD_COUNT];
    int32_t counts[H2_GUARD_COUNT];
};

// One more of the kind. NULL, or what there was too much of; it was counted.
const char *h2_guard_count(struct h2_guard *guard, enum h2_guard_kind kind, const struct conf_http2 *limits)
    __attribute__((warn_unused_result));
// How many of all kinds count at present.
uint32_t h2_guard_sum(const struct h2_guard *guard);
// We did what makes `n` of the kind right: so many do not count.
void h2_guard_allow(struct h2_guard *guard, enum h2_guard_kind kind, int32_t n);

#endif
