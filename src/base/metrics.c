// SPDX-License-Identifier: BSD-2-Clause
// The memory of scripts' metrics (metrics.h). Scripts reach it through script/api_metrics.c, the master reads
// it for `moongatectl show metrics`.
#include "base/metrics.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum record_type { RECORD_NONE, RECORD_FAMILY, RECORD_SERIES };

// Followed by `words` doubles (of a family the bounds), then the text: each part with a NUL behind it.
struct record {
    uint32_t size;  // all of it, a multiple of 8
    uint8_t type, kind, labels;
    uint8_t unused;
    uint32_t words, text_len;
    uint32_t family;  // of a series: where that is
    uint32_t series;  // of a family: how many it has
};
enum { START = 8 };  // the region begins with `used`
_Static_assert(sizeof(struct record) % 8 == 0, "words are aligned");

static _Atomic uint32_t *used_of(const struct metrics *metrics) {
    return (_Atomic uint32_t *)(void *)metrics->base;
}
static uint32_t used(const struct metrics *metrics) {
    return atomic_load_explicit(used_of(metrics), memory_order_acquire);
}
static struct record *record_at(const struct metrics *metrics, uint32_t at) {
    return (struct record *)(void *)(metrics->base + at);
}
static double *words_of(const struct record *record) {
    return (double *)(void *)((char *)(uintptr_t)record + sizeof *record);
}
static struct slice text_of(const struct record *record) {
    return slice_make((const char *)(words_of(record) + record->words), record->text_len);
}

// Takes the next part off a record's text.
static bool take_part(struct slice *rest, struct slice *ret_part) {
    const char *end = rest->len > 0 ? memchr(rest->at, 0, rest->len) : NULL;
    if (!end)
        return false;
    *ret_part = slice_make(rest->at, (size_t)(end - rest->at));
    *rest = slice_from(*rest, ret_part->len + 1);
    return true;
}

static unsigned series_words(const struct record *family) {
    return family->kind == METRIC_HISTOGRAM ? METRIC_BUCKETS + family->words : 1;
}

// ---- checking: a region was written by another process, which may have been anybody's ---------------------

static bool parts_are(struct slice text, unsigned count) {
    struct slice part;
    while (count-- > 0)
        if (!take_part(&text, &part))
            return false;
    return text.len == 0;
}

// families: a bit for each place where a family begins.
static bool record_ok(const struct metrics *metrics, uint32_t at, uint32_t end,
                      const unsigned char *families) {
    const struct record *record = record_at(metrics, at), *family;
    if (end - at < sizeof *record || record->size % 8 != 0 || record->size < sizeof *record ||
        record->size > end - at || record->words > METRIC_BUCKETS + METRIC_BUCKETS_MAX ||
        record->text_len > record->size - sizeof *record ||
        record->words * sizeof(double) + record->text_len > record->size - sizeof *record)
        return false;
    if (record->type == RECORD_FAMILY)
        return record->kind < METRIC_KINDS && record->labels <= METRIC_LABELS_MAX &&
            record->words <= METRIC_BUCKETS_MAX && parts_are(text_of(record), 2u + record->labels);
    if (record->type != RECORD_SERIES || record->family % 8 != 0 || record->family >= at ||
        !(families[record->family / 64] & 1u << record->family / 8 % 8))
        return false;
    family = record_at(metrics, record->family);
    return record->words == series_words(family) && parts_are(text_of(record), family->labels);
}

// Where the first record begins that makes no sense: the end, unless somebody tampered with it.
static uint32_t checked_end(const struct metrics *metrics) {
    uint32_t end = used(metrics), at = START;
    unsigned char *families = end >= START && end <= metrics->size ? calloc(1, metrics->size / 64 + 1) : NULL;
    while (families && at < end && record_ok(metrics, at, end, families)) {
        if (record_at(metrics, at)->type == RECORD_FAMILY)
            families[at / 64] |= (unsigned char)(1u << at / 8 % 8);
        at += record_at(metrics, at)->size;
    }
    free(families);
    return at;
}

