// SPDX-License-Identifier: BSD-2-Clause
// The shared dictionary: what the operations do, that memory stays bounded, and that processes killed at
// every step and at random moments leave it whole. Built with DICT_FAULT, so that a test can die inside an
// operation.
#include "base/dict.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

enum { SMALL = DICT_SIZE_MIN };  // one shard of 243 cells

static char buffer[DICT_VALUE_MAX];
static uint64_t now = 1000000;

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct dict make(size_t size) {
    struct error error = { "" };
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(at != MAP_FAILED);
    cr_assert(dict_format(at, size, &error) == 0, "%s", error.text);
    struct dict dict;
    cr_assert(dict_attach(&dict, at, size, &error) == 0, "%s", error.text);
    return dict;
}

static void verify(struct dict *dict) {
    struct error error = { "" };
    cr_assert(dict_verify(dict, &error) == 0, "%s", error.text);
}

static struct dict_stats stats(struct dict *dict) {
    struct dict_stats result;
    cr_assert_eq(dict_get_stats(dict, &result), 0);
    return result;
}

static int set_number(struct dict *dict, const char *key, double number, uint64_t ttl_ms) {
    struct dict_value value = { .kind = DICT_number, .number = number };
    return dict_set(dict, slice_of(key), &value, ttl_ms, now);
}

static int set_text(struct dict *dict, const char *key, struct slice text) {
    struct dict_value value = { .kind = DICT_text, .text = text };
    return dict_set(dict, slice_of(key), &value, 0, now);
}

// The number, or NAN when there is none.
static double get(struct dict *dict, const char *key) {
    struct dict_value value;
    int rc = dict_get(dict, slice_of(key), now, &value, buffer, sizeof buffer);
    return rc == 0 && value.kind == DICT_number ? value.number : (double)NAN;
}

static bool has(struct dict *dict, const char *key) {
    struct dict_value value;
    return dict_get(dict, slice_of(key), now, &value, buffer, sizeof buffer) == 0;
}

Test(dict, keeps_numbers_booleans_and_text) {
    struct dict dict = make(1 << 20);
    struct dict_value value = { .kind = DICT_boolean, .boolean = true };
    cr_assert_eq(set_number(&dict, "n", -1.5, 0), 0);
    cr_assert_eq(dict_set(&dict, slice_of("b"), &value, 0, now), 0);
    cr_assert_eq(set_text(&dict, "t", SLICE_LIT("a\0b")), 0);
    cr_assert_eq(set_text(&dict, "empty", slice_make(NULL, 0)), 0);
    cr_assert_eq(get(&dict, "n"), -1.5);
    cr_assert_eq(dict_get(&dict, slice_of("b"), now, &value, NULL, 0), 0);
    cr_assert(value.kind == DICT_boolean && value.boolean);
    cr_assert_eq(dict_get(&dict, slice_of("t"), now, &value, buffer, 2), -ENOSPC);
    cr_assert_eq(dict_get(&dict, slice_of("t"), now, &value, buffer, 3), 0);
    cr_assert(value.kind == DICT_text && slice_eq(value.text, SLICE_LIT("a\0b")));
    cr_assert_eq(dict_get(&dict, slice_of("empty"), now, &value, NULL, 0), 0);
    cr_assert(value.kind == DICT_text && value.text.len == 0);
    cr_assert_eq(dict_get(&dict, slice_of("x"), now, &value, buffer, 3), -ENOENT);
    cr_assert_eq(set_number(&dict, "t", 7, 0), 0);
    cr_assert_eq(get(&dict, "t"), 7);
    cr_assert_eq(dict_delete(&dict, slice_of("t"), now), 0);
    cr_assert_eq(dict_delete(&dict, slice_of("t"), now), -ENOENT);
    cr_assert_not(has(&dict, "t"));
    struct dict_stats s = stats(&dict);
    cr_assert_eq(s.entries, 3);
    cr_assert_eq(s.bytes, 3 * 128);
    cr_assert_eq(s.misses, 2);
    verify(&dict);
    cr_assert_eq(dict_flush(&dict), 0);
    cr_assert_eq(stats(&dict).entries, 0);
    cr_assert_not(has(&dict, "n"));
    verify(&dict);
    cr_assert_eq(set_number(&dict, "n", 2, 0), 0);
    cr_assert_eq(get(&dict, "n"), 2);
    verify(&dict);
}

Test(dict, add_only_makes) {
    struct dict dict = make(SMALL);
    struct dict_value value = { .kind = DICT_number, .number = 1 };
    cr_assert_eq(dict_add(&dict, slice_of("a"), &value, 100, now), 0);
    value.number = 2;
    cr_assert_eq(dict_add(&dict, slice_of("a"), &value, 100, now), -EEXIST);
    cr_assert_eq(get(&dict, "a"), 1);
    now += 100;
    cr_assert_eq(dict_add(&dict, slice_of("a"), &value, 100, now), 0);
    cr_assert_eq(get(&dict, "a"), 2);
}

Test(dict, incr_makes_and_adds) {
    struct dict dict = make(SMALL);
    double value = 0;
    cr_assert_eq(dict_incr(&dict, slice_of("a"), 2, NAN, 0, now, &value), -ENOENT);
    cr_assert_eq(dict_incr(&dict, slice_of("a"), 2, 40, 50, now, &value), 0);
    cr_assert_eq(value, 42);
    cr_assert_eq(dict_incr(&dict, slice_of("a"), -0.5, 0, 1000, now, &value), 0);
    cr_assert_eq(value, 41.5);
    cr_assert_eq(get(&dict, "a"), 41.5);
    now += 50;  // the time of the first one counts
    cr_assert_eq(dict_incr(&dict, slice_of("a"), 1, 0, 0, now, &value), 0);
    cr_assert_eq(value, 1);
    cr_assert_eq(set_text(&dict, "t", SLICE_LIT("x")), 0);
    cr_assert_eq(dict_incr(&dict, slice_of("t"), 1, 0, 0, now, &value), -EINVAL);
    verify(&dict);
}

