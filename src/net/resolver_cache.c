// SPDX-License-Identifier: BSD-2-Clause
// The memory of a resolver (resolver_cache.h): a hash table with chains, keyed with a random seed because
// clients may choose the names, and a list by use.
#include "net/resolver_cache.h"

#include "base/counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct {
    int number;
    const char *text;
} failures[] = {
#define X(name, number, text) { number, text },
    DNS_FAILURES(X)
#undef X
};

const char *dns_failure_text(enum dns_failure failure) {
    return failures[failure].text;
}

int dns_failure_errno(enum dns_failure failure) {
    return -failures[failure].number;
}

int dns_cache_init(struct dns_cache *cache, const struct conf_resolver *conf) {
    *cache = (struct dns_cache){ .conf = conf, .bucket_count = 16 };
    list_init(&cache->entries);
    while (cache->bucket_count < conf->cache)
        cache->bucket_count *= 2;
    if (getrandom(&cache->seed, sizeof cache->seed, GRND_NONBLOCK) != (ssize_t)sizeof cache->seed)
        cache->seed = (uint64_t)(uintptr_t)cache;
    cache->buckets = calloc(cache->bucket_count, sizeof *cache->buckets);
    return cache->buckets ? 0 : -ENOMEM;
}

static struct dns_entry **bucket_of(struct dns_cache *cache, uint64_t hash) {
    return &cache->buckets[hash & (cache->bucket_count - 1)];
}

static void entry_free(struct dns_cache *cache, struct dns_entry *entry) {
    struct dns_entry **at = bucket_of(cache, entry->hash);
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    list_remove(&entry->link);
    cache->count--;
    counters->dns_entries_active--;
    free(entry->ips);
    free(entry);
}

void dns_cache_release(struct dns_cache *cache) {
    list_each(link, &cache->entries) entry_free(cache, container_of(link, struct dns_entry, link));
    free(cache->buckets);
    cache->buckets = NULL;
}

static uint64_t hash_of(const struct dns_cache *cache, struct slice name, int family) {
    return slice_hash(name, cache->seed + (uint64_t)family);
}

struct dns_entry *dns_cache_find(struct dns_cache *cache, struct slice name, int family) {
    uint64_t hash = hash_of(cache, name, family);
    for (struct dns_entry *entry = *bucket_of(cache, hash); entry; entry = entry->chain)
        if (entry->hash == hash && entry->family == family &&
            slice_eq(slice_make(entry->name, entry->len), name))
            return entry;
    return NULL;
}

// Room for one more: the one that was not used for the longest time goes, unless it is being asked for.
static bool make_room(struct dns_cache *cache) {
    if (cache->count < cache->conf->cache)
        return true;
    for (struct list *link = cache->entries.prev; link != &cache->entries; link = link->prev) {
        struct dns_entry *entry = container_of(link, struct dns_entry, link);
        if (!entry->lookup) {
            entry_free(cache, entry);
            return true;
        }
    }
    return false;
}

struct dns_entry *dns_cache_need(struct dns_cache *cache, struct slice name, int family) {
    struct dns_entry *entry = dns_cache_find(cache, name, family);
    if (entry)
        return entry;
    if (name.len > DNS_NAME_MAX || !make_room(cache))
        return NULL;
    entry = calloc(1, sizeof *entry + name.len + 1);
    if (!entry)
        return NULL;
    entry->hash = hash_of(cache, name, family);
    entry->family = (uint8_t)family;
    entry->len = (uint8_t)name.len;
    memcpy(entry->name, name.at, name.len);
    struct dns_entry **bucket = bucket_of(cache, entry->hash);
    entry->chain = *bucket;
    *bucket = entry;
    list_push_front(&cache->entries, &entry->link);
    cache->count++;
    counters->dns_entries_active++;
    return entry;
}

void dns_cache_touch(struct dns_cache *cache, struct dns_entry *entry) {
    list_remove(&entry->link);
    list_push_front(&cache->entries, &entry->link);
}

enum dns_knowledge dns_cache_knows(const struct dns_cache *cache, const struct dns_entry *entry,
                                   uint64_t now_ms) {
    if (entry->count > 0 && now_ms < entry->fresh_ms)
        return DNS_FRESH;
    if (entry->failure == DNS_none)
        return DNS_UNKNOWN;
    if (entry->count > 0 && now_ms < entry->fresh_ms + cache->conf->stale)
        return DNS_STALE;
    return now_ms < entry->quiet_ms ? DNS_FAILED : DNS_UNKNOWN;
}

void dns_entry_addrs(const struct dns_entry *entry, struct addr *ret_addrs) {
    for (unsigned i = 0; i < entry->count; i++) {
        const struct dns_ip *ip = &entry->ips[i];
        struct addr *addr = &ret_addrs[i];
        *addr = (struct addr){ 0 };
        if (ip->four) {
            addr->in4.sin_family = AF_INET;
            memcpy(&addr->in4.sin_addr, ip->key + 12, 4);
            addr->len = sizeof addr->in4;
        } else {
            addr->in6.sin6_family = AF_INET6;
            memcpy(&addr->in6.sin6_addr, ip->key, 16);
            addr->len = sizeof addr->in6;
        }
    }
}

// What was answered holds for its time, between the floor and the ceiling.
static void holds(const struct dns_cache *cache, struct dns_entry *entry, unsigned count, uint64_t ttl_s,
                  uint64_t now_ms) {
    entry->count = count;
    entry->failure = DNS_none;
    uint64_t ttl = ttl_s < UINT32_MAX ? ttl_s * 1000 : cache->conf->max_ttl;
    if (ttl > cache->conf->max_ttl)
        ttl = cache->conf->max_ttl;
    if (ttl < cache->conf->min_ttl)
        ttl = cache->conf->min_ttl;
    entry->fresh_ms = now_ms + ttl;
}

int dns_cache_answered(struct dns_cache *cache, struct dns_entry *entry, const struct addr *addrs,
                       unsigned count, uint64_t ttl_s, uint64_t now_ms) {
    if (count > DNS_ADDRESSES_MAX)
        count = DNS_ADDRESSES_MAX;
    struct dns_ip *ips = malloc(count * sizeof *ips);
    if (!ips)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        addr_key(&addrs[i], ips[i].key);
        ips[i].four = addr_family(&addrs[i]) == AF_INET;
    }
    free(entry->ips);
    entry->ips = ips;
    holds(cache, entry, count, ttl_s, now_ms);
    return 0;
}

int dns_cache_answered_services(struct dns_cache *cache, struct dns_entry *entry,
                                const struct dns_service *services, unsigned count, uint64_t ttl_s,
                                uint64_t now_ms) {
    if (count > DNS_SERVICES_MAX)
        count = DNS_SERVICES_MAX;
    struct dns_service *copy = malloc(count * sizeof *copy);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, services, count * sizeof *copy);
    free(entry->services);
    entry->services = copy;
    holds(cache, entry, count, ttl_s, now_ms);
    return 0;
}

void dns_cache_failed(struct dns_cache *cache, struct dns_entry *entry, enum dns_failure failure,
                      uint64_t now_ms) {
    if (dns_failure_is_sure(failure)) {
        free(entry->ips);
        entry->ips = NULL;
        entry->count = 0;
    }
    entry->failure = failure;
    // What this process lacks says nothing of the resolvers.
    entry->quiet_ms = now_ms + (failure == DNS_memory ? 0 : cache->conf->negative_ttl);
}
