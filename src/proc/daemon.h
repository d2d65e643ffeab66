// SPDX-License-Identifier: BSD-2-Clause
// Leaves the terminal. The process that was started stays until the daemon says how its start went, and ends
// with that status.
#ifndef MOONGATE_PROC_DAEMON_H
#define MOONGATE_PROC_DAEMON_H

#include "base/error.h"

// Returns in the daemon alone; its standard streams are /dev/null from now on, and log messages still reach
// the terminal. In the process that was started it returns only when it could not even fork: negative errno.
int daemon_detach(struct error *error) __attribute__((warn_unused_result));
// The start has succeeded (text NULL) or failed; the starter prints the text and ends.
void daemon_started(const char *text);

#endif