Test(dict, entries_end_with_their_time) {
    struct dict dict = make(SMALL);
    set_number(&dict, "a", 1, 100);
    set_number(&dict, "b", 2, 0);
    set_number(&dict, "c", 3, UINT64_MAX);  // as good as for ever
    now += 99;
    cr_assert_eq(get(&dict, "a"), 1);
    now += 1;
    cr_assert_not(has(&dict, "a"));
    cr_assert_eq(stats(&dict).expired, 1);
    now += 1ull << 50;
    cr_assert(has(&dict, "b") && has(&dict, "c"));
    set_number(&dict, "a", 1, 100);
    now -= 1ull << 50;  // the clock goes back: it lives on, nothing breaks
    cr_assert(has(&dict, "a"));
    verify(&dict);
}

static bool take(struct dict *dict, const char *key, double rate, double burst, double cost, double *wait) {
    bool allowed;
    cr_assert_eq(dict_take(dict, slice_of(key), rate, burst, cost, now, &allowed, wait), 0);
    return allowed;
}

Test(dict, take_is_a_token_bucket) {
    struct dict dict = make(SMALL);
    double wait;
    for (int i = 0; i < 10; i++) {
        cr_assert(take(&dict, "a", 5, 10, 1, &wait));
        cr_assert_eq(wait, 0);
    }
    cr_assert_not(take(&dict, "a", 5, 10, 1, &wait));
    cr_assert_float_eq(wait, 0.2, 1e-6);
    cr_assert_not(take(&dict, "a", 5, 10, 10, &wait));
    cr_assert_float_eq(wait, 2.0, 1e-6);
    cr_assert(take(&dict, "b", 5, 10, 10, &wait));  // others have buckets of their own
    now += 199;
    cr_assert_not(take(&dict, "a", 5, 10, 1, &wait));
    cr_assert_float_eq(wait, 0.001, 1e-6);
    now += 1;
    cr_assert(take(&dict, "a", 5, 10, 1, &wait));
    cr_assert_not(take(&dict, "a", 5, 10, 1, &wait));
    cr_assert(take(&dict, "a", 5, 10, 0, &wait));
    now += 60000;  // never more than the burst
    cr_assert(take(&dict, "a", 5, 10, 10, &wait));
    cr_assert_not(take(&dict, "a", 5, 10, 1, &wait));
    cr_assert_not(take(&dict, "a", 5, 10, 11, &wait));
    cr_assert(isinf(wait));
    verify(&dict);
}

Test(dict, take_keeps_its_rate_over_a_long_time) {
    struct dict dict = make(SMALL);
    double wait;
    int allowed = 0;
    for (int ms = 0; ms < 30000; ms += 1, now++)
        allowed += take(&dict, "a", 333, 20, 1, &wait);
    cr_assert(allowed >= 333 * 30 + 18 && allowed <= 333 * 30 + 21, "%d", allowed);
}

Test(dict, take_bears_a_clock_that_goes_back_and_rules_that_change) {
    struct dict dict = make(SMALL);
    double wait;
    cr_assert(take(&dict, "a", 1, 5, 5, &wait));
    now -= 500000;
    cr_assert_not(take(&dict, "a", 1, 5, 1, &wait));
    cr_assert_leq(wait, 1.0);
    cr_assert_not(take(&dict, "a", 1000, 5, 1, &wait));
    cr_assert_leq(wait, 0.001);
    now += 2;
    cr_assert(take(&dict, "a", 1000, 5, 1, &wait));
    now = 0;
    cr_assert(take(&dict, "z", 1, 1, 1, &wait));
    cr_assert_not(take(&dict, "z", 1, 1, 1, &wait));
    now = UINT64_MAX;
    take(&dict, "y", 1e-3, 1e4, 1e4, &wait);
    cr_assert(wait >= 0);
    verify(&dict);
}

Test(dict, take_refuses_numbers_without_sense) {
    struct dict dict = make(SMALL);
    static const double bad[][3] = { { 0, 1, 1 },        { -1, 1, 1 },   { (double)NAN, 1, 1 }, { 1, 0, 1 },
                                     { 1, -1, 1 },       { 1, NAN, 1 },  { 1, 1, -1 },          { 1, 1, NAN },
                                     { 1, 1, HUGE_VAL }, { 1, 1e30, 1 }, { 1e-300, 1e300, 1 } };
    bool allowed;
    double wait;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(dict_take(&dict, slice_of("a"), bad[i][0], bad[i][1], bad[i][2], now, &allowed, &wait),
                     -EINVAL, "case %zu", i);
    set_number(&dict, "n", 1, 0);
    cr_assert_eq(dict_take(&dict, slice_of("n"), 1, 1, 1, now, &allowed, &wait), -EINVAL);
    cr_assert(take(&dict, "a", HUGE_VAL, 1, 1, &wait));
    struct dict_value value;
    cr_assert(take(&dict, "b", 1, 1, 1, &wait));
    cr_assert_eq(dict_get(&dict, slice_of("b"), now, &value, buffer, sizeof buffer), -EINVAL);
    double number;
    cr_assert_eq(dict_incr(&dict, slice_of("b"), 1, 0, 0, now, &number), -EINVAL);
}