// ---- writing ----------------------------------------------------------------------------------------------

static uint32_t *index_slot(const struct metrics *metrics, uint32_t family, struct slice values) {
    uint32_t mask = metrics->index_size - 1, i = (uint32_t)slice_hash(values, family) & mask;
    for (;; i = (i + 1) & mask) {
        const struct record *record = metrics->index[i] ? record_at(metrics, metrics->index[i]) : NULL;
        if (!record || (record->family == family && slice_eq(text_of(record), values)))
            return &metrics->index[i];
    }
}

int metrics_attach(struct metrics *metrics, void *region, size_t size, unsigned series_max) {
    uint32_t slots = 64;
    while (slots < size / sizeof(struct record) * 2)
        slots *= 2;
    *metrics =
        (struct metrics){ .base = region, .size = size, .series_max = series_max, .index_size = slots };
    metrics->index = calloc(slots, sizeof *metrics->index);
    if (!metrics->index)
        return -ENOMEM;
    atomic_store(used_of(metrics), checked_end(metrics));
    for (uint32_t at = START; at < used(metrics); at += record_at(metrics, at)->size)
        if (record_at(metrics, at)->type == RECORD_SERIES)
            *index_slot(metrics, record_at(metrics, at)->family, text_of(record_at(metrics, at))) = at;
    return 0;
}

void metrics_detach(struct metrics *metrics) {
    free(metrics->index);
    metrics->index = NULL;
}

// Appends a record whose words are zero; NULL without room. record_done() makes it count.
static struct record *append(struct metrics *metrics, uint32_t words, size_t text_len, char **ret_text) {
    size_t size = (sizeof(struct record) + words * sizeof(double) + text_len + 7) / 8 * 8;
    uint32_t at = used(metrics);
    if (size > metrics->size - at)
        return NULL;
    struct record *record = record_at(metrics, at);
    memset((char *)record, 0, size);
    record->size = (uint32_t)size;
    record->words = words;
    record->text_len = (uint32_t)text_len;
    *ret_text = (char *)(words_of(record) + words);
    return record;
}

static void record_done(struct metrics *metrics, const struct record *record) {
    atomic_store_explicit(used_of(metrics), used(metrics) + record->size, memory_order_release);
}

static void put_part(char **to, struct slice part) {
    if (part.len > 0)
        memcpy(*to, part.at, part.len);
    *to += part.len;
    *(*to)++ = 0;
}

// Names as Prometheus allows them; those of labels have no colon.
static bool name_ok(struct slice name, bool colon) {
    if (name.len == 0 || name.len > METRIC_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c == ':' && colon) ||
              (c >= '0' && c <= '9' && i > 0)))
            return false;
    }
    return true;
}

