// SPDX-License-Identifier: BSD-2-Clause
// The C API of scripts for metrics: defining one, and finding the words of a combination of labels. Counting
// itself is lua/moongate/metrics.lua's, which writes to the words (base/metrics.h).
#include "base/counters.h"
#include "script/api_impl.h"
#include "script/host.h"

int mg_metric_define(int kind, const char *names, size_t len, const double *bounds, int bound_count) {
    struct metric_family family = { .kind = (enum metric_kind)kind };
    struct slice parts[2 + METRIC_LABELS_MAX], rest = slice_make(names, len);
    struct error error;
    unsigned count = 0;
    uint32_t id;
    if (!host_running)
        return mg_error("no script runs");
    for (const char *end; rest.len > 0 && (end = memchr(rest.at, 0, rest.len)); count++) {
        if (count == sizeof parts / sizeof *parts)
            return mg_error("a metric has at most %d labels", METRIC_LABELS_MAX);
        parts[count] = slice_make(rest.at, (size_t)(end - rest.at));
        rest = slice_from(rest, parts[count].len + 1);
    }
    if (count < 2 || kind < 0 || kind >= METRIC_KINDS)
        return mg_error("that is no metric");
    if (bound_count < 0 || bound_count > METRIC_BUCKETS_MAX)
        return mg_error("a histogram has at most %d buckets", METRIC_BUCKETS_MAX);
    family.name = parts[0];
    family.help = parts[1];
    family.label_count = count - 2;
    for (unsigned i = 2; i < count; i++)
        family.labels[i - 2] = parts[i];
    family.bucket_count = (unsigned)bound_count;
    if (bound_count > 0)
        memcpy(family.bounds, bounds, (size_t)bound_count * sizeof *bounds);
    if (metrics_define(host_running->metrics, &family, &id, &error) < 0)
        return mg_error("%s", error.text);
    return (int)id;
}

int mg_metric_series(int id, const char *values, size_t len, double **ret_words) {
    static double lost[METRIC_BUCKETS + METRIC_BUCKETS_MAX];
    int rc = host_running
        ? metrics_series(host_running->metrics, (uint32_t)id, slice_make(values, len), ret_words)
        : -1;
    if (rc != 0)
        counters->metric_series_lost++;
    if (rc < 0)
        *ret_words = lost;
    return rc == 0 ? MG_OK : MG_NONE;
}
