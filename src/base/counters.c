// SPDX-License-Identifier: BSD-2-Clause
// Where counters.h counts before a worker has shared memory (unit tests, moongate -t).
#include "base/counters.h"

static struct counters private_counters;
struct counters *counters = &private_counters;