Test(dict, keys_and_values_have_limits) {
    struct dict dict = make(1 << 20);
    static char long_key[DICT_KEY_MAX + 2], big[DICT_VALUE_MAX + 1];
    memset(long_key, 'k', sizeof long_key - 1);
    memset(big, 'v', sizeof big);
    cr_assert_eq(set_number(&dict, "", 1, 0), -EINVAL);
    cr_assert_eq(set_number(&dict, long_key, 1, 0), -ENAMETOOLONG);
    long_key[DICT_KEY_MAX] = 0;
    cr_assert_eq(set_number(&dict, long_key, 1, 0), 0);
    cr_assert_eq(get(&dict, long_key), 1);
    long_key[DICT_KEY_MAX - 1] = 'x';
    cr_assert_not(has(&dict, long_key));
    cr_assert_eq(dict.value_max, DICT_VALUE_MAX);
    cr_assert_eq(set_text(&dict, "v", slice_make(big, sizeof big)), -E2BIG);
    big[DICT_VALUE_MAX - 1] = 'e';
    cr_assert_eq(set_text(&dict, long_key, slice_make(big, DICT_VALUE_MAX)), 0);
    struct dict_value value;
    cr_assert_eq(dict_get(&dict, slice_of(long_key), now, &value, buffer, sizeof buffer), 0);
    cr_assert(slice_eq(value.text, slice_make(big, DICT_VALUE_MAX)));
    struct dict_value bucket = { .kind = DICT_bucket };
    cr_assert_eq(dict_set(&dict, slice_of("b"), &bucket, 0, now), -EINVAL);
    verify(&dict);
    struct dict small = make(SMALL);
    cr_assert_lt(small.value_max, SMALL / 2);
    cr_assert_eq(set_text(&small, "v", slice_make(big, small.value_max + 1)), -E2BIG);
    cr_assert_eq(set_text(&small, "v", slice_make(big, small.value_max)), 0);
    cr_assert_eq(set_text(&small, long_key, slice_make(big, small.value_max)), 0);
    cr_assert_eq(set_text(&small, "v", slice_make(big, small.value_max)), 0);
    cr_assert(has(&small, "v"));
    verify(&small);
}

Test(dict, every_length_of_key_and_value_comes_back) {
    struct dict dict = make(1 << 20);
    static char bytes[1024];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + i % 23);
    for (size_t key_len = 1; key_len <= DICT_KEY_MAX; key_len += key_len < 80 ? 1 : 13)
        for (size_t len = 0; len < 400; len += len < 130 ? 1 : 17) {
            struct dict_value value = { .kind = DICT_text, .text = slice_make(bytes + key_len, len) }, back;
            struct slice key = slice_make(bytes, key_len);
            cr_assert_eq(dict_set(&dict, key, &value, 0, now), 0);
            cr_assert_eq(dict_get(&dict, key, now, &back, buffer, sizeof buffer), 0);
            cr_assert(slice_eq(back.text, value.text));
        }
    verify(&dict);
}

Test(dict, the_least_recently_used_goes_first) {
    struct dict dict = make(SMALL);
    char key[32];
    for (unsigned i = 0; i < dict.cell_count; i++) {
        snprintf(key, sizeof key, "k%u", i);
        cr_assert_eq(set_number(&dict, key, i, 0), 0);
    }
    cr_assert_eq(stats(&dict).evictions, 0);
    cr_assert(has(&dict, "k0"));  // used again
    for (unsigned i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "new%u", i);
        cr_assert_eq(set_number(&dict, key, i, 0), 0);
    }
    struct dict_stats s = stats(&dict);
    cr_assert_eq(s.evictions, 10);
    cr_assert_eq(s.entries, dict.cell_count);
    cr_assert_eq(s.bytes, s.capacity);
    verify(&dict);
    cr_assert(has(&dict, "k0"));
    for (unsigned i = 1; i < dict.cell_count; i++) {
        snprintf(key, sizeof key, "k%u", i);
        cr_assert_eq(has(&dict, key), i > 10, "%s", key);
    }
}

Test(dict, expired_entries_make_room_before_live_ones) {
    struct dict dict = make(SMALL);
    char key[32];
    for (unsigned i = 0; i < dict.cell_count; i++) {
        snprintf(key, sizeof key, "k%u", i);
        cr_assert_eq(set_number(&dict, key, i, i % 4 == 3 ? 10 : 100000), 0);
    }
    now += 10;
    for (unsigned i = 0; i < dict.cell_count / 4; i++) {
        snprintf(key, sizeof key, "new%u", i);
        cr_assert_eq(set_number(&dict, key, i, 0), 0);
        verify(&dict);
    }
    cr_assert_eq(stats(&dict).evictions, 0);
    cr_assert(has(&dict, "k0"));
}

Test(dict, memory_stays_bounded_whatever_is_stored) {
    struct dict dict = make(1 << 20);
    static char big[DICT_VALUE_MAX];
    char key[300];
    for (int i = 0; i < (SLOW ? 5000 : 40000); i++) {
        double number;
        bool allowed;
        int rc;
        now += rnd() % 3;
        int key_len =
            snprintf(key, sizeof key, "%0*llu", (int)(rnd() % 240) + 1, (unsigned long long)(rnd() % 20000));
        cr_assert_leq(key_len, DICT_KEY_MAX);
        switch (rnd() % 8) {
        case 0:
            rc = dict_take(&dict, slice_of(key), 10, 10, 1, now, &allowed, &number);
            cr_assert(rc == 0 || rc == -EINVAL);
            break;
        case 1:
            rc = dict_incr(&dict, slice_of(key), 1, 0, rnd() % 100, now, &number);
            cr_assert(rc == 0 || rc == -EINVAL);
            break;
        case 2:
            rc = dict_delete(&dict, slice_of(key), now);
            cr_assert(rc == 0 || rc == -ENOENT);
            break;
        default:
            cr_assert_eq(set_text(&dict, key, slice_make(big, rnd() % (rnd() % 50 ? 500 : sizeof big))), 0);
        }
        if (i % 1000 == 0)
            verify(&dict);
    }
    verify(&dict);
    struct dict_stats s = stats(&dict);
    cr_assert(s.bytes <= s.capacity && s.evictions > 0 && s.expired > 0);
}

