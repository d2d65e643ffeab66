// SPDX-License-Identifier: BSD-2-Clause
// What moongatectl show prints: text in columns, or JSON. Read from shared memory, so that a worker that
// hangs is shown too.
#ifndef MOONGATE_PROC_REPORT_H
#define MOONGATE_PROC_REPORT_H

#include <stdbool.h>
#include <stdio.h>

struct master;

void report_workers(const struct master *master, FILE *out, bool json);
void report_stats(const struct master *master, FILE *out, bool json);
void report_generations(const struct master *master, FILE *out, bool json);
// With quotes and escapes.
void report_json_text(FILE *out, const char *text);

#endif
