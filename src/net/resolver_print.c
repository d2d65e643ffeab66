// SPDX-License-Identifier: BSD-2-Clause
// What a resolver knows, as lines for those who report it (resolver.h).
#include "net/resolver_impl.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>

static const char *kind_of(const struct dns_entry *entry) {
    switch (entry->family) {
    case AF_INET:
        return "A";
    case AF_INET6:
        return "AAAA";
    case DNS_SERVICES:
        return "SRV";
    default:
        return "A+AAAA";
    }
}

static const char *state_of(const struct dns_entry *entry, enum dns_knowledge knows) {
    static const char *const words[] = { [DNS_FRESH] = "fresh", [DNS_STALE] = "stale", [DNS_FAILED] = "failed" };
    return entry->lookup && knows != DNS_FRESH ? "asked" : knows == DNS_UNKNOWN ? "expired" : words[knows];
}

static void print_values(const struct dns_entry *entry, FILE *out) {
    struct addr addrs[DNS_ADDRESSES_MAX];
    char text[ADDR_IP_MAX];
    if (entry->family != DNS_SERVICES)
        dns_entry_addrs(entry, addrs);
    for (unsigned i = 0; i < entry->count; i++) {
        fputs(i > 0 ? ", " : "", out);
        if (entry->family == DNS_SERVICES) {
            const struct dns_service *service = &entry->services[i];
            fprintf(out, "%u %u %u %s", service->priority, service->weight, service->port, service->target);
        } else {
            addr_print_ip(&addrs[i], text);
            fputs(text, out);
        }
    }
}

void resolver_print(const struct resolver *resolver, FILE *out, long most) {
    uint64_t now = clock_ms();
    list_each(link, &resolver->cache.entries) {
        const struct dns_entry *entry = container_of(link, struct dns_entry, link);
        enum dns_knowledge knows = dns_cache_knows(&resolver->cache, entry, now);
        uint64_t until = knows == DNS_FRESH ? entry->fresh_ms : entry->quiet_ms;
        if (ftell(out) >= most)
            return;
        fprintf(out, "%s\t%s\t%s\t%" PRIu64 "\t", entry->name, kind_of(entry), state_of(entry, knows),
                until > now ? until - now : 0);
        print_values(entry, out);
        fprintf(out, "\t%s\n", dns_failure_text(entry->failure));
    }
}