Test(dict, agrees_with_a_plain_table) {
    enum { KEYS = 200 };
    static struct {
        bool set;
        double number;
        uint64_t expires;
    } model[KEYS];
    struct dict dict = make(1 << 20);
    char key[32];
    for (int i = 0; i < (SLOW ? 20000 : 200000); i++) {
        unsigned k = (unsigned)(rnd() % KEYS);
        snprintf(key, sizeof key, "key%u", k);
        now += rnd() % 2;
        if (model[k].set && model[k].expires && model[k].expires <= now)
            model[k].set = false;
        uint64_t ttl = rnd() % 3 ? 0 : rnd() % 300 + 1, expires = ttl ? now + ttl : 0;
        double number = (double)(rnd() % 1000), result;
        struct dict_value value = { .kind = DICT_number, .number = number };
        int rc;
        switch (rnd() % 6) {
        case 0:
            cr_assert_eq(set_number(&dict, key, number, ttl), 0);
            model[k].set = true, model[k].number = number, model[k].expires = expires;
            break;
        case 1:
            rc = dict_add(&dict, slice_of(key), &value, ttl, now);
            cr_assert_eq(rc, model[k].set ? -EEXIST : 0);
            if (!model[k].set)
                model[k].set = true, model[k].number = number, model[k].expires = expires;
            break;
        case 2:
            cr_assert_eq(dict_incr(&dict, slice_of(key), number, 5, ttl, now, &result), 0);
            if (!model[k].set)
                model[k].set = true, model[k].number = 5, model[k].expires = expires;
            model[k].number += number;
            cr_assert_eq(result, model[k].number);
            break;
        case 3:
            cr_assert_eq(dict_delete(&dict, slice_of(key), now), model[k].set ? 0 : -ENOENT);
            model[k].set = false;
            break;
        default:
            rc = dict_get(&dict, slice_of(key), now, &value, buffer, sizeof buffer);
            cr_assert_eq(rc, model[k].set ? 0 : -ENOENT);
            if (rc == 0)
                cr_assert_eq(value.number, model[k].number);
        }
    }
    verify(&dict);
    cr_assert_eq(stats(&dict).evictions, 0);
}

Test(dict, sizes_are_checked) {
    struct error error = { "" };
    struct dict dict;
    static uint64_t memory[(1 << 17) / 8 + 1];
    char *at = (char *)memory;
    static const size_t bad[] = { 0, 1, 255, 4096, DICT_SIZE_MIN - 1, SIZE_MAX, SIZE_MAX / 2, 1ull << 39 };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(dict_format(at, bad[i], &error), -EINVAL);
        cr_assert(strstr(error.text, "expected at least 32768"), "%s", error.text);
        cr_assert_eq(dict_attach(&dict, at, bad[i], &error), -EINVAL);
    }
    cr_assert_eq(dict_format(at + 1, DICT_SIZE_MIN, &error), -EINVAL);
    cr_assert_eq(dict_attach(&dict, at, DICT_SIZE_MIN, &error), -EINVAL);
    cr_assert(strstr(error.text, "holds no dictionary"), "%s", error.text);
    for (size_t size = DICT_SIZE_MIN; size < 1 << 17; size += 8 * (rnd() % 500) + 1) {
        char key[16];
        at[size] = 77;
        cr_assert_eq(dict_format(at, size, &error), 0);
        cr_assert_eq(dict_attach(&dict, at, size, &error), 0);
        for (int i = 0; i < 1200; i++) {
            snprintf(key, sizeof key, "%d", i);
            cr_assert_eq(set_number(&dict, key, i, 0), 0);
        }
        verify(&dict);
        cr_assert_eq(at[size], 77);
        cr_assert_eq(dict_attach(&dict, at, size + 8, &error), -EINVAL);
        cr_assert(strstr(error.text, "bytes: expected"), "%s", error.text);
    }
    cr_assert_eq(dict_format(at, 1 << 17, &error), 0);
    uint32_t version = 99;
    memcpy(at + 8, &version, 4);
    cr_assert_eq(dict_attach(&dict, at, 1 << 17, &error), -EINVAL);
    cr_assert(strstr(error.text, "version 99"), "%s", error.text);
    cr_assert_eq(dict_format(at, 1 << 17, &error), 0);
    at[12] ^= 1;  // the number of shards
    cr_assert_eq(dict_attach(&dict, at, 1 << 17, &error), -EINVAL);
    cr_assert(strstr(error.text, "contradicts"), "%s", error.text);
}

