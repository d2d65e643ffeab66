// SPDX-License-Identifier: BSD-2-Clause
// The memory of scripts' metrics: what is counted is found again by the next process and summed by the
// reader, bounds hold, and a region that somebody tampered with harms nobody who reads it.
#include "base/metrics.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static struct error error;

static void *region_new(void) {
    void *region = calloc(1, METRICS_SIZE);
    cr_assert(region);
    return region;
}
static struct metrics attach(void *region, unsigned most) {
    struct metrics metrics;
    cr_assert_eq(metrics_attach(&metrics, region, METRICS_SIZE, most), 0);
    return metrics;
}

static struct metric_family counter_of(const char *name, const char *label) {
    return (struct metric_family){ .kind = METRIC_COUNTER,
                                   .name = slice_of(name),
                                   .help = SLICE_LIT("words"),
                                   .label_count = label != NULL,
                                   .labels = { slice_of(label) } };
}

static uint32_t define(struct metrics *metrics, struct metric_family family) {
    uint32_t id = 0;
    cr_assert_eq(metrics_define(metrics, &family, &id, &error), 0, "%s", error.text);
    return id;
}

static double *words(struct metrics *metrics, uint32_t id, struct slice values) {
    double *at = NULL;
    cr_assert_geq(metrics_series(metrics, id, values, &at), 0);
    return at;
}

Test(metrics, what_is_counted_is_found_again) {
    void *region = region_new();
    struct metrics one = attach(region, 10);
    uint32_t id = define(&one, counter_of("a_total", "host"));
    *words(&one, id, SLICE_LIT("x\0")) += 5;
    *words(&one, id, SLICE_LIT("y\0")) += 2.5;
    cr_assert_eq(define(&one, counter_of("a_total", "host")), id);
    metrics_detach(&one);
    struct metrics two = attach(region, 10);  // the next worker
    cr_assert_eq(define(&two, counter_of("a_total", "host")), id);
    cr_assert_eq(*words(&two, id, SLICE_LIT("x\0")), 5);
    cr_assert_eq(*words(&two, id, SLICE_LIT("y\0")), 2.5);
    metrics_detach(&two);
    free(region);
}

Test(metrics, what_was_not_complete_is_not_there) {
    void *region = region_new();
    struct metrics one = attach(region, 10);
    uint32_t id = define(&one, counter_of("a_total", "host"));
    uint32_t complete;
    memcpy(&complete, region, sizeof complete);
    *words(&one, id, SLICE_LIT("x\0")) = 1;
    memcpy(region, &complete, sizeof complete);  // a death before the last store of the append
    metrics_detach(&one);
    struct metrics two = attach(region, 10);
    cr_assert_eq(*words(&two, id, SLICE_LIT("x\0")), 0);
    metrics_detach(&two);
    free(region);
}

Test(metrics, labels_are_bounded) {
    void *region = region_new();
    struct metrics metrics = attach(region, 3);
    uint32_t id = define(&metrics, counter_of("a_total", "host"));
    double *at;
    for (int i = 0; i < 100; i++) {
        char value[8];
        int n = snprintf(value, sizeof value, "v%d", i);
        int rc = metrics_series(&metrics, id, slice_make(value, (size_t)n + 1), &at);
        cr_assert_eq(rc, i < 3 ? 0 : 1);
        *at += 1;
    }
    cr_assert_eq(*words(&metrics, id, SLICE_LIT("other\0")), 97);
    cr_assert_eq(*words(&metrics, id, SLICE_LIT("v1\0")), 1);
    metrics_detach(&metrics);
    free(region);
}

Test(metrics, memory_is_bounded) {
    void *region = region_new();
    struct metrics metrics = attach(region, 1000000);
    uint32_t id = define(&metrics, counter_of("a_total", "host"));
    double *at;
    int rc = 0, count = 0;
    for (; rc == 0; count++) {
        char value[16];
        int n = snprintf(value, sizeof value, "v%d", count);
        rc = metrics_series(&metrics, id, slice_make(value, (size_t)n + 1), &at);
    }
    cr_assert_eq(rc, -ENOSPC);
    cr_assert(count > 3000 && count < 10000, "%d", count);
    // A reader takes it as it is.
    struct metrics sums;
    void *more = calloc(1, 4 * METRICS_SIZE);
    cr_assert_eq(metrics_attach(&sums, more, 4 * METRICS_SIZE, UINT32_MAX), 0);
    metrics_add(&sums, region, METRICS_SIZE);
    cr_assert_eq(memcmp(region, more, 4), 0, "not the same length");
    metrics_detach(&sums);
    metrics_detach(&metrics);
    free(more);
    free(region);
}

