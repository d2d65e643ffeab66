// SPDX-License-Identifier: BSD-2-Clause
// The retry budget of an upstream (retry_budget): how many of its requests may be sent again, as a share of those
// that this worker was given lately. Called by frontend.c.
#ifndef MOONGATE_PROXY_BUDGET_H
#define MOONGATE_PROXY_BUDGET_H

#include "conf/conf.h"

// Counts of this half of the time that is looked at, and of the half before.
struct budget {
    uint64_t half_ends_ms;
    uint64_t requests[2], retries[2];
};

void budget_request(struct budget *budget);
// Whether one more may be sent again; it is counted then.
bool budget_retry(struct budget *budget, const struct conf_budget *conf);

#endif
