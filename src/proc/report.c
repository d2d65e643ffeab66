// SPDX-License-Identifier: BSD-2-Clause
// Prints the state of master and workers (report.h). Called by control.c.
#include "proc/report.h"

#include "base/clock.h"
#include "proc/master.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

//  X(name, documentation): what the master itself counts
#define MASTER_COUNTERS(X)                                    \
    X(reloads, "reloads that succeeded")                      \
    X(reload_failures, "reloads that were refused or failed") \
    X(respawns, "workers started in place of dead ones")      \
    X(watchdog_kills, "workers killed because their loop did not turn")

static const struct {
    const char *name, *doc;
    size_t offset;
} rows[] = {
#define X(name, doc) { #name, doc, offsetof(struct counters, name) },
    COUNTERS(X)
#undef X
};

static uint64_t value_of(const struct counters *from, unsigned row) {
    uint64_t value;
    memcpy(&value, (const char *)from + rows[row].offset, sizeof value);
    return value;
}

void report_json_text(FILE *out, const char *text) {
    putc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", out);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            putc(c, out);
    }
    putc('"', out);
}

// Resident memory in bytes, 0 when it cannot be read.
static uint64_t resident(pid_t pid) {
    char path[64];
    unsigned long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *in = pid > 0 ? fopen(path, "re") : NULL;
    if (!in)
        return 0;
    if (fscanf(in, "%*u %lu", &pages) != 1)
        pages = 0;
    fclose(in);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// The generation in use: the newest that lives, once the worker serves.
static uint64_t generation_of(const struct heritage_worker *shared) {
    return shared->generations[0].id;
}

static double age(const struct worker *worker) {
    return worker->pid > 0 ? (double)(clock_ms() - worker->started_ms) / 1000 : 0;
}

static void workers_as_json(const struct master *master, FILE *out) {
    fputs("{\"workers\":[", out);
    for (unsigned i = 0; i < master->worker_count; i++) {
        const struct worker *worker = &master->workers[i];
        const struct heritage_worker *shared = &master->shared[i];
        fprintf(
            out,
            "%s\n{\"worker\":%u,\"pid\":%d,\"cpu\":%d,\"state\":\"%s\",\"age\":%.3f,\"generation\":%" PRIu64
            ",\"connections\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"restarts\":%" PRIu64
            ",\"memory\":%" PRIu64 ",\"lua_memory\":%" PRIu64 "}",
            i ? "," : "", i, (int)worker->pid, worker->cpu, worker_state_name(worker->state), age(worker),
            generation_of(shared), (uint64_t)shared->connections, shared->counters.requests, worker->restarts,
            resident(worker->pid), (uint64_t)shared->lua_bytes);
    }
    fprintf(out, "],\n\"master\":{\"pid\":%d,\"generation\":%" PRIu64 ",\"uptime\":%.3f}}\n", (int)getpid(),
            master->generation, (double)(clock_ms() - master->started_ms) / 1000);
}

void report_workers(const struct master *master, FILE *out, bool json) {
    if (json) {
        workers_as_json(master, out);
        return;
    }
    fprintf(out, "%6s %8s %4s  %-9s %10s %10s %11s %12s %8s %10s %9s\n", "worker", "pid", "core", "state",
            "age s", "generation", "connections", "requests", "restarts", "memory KiB", "Lua KiB");
    for (unsigned i = 0; i < master->worker_count; i++) {
        const struct worker *worker = &master->workers[i];
        const struct heritage_worker *shared = &master->shared[i];
        fprintf(out,
                "%6u %8d %4d  %-9s %10.1f %10" PRIu64 " %11" PRIu64 " %12" PRIu64 " %8" PRIu64 " %10" PRIu64
                " %9" PRIu64 "\n",
                i, (int)worker->pid, worker->cpu, worker_state_name(worker->state), age(worker),
                generation_of(shared), (uint64_t)shared->connections, shared->counters.requests,
                worker->restarts, resident(worker->pid) / 1024, (uint64_t)shared->lua_bytes / 1024);
    }
}

static uint64_t sum_of(const struct master *master, unsigned row) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < master->worker_count; i++)
        sum += value_of(&master->shared[i].counters, row);
    return sum;
}

