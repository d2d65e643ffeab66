// SPDX-License-Identifier: BSD-2-Clause
// base/pace: stops, slowness, and what is neither.
#include "base/clock.h"
#include "base/pace.h"

#include <criterion/criterion.h>

static const struct pace_limits limits = { .stall_ms = 1000, .rate = 100, .grace_ms = 2000 };
static struct pace pace;

static void at_ms(uint64_t ms) {
    clock_cached.mono_ns = ms * 1000000;
}

static void begin(void) {
    at_ms(5000);
    pace_begin(&pace, 10);
}

Test(pace, no_byte_for_stall_is_a_stop, .init = begin) {
    at_ms(5999);
    cr_assert_eq(pace_look(&pace, &limits, 10), PACE_GOOD);
    at_ms(6000);
    cr_assert_eq(pace_look(&pace, &limits, 10), PACE_STALLED);
}

Test(pace, a_byte_begins_the_wait_anew, .init = begin) {
    at_ms(5900);
    cr_assert_eq(pace_look(&pace, &limits, 11), PACE_GOOD);
    at_ms(6800);
    cr_assert_eq(pace_look(&pace, &limits, 11), PACE_GOOD);
    at_ms(6900);
    cr_assert_eq(pace_look(&pace, &limits, 11), PACE_STALLED);
}

Test(pace, bytes_below_the_rate_are_slow_after_the_grace_time, .init = begin) {
    at_ms(6000);
    cr_assert_eq(pace_look(&pace, &limits, 11), PACE_GOOD);
    at_ms(6900);
    cr_assert_eq(pace_look(&pace, &limits, 12), PACE_GOOD);
    at_ms(7000);
    cr_assert_eq(pace_look(&pace, &limits, 10 + 199), PACE_SLOW);
}

Test(pace, the_rate_exactly_is_enough_and_is_asked_of_each_window, .init = begin) {
    at_ms(7000);
    cr_assert_eq(pace_look(&pace, &limits, 10 + 200), PACE_GOOD);
    at_ms(7900);
    cr_assert_eq(pace_look(&pace, &limits, 10 + 201), PACE_GOOD);
    at_ms(8800);
    cr_assert_eq(pace_look(&pace, &limits, 10 + 202), PACE_GOOD);
    at_ms(9000);
    cr_assert_eq(pace_look(&pace, &limits, 10 + 203), PACE_SLOW, "what came before buys nothing");
}

Test(pace, a_window_without_a_byte_is_not_slow) {
    const struct pace_limits patient = { .stall_ms = 10000, .rate = 100, .grace_ms = 2000 };
    begin();
    at_ms(7500);
    cr_assert_eq(pace_look(&pace, &patient, 10), PACE_GOOD);
    at_ms(8000);
    cr_assert_eq(pace_look(&pace, &patient, 11), PACE_GOOD);
    at_ms(9500);
    cr_assert_eq(pace_look(&pace, &patient, 11), PACE_SLOW, "the next window began at 7500");
}

Test(pace, without_a_rate_any_byte_will_do) {
    const struct pace_limits any = { .stall_ms = 1000 };
    begin();
    for (unsigned i = 1; i < 100; i++) {
        at_ms(5000 + i * 900);
        cr_assert_eq(pace_look(&pace, &any, 10 + i), PACE_GOOD);
    }
}

Test(pace, looks_often_enough_and_at_the_windows_end, .init = begin) {
    cr_assert_eq(pace_next_ms(&pace, &limits), 250);
    at_ms(6900);
    cr_assert_eq(pace_next_ms(&pace, &limits), 100);
    at_ms(7100);
    cr_assert_eq(pace_next_ms(&pace, &limits), 1);
}
