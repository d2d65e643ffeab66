// SPDX-License-Identifier: BSD-2-Clause
// What moongatectl show prints: text in columns, or JSON. Read from shared memory, so that a worker that
// hangs is shown too.
#ifndef MOONGATE_PROC_REPORT_H
#define MOONGATE_PROC_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct master;

void report_workers(const struct master *master, FILE *out, bool json);
void report_stats(const struct master *master, FILE *out, bool json);
void report_generations(const struct master *master, FILE *out, bool json);
// report_dns.c
void report_dns(const struct master *master, FILE *out, bool json);
// report_upstreams.c
void report_upstreams(const struct master *master, FILE *out, bool json);
// report_metrics.c: the counters and what scripts count, as Prometheus reads it (text format 0.0.4).
void report_metrics(const struct master *master, FILE *out, bool json);
// All counters in turn, summed over the workers.
void report_each_counter(const struct master *master, FILE *out,
                         void (*each)(FILE *out, const char *name, const char *doc, uint64_t value));
// With quotes and escapes.
void report_json_text(FILE *out, const char *text);

#endif
