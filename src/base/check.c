// SPDX-License-Identifier: BSD-2-Clause
// What happens when an assertion of check.h does not hold. Called from everywhere.
#include "base/check.h"

#include "base/log.h"

#include <stdlib.h>

void check_failed(const char *file, int line, const char *what) {
    log_crit("fatal: %s:%d: \"%s\" does not hold", file, line, what);
    abort();
}

void check_report(const char *file, int line, const char *what) {
    log_error("internal rule broken: %s:%d: \"%s\" does not hold; handled", file, line, what);
}
