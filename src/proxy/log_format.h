// SPDX-License-Identifier: BSD-2-Clause
// A line of the access log: a format is compiled once into a program of items, which then prints an exchange
// into memory that the caller gives. No allocation, no printf, and no byte of a peer that could forge a line
// or a field. Where lines go is access_log.c's. The variables stand in log_variables.h.
#ifndef MOONGATE_PROXY_LOG_FORMAT_H
#define MOONGATE_PROXY_LOG_FORMAT_H

#include "base/error.h"
#include "conf/conf.h"
#include "http/exchange.h"

struct log_format;

// `text` only with LOG_STYLE_FORMAT; it is copied. -EINVAL: the error says the column, what is wrong and what
// may have been meant; -ENOMEM.
int log_format_new(enum conf_log_style style, const char *text, struct log_format **ret_format,
                   struct error *error) __attribute__((warn_unused_result));
void log_format_free(struct log_format *format);  // NULL is allowed

// Prints a line with its newline to `at` and returns its length; 0 when `room` does not suffice. At most
// `limit` bytes of any one value are printed, "..." stands for the rest.
size_t log_format_line(const struct log_format *format, struct exchange *x, char *at, size_t room,
                       size_t limit);

void log_format_print_variables(void (*print)(void *to, const char *name, const char *doc), void *to);

// The number behind $worker; until it is set, that is absent.
void log_format_set_worker(unsigned worker);

#endif
