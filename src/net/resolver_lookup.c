// SPDX-License-Identifier: BSD-2-Clause
// One name being asked for: handed to c-ares, given up when resolver_timeout is over, and what became of it
// put into the cache. resolver.c begins lookups and tells those who wait for them.
#include "net/resolver_impl.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "net/service_record.h"

#include <arpa/nameser.h>
#include <stdlib.h>

void lookup_free(struct lookup *lookup) {
    timer_stop(&lookup->timer);
    list_remove(&lookup->link);
    free(lookup);
}

void lookup_over(struct lookup *lookup) {
    struct resolver *resolver = lookup->resolver;
    timer_stop(&lookup->timer);
    lookup->state = LOOKUP_OVER;
    list_remove(&lookup->link);
    list_push_back(&resolver->over, &lookup->link);
    resolver_work_later(resolver);
}

void lookup_failed(struct lookup *lookup, enum dns_failure failure) {
    static struct log_limit limit;
    uint32_t suppressed;
    struct dns_entry *entry = lookup->entry;
    dns_cache_failed(&lookup->resolver->cache, entry, failure, clock_ms());
    if (dns_failure_is_sure(failure) || failure == DNS_bad_name) {
        counters->dns_not_found++;
        log_debug("resolver: \"%s\": %s", entry->name, dns_failure_text(failure));
        return;
    }
    counters->dns_failures++;
    counters->dns_timeouts += failure == DNS_timeout;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("resolver: \"%s\": %s", entry->name, dns_failure_text(failure));
}

void lookup_succeeded(struct lookup *lookup, const struct addr *addrs, unsigned count, uint64_t ttl) {
    if (dns_cache_answered(&lookup->resolver->cache, lookup->entry, addrs, count, ttl, clock_ms()) < 0)
        lookup_failed(lookup, DNS_memory);
}

void lookup_found_services(struct lookup *lookup, const struct dns_service *services, unsigned count,
                           uint64_t ttl) {
    struct dns_cache *cache = &lookup->resolver->cache;
    if (dns_cache_answered_services(cache, lookup->entry, services, count, ttl, clock_ms()) < 0)
        lookup_failed(lookup, DNS_memory);
}

static void took_too_long(struct timer *timer) {
    struct lookup *lookup = container_of(timer, struct lookup, timer);
    struct resolver *resolver = lookup->resolver;
    struct lookup *told = calloc(1, sizeof *told);
    lookup_failed(lookup, DNS_timeout);
    if (!told)
        return;  // those who wait are told when c-ares gives up, too
    // c-ares keeps its own until its last try is over; a copy of it is told.
    *told = (struct lookup){ .resolver = resolver, .entry = lookup->entry };
    timer_init(&told->timer, took_too_long);
    list_init(&told->link);
    list_init(&told->asks);
    list_splice(&told->asks, &lookup->asks);
    told->entry->lookup = told;
    lookup->entry = NULL;
    lookup->state = LOOKUP_GIVEN_UP;
    lookup_over(told);
}

static enum dns_failure failure_of(int status) {
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENONAME:
        return DNS_no_name;
    case ARES_ENODATA:
        return DNS_no_address;
    case ARES_EBADNAME:
        return DNS_bad_name;
    case ARES_ETIMEOUT:
        return DNS_timeout;
    case ARES_ECONNREFUSED:  // also when each answered SERVFAIL or REFUSED, and the next was asked
    case ARES_EREFUSED:
    case ARES_ESERVFAIL:
        return DNS_unreachable;
    case ARES_EFORMERR:
    case ARES_EBADRESP:
        return DNS_bad_answer;
    case ARES_ENOMEM:
        return DNS_memory;
    default:
        return DNS_server;
    }
}

static unsigned count_of(const struct ares_addrinfo *info, int family) {
    unsigned count = 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next)
        count += node->ai_family == family;
    return count;
}

