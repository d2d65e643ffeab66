// SPDX-License-Identifier: BSD-2-Clause
// What a resolver remembers of names: addresses, or services (RFC 2782), until their time is over and, while resolvers fail, for some
// time beyond; that a name does not exist; that asking has failed. Bounded; what was not used for the longest
// time goes first. Knows nothing of DNS or of the ring: resolver.c asks and tells, with the time in
// milliseconds.
#ifndef MOONGATE_NET_RESOLVER_CACHE_H
#define MOONGATE_NET_RESOLVER_CACHE_H

#include "base/addr.h"
#include "base/list.h"
#include "conf/conf.h"

enum { DNS_NAME_MAX = 253, DNS_ADDRESSES_MAX = 64, DNS_SERVICES_MAX = 32 };
// In place of a family: what is asked for are services, not addresses.
enum { DNS_SERVICES = 255 };

//  X(name, errno, text): why there is no address. The texts are what scripts and operators read.
#define DNS_FAILURES(X) \
    X(none, 0, "") \
    X(no_name, ENOENT, "no such name") \
    X(no_address, ENODATA, "the name has no address") \
    X(no_service, ENODATA, "the name has no services") \
    X(bad_name, EINVAL, "this is no host name") \
    X(timeout, ETIMEDOUT, "no resolver answered in time") \
    X(unreachable, ECONNREFUSED, "the resolvers cannot be reached or refuse to answer") \
    X(server, EREMOTEIO, "the resolvers failed") \
    X(bad_answer, EBADMSG, "a resolver sent nonsense") \
    X(busy, EBUSY, "too many names are being resolved") \
    X(refused, EACCES, "a script refuses it") \
    X(script, ECANCELED, "a script that was asked for it failed") \
    X(memory, ENOMEM, "memory is out")

enum dns_failure {
#define X(name, number, text) DNS_##name,
    DNS_FAILURES(X)
#undef X
};

const char *dns_failure_text(enum dns_failure failure);
int dns_failure_errno(enum dns_failure failure);  // negative

// An address as it is kept: many names may have many.
struct dns_ip {
    uint8_t key[16];  // addr_key()
    bool four;
};

// One SRV record. The target is a host name in lower case; the port is not 0.
struct dns_service {
    uint16_t priority, weight, port;
    uint8_t len;
    char target[DNS_NAME_MAX + 1];
};

// What is known of one name and family.
struct dns_entry {
    struct list link;           // by use, the last used first
    struct dns_entry *chain;    // of its bucket
    uint64_t hash;
    void *lookup;               // resolver.c's, while it is being asked for: the entry stays meanwhile
    union {                     // NULL: none
        struct dns_ip *ips;
        struct dns_service *services;
    };
    unsigned count;
    enum dns_failure failure;   // of the last time it was asked for, which the addresses may outlive
    uint64_t fresh_ms;          // until then the addresses hold; 0: it was never answered
    uint64_t quiet_ms;          // after a failure: not to be asked for again before
    uint8_t family;             // AF_UNSPEC: both; DNS_SERVICES
    uint8_t len;
    char name[];
};

enum dns_knowledge {
    DNS_UNKNOWN,  // ask
    DNS_FRESH,    // the addresses hold
    DNS_STALE,    // they are past their time and the last attempt to renew them failed: better than nothing
    DNS_FAILED,   // there is none; that holds until quiet_ms
};

struct dns_cache {
    const struct conf_resolver *conf;
    struct list entries;
    struct dns_entry **buckets;
    unsigned bucket_count, count;
    uint64_t seed;
};

int dns_cache_init(struct dns_cache *cache, const struct conf_resolver *conf)
    __attribute__((warn_unused_result));
void dns_cache_release(struct dns_cache *cache);

// The name in lower case. NULL: nothing is known of it.
struct dns_entry *dns_cache_find(struct dns_cache *cache, struct slice name, int family);
// Finds or makes one, for a name that is going to be asked for. NULL when all are being asked for, or memory
// is out.
struct dns_entry *dns_cache_need(struct dns_cache *cache, struct slice name, int family);
// A name in use: it goes last.
void dns_cache_touch(struct dns_cache *cache, struct dns_entry *entry);

enum dns_knowledge dns_cache_knows(const struct dns_cache *cache, const struct dns_entry *entry,
                                   uint64_t now_ms);
// The addresses, without ports: entry->count of them.
void dns_entry_addrs(const struct dns_entry *entry, struct addr *ret_addrs);
// Milliseconds that the addresses still hold.
static inline uint64_t dns_entry_left_ms(const struct dns_entry *entry, uint64_t now_ms) {
    return entry->fresh_ms > now_ms ? entry->fresh_ms - now_ms : 0;
}
// A stale one may be asked for again.
static inline bool dns_entry_due(const struct dns_entry *entry, uint64_t now_ms) {
    return now_ms >= entry->quiet_ms;
}

// The addresses are copied. -ENOMEM: the entry is as it was.
int dns_cache_answered(struct dns_cache *cache, struct dns_entry *entry, const struct addr *addrs,
                       unsigned count, uint64_t ttl_s, uint64_t now_ms)
    __attribute__((warn_unused_result));
int dns_cache_answered_services(struct dns_cache *cache, struct dns_entry *entry,
                                const struct dns_service *services, unsigned count, uint64_t ttl_s,
                                uint64_t now_ms)
    __attribute__((warn_unused_result));
// Those who must know say that there is none (no_name, no_address, no_service, refused): what was known before is wrong. Any other
// failure says nothing of the name: what was known is kept.
static inline bool dns_failure_is_sure(enum dns_failure failure) {
    return failure == DNS_no_name || failure == DNS_no_address || failure == DNS_no_service || failure == DNS_refused;
}
void dns_cache_failed(struct dns_cache *cache, struct dns_entry *entry, enum dns_failure failure,
                      uint64_t now_ms);

#endif
