// SPDX-License-Identifier: BSD-2-Clause
// A worker process: drives its ring, obeys the master's messages (channel.h), serves connections with the
// generation in use. Entered by workers.c in the forked child.
#ifndef MOONGATE_PROC_WORKER_H
#define MOONGATE_PROC_WORKER_H

#include "proc/heritage.h"

_Noreturn void worker_main(const struct heritage *heritage);

#endif