Test(dict, processes_map_it_where_they_like) {
    struct error error = { "" };
    int fd = memfd_create("dict", MFD_CLOEXEC);
    cr_assert(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    void *one = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *two = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct dict a, b;
    cr_assert_eq(dict_format(one, 1 << 20, &error), 0);
    cr_assert_eq(dict_attach(&a, one, 1 << 20, &error), 0);
    cr_assert_eq(dict_attach(&b, two, 1 << 20, &error), 0);
    cr_assert_eq(set_number(&a, "k", 1, 0), 0);
    cr_assert_eq(get(&b, "k"), 1);
    cr_assert_eq(set_number(&b, "k", 2, 0), 0);
    cr_assert_eq(get(&a, "k"), 2);
    verify(&a);
    verify(&b);
    close(fd);
}

static int push(struct dict *dict, const char *key, enum dict_end end, double number) {
    struct dict_value value = { .kind = DICT_number, .number = number };
    uint64_t count = 0;
    int rc = dict_push(dict, slice_of(key), end, &value, now, &count);
    return rc < 0 ? rc : (int)count;
}

// NAN when there is none.
static double pop(struct dict *dict, const char *key, enum dict_end end) {
    struct dict_value value;
    return dict_pop(dict, slice_of(key), end, now, &value, buffer) == 0 && value.kind == DICT_number
        ? value.number
        : (double)NAN;
}

Test(dict, a_list_has_two_ends) {
    struct dict dict = make(1 << 20);
    uint64_t count = 7;
    cr_assert_eq(dict_length(&dict, SLICE_LIT("l"), now, &count), 0);
    cr_assert_eq(count, 0);
    for (int i = 1; i <= 1000; i++) {
        cr_assert_eq(push(&dict, "l", DICT_RIGHT, i), 2 * i - 1);
        cr_assert_eq(push(&dict, "l", DICT_LEFT, -i), 2 * i);
    }
    verify(&dict);
    cr_assert_eq(stats(&dict).entries, 1);
    for (int i = 1000; i >= 1; i--) {
        cr_assert_eq(pop(&dict, "l", DICT_RIGHT), i);
        cr_assert_eq(pop(&dict, "l", DICT_LEFT), -i);
    }
    cr_assert(isnan(pop(&dict, "l", DICT_LEFT)));
    cr_assert_eq(stats(&dict).entries, 0);
    verify(&dict);
}

Test(dict, a_list_is_bounded_and_has_a_time) {
    struct dict dict = make(SMALL);
    struct dict_value value = { .kind = DICT_text, .text = slice_make(buffer, 100) };
    uint64_t count = 0;
    int rc;
    while ((rc = dict_push(&dict, SLICE_LIT("l"), DICT_LEFT, &value, now, &count)) == 0) {}
    cr_assert_eq(rc, -E2BIG);
    cr_assert_eq(count, dict.value_max / (100 + LIST_OVERHEAD));
    value.text.len = dict.value_max;
    cr_assert_eq(dict_push(&dict, SLICE_LIT("k"), DICT_LEFT, &value, now, &count), -E2BIG);
    value.kind = DICT_list;
    cr_assert_eq(dict_push(&dict, SLICE_LIT("k"), DICT_LEFT, &value, now, &count), -EINVAL);
    cr_assert_eq(dict_set(&dict, SLICE_LIT("k"), &value, 0, now), -EINVAL);
    cr_assert_eq(dict_get(&dict, SLICE_LIT("l"), now, &value, buffer, sizeof buffer), -EINVAL);
    cr_assert_eq(push(&dict, "t", DICT_LEFT, 1), 1);
    cr_assert_eq(dict_expire(&dict, SLICE_LIT("t"), 100, now), 0);
    now += 60;
    cr_assert_eq(push(&dict, "t", DICT_LEFT, 2), 2);
    now += 60;
    cr_assert(isnan(pop(&dict, "t", DICT_LEFT)), "a push gave it a new time");
    verify(&dict);
}

Test(dict, a_time_can_be_set_and_read) {
    struct dict dict = make(SMALL);
    uint64_t left = 7;
    cr_assert_eq(dict_ttl(&dict, SLICE_LIT("k"), now, &left), -ENOENT);
    cr_assert_eq(dict_expire(&dict, SLICE_LIT("k"), 5, now), -ENOENT);
    cr_assert_eq(set_number(&dict, "k", 1, 0), 0);
    cr_assert_eq(dict_ttl(&dict, SLICE_LIT("k"), now, &left), 0);
    cr_assert_eq(left, 0);
    cr_assert_eq(dict_expire(&dict, SLICE_LIT("k"), 50, now), 0);
    now += 20;
    cr_assert_eq(dict_ttl(&dict, SLICE_LIT("k"), now, &left), 0);
    cr_assert_eq(left, 30);
    verify(&dict);
    now += 30;
    cr_assert_not(has(&dict, "k"));
    cr_assert_eq(set_number(&dict, "k", 1, 5), 0);
    cr_assert_eq(dict_expire(&dict, SLICE_LIT("k"), 0, now), 0);
    now += 1000;
    cr_assert(has(&dict, "k"));
    // What lies ahead again is found when room is short, however late it was set.
    cr_assert_eq(dict_expire(&dict, SLICE_LIT("k"), 10, now), 0);
    verify(&dict);
}

Test(dict, a_value_is_set_only_where_it_is_as_expected) {
    struct dict dict = make(SMALL);
    struct dict_value one = { .kind = DICT_number, .number = 1 }, two = { .kind = DICT_number, .number = 2 },
                      truth = { .kind = DICT_boolean, .boolean = true },
                      text = { .kind = DICT_text, .text = SLICE_LIT("text") },
                      other = { .kind = DICT_text, .text = SLICE_LIT("texT") };
    struct slice key = SLICE_LIT("k");
    cr_assert_eq(dict_replace(&dict, key, &one, 0, now), -ENOENT);
    cr_assert_eq(dict_compare_and_set(&dict, key, &one, &text, 0, now), -EAGAIN);
    cr_assert_eq(dict_compare_and_set(&dict, key, NULL, &one, 0, now), 0);
    cr_assert_eq(dict_compare_and_set(&dict, key, NULL, &one, 0, now), -EAGAIN);
    cr_assert_eq(dict_compare_and_set(&dict, key, &truth, &text, 0, now), -EAGAIN);
    cr_assert_eq(dict_compare_and_set(&dict, key, &two, &text, 0, now), -EAGAIN);
    cr_assert_eq(dict_compare_and_set(&dict, key, &one, &text, 0, now), 0);
    cr_assert_eq(dict_compare_and_set(&dict, key, &other, &one, 0, now), -EAGAIN);
    cr_assert_eq(dict_compare_and_set(&dict, key, &text, &truth, 0, now), 0);
    cr_assert_eq(dict_replace(&dict, key, &text, 0, now), 0);
    cr_assert_eq(dict_compare_and_set(&dict, key, &text, NULL, 0, now), 0);
    cr_assert_not(has(&dict, "k"));
    verify(&dict);
}

Test(dict, keys_are_listed_up_to_a_limit) {
    struct dict dict = make(1 << 20);
    static char keys[1000 * (1 + DICT_KEY_MAX)];
    char key[32];
    bool more;
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "%s%d", i % 2 ? "odd" : "even", i);
        cr_assert_eq(set_number(&dict, key, i, i % 10 == 0 ? 5 : 0), 0);
    }
    now += 5;
    cr_assert_eq(dict_keys(&dict, SLICE_LIT(""), 1000, now, keys, &more), 450);
    cr_assert_not(more);
    cr_assert_eq(dict_keys(&dict, SLICE_LIT("odd"), 1000, now, keys, &more), 250);
    cr_assert_eq(dict_keys(&dict, SLICE_LIT("odd"), 250, now, keys, &more), 250);
    cr_assert_not(more);
    cr_assert_eq(dict_keys(&dict, SLICE_LIT("odd"), 249, now, keys, &more), 249);
    cr_assert(more);
    for (int i = 0, at = 0; i < 249; i++, at += 1 + keys[at]) {
        snprintf(key, sizeof key, "%.*s", keys[at], keys + at + 1);
        cr_assert_eq(strncmp(key, "odd", 3), 0);
        cr_assert(has(&dict, key));
    }
    cr_assert_eq(dict_keys(&dict, SLICE_LIT("none"), 10, now, keys, &more), 0);
}

// ---- death ----

static long steps_left;

static void die_at_last_step(void) {
    if (--steps_left == 0)
        kill(getpid(), SIGKILL);
}