static int check_family(const struct metric_family *family, struct error *error) {
    if (!name_ok(family->name, true))
        return error_set(error, -EINVAL,
                         "\"%.*s\" is no name of a metric: letters, digits and _, 100 at most",
                         SLICE_ARG(family->name));
    if (slice_starts(family->name, SLICE_LIT("moongate_")))
        return error_set(error, -EINVAL, "\"%.*s\": names that begin with moongate_ are moongate's own",
                         SLICE_ARG(family->name));
    if (family->help.len > METRIC_HELP_MAX ||
        (family->help.len > 0 && memchr(family->help.at, 0, family->help.len)))
        return error_set(error, -EINVAL, "the help of \"%.*s\" has more than %d bytes, or a NUL",
                         SLICE_ARG(family->name), METRIC_HELP_MAX);
    if (family->label_count > METRIC_LABELS_MAX)
        return error_set(error, -EINVAL, "\"%.*s\" has more than %d labels", SLICE_ARG(family->name),
                         METRIC_LABELS_MAX);
    for (unsigned i = 0; i < family->label_count; i++) {
        if (!name_ok(family->labels[i], false) || slice_starts(family->labels[i], SLICE_LIT("__")) ||
            (family->kind == METRIC_HISTOGRAM && slice_eq(family->labels[i], SLICE_LIT("le"))))
            return error_set(error, -EINVAL, "\"%.*s\" is no name of a label", SLICE_ARG(family->labels[i]));
        for (unsigned j = 0; j < i; j++)
            if (slice_eq(family->labels[i], family->labels[j]))
                return error_set(error, -EINVAL, "the label \"%.*s\" is there twice",
                                 SLICE_ARG(family->labels[i]));
    }
    if (family->kind == METRIC_HISTOGRAM &&
        (family->bucket_count == 0 || family->bucket_count > METRIC_BUCKETS_MAX))
        return error_set(error, -EINVAL, "\"%.*s\" has %u buckets, expected 1 to %d", SLICE_ARG(family->name),
                         family->bucket_count, METRIC_BUCKETS_MAX);
    for (unsigned i = 0; i < family->bucket_count; i++)
        if (!(family->bounds[i] > -1e300 && family->bounds[i] < 1e300) ||
            (i > 0 && !(family->bounds[i] > family->bounds[i - 1])))
            return error_set(error, -EINVAL, "the bounds of \"%.*s\" do not rise", SLICE_ARG(family->name));
    return 0;
}

static void read_family(const struct record *record, struct metric_family *ret_family) {
    *ret_family = (struct metric_family){ .kind = (enum metric_kind)record->kind,
                                          .label_count = record->labels,
                                          .bucket_count = record->words };
    struct slice rest = text_of(record);
    (void)take_part(&rest, &ret_family->name);
    (void)take_part(&rest, &ret_family->help);
    for (unsigned i = 0; i < record->labels; i++)
        (void)take_part(&rest, &ret_family->labels[i]);
    memcpy(ret_family->bounds, words_of(record), record->words * sizeof(double));
}

static bool same_shape(const struct metric_family *a, const struct metric_family *b) {
    if (a->kind != b->kind || a->label_count != b->label_count || a->bucket_count != b->bucket_count)
        return false;
    for (unsigned i = 0; i < a->label_count; i++)
        if (!slice_eq(a->labels[i], b->labels[i]))
            return false;
    for (unsigned i = 0; i < a->bucket_count; i++)
        if (a->bounds[i] != b->bounds[i])
            return false;
    return true;
}

int metrics_define(struct metrics *metrics, const struct metric_family *family, uint32_t *ret_family,
                   struct error *error) {
    static const char *const kinds[] = { "counter", "gauge", "histogram" };
    int rc = check_family(family, error);
    if (rc < 0)
        return rc;
    struct metric_family old;
    uint32_t position = 0, id;
    while (metrics_next_family(metrics, &position, &id, &old)) {
        if (!slice_eq(old.name, family->name))
            continue;
        if (!same_shape(&old, family))
            return error_set(
                error, -EINVAL,
                "\"%.*s\" has been a %s with %u labels and %u buckets, or others, since moongate was "
                "started: a metric changes only with a restart",
                SLICE_ARG(family->name), kinds[old.kind], old.label_count, old.bucket_count);
        *ret_family = id;
        return 0;
    }
    size_t text_len = family->name.len + 1 + family->help.len + 1;
    for (unsigned i = 0; i < family->label_count; i++)
        text_len += family->labels[i].len + 1;
    char *text;
    struct record *record = append(metrics, family->bucket_count, text_len, &text);
    if (!record)
        return error_set(error, -ENOSPC, "no room for the metric \"%.*s\"", SLICE_ARG(family->name));
    record->type = RECORD_FAMILY;
    record->kind = (uint8_t)family->kind;
    record->labels = (uint8_t)family->label_count;
    memcpy(words_of(record), family->bounds, family->bucket_count * sizeof(double));
    put_part(&text, family->name);
    put_part(&text, family->help);
    for (unsigned i = 0; i < family->label_count; i++)
        put_part(&text, family->labels[i]);
    *ret_family = (uint32_t)((char *)record - metrics->base);
    record_done(metrics, record);
    return 0;
}