static void stats_as_json(const struct master *master, FILE *out) {
    unsigned count = sizeof rows / sizeof *rows;
    fputs("{\"total\":{", out);
    for (unsigned row = 0; row < count; row++)
        fprintf(out, "%s\"%s\":%" PRIu64, row ? "," : "", rows[row].name, sum_of(master, row));
    fputs("},\n\"workers\":[", out);
    for (unsigned i = 0; i < master->worker_count; i++) {
        fputs(i ? ",\n{" : "\n{", out);
        for (unsigned row = 0; row < count; row++)
            fprintf(out, "%s\"%s\":%" PRIu64, row ? "," : "", rows[row].name,
                    value_of(&master->shared[i].counters, row));
        putc('}', out);
    }
    fputs("],\n\"master\":{", out);
    const char *comma = "";
#define X(name, doc)                                               \
    fprintf(out, "%s\"%s\":%" PRIu64, comma, #name, master->name); \
    comma = ",";
    MASTER_COUNTERS(X)
#undef X
    fputs("}}\n", out);
}

void report_each_counter(const struct master *master, FILE *out,
                         void (*each)(FILE *out, const char *name, const char *doc, uint64_t value)) {
    for (unsigned row = 0; row < sizeof rows / sizeof *rows; row++)
        each(out, rows[row].name, rows[row].doc, sum_of(master, row));
#define X(name, doc) each(out, #name, doc, master->name);
    MASTER_COUNTERS(X)
#undef X
}

void report_stats(const struct master *master, FILE *out, bool json) {
    if (json) {
        stats_as_json(master, out);
        return;
    }
    for (unsigned row = 0; row < sizeof rows / sizeof *rows; row++)
        fprintf(out, "%-24s %16" PRIu64 "  %s\n", rows[row].name, sum_of(master, row), rows[row].doc);
#define X(name, doc) fprintf(out, "%-24s %16" PRIu64 "  %s\n", #name, master->name, doc);
    MASTER_COUNTERS(X)
#undef X
}

void report_generations(const struct master *master, FILE *out, bool json) {
    double in_use = (double)(clock_cached.wall_us - master->committed_wall_us) / 1e6;
    if (json)
        fprintf(out, "{\"generation\":%" PRIu64 ",\"age\":%.3f,\"file\":", master->generation, in_use);
    else
        fprintf(out, "generation %" PRIu64 " is in use for %.1f s, from ", master->generation, in_use);
    if (json)
        report_json_text(out, master->conf->file);
    else
        fputs(master->conf->file, out);
    fputs(json ? ",\n\"workers\":[" : "\n", out);
    if (!json)
        fprintf(out, "%6s %10s %10s  %s\n", "worker", "generation", "exchanges", "state");
    for (unsigned i = 0; i < master->worker_count; i++) {
        const struct heritage_worker *shared = &master->shared[i];
        if (json)
            fprintf(out, "%s\n{\"worker\":%u,\"generations\":[", i ? "," : "", i);
        for (unsigned g = 0; g < HERITAGE_GENERATIONS && shared->generations[g].id; g++) {
            uint64_t id = shared->generations[g].id, exchanges = shared->generations[g].exchanges;
            if (json)
                fprintf(out, "%s{\"generation\":%" PRIu64 ",\"exchanges\":%" PRIu64 "}", g ? "," : "", id,
                        exchanges);
            else
                fprintf(out, "%6u %10" PRIu64 " %10" PRIu64 "  %s\n", i, id, exchanges,
                        id == master->generation      ? "in use"
                            : id > master->generation ? "loaded"
                                                      : "ends with its last exchange");
        }
        if (json)
            fputs("]}", out);
    }
    if (json)
        fputs("]}\n", out);
}
