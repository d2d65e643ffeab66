// SPDX-License-Identifier: BSD-2-Clause
// Whether bytes go on coming or going: a peer that has come to a stop, and one that moves too little on
// average. Whoever awaits bytes (codecs, conns that drain) looks at the count when a timer fires, not at each
// byte.
#ifndef MOONGATE_BASE_PACE_H
#define MOONGATE_BASE_PACE_H

#include <stdint.h>

struct pace_limits {
    uint64_t stall_ms;  // no byte for so long is a stop, noticed at most a quarter later
    uint64_t rate;      // bytes a second that are the least, 0: any
    uint64_t grace_ms;  // over which the rate is averaged
};

// Counts may wrap; only differences are looked at.
struct pace {
    uint64_t window_ms, window_at;  // since when the rate is measured, and the count then
    uint64_t moved_ms, moved_at;    // when the count was last seen changed, and to what
};

enum pace_verdict { PACE_GOOD, PACE_STALLED, PACE_SLOW };

// Begins to watch a count of bytes that stands at `at`.
void pace_begin(struct pace *pace, uint64_t at);
// When to look next, in milliseconds from now.
uint64_t pace_next_ms(const struct pace *pace, const struct pace_limits *limits);
// A window in which not one byte moved does not count as slow: whoever pauses is judged by stall_ms.
enum pace_verdict pace_look(struct pace *pace, const struct pace_limits *limits, uint64_t at)
    __attribute__((warn_unused_result));

#endif