// Runs one operation in a process that is killed at step `step`; false when the operation has fewer steps.
static bool dies(struct dict *dict, void (*operation)(struct dict *), long step) {
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        steps_left = step;
        dict_fault = die_at_last_step;
        operation(dict);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
    return WIFSIGNALED(status);
}

static char old_text[700], new_text[900];

static void prepare(struct dict *dict) {
    char key[64];
    cr_assert_eq(dict_flush(dict), 0);
    memset(old_text, 'o', sizeof old_text);
    memset(new_text, 'n', sizeof new_text);
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "other%d", i);
        cr_assert_eq(set_text(dict, key, slice_make(old_text, (size_t)i * 20)), 0);
    }
    cr_assert_eq(set_number(dict, "number", 1, 0), 0);
    cr_assert_eq(set_text(dict, "text", slice_make(old_text, sizeof old_text)), 0);
    cr_assert_eq(set_number(dict, "short-lived", 1, 10), 0);
    double wait;
    cr_assert(take(dict, "bucket", 1, 10, 4, &wait));
    cr_assert_eq(set_number(dict, "last", 1, 0), 0);  // so that using any other moves it in the order of use
}

// Every one of the others is whole, the value in question old, new or (if it may be) absent.
static void check_after(struct dict *dict, const char *key, bool may_vanish, struct slice old,
                        struct slice new) {
    char name[64];
    struct dict_value value;
    verify(dict);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "other%d", i);
        cr_assert_eq(dict_get(dict, slice_of(name), now, &value, buffer, sizeof buffer), 0, "%s is gone",
                     name);
        cr_assert(slice_eq(value.text, slice_make(old_text, (size_t)i * 20)));
    }
    int rc = dict_get(dict, slice_of(key), now, &value, buffer, sizeof buffer);
    if (rc == -ENOENT && may_vanish)
        return;
    cr_assert_eq(rc, 0, "%s is gone", key);
    cr_assert(slice_eq(value.text, old) || slice_eq(value.text, new), "a mixture");
}

static void op_replace_text(struct dict *dict) {
    (void)set_text(dict, "text", slice_make(new_text, sizeof new_text));
}
static void op_make_text(struct dict *dict) {
    (void)set_text(dict, "fresh", slice_make(new_text, sizeof new_text));
}
static void op_delete_text(struct dict *dict) {
    (void)!dict_delete(dict, slice_of("text"), now);
}
static void op_incr(struct dict *dict) {
    double value;
    (void)!dict_incr(dict, slice_of("number"), 1, 0, 0, now, &value);
}
static void op_take(struct dict *dict) {
    bool allowed;
    double wait;
    (void)!dict_take(dict, slice_of("bucket"), 1, 10, 4, now, &allowed, &wait);
}
static void op_get_expired(struct dict *dict) {
    now += 10;
    (void)has(dict, "short-lived");
}
static void op_get(struct dict *dict) {
    (void)has(dict, "text");
}
static void op_push(struct dict *dict) {
    (void)!push(dict, "list", DICT_LEFT, 0);
}
static void op_pop(struct dict *dict) {
    (void)!isnan(pop(dict, "list", DICT_RIGHT));
}
static void op_expire(struct dict *dict) {
    (void)!dict_expire(dict, SLICE_LIT("text"), 5, now);
}
static void op_exchange(struct dict *dict) {
    struct dict_value old = { .kind = DICT_text, .text = slice_make(old_text, sizeof old_text) },
                      new = { .kind = DICT_text, .text = slice_make(new_text, sizeof new_text) };
    (void)!dict_compare_and_set(dict, SLICE_LIT("text"), &old, &new, 0, now);
}
static void op_flush(struct dict *dict) {
    (void)!dict_flush(dict);
}
static void op_verify(struct dict *dict) {
    struct error error;
    (void)!dict_verify(dict, &error);
}

Test(dict, death_at_any_step_of_a_text_leaves_the_old_or_the_new) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text), new = slice_make(new_text, sizeof new_text);
    long deaths = 0, step = 0;
    for (prepare(&dict); dies(&dict, op_replace_text, ++step); prepare(&dict), deaths++)
        check_after(&dict, "text", false, old, new);
    check_after(&dict, "text", false, new, new);
    cr_assert_gt(deaths, 40);
    cr_assert_eq((long)stats(&dict).recoveries, deaths);
    step = 0;
    for (prepare(&dict); dies(&dict, op_make_text, ++step); prepare(&dict), deaths++)
        check_after(&dict, "fresh", true, new, new);
    step = 0;
    for (prepare(&dict); dies(&dict, op_delete_text, ++step); prepare(&dict), deaths++)
        check_after(&dict, "text", true, old, old);
    cr_assert_not(has(&dict, "text"));
    cr_assert_eq((long)stats(&dict).recoveries, deaths);
}

Test(dict, death_at_any_step_of_a_counter_leaves_the_old_or_the_new) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text);
    long step = 0;
    for (prepare(&dict); dies(&dict, op_incr, ++step); prepare(&dict)) {
        double value = get(&dict, "number");
        cr_assert(value == 1 || value == 2);
        check_after(&dict, "text", false, old, old);
    }
    cr_assert_gt(step, 3);
    step = 0;
    for (prepare(&dict); dies(&dict, op_take, ++step); prepare(&dict)) {
        double wait;
        verify(&dict);
        cr_assert_not(take(&dict, "bucket", 1, 10, 9, &wait));
        cr_assert(fabs(wait - 3) < 1e-6 || fabs(wait - 7) < 1e-6, "%f", wait);
        check_after(&dict, "text", false, old, old);
    }
    cr_assert_gt(step, 3);
}

static void prepare_list(struct dict *dict) {
    prepare(dict);
    for (int i = 1; i <= 60; i++)
        cr_assert_eq(push(dict, "list", DICT_RIGHT, i), i);
}

