// SPDX-License-Identifier: BSD-2-Clause
// The timer wheel, with a clock set by hand: against a plain model, over long jumps, and with callbacks that
// stop, start and free timers.
#include "base/clock.h"
#include "base/timer.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void set_clock(uint64_t ms) {
    clock_cached.mono_ns = ms * 1000000u;
}

struct probe {
    struct timer timer;
    uint64_t due;      // 0: not running
    uint64_t fired_at; // the last time
    unsigned count;
    struct probe *other;
    uint64_t again_ms;
};

static uint64_t last_due;
static unsigned fired_count;

static void fired(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    cr_assert_not(timer_running(timer));
    cr_assert(probe->due > 0, "a stopped timer fired");
    cr_assert(timer->expires_ms == probe->due && probe->due <= clock_ms(), "fired early");
    cr_assert(probe->due >= last_due, "fired out of order");
    last_due = probe->due;
    probe->due = 0;
    probe->fired_at = clock_ms();
    probe->count++;
    fired_count++;
}

static void start(struct probe *probe, uint64_t delay) {
    timer_start(&probe->timer, delay);
    probe->due = clock_ms() + (delay ? delay : 1);
    cr_assert_eq(probe->timer.expires_ms, probe->due);
    cr_assert(timer_running(&probe->timer));
}

static void run_at(uint64_t ms) {
    set_clock(ms);
    last_due = 0;
    timer_run();
}

Test(timer, fires_at_its_time_and_not_before) {
    struct probe probe = { 0 };
    set_clock(1000);
    timer_init(&probe.timer, fired);
    cr_assert_eq(timer_next_ms(), UINT64_MAX);
    start(&probe, 100);
    cr_assert_leq(timer_next_ms(), 100);
    run_at(1099);
    cr_assert_eq(probe.count, 0);
    cr_assert_eq(timer_next_ms(), 1);
    run_at(1100);
    cr_assert_eq(probe.count, 1);
    cr_assert_eq(timer_next_ms(), UINT64_MAX);
    run_at(5000);
    cr_assert_eq(probe.count, 1);
    timer_stop(&probe.timer);  // harmless
}

Test(timer, zero_is_one_tick) {
    struct probe probe = { 0 };
    set_clock(1);
    timer_init(&probe.timer, fired);
    start(&probe, 0);
    timer_run();
    cr_assert_eq(probe.count, 0);
    run_at(2);
    cr_assert_eq(probe.count, 1);
}

Test(timer, starting_again_moves_it) {
    struct probe probe = { 0 };
    set_clock(1);
    timer_init(&probe.timer, fired);
    start(&probe, 10);
    start(&probe, 1000);
    run_at(999);
    cr_assert_eq(probe.count, 0);
    start(&probe, 1);
    run_at(1000);
    cr_assert_eq(probe.count, 1);
    run_at(10000);
    cr_assert_eq(probe.count, 1);
}

Test(timer, the_longest_delay_is_bounded_not_wrapped) {
    struct probe probe = { 0 };
    set_clock(12345);
    timer_init(&probe.timer, fired);
    timer_start(&probe.timer, UINT64_MAX);
    cr_assert_gt(probe.timer.expires_ms, 1ull << 40);
    run_at(1ull << 40);
    cr_assert(timer_running(&probe.timer));
    timer_stop(&probe.timer);
    cr_assert_eq(timer_next_ms(), UINT64_MAX);
}

static void random_rounds(uint64_t from, unsigned count, uint64_t longest, uint64_t jump) {
    enum { COUNT = 300 };
    static struct probe probes[COUNT];
    set_clock(from);
    timer_run();
    for (int i = 0; i < COUNT; i++) {
        probes[i] = (struct probe){ 0 };
        timer_init(&probes[i].timer, fired);
    }
    uint64_t now = from;
    for (unsigned round = 0; round < count; round++) {
        unsigned changes = (unsigned)(rnd() % 8);
        for (unsigned i = 0; i < changes; i++) {
            struct probe *probe = &probes[rnd() % COUNT];
            if (rnd() % 3 == 0) {
                timer_stop(&probe->timer);
                probe->due = 0;
                cr_assert_not(timer_running(&probe->timer));
            } else {
                start(probe, rnd() % (1 + (longest >> rnd() % 20)));
            }
        }
        uint64_t soonest = UINT64_MAX;
        for (int i = 0; i < COUNT; i++)
            if (probes[i].due && probes[i].due < soonest)
                soonest = probes[i].due;
        uint64_t next = timer_next_ms();
        if (soonest == UINT64_MAX)
            cr_assert_eq(next, UINT64_MAX);
        else
            cr_assert(next <= (soonest > now ? soonest - now : 0), "the wheel would sleep through a timer");
        // What the ring does most of the time, or a jump.
        now += rnd() % 2 && next != UINT64_MAX ? next : rnd() % (jump >> rnd() % 20 | 1);
        run_at(now);
        for (int i = 0; i < COUNT; i++) {
            cr_assert(!probes[i].due || probes[i].due > now, "a timer did not fire");
            cr_assert_eq(timer_running(&probes[i].timer), probes[i].due != 0);
        }
    }
    for (int i = 0; i < COUNT; i++)
        timer_stop(&probes[i].timer);
    cr_assert_eq(timer_next_ms(), UINT64_MAX);
}

