// SPDX-License-Identifier: BSD-2-Clause
// moongate --check-script: loads one script in its sandbox, without a server, and prints what it is made of.
#ifndef MOONGATE_SCRIPT_EXAMINE_H
#define MOONGATE_SCRIPT_EXAMINE_H

#include <stdbool.h>

struct examine_options {
    const char *script;     // a file
    char *const *settings;  // KEY=VALUE
    unsigned setting_count;
    bool json;
    unsigned time_limit;  // seconds
};

// The exit status: 0 when the script loads.
int examine_run(const struct examine_options *options);

#endif
