// SPDX-License-Identifier: BSD-2-Clause
// Dates as text: those of HTTP (RFC 9110, 5.6.7) and of RFC 3339, in UTC, whatever the locale. Times are
// seconds since 1970; years are 0000 to 9999.
#ifndef MOONGATE_BASE_DATE_H
#define MOONGATE_BASE_DATE_H

#include "base/slice.h"

enum { DATE_MAX = 48 };

// Both return the length, or -ERANGE for a year that does not have four digits.
int date_print_http(double time, char out[DATE_MAX]) __attribute__((warn_unused_result));
// With 0 to 9 digits of fractions, to the nearest (without any: the second that it is in); always "Z".
int date_print_rfc3339(double time, unsigned digits, char out[DATE_MAX]) __attribute__((warn_unused_result));

// The three formats that RFC 9110 asks a recipient to take: Sun, 06 Nov 1994 08:49:37 GMT, Sunday, 06-Nov-94
// 08:49:37 GMT, Sun Nov  6 08:49:37 1994. `now` settles the century of the second. A leap second counts as
// the one before. -EINVAL.
int date_parse_http(struct slice text, double now, double *ret_time) __attribute__((warn_unused_result));
// Date and time with an offset ("Z", "+01:00"); "T" may be small or a space. -EINVAL.
int date_parse_rfc3339(struct slice text, double *ret_time) __attribute__((warn_unused_result));

#endif
