// SPDX-License-Identifier: BSD-2-Clause
// The counts of h2_guard.h.
#include "http/h2_guard.h"

#include "base/clock.h"
#include "base/counters.h"

static uint64_t limit_of(enum h2_guard_kind kind, const struct conf_http2 *limits) {
    switch (kind) {
#define X(name, limit, counter, what) \
    case H2_GUARD_##name:             \
        return limits->limit;
        H2_GUARDS(X)
#undef X
    case H2_GUARD_COUNT:
        break;
    }
    return 0;
}

static const char *passed(enum h2_guard_kind kind) {
    switch (kind) {
#define X(name, limit, counter, what) \
    case H2_GUARD_##name:             \
        counters->counter++;          \
        return "too many " what;
        H2_GUARDS(X)
#undef X
    case H2_GUARD_COUNT:
        break;
    }
    return "";
}

const char *h2_guard_count(struct h2_guard *guard, enum h2_guard_kind kind, const struct conf_http2 *limits) {
    uint64_t limit = limit_of(kind, limits), now = clock_ms();
    if (now - guard->began_ms[kind] >= H2_GUARD_WINDOW_MS) {
        guard->began_ms[kind] = now;
        if (guard->counts[kind] > 0)
            guard->counts[kind] = 0;
    }
    int64_t count = ++guard->counts[kind];
    return limit > 0 && count > (int64_t)limit ? passed(kind) : NULL;
}

uint32_t h2_guard_sum(const struct h2_guard *guard) {
    uint32_t sum = 0;
    for (int kind = 0; kind < H2_GUARD_COUNT; kind++)
        if (guard->counts[kind] > 0 && clock_ms() - guard->began_ms[kind] < H2_GUARD_WINDOW_MS)
            sum += (uint32_t)guard->counts[kind];
    return sum;
}

void h2_guard_allow(struct h2_guard *guard, enum h2_guard_kind kind, int32_t n) {
    enum { CREDIT_MAX = 1 << 20 };
    if (guard->counts[kind] > -CREDIT_MAX)
        guard->counts[kind] -= n;
}
