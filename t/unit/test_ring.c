// SPDX-License-Identifier: BSD-2-Clause
// The turn of the ring: what was put off goes on in the order in which it was, in a bounded time of each turn.
#include "base/clock.h"
#include "base/counters.h"
#include "ring/ring.h"

#include <criterion/criterion.h>
#include <stdbool.h>

enum { COUNT = 20, SPIN_US = 100 };

static struct work {
    struct ring_later later;
    bool again;
    unsigned ran;
} works[COUNT];
static unsigned order[2 * COUNT], ran;

static void run(struct ring_later *later) {
    struct work *work = container_of(later, struct work, later);
    order[ran++] = (unsigned)(work - works);
    work->ran++;
    if (work->again && work->ran == 1)
        ring_go_on_later(later);
    for (uint64_t end = clock_us_now() + SPIN_US; clock_us_now() < end;)
        ;
}

static void begin(void) {
    struct error error;
    cr_assert_eq(ring_init(&(struct ring_options){ 64, 1 << 20 }, &error), 0, "%s", error.text);
    for (unsigned i = 0; i < COUNT; i++) {
        list_init(&works[i].later.link);
        works[i].later.run = run;
        ring_go_on_later(&works[i].later);
    }
}

Test(ring, what_is_put_off_has_a_bounded_time_of_a_turn, .fini = ring_release) {
    begin();
    works[0].again = true;
    unsigned turns = 0;
    for (unsigned before = 0; before < COUNT + 1; before = ran, turns++) {
        cr_assert_geq(ring_turn(1000), 0);
        cr_assert(ran > before && ran - before <= 4, "%u in one turn", ran - before);
    }
    cr_assert_geq(turns, COUNT / 4);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(order[i], i);
    cr_assert_eq(order[COUNT], 0, "what puts itself off again is behind all others");
}

Test(ring, what_is_put_off_may_be_taken_back_in_any_turn, .fini = ring_release) {
    begin();
    cr_assert_geq(ring_turn(1000), 0);
    unsigned had = ran;
    list_remove(&works[COUNT - 1].later.link);
    list_remove(&works[had].later.link);
    while (ran < COUNT - 2)
        cr_assert_geq(ring_turn(1000), 0);
    cr_assert_geq(ring_turn(0), 0);
    cr_assert_eq(works[COUNT - 1].ran + works[had].ran, 0);
    cr_assert_eq(ran, COUNT - 2);
}