Test(metrics, regions_are_summed) {
    void *regions[2] = { region_new(), region_new() }, *sum = region_new();
    struct metric_family spread = {
        .kind = METRIC_HISTOGRAM, .name = SLICE_LIT("s"), .bucket_count = 2, .bounds = { 1, 2 }
    };
    struct metrics sums = attach(sum, 100);
    for (int i = 0; i < 2; i++) {
        struct metrics metrics = attach(regions[i], 100);
        if (i == 1)
            define(&metrics, counter_of("only_here_total", NULL));
        uint32_t id = define(&metrics, spread), other = define(&metrics, counter_of("a_total", "host"));
        double *at = words(&metrics, id, slice_make(NULL, 0));
        at[METRIC_COUNT] = 3;
        at[METRIC_SUM] = 4.5;
        at[METRIC_BUCKETS] = 1;
        at[METRIC_BUCKETS + 1] = 2;
        *words(&metrics, other, i ? SLICE_LIT("x\0") : SLICE_LIT("y\0")) = 7;
        metrics_detach(&metrics);
        metrics_add(&sums, regions[i], METRICS_SIZE);
    }
    struct metric_family family;
    struct slice values[METRIC_LABELS_MAX];
    const double *at;
    uint32_t position = 0, id, series = 0;
    cr_assert(metrics_next_family(&sums, &position, &id, &family));
    cr_assert(slice_eq(family.name, SLICE_LIT("s")) && family.kind == METRIC_HISTOGRAM &&
              family.bounds[1] == 2);
    cr_assert(metrics_next_series(&sums, id, &series, values, &at));
    cr_assert(at[METRIC_COUNT] == 6 && at[METRIC_SUM] == 9 && at[METRIC_BUCKETS] == 2 &&
              at[METRIC_BUCKETS + 1] == 4);
    cr_assert_not(metrics_next_series(&sums, id, &series, values, &at));
    cr_assert(metrics_next_family(&sums, &position, &id, &family));
    cr_assert(slice_eq(family.labels[0], SLICE_LIT("host")) && slice_eq(family.help, SLICE_LIT("words")));
    series = 0;
    cr_assert(metrics_next_series(&sums, id, &series, values, &at) && slice_eq(values[0], SLICE_LIT("y")) &&
              *at == 7);
    cr_assert(metrics_next_series(&sums, id, &series, values, &at) && slice_eq(values[0], SLICE_LIT("x")));
    metrics_detach(&sums);
    free(regions[0]);
    free(regions[1]);
    free(sum);
}

Test(metrics, a_death_takes_gauges_to_zero) {
    void *region = region_new();
    struct metrics metrics = attach(region, 10);
    struct metric_family level = counter_of("level", NULL);
    level.kind = METRIC_GAUGE;
    double *gauge = words(&metrics, define(&metrics, level), slice_make(NULL, 0));
    double *counter = words(&metrics, define(&metrics, counter_of("a_total", NULL)), slice_make(NULL, 0));
    *gauge = *counter = 3;
    metrics_bury(region, METRICS_SIZE);
    cr_assert(*gauge == 0 && *counter == 3);
    metrics_detach(&metrics);
    free(region);
}

Test(metrics, definitions_are_checked) {
    void *region = region_new();
    struct metrics metrics = attach(region, 10);
    static const char *const bad[] = { "", "a b", "1a", "a-b", "\xc3\xbc", "moongate_requests", "a{", "a\n" };
    uint32_t id;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct metric_family family = counter_of(bad[i], NULL);
        cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL, "\"%s\"", bad[i]);
        family = counter_of("a", bad[i]);
        if (i != 5)
            cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL, "\"%s\"", bad[i]);
    }
    struct metric_family family = counter_of("a", "__a");
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL);
    family = counter_of("a", "a:b");
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL);
    family = counter_of("a", "le");
    family.kind = METRIC_HISTOGRAM;
    family.bucket_count = 1;
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL);
    family.labels[0] = SLICE_LIT("x");
    family.bucket_count = 2;
    family.bounds[0] = family.bounds[1] = 1;
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL);
    family.bounds[1] = 2;
    define(&metrics, family);
    family.bounds[1] = 3;
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL, "other buckets");
    family = counter_of("a", "x");
    cr_assert_eq(metrics_define(&metrics, &family, &id, &error), -EINVAL, "another kind");
    cr_assert(strstr(error.text, "changes only with a restart"));
    metrics_detach(&metrics);
    free(region);
}

