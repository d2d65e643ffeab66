// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for SRV records in messages of DNS servers: whatever comes, what is told is bounded, in order, each
// once, and can be connected to.
#include "base/host_name.h"
#include "net/service_record.h"

#include "fuzz.h"

static bool before(const struct dns_service *a, const struct dns_service *b) {
    int order = strcmp(a->target, b->target);
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return order ? order < 0 : a->port < b->port;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct dns_service services[DNS_SERVICES_MAX];
    unsigned count = 0;
    uint32_t ttl = 0;
    enum dns_failure failure = dns_read_services(bytes, len, services, &count, &ttl);
    must(failure == DNS_none || failure == DNS_no_service || failure == DNS_bad_answer);
    must((failure == DNS_none) == (count > 0) && count <= DNS_SERVICES_MAX);
    must(failure != DNS_none || ttl <= INT32_MAX);
    for (unsigned i = 0; i < count; i++) {
        must(services[i].port > 0 && strlen(services[i].target) == services[i].len);
        must(host_name_valid(slice_make(services[i].target, services[i].len)));
        must(i == 0 || before(&services[i - 1], &services[i]));
    }
    return 0;
}
