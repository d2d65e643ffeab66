// SPDX-License-Identifier: BSD-2-Clause
// moongatectl show upstreams: the servers of the upstreams in use, as all workers together know them
// (proxy/standing.h). Called by control.c.
#include "proc/report.h"

#include "proc/master.h"
#include "proxy/standing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int by_address(const void *a, const void *b) {
    return strcmp(((const struct standing_report *)a)->server, ((const struct standing_report *)b)->server);
}

// The servers of one upstream, by their addresses; the caller frees *ret_list.
static unsigned list_servers(const struct master *master, const char *upstream,
                             struct standing_report **ret_list) {
    unsigned count = 0;
    struct standing_report report;
    *ret_list = NULL;
    for (unsigned position = 0; standings_read(master->standings, &position, &report);) {
        if (strncmp(report.upstream, upstream, STANDING_NAME_MAX - 1) != 0)
            continue;
        if ((count & (count - 1)) == 0) {
            void *more = realloc(*ret_list, (count > 0 ? 2 * count : 1) * sizeof **ret_list);
            if (!more)
                break;
            *ret_list = more;
        }
        (*ret_list)[count++] = report;
    }
    if (count > 0)
        qsort(*ret_list, count, sizeof **ret_list, by_address);
    return count;
}

// Milliseconds, of microseconds over so many.
static double average_ms(uint64_t us, uint64_t count) {
    return count > 0 ? (double)us / (double)count / 1000 : 0;
}

static void as_json(FILE *out, const struct standing_report *server) {
    fputs("{\"server\":", out);
    report_json_text(out, server->server);
    fprintf(out, ",\"state\":\"%s\",\"admin\":\"%s\",\"weight\":%" PRIu32, server->state, server->admin,
            standing_weight(server->standing));
    fprintf(out, ",\"check\":\"%s\",\"check_failure\":", server->check);
    report_json_text(out, server->check_why);
    fprintf(out, ",\"ejections\":%" PRIu32, server->standing->ejections);
#define X(name, doc) fprintf(out, ",\"" #name "\":%" PRIu64, server->sum.name);
    STANDING_COUNTS(X)
#undef X
    putc('}', out);
}

static void as_text(FILE *out, const struct standing_report *server) {
    const struct standing_counts *sum = &server->sum;
    fprintf(out,
            "  %-30s %-9s %6" PRIu32 " %7" PRIu64 " %6" PRIu64 " %12" PRIu64 " %10" PRIu64 " %8" PRIu64
            " %6.1f %10.2f %8.2f\n",
            server->server, server->state, standing_weight(server->standing), sum->active, sum->idle,
            sum->requests, sum->connects, sum->connect_errors,
            sum->requests > 0 ? 100.0 * (double)sum->reused / (double)sum->requests : 0,
            average_ms(sum->connect_us, sum->connects), average_ms(sum->wait_us, sum->requests));
}

void report_upstreams(const struct master *master, FILE *out, bool json) {
    const char *comma = "";
    if (json)
        fputs("{\"upstreams\":[", out);
    for (const struct conf_upstream *conf = master->conf->upstreams; conf; conf = conf->next) {
        struct standing_report *servers;
        unsigned count = list_servers(master, conf->name, &servers);
        if (json) {
            fprintf(out, "%s\n{\"upstream\":", comma);
            report_json_text(out, conf->name);
            fputs(",\"servers\":[", out);
        } else {
            fprintf(out, "%supstream %s\n", comma, conf->name);
            fprintf(out, "  %-30s %-9s %6s %7s %6s %12s %10s %8s %6s %10s %8s\n", "server", "state", "weight",
                    "active", "idle", "requests", "connects", "errors", "% kept", "connect ms", "wait ms");
        }
        for (unsigned i = 0; i < count; i++) {
            if (json) {
                fputs(i > 0 ? ",\n " : "\n ", out);
                as_json(out, &servers[i]);
            } else {
                as_text(out, &servers[i]);
            }
        }
        if (json)
            fputs("]}", out);
        else if (count == 0)
            fputs("  no server: its names are not resolved\n", out);
        comma = json ? "," : "\n";
        free(servers);
    }
    if (json)
        fputs("]}\n", out);
}
