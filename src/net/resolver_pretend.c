// SPDX-License-Identifier: BSD-2-Clause
// A resolver that asks nobody, for tests of scripts (script/test_world.c): it knows what it is told, and
// answers when it is told to. The cache and those who ask do not know the difference.
#include "net/resolver_impl.h"

#include "base/counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pretended {
    struct pretended *next;
    struct addr *addrs;
    unsigned count;
    uint32_t ttl;
    enum dns_failure failure;
    uint64_t delay_ms;
    size_t len;
    char name[DNS_NAME_MAX + 1];
};

static const struct pretended *find_pretended(const struct resolver *resolver, struct slice name) {
    const struct pretended *found = resolver->pretended;
    while (found && !slice_eq(slice_make(found->name, found->len), name))
        found = found->next;
    return found;
}

static void pretend_answer(struct timer *timer) {
    struct lookup *lookup = container_of(timer, struct lookup, timer);
    struct resolver *resolver = lookup->resolver;
    const struct dns_entry *entry = lookup->entry;
    const struct pretended *found = find_pretended(resolver, slice_make(entry->name, entry->len));
    struct addr addrs[DNS_ADDRESSES_MAX];
    unsigned count = 0;
    resolver->lookup_count--;
    counters->dns_lookups_active--;
    for (unsigned i = 0; found && i < found->count; i++)
        if (entry->family == AF_UNSPEC || entry->family == addr_family(&found->addrs[i]))
            addrs[count++] = found->addrs[i];
    if (count > 0)
        lookup_succeeded(lookup, addrs, count, found->ttl);
    else if (entry->family == DNS_SERVICES && found && !found->failure)
        lookup_failed(lookup, DNS_no_service);
    else
        lookup_failed(lookup, found && found->failure ? found->failure : found ? DNS_no_address : DNS_no_name);
    lookup_over(lookup);
}

void pretend_begin(struct lookup *lookup) {
    const struct dns_entry *entry = lookup->entry;
    const struct pretended *found = find_pretended(lookup->resolver, slice_make(entry->name, entry->len));
    timer_init(&lookup->timer, pretend_answer);
    if (found && found->delay_ms > 0)
        timer_start(&lookup->timer, found->delay_ms);
    else
        pretend_answer(&lookup->timer);
}

void pretend_release(struct resolver *resolver) {
    for (struct pretended *one = resolver->pretended, *next; one; one = next) {
        next = one->next;
        free(one->addrs);
        free(one);
    }
}

struct resolver *resolver_pretended(const struct conf_resolver *conf) {
    return resolver_make(conf);
}

int resolver_pretend(struct resolver *resolver, struct slice name, const struct addr *addrs, unsigned count,
                     uint32_t ttl, enum dns_failure failure, uint64_t delay_ms) {
    struct pretended *one = calloc(1, sizeof *one);
    struct addr *copy = malloc((count ? count : 1) * sizeof *copy);
    if (!one || !copy || name.len > DNS_NAME_MAX) {
        free(one);
        free(copy);
        return -ENOMEM;
    }
    if (count > 0)
        memcpy(copy, addrs, count * sizeof *copy);
    *one = (struct pretended){ resolver->pretended, copy, count, ttl, failure, delay_ms, name.len, "" };
    memcpy(one->name, name.at, name.len);
    resolver->pretended = one;  // in front of what was said of it before
    return 0;
}