int metrics_series(struct metrics *metrics, uint32_t id, struct slice values, double **ret_words) {
    struct record *family = record_at(metrics, id);
    uint32_t *slot = index_slot(metrics, id, values);
    int rc = 0;
    if (!*slot && family->labels > 0 && family->series >= metrics->series_max) {
        static const char other[] = "other\0other\0other\0other";
        values = slice_make(other, sizeof "other" * family->labels);
        slot = index_slot(metrics, id, values);
        rc = 1;
    }
    if (!*slot) {
        char *text;
        struct record *record = append(metrics, series_words(family), values.len, &text);
        if (!record)
            return -ENOSPC;
        record->type = RECORD_SERIES;
        record->family = id;
        if (values.len > 0)
            memcpy(text, values.at, values.len);
        *slot = (uint32_t)((char *)record - metrics->base);
        family->series++;
        record_done(metrics, record);
    }
    *ret_words = words_of(record_at(metrics, *slot));
    return rc;
}

// ---- reading ----------------------------------------------------------------------------------------------

bool metrics_next_family(const struct metrics *metrics, uint32_t *position, uint32_t *ret_id,
                         struct metric_family *ret_family) {
    for (uint32_t at = *position ? *position : START; at < used(metrics);) {
        const struct record *record = record_at(metrics, at);
        *position = at + record->size;
        if (record->type == RECORD_FAMILY) {
            *ret_id = at;
            read_family(record, ret_family);
            return true;
        }
        at = *position;
    }
    return false;
}

bool metrics_next_series(const struct metrics *metrics, uint32_t family, uint32_t *position,
                         struct slice ret_values[METRIC_LABELS_MAX], const double **ret_words) {
    for (uint32_t at = *position ? *position : START; at < used(metrics);) {
        const struct record *record = record_at(metrics, at);
        *position = at + record->size;
        if (record->type == RECORD_SERIES && record->family == family) {
            struct slice rest = text_of(record);
            for (unsigned i = 0; i < record_at(metrics, family)->labels; i++)
                (void)take_part(&rest, &ret_values[i]);
            *ret_words = words_of(record);
            return true;
        }
        at = *position;
    }
    return false;
}

void metrics_bury(void *region, size_t size) {
    struct metrics metrics = { .base = region, .size = size };
    for (uint32_t at = START, end = checked_end(&metrics); at < end; at += record_at(&metrics, at)->size) {
        const struct record *record = record_at(&metrics, at);
        if (record->type == RECORD_SERIES && record_at(&metrics, record->family)->kind == METRIC_GAUGE)
            words_of(record)[0] = 0;
    }
}

void metrics_add(struct metrics *sums, const void *region, size_t size) {
    // A copy: what was checked must not change.
    struct metrics from = { .base = malloc(size), .size = size };
    if (!from.base)
        return;
    memcpy(from.base, region, size);
    atomic_store(used_of(&from), checked_end(&from));
    struct metric_family family;
    uint32_t position = 0, id, into;
    while (metrics_next_family(&from, &position, &id, &family)) {
        struct error error;
        if (metrics_define(sums, &family, &into, &error) < 0)
            continue;
        struct slice values[METRIC_LABELS_MAX];
        const double *words;
        double *sum;
        uint32_t at = 0;
        while (metrics_next_series(&from, id, &at, values, &words)) {
            const struct record *record =
                (const struct record *)(const void *)((const char *)words - sizeof *record);
            if (metrics_series(sums, into, text_of(record), &sum) < 0)
                continue;
            for (uint32_t i = 0; i < record->words; i++)
                sum[i] += words[i];
        }
    }
    free(from.base);
}
