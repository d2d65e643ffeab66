// SPDX-License-Identifier: BSD-2-Clause
// Two halves of ten seconds, of which the older one is forgotten when the newer one is full (budget.h).
#include "proxy/budget.h"

#include "base/clock.h"

enum { HALF_MS = 5000, WHOLE_SECONDS = 10 };

static void move_on(struct budget *budget) {
    uint64_t now = clock_ms();
    if (now < budget->half_ends_ms)
        return;
    bool long_ago = now >= budget->half_ends_ms + HALF_MS;
    budget->requests[1] = long_ago ? 0 : budget->requests[0];
    budget->retries[1] = long_ago ? 0 : budget->retries[0];
    budget->requests[0] = budget->retries[0] = 0;
    budget->half_ends_ms = now + HALF_MS;
}

void budget_request(struct budget *budget) {
    move_on(budget);
    budget->requests[0]++;
}

bool budget_retry(struct budget *budget, const struct conf_budget *conf) {
    move_on(budget);
    uint64_t requests = budget->requests[0] + budget->requests[1];
    uint64_t retries = budget->retries[0] + budget->retries[1];
    if (conf->on && retries >= requests * conf->percent / 100 + conf->min * WHOLE_SECONDS)
        return false;
    budget->retries[0]++;
    return true;
}