Test(dict, death_at_any_step_of_a_list_leaves_the_old_or_the_new) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text);
    long step = 0;
    for (prepare_list(&dict); dies(&dict, op_push, ++step); prepare_list(&dict)) {
        double first = pop(&dict, "list", DICT_LEFT);
        cr_assert(first == 0 || first == 1);
        for (double next = first + 1; next <= 60; next++)
            cr_assert_eq(pop(&dict, "list", DICT_LEFT), next);
        cr_assert(isnan(pop(&dict, "list", DICT_LEFT)));
        check_after(&dict, "text", false, old, old);
    }
    cr_assert_gt(step, 20);
    step = 0;
    for (prepare_list(&dict); dies(&dict, op_pop, ++step); prepare_list(&dict)) {
        uint64_t count;
        cr_assert_eq(dict_length(&dict, SLICE_LIT("list"), now, &count), 0);
        cr_assert(count == 59 || count == 60);
        for (double next = (double)count; next >= 1; next--)
            cr_assert_eq(pop(&dict, "list", DICT_RIGHT), next);
        check_after(&dict, "text", false, old, old);
    }
    cr_assert_gt(step, 20);
}

Test(dict, death_at_any_step_of_a_time_or_an_exchange_harms_nothing) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text), new = slice_make(new_text, sizeof new_text);
    long step = 0;
    for (prepare(&dict); dies(&dict, op_expire, ++step); prepare(&dict)) {
        check_after(&dict, "text", false, old, old);
        now += 5;
        check_after(&dict, "text", true, old, old);
    }
    cr_assert_gt(step, 3);
    step = 0;
    for (prepare(&dict); dies(&dict, op_exchange, ++step); prepare(&dict))
        check_after(&dict, "text", false, old, new);
    check_after(&dict, "text", false, new, new);
    cr_assert_gt(step, 40);
}

Test(dict, death_at_any_step_of_other_calls_harms_nothing) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text);
    long step = 0;
    for (prepare(&dict); dies(&dict, op_get_expired, ++step); prepare(&dict))
        check_after(&dict, "text", false, old, old);
    step = 0;
    for (prepare(&dict); dies(&dict, op_get, ++step); prepare(&dict))
        check_after(&dict, "text", false, old, old);
    step = 0;
    for (prepare(&dict); dies(&dict, op_flush, ++step); prepare(&dict)) {
        verify(&dict);
        cr_assert(stats(&dict).entries == 0 || stats(&dict).entries == 25);
    }
    cr_assert_gt(step, 3);
}

Test(dict, death_while_making_room_harms_nothing) {
    struct dict dict = make(SMALL);
    char key[32];
    for (long step = 1;; step++) {
        cr_assert_eq(dict_flush(&dict), 0);
        memset(new_text, 'n', sizeof new_text);
        for (unsigned i = 0; i < dict.cell_count; i++) {
            snprintf(key, sizeof key, "k%u", i);
            cr_assert_eq(set_number(&dict, key, i, 0), 0);
        }
        bool died = dies(&dict, op_make_text, step);
        verify(&dict);
        for (unsigned i = 20; i < dict.cell_count; i++) {
            snprintf(key, sizeof key, "k%u", i);
            cr_assert_eq(get(&dict, key), i);
        }
        if (!died)
            break;
    }
}

Test(dict, death_while_recovering_harms_nothing) {
    struct dict dict = make(SMALL);
    struct slice old = slice_make(old_text, sizeof old_text), new = slice_make(new_text, sizeof new_text);
    for (long step = 1;; step += 5) {
        long again = 0;
        prepare(&dict);
        if (!dies(&dict, op_replace_text, step))
            break;
        while (dies(&dict, op_verify, again += 2))  // each one dies a little later in the same recovery
            ;
        cr_assert_gt(again, 20);
        check_after(&dict, "text", false, old, new);
    }
}

// What lists are hammered with: a mark, and as many bytes as it says, all alike.
static struct slice list_value(uint64_t mark, char *text) {
    size_t len = 8 + mark % 200;
    memset(text, (int)(mark >> 8), len);
    memcpy(text, &mark, 8);
    return slice_make(text, len);
}
static bool list_value_whole(struct slice text) {
    uint64_t mark;
    char expected[8 + 200];
    if (text.len < 8)
        return false;
    memcpy(&mark, text.at, 8);
    return slice_eq(text, list_value(mark, expected));
}

// What a random killing finds: text whose every byte follows from its first eight.
static void hammer(struct dict *dict, uint64_t own_seed, unsigned keys) {
    static char text[3000];
    char key[32];
    for (seed = own_seed;;) {
        double number;
        bool allowed;
        uint64_t mark = rnd();
        unsigned k = (unsigned)(rnd() % keys);
        snprintf(key, sizeof key, "key%u", k);
        now = (uint64_t)(seconds() * 1000);
        switch (rnd() % 14) {
        case 10:
        case 11: {
            struct dict_value value = { .kind = DICT_text, .text = list_value(mark, text) };
            uint64_t count;
            snprintf(key, sizeof key, "list%u", k % 10);
            (void)!dict_push(dict, slice_of(key), rnd() % 2 ? DICT_LEFT : DICT_RIGHT, &value, now, &count);
            break;
        }
        case 12: {
            struct dict_value value;
            snprintf(key, sizeof key, "list%u", k % 10);
            (void)!dict_pop(dict, slice_of(key), rnd() % 2 ? DICT_LEFT : DICT_RIGHT, now, &value, buffer);
            break;
        }
        case 13:
            (void)!dict_expire(dict, slice_of(key), rnd() % 20, now);
            break;
        case 0:
            (void)!dict_delete(dict, slice_of(key), now);
            break;
        case 1:
            (void)has(dict, key);
            break;
        case 2:
            (void)!dict_incr(dict, SLICE_LIT("total"), 1, 0, 0, now, &number);
            break;
        case 3:
            snprintf(key, sizeof key, "bucket%u", k);
            (void)!dict_take(dict, slice_of(key), 10, 10, 1, now, &allowed, &number);
            break;
        default: {
            size_t len = 16 + mark % (sizeof text - 16);
            memcpy(text, &mark, 8);
            for (size_t i = 8; i < len; i++)
                text[i] = (char)(mark * i >> 7);
            struct dict_value value = { .kind = DICT_text, .text = slice_make(text, len) };
            (void)!dict_set(dict, slice_of(key), &value, rnd() % 2 ? rnd() % 20 : 0, now);
        }
        }
    }
}

