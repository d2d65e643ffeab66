// SPDX-License-Identifier: BSD-2-Clause
// moongatectl show dns: how the workers' resolvers fare, and what they know of each name (net/resolver.h, inquiry.h). Called
// by control.c at the end of an inquiry.
#include "proc/report.h"

#include "proc/master.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

//  X(counter, name in JSON, heading, width of the column)
#define COLUMNS(X) \
    X(dns_entries_active, "entries", "kept", 8) \
    X(dns_lookups_active, "under_way", "under way", 10) \
    X(dns_hits, "hits", "hits", 12) \
    X(dns_misses, "misses", "misses", 10) \
    X(dns_lookups, "lookups", "asked for", 10) \
    X(dns_not_found, "not_found", "not found", 10) \
    X(dns_failures, "failures", "failures", 9) \
    X(dns_timeouts, "timeouts", "timeouts", 9) \
    X(dns_stale, "stale", "stale", 8) \
    X(dns_refused, "refused", "refused", 8) \
    X(dns_scripted, "scripted", "scripted", 9)

static void add(struct counters *sum, const struct counters *one) {
#define X(counter, name, heading, width) sum->counter += one->counter;
    COLUMNS(X)
#undef X
}

static void print_row(FILE *out, const char *who, const struct counters *row) {
    fprintf(out, "%6s", who);
#define X(counter, name, heading, width) fprintf(out, " %*" PRIu64, width, row->counter);
    COLUMNS(X)
#undef X
    fputc('\n', out);
}

static void print_json(FILE *out, const struct counters *row) {
    const char *comma = "";
#define X(counter, name, heading, width)                               \
    fprintf(out, "%s\"" name "\":%" PRIu64, comma, row->counter); \
    comma = ",";
    COLUMNS(X)
#undef X
}

static void print_servers(FILE *out, const struct conf_resolver *resolver, bool json) {
    char text[ADDR_TEXT_MAX];
    for (unsigned i = 0; i < resolver->server_count; i++) {
        addr_print(&resolver->servers[i], text);
        fprintf(out, json ? "%s\"%s\"" : "%s%s", i == 0 ? "" : json ? "," : " ", text);
    }
}

// ---- names ------------------------------------------------------------------------------------------------

//  X(field): of the lines of resolver_print(), in their order
#define FIELDS(X) X(name) X(kind) X(state) X(left) X(values) X(why)

struct known {
#define X(field) char *field;
    FIELDS(X)
#undef X
    uint64_t left_ms;
    unsigned workers;  // that know of it
};

// By name, then by kind; of what several workers know that first which holds longest.
static int compare(const void *a, const void *b) {
    const struct known *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    if (order == 0)
        order = strcmp(left->kind, right->kind);
    if (order == 0)
        order = (strcmp(right->state, "fresh") == 0) - (strcmp(left->state, "fresh") == 0);
    return order != 0 ? order : (left->left_ms < right->left_ms) - (left->left_ms > right->left_ms);
}

// Cuts the line into its fields, in place. False: it has fewer.
static bool cut(char *line, struct known *known) {
    char **const fields[] = {
#define X(field) &known->field,
        FIELDS(X)
#undef X
    };
    *known = (struct known){ .workers = 1 };
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i] = strsep(&line, "\t");
        if (!*fields[i])
            return false;
    }
    known->left_ms = strtoull(known->left, NULL, 10);
    return true;
}

struct names {
    struct known *list;  // one for each name and kind
    size_t count;
    char *text;          // of all answers, cut up: what the list points into
};

// All answers in one text; NULL when memory is out.
static char *join(const struct inquiry *inquiry) {
    size_t len = 0;
    for (unsigned i = 0; i < inquiry->count; i++)
        len += inquiry->answers[i].len;
    char *text = malloc(len + 1), *at = text;
    if (!text)
        return NULL;
    for (unsigned i = 0; i < inquiry->count; i++)
        if (inquiry->answers[i].text)
            at = mempcpy(at, inquiry->answers[i].text, inquiry->answers[i].len);
    *at = 0;
    return text;
}

static void names_gather(struct names *names, const struct inquiry *inquiry) {
    size_t lines = 0, count = 0;
    *names = (struct names){ .text = join(inquiry) };
    for (const char *at = names->text; at && *at; at++)
        lines += *at == '\n';
    struct known *list = lines > 0 ? calloc(lines, sizeof *list) : NULL;
    if (!list)
        return;
    for (char *rest = names->text; *rest;)
        count += cut(strsep(&rest, "\n"), &list[count]);
    qsort(list, count, sizeof *list, compare);
    for (size_t i = 0; i < count; i++) {
        struct known *last = names->count > 0 ? &list[names->count - 1] : NULL;
        if (last && strcmp(last->name, list[i].name) == 0 && strcmp(last->kind, list[i].kind) == 0)
            last->workers++;
        else
            list[names->count++] = list[i];
    }
    names->list = list;
}

