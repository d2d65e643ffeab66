// SPDX-License-Identifier: BSD-2-Clause
// Formats error texts (error.h).
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(struct error *error, int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return code;
}

int error_prefix(struct error *error, int code, const char *format, ...) {
    struct error inner = *error;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof error->text)
        snprintf(error->text + n, sizeof error->text - (size_t)n, ": %.*s",
                 (int)(sizeof error->text - (size_t)n - 3), inner.text);
    return code;
}
