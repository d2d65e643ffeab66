// SPDX-License-Identifier: BSD-2-Clause
// The metrics that scripts make: counters, gauges and histograms with labels. Each worker writes to a region
// of its own in the master's memory, so that counting needs no lock; the master adds the regions up when
// somebody asks. A region outlives its worker and every reload.
//
//   family  a metric: name, help, names of labels, bounds of buckets
//   series  one combination of values of a family's labels, and its numbers (words)
//   region  families and series one behind the other; only ever appended to, by one process. What is between
//           its start and `used` is complete, so that a death in the middle of an append leaves nothing
//
// moongate's own counters are in counters.h.
#ifndef MOONGATE_BASE_METRICS_H
#define MOONGATE_BASE_METRICS_H

#include "base/error.h"
#include "base/slice.h"

enum {
    METRICS_SIZE = 256 << 10,  // bytes of a worker's region: some 3000 series
    METRIC_SERIES_MAX = 1000,  // of one family in one worker
    METRIC_LABELS_MAX = 4,
    METRIC_BUCKETS_MAX = 32,
    METRIC_NAME_MAX = 100,  // of labels too
    METRIC_HELP_MAX = 300,
    METRIC_VALUE_MAX = 128,  // of a label; more is cut
};

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_KINDS };

// The words of a series: one number, or of a histogram these and then one count a bucket (what fell into that
// one alone).
enum { METRIC_COUNT, METRIC_SUM, METRIC_BUCKETS };

struct metric_family {
    enum metric_kind kind;
    unsigned label_count, bucket_count;
    struct slice name, help;
    struct slice labels[METRIC_LABELS_MAX];
    double bounds[METRIC_BUCKETS_MAX];  // rising
};

// A process's hold on a region.
struct metrics {
    char *base;
    size_t size;
    uint32_t *index;  // of series by hash; 0: none
    uint32_t index_size;
    unsigned series_max;
};

// Uses a region that is zero, or was used before by whatever process. -ENOMEM.
int metrics_attach(struct metrics *metrics, void *region, size_t size, unsigned series_max)
    __attribute__((warn_unused_result));
void metrics_detach(struct metrics *metrics);

// Finds the family or appends it. -EINVAL with the reason for names that Prometheus does not allow, and when
// the name is that of another kind or has other labels or buckets; -ENOSPC.
int metrics_define(struct metrics *metrics, const struct metric_family *family, uint32_t *ret_family,
                   struct error *error) __attribute__((warn_unused_result));
// The words of a series, appended when it is new: valid as long as the region is mapped. `values` has the
// labels' values, each with a NUL behind it. 0; 1 when the bound is reached, and the words are those of the
// series in which all labels are "other"; -ENOSPC when not even that has room.
int metrics_series(struct metrics *metrics, uint32_t family, struct slice values, double **ret_words)
    __attribute__((warn_unused_result));

// The process that wrote to the region is dead: gauges go to zero, the others stay.
void metrics_bury(void *region, size_t size);

// Adds all that is in a region (which may hold anything: it is checked first) to `sums`.
void metrics_add(struct metrics *sums, const void *region, size_t size);

// Goes through what `metrics` holds. Start with *position 0; false at the end.
bool metrics_next_family(const struct metrics *metrics, uint32_t *position, uint32_t *ret_id,
                         struct metric_family *ret_family);
bool metrics_next_series(const struct metrics *metrics, uint32_t family, uint32_t *position,
                         struct slice ret_values[METRIC_LABELS_MAX], const double **ret_words);

#endif
