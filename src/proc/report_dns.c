// SPDX-License-Identifier: BSD-2-Clause
// moongatectl show dns: how the workers' resolvers fare (net/resolver.h). Called by control.c.
#include "proc/report.h"

#include "proc/master.h"

#include <inttypes.h>

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
}