static void names_release(struct names *names) {
    free(names->list);
    free(names->text);
}

// Cuts up its values.
static void name_as_json(FILE *out, struct known *known) {
    const char *comma = "";
    fputs("{\"name\":", out);
    report_json_text(out, known->name);
    fputs(",\"type\":", out);
    report_json_text(out, known->kind);
    fputs(",\"state\":", out);
    report_json_text(out, known->state);
    fprintf(out, ",\"left\":%.3f,\"workers\":%u,\"values\":[", (double)known->left_ms / 1000, known->workers);
    for (char *rest = known->values; rest && *rest; comma = ",") {
        const char *value = strsep(&rest, ",");
        fputs(comma, out);
        report_json_text(out, value + (*value == ' '));
    }
    fputs("],\"failure\":", out);
    report_json_text(out, known->why);
    putc('}', out);
}

static void names_as_json(const struct inquiry *inquiry, FILE *out) {
    struct names names;
    names_gather(&names, inquiry);
    fputs("\"names\":[", out);
    for (size_t i = 0; i < names.count; i++) {
        fputs(i ? ",\n" : "\n", out);
        name_as_json(out, &names.list[i]);
    }
    putc(']', out);
    names_release(&names);
}

static void name_as_text(FILE *out, const struct known *known, int width) {
    bool both = *known->values && *known->why;
    fprintf(out, "%-*s  %-6s  %-7s  %7.1f s  %7u  %s%s%s%s\n", width, known->name, known->kind, known->state,
            (double)known->left_ms / 1000, known->workers, known->values, both ? " (" : "", known->why, both ? ")" : "");
}

static void names_as_text(const struct inquiry *inquiry, FILE *out) {
    struct names names;
    size_t width = strlen("name");
    names_gather(&names, inquiry);
    for (size_t i = 0; i < names.count; i++)
        if (strlen(names.list[i].name) > width)
            width = strlen(names.list[i].name);
    if (names.count > 0)
        fprintf(out, "\n%-*s  %-6s  %-7s  %9s  %7s  addresses\n", (int)width, "name", "type", "state", "left", "workers");
    for (size_t i = 0; i < names.count; i++)
        name_as_text(out, &names.list[i], (int)width);
    names_release(&names);
}

// Those that serve and have not answered.
static void print_silent(const struct inquiry *inquiry, FILE *out, bool json) {
    const char *before = json ? "" : "no answer in time from worker ";
    for (unsigned i = 0; i < inquiry->count; i++) {
        if (!inquiry->answers[i].awaited)
            continue;
        fprintf(out, "%s%u", before, i);
        before = json ? "," : ", ";
    }
    if (!json && before[0] == ',')
        fputs("\n", out);
}

void report_dns(const struct master *master, FILE *out, bool json) {
    const struct conf_resolver *resolver = &master->conf->resolver;
    struct counters sum = { 0 };
    for (unsigned i = 0; i < master->worker_count; i++)
        add(&sum, &master->shared[i].counters);
    if (json) {
        fputs("{\"resolvers\":[", out);
        print_servers(out, resolver, true);
        fputs("],\n\"total\":{", out);
        print_json(out, &sum);
        fputs("},\n\"workers\":[", out);
        for (unsigned i = 0; i < master->worker_count; i++) {
            fprintf(out, "%s\n{\"worker\":%u,", i ? "," : "", i);
            print_json(out, &master->shared[i].counters);
            fputc('}', out);
        }
        fputs("],\n", out);
        names_as_json(&master->inquiry, out);
        fputs(",\n\"silent\":[", out);
        print_silent(&master->inquiry, out, true);
        fputs("]}\n", out);
        return;
    }
    fputs("names are resolved ", out);
    if (resolver->server_count > 0) {
        fputs("by ", out);
        print_servers(out, resolver, false);
        fputc('\n', out);
    } else {
        fputs("as /etc/hosts and /etc/resolv.conf say\n", out);
    }
    fprintf(out, "%6s", "worker");
#define X(counter, name, heading, width) fprintf(out, " %*s", width, heading);
    COLUMNS(X)
#undef X
    fputc('\n', out);
    for (unsigned i = 0; i < master->worker_count; i++) {
        char who[16];
        snprintf(who, sizeof who, "%u", i);
        print_row(out, who, &master->shared[i].counters);
    }
    print_row(out, "all", &sum);
    names_as_text(&master->inquiry, out);
    print_silent(&master->inquiry, out, false);
}
