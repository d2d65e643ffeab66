// SPDX-License-Identifier: BSD-2-Clause
// moongatectl show metrics: moongate's counters and the metrics of scripts, summed over the workers, in the
// text format of Prometheus or as JSON. What workers wrote is not trusted: base/metrics.c checks it, and
// texts are printed as clean UTF-8.
#include "proc/master.h"
#include "proc/report.h"
#include "proxy/standing.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool ends(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// The counters that go down again, by their names in base/counters.h.
static bool is_gauge(const char *name) {
    return ends(name, "_active") || ends(name, "_idle");
}

static const char *const kind_names[] = { "counter", "gauge", "histogram" };

// ---- texts and numbers ------------------------------------------------------------------------------------

// In quotes (of JSON, of a label's value), or bare in a line of help.
static void print_text(FILE *out, struct slice text, bool quoted) {
    for (size_t i = 0; i < text.len;) {
        unsigned char c = (unsigned char)text.at[i];
        unsigned length = slice_utf8_length(slice_from(text, i));
        if (length > 0)
            fwrite(text.at + i, 1, length, out);
        else if (c == '\n')
            fputs("\\n", out);
        else if (c == '\\' || (c == '"' && quoted))
            fprintf(out, "\\%c", c);
        else
            putc(c < 0x20 || c >= 0x7f ? '?' : c, out);
        i += length ? length : 1;
    }
}

static void print_number(FILE *out, double number, bool json) {
    if (!isfinite(number))
        fputs(json ? "null" : isnan(number) ? "NaN" : number > 0 ? "+Inf" : "-Inf", out);
    else if (number > -9e15 && number < 9e15 && number == (double)(int64_t)number)
        fprintf(out, "%" PRId64, (int64_t)number);
    else
        fprintf(out, "%.17g", number);
}

// The shortest that means the same: bounds are written by people.
static void print_bound(FILE *out, double bound) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, bound);
        if (strtod(text, NULL) == bound)
            break;
    }
    fputs(text, out);
}

// ---- a metric of scripts ----------------------------------------------------------------------------------

struct series {
    const struct metric_family *family;
    struct slice values[METRIC_LABELS_MAX];
    const double *words;
};

// One line of the text format; `le` as a label more, unless it is NULL.
static void print_line(FILE *out, const struct series *series, const char *suffix, const double *le,
                       double value) {
    const struct metric_family *family = series->family;
    const char *comma = "";
    fprintf(out, "%.*s%s", SLICE_ARG(family->name), suffix);
    if (family->label_count > 0 || le) {
        putc('{', out);
        for (unsigned i = 0; i < family->label_count; i++) {
            fprintf(out, "%s%.*s=\"", comma, SLICE_ARG(family->labels[i]));
            print_text(out, series->values[i], true);
            putc('"', out);
            comma = ",";
        }
        if (le) {
            fprintf(out, "%sle=\"", comma);
            if (isfinite(*le))
                print_bound(out, *le);
            else
                fputs("+Inf", out);
            putc('"', out);
        }
        putc('}', out);
    }
    putc(' ', out);
    print_number(out, value, false);
    putc('\n', out);
}

static void series_as_text(FILE *out, const struct series *series) {
    static const double infinite = HUGE_VAL;
    const struct metric_family *family = series->family;
    if (family->kind != METRIC_HISTOGRAM) {
        print_line(out, series, "", NULL, series->words[0]);
        return;
    }
    double so_far = 0;
    for (unsigned i = 0; i < family->bucket_count; i++) {
        so_far += series->words[METRIC_BUCKETS + i];
        print_line(out, series, "_bucket", &family->bounds[i], so_far);
    }
    print_line(out, series, "_bucket", &infinite, series->words[METRIC_COUNT]);
    print_line(out, series, "_sum", NULL, series->words[METRIC_SUM]);
    print_line(out, series, "_count", NULL, series->words[METRIC_COUNT]);
}

static void series_as_json(FILE *out, const struct series *series) {
    const struct metric_family *family = series->family;
    fputs("{\"labels\":{", out);
    for (unsigned i = 0; i < family->label_count; i++) {
        fprintf(out, "%s\"%.*s\":\"", i ? "," : "", SLICE_ARG(family->labels[i]));
        print_text(out, series->values[i], true);
        putc('"', out);
    }
    if (family->kind != METRIC_HISTOGRAM) {
        fputs("},\"value\":", out);
        print_number(out, series->words[0], true);
    } else {
        fputs("},\"count\":", out);
        print_number(out, series->words[METRIC_COUNT], true);
        fputs(",\"sum\":", out);
        print_number(out, series->words[METRIC_SUM], true);
        fputs(",\"buckets\":[", out);
        double so_far = 0;
        for (unsigned i = 0; i < family->bucket_count; i++) {
            so_far += series->words[METRIC_BUCKETS + i];
            fprintf(out, "%s{\"le\":", i ? "," : "");
            print_bound(out, family->bounds[i]);
            fputs(",\"count\":", out);
            print_number(out, so_far, true);
            putc('}', out);
        }
        putc(']', out);
    }
    putc('}', out);
}

