// SPDX-License-Identifier: BSD-2-Clause
// What counts as the name of a host, for whatever comes from configurations, scripts and DNS servers.
#ifndef MOONGATE_BASE_HOST_NAME_H
#define MOONGATE_BASE_HOST_NAME_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

// Letters, digits, "-" and "_" in labels of at most 63, not all digits at the end; 253 in all, perhaps with a
// dot.
bool host_name_valid(struct slice text);
// "name:port"; false when it is none.
bool host_name_split(struct slice text, struct slice *ret_name, uint16_t *ret_port);

#endif