// Of too many addresses the best are kept, and of both families some: one may not be reached.
static void take(struct lookup *lookup, const struct ares_addrinfo *info) {
    enum { SHARE = DNS_ADDRESSES_MAX / 2 };
    unsigned four = count_of(info, AF_INET), six = count_of(info, AF_INET6);
    unsigned room4 = six < SHARE ? DNS_ADDRESSES_MAX - six : SHARE;
    unsigned room6 = four < SHARE ? DNS_ADDRESSES_MAX - four : SHARE;
    struct addr addrs[DNS_ADDRESSES_MAX];
    unsigned count = 0;
    uint64_t ttl = UINT32_MAX;
    for (const struct ares_addrinfo_cname *name = info->cnames; name; name = name->next)
        if (name->ttl >= 0 && (uint64_t)name->ttl < ttl)
            ttl = (uint64_t)name->ttl;
    for (const struct ares_addrinfo_node *node = info->nodes; node && count < DNS_ADDRESSES_MAX;
         node = node->ai_next) {
        unsigned *room = node->ai_family == AF_INET ? &room4 : &room6;
        if (*room == 0 || addr_from_sockaddr(node->ai_addr, node->ai_addrlen, &addrs[count]) < 0)
            continue;
        --*room;
        addr_set_port(&addrs[count++], 0);
        if (node->ai_ttl >= 0 && (uint64_t)node->ai_ttl < ttl)
            ttl = (uint64_t)node->ai_ttl;
    }
    if (count > 0)
        lookup_succeeded(lookup, addrs, count, ttl);
    else
        lookup_failed(lookup, DNS_no_address);
}

// c-ares lets go of a lookup; perhaps at once, while it is asked. False: nobody wants to know, it is gone.
static bool let_go(struct lookup *lookup, int status) {
    lookup->resolver->lookup_count--;
    counters->dns_lookups_active--;
    if (lookup->state != LOOKUP_GIVEN_UP && status != ARES_EDESTRUCTION)
        return true;
    lookup_free(lookup);
    return false;
}

static void answered(void *owner, int status, int timeouts, struct ares_addrinfo *info) {
    struct lookup *lookup = owner;
    (void)timeouts;
    if (let_go(lookup, status)) {
        if (status == ARES_SUCCESS)
            take(lookup, info);
        else
            lookup_failed(lookup, failure_of(status));
        lookup_over(lookup);
    }
    if (info)
        ares_freeaddrinfo(info);
}

static void answered_services(void *owner, int status, int timeouts, unsigned char *message, int len) {
    struct lookup *lookup = owner;
    struct dns_service services[DNS_SERVICES_MAX];
    unsigned count = 0;
    uint32_t ttl = 0;
    (void)timeouts;
    if (!let_go(lookup, status))
        return;
    enum dns_failure failure = status == ARES_SUCCESS
        ? dns_read_services(message, (size_t)len, services, &count, &ttl)
        : failure_of(status);
    if (failure == DNS_none)
        lookup_found_services(lookup, services, count, ttl);
    else
        lookup_failed(lookup, failure == DNS_no_address ? DNS_no_service : failure);
    lookup_over(lookup);
}

struct lookup *lookup_begin(struct resolver *resolver, struct dns_entry *entry,
                            enum dns_failure *ret_failure) {
    bool full = resolver->lookup_count >= resolver->conf.queries;
    struct lookup *lookup = full ? NULL : calloc(1, sizeof *lookup);
    if (!lookup) {
        *ret_failure = full ? DNS_busy : DNS_memory;
        return NULL;
    }
    *lookup = (struct lookup){ .resolver = resolver, .entry = entry };
    list_init(&lookup->asks);
    list_push_back(&resolver->lookups, &lookup->link);
    entry->lookup = lookup;
    resolver->lookup_count++;
    counters->dns_lookups++;
    counters->dns_lookups_active++;
    if (!resolver->channel) {
        pretend_begin(lookup);
        return lookup;
    }
    timer_init(&lookup->timer, took_too_long);
    timer_start(&lookup->timer, resolver->conf.timeout);
    if (entry->family == DNS_SERVICES) {
        ares_search(resolver->channel, entry->name, ns_c_in, ns_t_srv, answered_services, lookup);
    } else {
        const struct ares_addrinfo_hints hints = { .ai_family = entry->family, .ai_socktype = SOCK_STREAM };
        ares_getaddrinfo(resolver->channel, entry->name, NULL, &hints, answered, lookup);
    }
    resolver_work_later(resolver);
    return lookup;
}