static void print_families(const struct metrics *sums, FILE *out, bool json) {
    struct metric_family family;
    uint32_t position = 0, id;
    while (metrics_next_family(sums, &position, &id, &family)) {
        struct series series = { .family = &family };
        uint32_t at = 0;
        const char *comma = "";
        if (json) {
            fprintf(out, ",\n{\"name\":\"%.*s\",\"type\":\"%s\",\"help\":\"", SLICE_ARG(family.name),
                    kind_names[family.kind]);
            print_text(out, family.help, true);
            fputs("\",\"series\":[", out);
        } else {
            if (family.help.len > 0) {
                fprintf(out, "# HELP %.*s ", SLICE_ARG(family.name));
                print_text(out, family.help, false);
                putc('\n', out);
            }
            fprintf(out, "# TYPE %.*s %s\n", SLICE_ARG(family.name), kind_names[family.kind]);
        }
        while (metrics_next_series(sums, id, &at, series.values, &series.words)) {
            if (json) {
                fputs(comma, out);
                series_as_json(out, &series);
                comma = ",\n ";
            } else {
                series_as_text(out, &series);
            }
        }
        if (json)
            fputs("]}", out);
    }
}

// ---- moongate's own ---------------------------------------------------------------------------------------

static void counter_as_text(FILE *out, const char *name, const char *doc, uint64_t value) {
    const char *total = is_gauge(name) ? "" : "_total";
    fprintf(out, "# HELP moongate_%s%s %s\n# TYPE moongate_%s%s %s\nmoongate_%s%s %" PRIu64 "\n", name, total,
            doc, name, total, kind_names[*total ? METRIC_COUNTER : METRIC_GAUGE], name, total, value);
}

// One count of all servers, with labels that name them.
static void print_server_count(const struct master *master, FILE *out, bool json, const char *name,
                               const char *doc, size_t offset) {
    bool gauge = strcmp(name, "active") == 0 || strcmp(name, "idle") == 0, time = ends(name, "_us");
    char full[80];
    const char *comma = "", *kind = kind_names[gauge ? METRIC_GAUGE : METRIC_COUNTER];
    snprintf(full, sizeof full, "moongate_server_%.*s%s", (int)(strlen(name) - (time ? 3 : 0)), name,
             gauge      ? ""
                 : time ? "_seconds_total"
                        : "_total");
    fprintf(out, json ? ",\n{\"name\":\"%s\",\"type\":\"%s\",\"help\":\"" : "# TYPE %s %s\n# HELP ", full, kind);
    if (!json)
        fprintf(out, "%s ", full);
    print_text(out, slice_of(time ? "time of the requests or connections, all together" : doc), json);
    fputs(json ? "\",\"series\":[" : "\n", out);
    struct standing_report at;
    for (unsigned position = 0; standings_read(master->standings, &position, &at);) {
        uint64_t count;
        memcpy(&count, (const char *)&at.sum + offset, sizeof count);
        if (json)
            fprintf(out, "%s{\"labels\":{\"upstream\":\"", comma);
        else
            fprintf(out, "%s{upstream=\"", full);
        print_text(out, slice_of(at.upstream), true);
        fputs(json ? "\",\"server\":\"" : "\",server=\"", out);
        print_text(out, slice_of(at.server), true);
        fputs(json ? "\"},\"value\":" : "\"} ", out);
        print_number(out, time ? (double)count / 1e6 : (double)count, json);
        fputs(json ? "}" : "\n", out);
        comma = ",\n ";
    }
    if (json)
        fputs("]}", out);
}

static void print_servers(const struct master *master, FILE *out, bool json) {
#define X(name, doc) print_server_count(master, out, json, #name, doc, offsetof(struct standing_counts, name));
    STANDING_COUNTS(X)
#undef X
}

static bool first;

static void counter_as_json(FILE *out, const char *name, const char *doc, uint64_t value) {
    const char *total = is_gauge(name) ? "" : "_total";
    fprintf(out, "%s\n{\"name\":\"moongate_%s%s\",\"type\":\"%s\",\"help\":", first ? "" : ",", name, total,
            kind_names[*total ? METRIC_COUNTER : METRIC_GAUGE]);
    report_json_text(out, doc);
    fprintf(out, ",\"series\":[{\"labels\":{},\"value\":%" PRIu64 "}]}", value);
    first = false;
}

void report_metrics(const struct master *master, FILE *out, bool json) {
    first = true;
    if (json)
        fputs("{\"metrics\":[", out);
    report_each_counter(master, out, json ? counter_as_json : counter_as_text);
    print_servers(master, out, json);
    struct metrics sums;
    size_t size = (size_t)METRICS_SIZE * master->worker_count;
    void *region = calloc(1, size);
    if (region && metrics_attach(&sums, region, size, UINT_MAX) == 0) {
        for (unsigned i = 0; i < master->worker_count; i++)
            metrics_add(&sums, master->shared[i].metrics, METRICS_SIZE);
        print_families(&sums, out, json);
        metrics_detach(&sums);
    }
    free(region);
    if (json)
        fputs("]}\n", out);
}