Test(timer, random_use_agrees_with_a_model) {
    random_rounds(1, 20000, 100, 10);
    cr_assert_gt(fired_count, 1000);
    random_rounds(10000000, 20000, 100000, 1000);
    random_rounds(1ull << 33, 20000, 1ull << 30, 1ull << 20);
}

Test(timer, random_use_with_long_jumps_agrees_with_a_model) {
    random_rounds(77, 2000, 1ull << 40, 1ull << 36);  // years at a time
    cr_assert_gt(fired_count, 500);
}

Test(timer, random_use_where_the_top_level_turns) {
    random_rounds((1ull << 42) - 5000, 5000, 1ull << 20, 1ull << 10);
    random_rounds((1ull << 43) - 5000, 500, 1ull << 36, 1ull << 34);  // nanoseconds end at 2^44 milliseconds
}

static void fired_restarts(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    fired(timer);
    if (probe->count < 1000)
        start(probe, probe->again_ms);
}

Test(timer, a_timer_may_start_itself_again) {
    struct probe often = { .again_ms = 1 }, seldom = { .again_ms = 64 };
    set_clock(5);
    timer_init(&often.timer, fired_restarts);
    timer_init(&seldom.timer, fired_restarts);
    start(&often, 1);
    start(&seldom, 64);
    for (uint64_t ms = 6; ms < 5 + 64 * 10 + 1; ms++)
        run_at(ms);
    cr_assert_eq(often.count, 640);
    cr_assert_eq(seldom.count, 10);
    run_at(1000000);  // counted from now: once, not for all that was missed
    cr_assert_eq(often.count, 641);
    cr_assert_eq(seldom.count, 11);
    cr_assert(timer_running(&often.timer) && timer_running(&seldom.timer));
    timer_stop(&often.timer);
    timer_stop(&seldom.timer);
}

static void fired_stops_other(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    fired(timer);
    timer_stop(&probe->other->timer);
    probe->other->due = 0;
}

Test(timer, of_two_that_stop_each_other_one_fires) {
    set_clock(7);
    for (uint64_t delay = 1; delay < 10000; delay = delay * 3 + 1) {
        struct probe a = { 0 }, b = { 0 };
        timer_init(&a.timer, fired_stops_other);
        timer_init(&b.timer, fired_stops_other);
        a.other = &b;
        b.other = &a;
        start(&a, delay);
        start(&b, delay);
        run_at(clock_ms() + delay + 50);
        cr_assert_eq(a.count + b.count, 1);
        cr_assert_eq(timer_next_ms(), UINT64_MAX);
    }
}

static void fired_moves_other(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    fired(timer);
    start(probe->other, 500);
}

Test(timer, one_that_is_due_may_be_moved_by_another) {
    struct probe a = { 0 }, b = { 0 }, c = { 0 };
    set_clock(3);
    timer_init(&a.timer, fired_moves_other);
    timer_init(&b.timer, fired);
    timer_init(&c.timer, fired);
    a.other = &b;
    start(&a, 10);
    start(&b, 10);
    start(&c, 10);
    run_at(13);
    cr_assert_eq(a.count, 1);
    cr_assert_eq(b.count, 0);
    cr_assert_eq(c.count, 1);
    run_at(512);
    cr_assert_eq(b.count, 0);
    run_at(513);
    cr_assert_eq(b.count, 1);
}

static void fired_frees(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    fired(timer);
    if (probe->other) {
        timer_stop(&probe->other->timer);
        free(probe->other);
    }
    free(probe);
}

Test(timer, owners_may_go_while_their_timers_fire) {
    set_clock(9);
    for (int i = 0; i < 100; i++) {
        struct probe *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
        timer_init(&a->timer, fired_frees);
        timer_init(&b->timer, fired_frees);
        a->other = b;
        start(a, 70);
        start(b, 70 + (uint64_t)i % 2);
    }
    run_at(200);
    cr_assert_eq(fired_count, 100);
    cr_assert_eq(timer_next_ms(), UINT64_MAX);
}

Test(timer, a_clock_that_goes_back_fires_nothing_early) {
    struct probe probe = { 0 };
    set_clock(1000);
    timer_init(&probe.timer, fired);
    timer_run();
    set_clock(900);
    timer_run();
    timer_start(&probe.timer, 50);
    probe.due = probe.timer.expires_ms;
    cr_assert_geq(probe.due, 950);
    run_at(949);
    cr_assert_eq(probe.count, 0);
    run_at(1051);
    cr_assert_eq(probe.count, 1);
}
