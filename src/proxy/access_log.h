// SPDX-License-Identifier: BSD-2-Clause
// The access log: a line an exchange, in a compiled format, collected in memory and written through the ring
// when the buffer fills or after a second. The file is opened by the master; USR1 brings a new descriptor.
//
// To add a variable: a row in log_variables.h; the manual is printed from it.
#ifndef MOONGATE_PROXY_ACCESS_LOG_H
#define MOONGATE_PROXY_ACCESS_LOG_H

#include "base/error.h"
#include "conf/conf.h"
#include "http/exchange.h"

struct access_log;       // one of a generation: a format and a sink
struct access_log_sink;  // one file of a worker: descriptor, buffers; outlives generations

// Checks a format ("$remote_addr ... $request_header_NAME"): error text names the column and the unknown
// variable.
int access_log_check(const char *format, struct error *error) __attribute__((warn_unused_result));
// Each variable's name and documentation; a name that ends in NAME stands for any header field's.
void access_log_print_variables(void (*print)(void *to, const char *name, const char *doc), void *to);

// The number behind $worker, set once in the worker.
void access_log_set_worker(unsigned worker);

// Finds or makes the sink for a path; fd is taken (also when the sink exists: then it replaces the old one
// after what is buffered has been written). The file is open for appending. Sinks live until the process
// ends. NULL when memory is out.
struct access_log_sink *access_log_sink_open(const char *path, int fd);
void access_log_flush_all(void);  // starts writing what is buffered
bool access_log_idle(void);       // nothing buffered, nothing in the kernel's hands

// The sink of conf->path must be open (-ENOENT).
int access_log_new(const struct conf_access_log *conf, struct access_log **ret_log, struct error *error)
    __attribute__((warn_unused_result));
void access_log_free(struct access_log *log);
void access_log_write(struct access_log *log, struct exchange *x);

#endif
