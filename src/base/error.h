// SPDX-License-Identifier: BSD-2-Clause
// The text of an error on its way up to the layer that decides what to do with it.
#ifndef MOONGATE_BASE_ERROR_H
#define MOONGATE_BASE_ERROR_H

struct error {
    char text[2048];
};

// Writes the text and returns `code` (a negative errno), so that "return error_set(...)" reads well.
int error_set(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
// Puts "prefix: " before the text that is there already; returns `code`.
int error_prefix(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
