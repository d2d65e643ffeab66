// SPDX-License-Identifier: BSD-2-Clause
// Eight levels of 64 slots: level n covers 64^(n+1) milliseconds. A timer hangs in the coarsest slot that
// still tells it from now and falls a level each time that slot comes round. A bitmap per level finds the
// next one.
#include "base/timer.h"

#include "base/check.h"
#include "base/clock.h"

enum { LEVELS = 8, BITS = 6, SLOTS = 1 << BITS };

static struct {
    bool ready;
    uint64_t now;  // every timer with expires_ms <= now has fired
    uint64_t occupied[LEVELS];
    struct list slots[LEVELS][SLOTS];
} wheel;

static void wheel_ready(void) {
    if (wheel.ready)
        return;
    for (int level = 0; level < LEVELS; level++)
        for (int slot = 0; slot < SLOTS; slot++)
            list_init(&wheel.slots[level][slot]);
    wheel.now = clock_ms();
    wheel.ready = true;
}

void timer_forget(void) {
    wheel.ready = false;
    for (int level = 0; level < LEVELS; level++)
        wheel.occupied[level] = 0;
    wheel_ready();
}

static void place(struct timer *timer) {
    uint64_t differs = timer->expires_ms ^ wheel.now;
    int level = differs == 0 ? 0 : (63 - __builtin_clzll(differs)) / BITS;
    if (level >= LEVELS)
        level = LEVELS - 1;
    int slot = (int)((timer->expires_ms >> (level * BITS)) & (SLOTS - 1));
    timer->level = (uint8_t)level;
    timer->slot = (uint8_t)slot;
    list_push_back(&wheel.slots[level][slot], &timer->link);
    wheel.occupied[level] |= 1ull << slot;
}

void timer_init(struct timer *timer, void (*fired)(struct timer *timer)) {
    list_init(&timer->link);
    timer->fired = fired;
}

void timer_start(struct timer *timer, uint64_t delay_ms) {
    wheel_ready();
    timer_stop(timer);
    uint64_t base = clock_ms() > wheel.now ? clock_ms() : wheel.now;
    uint64_t longest = 1ull << (LEVELS * BITS - 1);
    timer->expires_ms = base + (delay_ms == 0 ? 1 : delay_ms > longest ? longest : delay_ms);
    place(timer);
}

void timer_stop(struct timer *timer) {
    if (!list_linked(&timer->link))
        return;
    struct list *next = timer->link.next;
    bool last = next == timer->link.prev;  // only the slot's head remains (or a list being fired: harmless)
    list_remove(&timer->link);
    if (last && next == &wheel.slots[timer->level][timer->slot])
        wheel.occupied[timer->level] &= ~(1ull << timer->slot);
}

// The first tick after wheel.now at which a slot must be looked at; UINT64_MAX when the wheel is empty.
static uint64_t next_tick(void) {
    for (int level = 0; level < LEVELS; level++) {
        if (wheel.occupied[level] == 0)
            continue;
        int shift = level * BITS;
        unsigned at = (wheel.now >> shift) & (SLOTS - 1);
        uint64_t ahead = at == SLOTS - 1 ? 0 : wheel.occupied[level] & (~0ull << (at + 1));
        uint64_t round = wheel.now >> shift >> BITS << BITS << shift;
        if (ahead)
            return round + ((uint64_t)__builtin_ctzll(ahead) << shift);
        // What is left lies in the next round of this level; only the top level wraps.
        if (level == LEVELS - 1)
            return round + ((uint64_t)(SLOTS + __builtin_ctzll(wheel.occupied[level])) << shift);
    }
    return UINT64_MAX;
}

void timer_run(void) {
    wheel_ready();
    uint64_t target = clock_ms();
    while (wheel.now < target) {
        uint64_t tick = next_tick();
        if (tick > target) {
            wheel.now = target;
            return;
        }
        wheel.now = tick;
        struct list due;
        list_init(&due);
        for (int level = LEVELS - 1; level >= 0; level--) {
            int shift = level * BITS;
            if (level > 0 && (tick & ((1ull << shift) - 1)) != 0)
                continue;  // this level's slot does not begin at this tick
            int slot = (int)((tick >> shift) & (SLOTS - 1));
            if (!(wheel.occupied[level] & (1ull << slot)))
                continue;
            struct list moved;
            list_init(&moved);
            list_splice(&moved, &wheel.slots[level][slot]);
            wheel.occupied[level] &= ~(1ull << slot);
            while (!list_empty(&moved)) {
                struct timer *timer = container_of(moved.next, struct timer, link);
                list_remove(&timer->link);
                if (timer->expires_ms <= tick)
                    list_push_back(&due, &timer->link);
                else
                    place(timer);
            }
        }
        while (!list_empty(&due)) {
            struct timer *timer = container_of(due.next, struct timer, link);
            list_remove(&timer->link);
            timer->fired(timer);
        }
    }
}

uint64_t timer_next_ms(void) {
    wheel_ready();
    uint64_t tick = next_tick();
    if (tick == UINT64_MAX)
        return UINT64_MAX;
    uint64_t now = clock_ms();
    return tick > now ? tick - now : 0;
}
