// SPDX-License-Identifier: BSD-2-Clause
// Prints and parses dates (date.h). Made without strftime(3) and strptime(3), whose words depend on the
// locale and which take what no sender may write. Called for scripts.
#include "base/date.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char *const long_days[] = { "Sunday",   "Monday", "Tuesday", "Wednesday",
                                         "Thursday", "Friday", "Saturday" };

static bool four_digits(double time) {
    return time >= -62167219200.0 && time < 253402300800.0;
}

// The second that a time is in.
static time_t second_of(double time) {
    time_t whole = (time_t)time;
    return (double)whole > time ? whole - 1 : whole;
}

static int split(double time, struct tm *ret_tm) {
    if (!four_digits(time))
        return -ERANGE;
    time_t whole = second_of(time);
    gmtime_r(&whole, ret_tm);
    return 0;
}

int date_print_http(double time, char out[DATE_MAX]) {
    struct tm tm;
    if (split(time, &tm) < 0)
        return -ERANGE;
    return snprintf(out, DATE_MAX, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday,
                    (unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000,
                    (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

int date_print_rfc3339(double time, unsigned digits, char out[DATE_MAX]) {
    static const double scales[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9 };
    struct tm tm;
    if (digits > 9 || !four_digits(time))
        return -ERANGE;
    // A double of today is good to a quarter of a microsecond: what was given as .123 must not print as .122.
    time_t whole = second_of(time);
    unsigned fraction = (unsigned)((time - (double)whole) * scales[digits] + (digits ? 0.5 : 0));
    if (fraction >= scales[digits]) {
        whole++;
        fraction = 0;
    }
    if (split((double)whole, &tm) < 0)
        return -ERANGE;
    int n = snprintf(out, DATE_MAX, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)(tm.tm_year + 1900) % 10000,
                     (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
                     (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
    if (digits > 0)
        n += snprintf(out + n, (size_t)(DATE_MAX - n), ".%0*u", (int)digits, fraction);
    return n + snprintf(out + n, (size_t)(DATE_MAX - n), "Z");
}

// ---- parsing: each takes something off the front, or returns false ----------------------------------------

static bool take(struct slice *rest, const char *text) {
    struct slice want = slice_of(text);
    if (!slice_starts(*rest, want))
        return false;
    *rest = slice_from(*rest, want.len);
    return true;
}

static bool take_digits(struct slice *rest, unsigned count, int *ret_value) {
    int value = 0;
    if (rest->len < count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        char c = rest->at[i];
        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (c - '0');
    }
    *rest = slice_from(*rest, count);
    *ret_value = value;
    return true;
}

static bool take_word(struct slice *rest, const char *words, int count, int *ret_index) {
    for (int i = 0; i < count && rest->len >= 3; i++)
        if (memcmp(rest->at, words + 3 * i, 3) == 0) {
            *rest = slice_from(*rest, 3);
            *ret_index = i;
            return true;
        }
    return false;
}

static bool take_clock(struct slice *rest, struct tm *tm) {
    return take_digits(rest, 2, &tm->tm_hour) && take(rest, ":") && take_digits(rest, 2, &tm->tm_min) &&
        take(rest, ":") && take_digits(rest, 2, &tm->tm_sec);
}

static bool leap(int year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

// Of a date whose fields are numbers; tm_year is the year itself.
static int join(struct tm *tm, double *ret_time) {
    static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    if (tm->tm_mon < 0 || tm->tm_mon > 11 || tm->tm_mday < 1 ||
        tm->tm_mday > lengths[tm->tm_mon] + (tm->tm_mon == 1 && leap(tm->tm_year)) || tm->tm_hour > 23 ||
        tm->tm_min > 59 || tm->tm_sec > 60)
        return -EINVAL;
    struct tm copy = *tm;
    copy.tm_year -= 1900;
    if (copy.tm_sec == 60)
        copy.tm_sec = 59;
    *ret_time = (double)timegm(&copy);
    return 0;
}

static int year_now(double now) {
    struct tm tm;
    return split(now, &tm) < 0 ? 1970 : tm.tm_year + 1900;
}

// RFC 9110, 5.6.7: two digits that seem more than 50 years ahead are of the past.
static int full_year(int two, double now) {
    int year = year_now(now), full = year / 100 * 100 + two;
    return full > year + 50 ? full - 100 : full;
}

int date_parse_http(struct slice text, double now, double *ret_time) {
    struct tm tm = { 0 };
    struct slice rest = text;
    int weekday;
    for (int i = 0; i < 7; i++) {
        rest = text;
        if (!take(&rest, long_days[i]))
            continue;
        int two;
        if (!take(&rest, ", ") || !take_digits(&rest, 2, &tm.tm_mday) || !take(&rest, "-") ||
            !take_word(&rest, months, 12, &tm.tm_mon) || !take(&rest, "-") || !take_digits(&rest, 2, &two) ||
            !take(&rest, " ") || !take_clock(&rest, &tm) || !take(&rest, " GMT") || rest.len > 0)
            return -EINVAL;
        tm.tm_year = full_year(two, now);
        return join(&tm, ret_time);
    }
    rest = text;
    if (!take_word(&rest, days, 7, &weekday))
        return -EINVAL;
    if (take(&rest, ", ")) {
        if (!take_digits(&rest, 2, &tm.tm_mday) || !take(&rest, " ") ||
            !take_word(&rest, months, 12, &tm.tm_mon) || !take(&rest, " ") ||
            !take_digits(&rest, 4, &tm.tm_year) || !take(&rest, " ") || !take_clock(&rest, &tm) ||
            !take(&rest, " GMT") || rest.len > 0)
            return -EINVAL;
        return join(&tm, ret_time);
    }
    if (!take(&rest, " ") || !take_word(&rest, months, 12, &tm.tm_mon) || !take(&rest, " ") ||
        !(take(&rest, " ") ? take_digits(&rest, 1, &tm.tm_mday) : take_digits(&rest, 2, &tm.tm_mday)) ||
        !take(&rest, " ") || !take_clock(&rest, &tm) || !take(&rest, " ") ||
        !take_digits(&rest, 4, &tm.tm_year) || rest.len > 0)
        return -EINVAL;
    return join(&tm, ret_time);
}

int date_parse_rfc3339(struct slice text, double *ret_time) {
    struct tm tm = { 0 };
    struct slice rest = text;
    double time, fraction = 0, scale = 0.1;
    int hours = 0, minutes = 0, digit, sign = 0;
    if (!take_digits(&rest, 4, &tm.tm_year) || !take(&rest, "-") || !take_digits(&rest, 2, &tm.tm_mon) ||
        !take(&rest, "-") || !take_digits(&rest, 2, &tm.tm_mday) ||
        !(take(&rest, "T") || take(&rest, "t") || take(&rest, " ")) || !take_clock(&rest, &tm))
        return -EINVAL;
    tm.tm_mon--;
    if (take(&rest, ".")) {
        unsigned count = 0;
        for (; take_digits(&rest, 1, &digit); count++, scale /= 10)
            fraction += digit * scale;
        if (count == 0)
            return -EINVAL;
    }
    if (take(&rest, "+"))
        sign = 1;
    else if (take(&rest, "-"))
        sign = -1;
    else if (!take(&rest, "Z") && !take(&rest, "z"))
        return -EINVAL;
    if (sign &&
        (!take_digits(&rest, 2, &hours) || !take(&rest, ":") || !take_digits(&rest, 2, &minutes) ||
         hours > 23 || minutes > 59))
        return -EINVAL;
    if (rest.len > 0 || join(&tm, &time) < 0)
        return -EINVAL;
    *ret_time = time + fraction - sign * (hours * 3600.0 + minutes * 60.0);
    return 0;
}
