// SPDX-License-Identifier: BSD-2-Clause
// Numbers, sizes and times as they are written in a configuration, and words as they must be written to be
// read again. Both directions stand here so that what is printed can be parsed.
#ifndef MOONGATE_CONF_VALUE_H
#define MOONGATE_CONF_VALUE_H

#include "base/slice.h"

#include <stdio.h>

enum value_unit { VALUE_NUMBER, VALUE_SIZE, VALUE_TIME };

// NUMBER: digits. SIZE: digits and nothing, k, m or g (times 1024): bytes. TIME: digits and ms, s, m, h or d,
// or nothing for seconds: milliseconds. -EINVAL when it is not written so, -ERANGE when it does not fit.
int value_parse(struct slice text, enum value_unit unit, uint64_t *ret_value)
    __attribute__((warn_unused_result));

enum { VALUE_TEXT_MAX = 32 };
// With the largest unit that leaves no rest. Returns `text`.
const char *value_print(uint64_t value, enum value_unit unit, char text[VALUE_TEXT_MAX]);

// Prints a word with quotes and escapes where it needs them.
void value_print_word(FILE *out, const char *word);

#endif