static bool whole(struct slice text) {
    uint64_t mark;
    memcpy(&mark, text.at, 8);
    if (text.len != 16 + mark % (3000 - 16))
        return false;
    for (size_t i = 8; i < text.len; i++)
        if (text.at[i] != (char)(mark * i >> 7))
            return false;
    return true;
}

Test(dict, hundreds_of_kills_at_random_moments_leave_it_whole) {
    enum { WORKERS = 2, KEYS = 100 };
    struct dict dict = make(131072);  // room for about half of it: evictions all the time
    pid_t pids[WORKERS] = { 0 };
    int kills = 0, seen = 0;
    double last_total = 0;
    char key[32];
    seed ^= (uint64_t)getpid() << 20;
    double start = seconds();
    while (kills < 400 && seconds() - start < 2.5) {
        for (int i = 0; i < WORKERS; i++) {
            if (pids[i])
                continue;
            uint64_t own = rnd();
            pids[i] = fork();
            cr_assert(pids[i] >= 0);
            if (pids[i] == 0)
                hammer(&dict, own, KEYS);
        }
        usleep((useconds_t)(rnd() % 4000 + 200));
        int victim = (int)(rnd() % WORKERS);
        kill(pids[victim], SIGKILL);
        waitpid(pids[victim], NULL, 0);
        pids[victim] = 0;
        kills++;
        now = (uint64_t)(seconds() * 1000);
        verify(&dict);
        for (unsigned k = 0; k < KEYS; k++) {
            struct dict_value value;
            snprintf(key, sizeof key, "key%u", k);
            if (dict_get(&dict, slice_of(key), now, &value, buffer, sizeof buffer) < 0)
                continue;
            seen++;
            cr_assert(value.kind == DICT_text && whole(value.text), "\"%s\" is a mixture after %d kills", key,
                      kills);
        }
        for (unsigned k = 0; k < 10; k++) {
            struct dict_value value;
            uint64_t count, popped = 0;
            snprintf(key, sizeof key, "list%u", k);
            cr_assert_eq(dict_length(&dict, slice_of(key), now, &count), 0);
            for (; kills % 8 == 0 && dict_pop(&dict, slice_of(key), popped % 2 ? DICT_LEFT : DICT_RIGHT, now,
                                              &value, buffer) == 0;
                 popped++)
                cr_assert(value.kind == DICT_text && list_value_whole(value.text), "\"%s\" is a mixture", key);
        }
        double total = get(&dict, "total");
        cr_assert(isnan(total) || total >= last_total || stats(&dict).evictions > 0);
        last_total = total;
    }
    for (int i = 0; i < WORKERS; i++)
        if (pids[i]) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
    verify(&dict);
    struct dict_stats s = stats(&dict);
    fprintf(stderr, "dict: %d kills, %llu shards recovered, %d values found whole, %llu evictions\n", kills,
            (unsigned long long)s.recoveries, seen, (unsigned long long)s.evictions);
    // On an idle machine some four hundred kills and seventy recoveries; a loaded one may do few.
    cr_assert(kills >= 10 && seen > 100);
    cr_assert(s.recoveries > 0 || kills < 200);
}

Test(dict, processes_that_contend_lose_nothing) {
    enum { WORKERS = 4, TURNS = SLOW ? 5000 : 50000 };
    struct dict dict = make(1 << 20);
    pid_t pids[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        pids[i] = fork();
        cr_assert(pids[i] >= 0);
        if (pids[i] > 0)
            continue;
        double number;
        bool allowed;
        for (int turn = 0; turn < TURNS; turn++) {
            if (dict_incr(&dict, turn % 2 ? SLICE_LIT("odd") : SLICE_LIT("even"), 1, 0, 0, now, &number) <
                    0 ||
                dict_take(&dict, SLICE_LIT("bucket"), 1e-3, 1000, 1, now, &allowed, &number) < 0 ||
                (allowed && dict_incr(&dict, SLICE_LIT("allowed"), 1, 0, 0, now, &number) < 0))
                _exit(1);
        }
        _exit(0);
    }
    for (int i = 0; i < WORKERS; i++) {
        int status;
        cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    cr_assert_eq(get(&dict, "odd"), WORKERS * TURNS / 2);
    cr_assert_eq(get(&dict, "even"), WORKERS * TURNS / 2);
    cr_assert_eq(get(&dict, "allowed"), 1000);
    verify(&dict);
}

Test(dict, speed_is_printed) {
    enum { KEYS = 20000, TURNS = SLOW ? 50000 : 1000000 };
    struct dict dict = make(16 << 20);
    static char keys[KEYS][24];
    double number;
    bool allowed;
    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "%d.%d.%d.%d", i % 223, i / 7 % 256, i / 3 % 256, i % 256);
        cr_assert_eq(set_number(&dict, keys[i], i, 0), 0);
    }
    for (int many = 0; many < 2; many++) {
        int span = many ? KEYS : 64;
        double t0 = seconds();
        for (int i = 0; i < TURNS; i++)
            (void)get(&dict, keys[i % span]);
        double t1 = seconds();
        for (int i = 0; i < TURNS; i++)
            (void)set_number(&dict, keys[i % span], i, 0);
        double t2 = seconds();
        for (int i = 0; i < TURNS; i++)
            (void)!dict_incr(&dict, slice_of(keys[i % span]), 1, 0, 0, now, &number);
        double t3 = seconds();
        cr_assert_eq(dict_flush(&dict), 0);
        for (int i = 0; i < TURNS; i++)
            (void)!dict_take(&dict, slice_of(keys[i % span]), 1e-3, 1e6, 1, now, &allowed, &number);
        double t4 = seconds();
        fprintf(stderr, "dict, %d keys: get %.0f ns, set %.0f ns, incr %.0f ns, take %.0f ns\n", span,
                (t1 - t0) / TURNS * 1e9, (t2 - t1) / TURNS * 1e9, (t3 - t2) / TURNS * 1e9,
                (t4 - t3) / TURNS * 1e9);
        for (int i = 0; i < KEYS; i++)
            cr_assert_eq(set_number(&dict, keys[i], i, 0), 0);
    }
    verify(&dict);
}