// The master reads what workers wrote.
Test(metrics, a_region_that_was_tampered_with_is_read_up_to_there) {
    uint64_t seed = 88172645463325252u;
    unsigned char *good = region_new(), *bad = region_new();
    struct metrics metrics = attach(good, 10);
    struct metric_family spread = {
        .kind = METRIC_HISTOGRAM, .name = SLICE_LIT("s"), .bucket_count = 2, .bounds = { 1, 2 }
    };
    uint32_t id = define(&metrics, spread), other = define(&metrics, counter_of("a_total", "host")), length;
    words(&metrics, id, slice_make(NULL, 0))[0] = 1;
    *words(&metrics, other, SLICE_LIT("x\0")) = 1;
    metrics_detach(&metrics);
    memcpy(&length, good, sizeof length);
    for (int round = 0; round < 20000; round++) {
        memcpy(bad, good, METRICS_SIZE);
        for (int changes = 0; changes < 3; changes++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bad[seed % length] = seed >> 40 & 1 ? (unsigned char)(seed >> 32) : 0xff;
        }
        unsigned char *sum = region_new();
        struct metrics sums;
        cr_assert_eq(metrics_attach(&sums, sum, METRICS_SIZE, 10), 0);
        metrics_add(&sums, bad, METRICS_SIZE);
        metrics_bury(bad, METRICS_SIZE);
        metrics_detach(&sums);
        free(sum);
        cr_assert_eq(metrics_attach(&metrics, bad, METRICS_SIZE, 10), 0);
        metrics_detach(&metrics);
    }
    free(good);
    free(bad);
}

// How many bytes of a region are taken for good after one change of it.
static uint32_t good_after(const unsigned char *good, uint32_t at, const void *bytes, size_t len) {
    unsigned char *bad = region_new();
    uint32_t end;
    memcpy(bad, good, METRICS_SIZE);
    memcpy(bad + at, bytes, len);
    struct metrics metrics = attach(bad, 10);
    memcpy(&end, bad, sizeof end);
    metrics_detach(&metrics);
    free(bad);
    return end;
}

Test(metrics, each_rule_of_a_record_is_checked) {
    enum { START = 8, SIZE = 0, TYPE = 4, KIND = 5, LABELS = 6, WORDS = 8, TEXT_LEN = 12, FAMILY = 16, HEAD = 24 };
    unsigned char *good = region_new();
    struct metrics metrics = attach(good, 10);
    uint32_t id = define(&metrics, counter_of("a_total", "host")), series, end;
    memcpy(&series, good, sizeof series);
    *words(&metrics, id, SLICE_LIT("x\0")) = 1;
    metrics_detach(&metrics);
    memcpy(&end, good, sizeof end);
    cr_assert_eq(id, START);
    static const uint32_t sizes[] = { 0, 8, 9, 1 << 30, 0xfffffff8 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_assert_eq(good_after(good, START + SIZE, &sizes[i], 4), START);
        cr_assert_eq(good_after(good, series + SIZE, &sizes[i], 4), series);
    }
    static const uint32_t lengths[] = { 1, 1000, 1 << 30, 0xffffffff };
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        cr_assert_eq(good_after(good, START + TEXT_LEN, &lengths[i], 4), START);
        cr_assert_eq(good_after(good, series + TEXT_LEN, &lengths[i], 4), series);
        cr_assert_eq(good_after(good, series + WORDS, i ? &lengths[i] : &(uint32_t){ 0 }, 4), series);
    }
    static const uint32_t families[] = { 0, 1, 9, 16, 1 << 20, 0xfffffff8 };
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++)
        cr_assert_eq(good_after(good, series + FAMILY, &families[i], 4), series);
    cr_assert_eq(good_after(good, series + FAMILY, &series, 4), series);
    cr_assert_eq(good_after(good, START + TYPE, "\3", 1), START);
    cr_assert_eq(good_after(good, START + KIND, "\3", 1), START);
    cr_assert_eq(good_after(good, START + LABELS, "\2", 1), START);
    cr_assert_eq(good_after(good, START + LABELS, "\xff", 1), START);
    cr_assert_eq(good_after(good, START + KIND, "\2", 1), series, "of a histogram it has too few words");
    cr_assert_eq(good_after(good, series + HEAD + 8 + 1, "y", 1), series, "no NUL");
    cr_assert_eq(good_after(good, series + HEAD + 8, "", 1), series, "two labels");
    static const uint32_t ends[] = { 0, 7, METRICS_SIZE + 8, 0xffffffff };
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++)
        cr_assert_eq(good_after(good, 0, &ends[i], 4), START);
    cr_assert_eq(good_after(good, series + HEAD, "\1", 1), end, "a number may be any");
    free(good);
}
