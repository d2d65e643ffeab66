// SPDX-License-Identifier: BSD-2-Clause
// Three kinds of assertion. check_fatal: memory may be corrupt, going on would be worse than the loss of this
// process. check_soft: a rule was broken but the caller handles it; logged, returns the condition.
// check_debug: costs nothing in a normal build, is fatal in a debug or sanitizer build.
#ifndef MOONGATE_BASE_CHECK_H
#define MOONGATE_BASE_CHECK_H

#include <stdbool.h>

_Noreturn void check_failed(const char *file, int line, const char *what);
void check_report(const char *file, int line, const char *what);

#define check_fatal(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))
#define check_soft(cond) \
    (__builtin_expect(!!(cond), 1) ? true : (check_report(__FILE__, __LINE__, #cond), false))
#ifdef MOONGATE_DEBUG
#define check_debug(cond) check_fatal(cond)
#else
#define check_debug(cond) ((void)sizeof(!!(cond)))
#endif

#endif
