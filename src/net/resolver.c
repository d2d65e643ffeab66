// SPDX-License-Identifier: BSD-2-Clause
// The resolver of resolver.h: answers from the cache, joins asks for one name into one lookup
// (resolver_lookup.c), tells the answers, and its own life. resolver_impl.h says who owns what.
#include "net/resolver_impl.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/host_name.h"
#include "base/slab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct slab ask_slab = SLAB_INIT(sizeof(struct resolver_ask), 64);

// ---- telling ----------------------------------------------------------------------------------------------

// An answer that stays while others are told it, whatever they make of the cache.
struct kept_answer {
    struct resolver_answer answer;
    union {
        struct addr addrs[DNS_ADDRESSES_MAX];
        struct dns_service services[DNS_SERVICES_MAX];
    };
};

static void tell_failure(enum dns_failure failure, void (*done)(void *, const struct resolver_answer *),
                         void *owner) {
    const struct resolver_answer answer = { .failure = failure, .text = dns_failure_text(failure) };
    done(owner, &answer);
}

static void keep_answer(const struct dns_cache *cache, const struct dns_entry *entry,
                        struct kept_answer *kept) {
    enum dns_knowledge knows = dns_cache_knows(cache, entry, clock_ms());
    // What has come a moment ago is told even when it holds for no time at all.
    if (entry->count == 0 || (entry->failure != DNS_none && knows != DNS_FRESH && knows != DNS_STALE)) {
        uint64_t now_ms = clock_ms();
        uint64_t left_ms = entry->quiet_ms > now_ms ? entry->quiet_ms - now_ms : 0;
        kept->answer = (struct resolver_answer){ .left_ms = left_ms,
                                                 .failure = entry->failure,
                                                 .text = dns_failure_text(entry->failure) };
        return;
    }
    bool services = entry->family == DNS_SERVICES;
    uint64_t left_ms = dns_entry_left_ms(entry, clock_ms());
    if (services)
        memcpy(kept->services, entry->services, entry->count * sizeof *entry->services);
    else
        dns_entry_addrs(entry, kept->addrs);
    kept->answer = (struct resolver_answer){ .addrs = services ? NULL : kept->addrs,
                                             .services = services ? kept->services : NULL,
                                             .count = entry->count,
                                             .left_ms = left_ms,
                                             .stale = knows == DNS_STALE,
                                             .text = "" };
}

// Whoever is told may ask for the same name again: that is another lookup.
static void tell(struct lookup *lookup) {
    struct kept_answer kept;
    struct list asks;
    list_init(&asks);
    list_splice(&asks, &lookup->asks);
    keep_answer(&lookup->resolver->cache, lookup->entry, &kept);
    lookup->entry->lookup = NULL;
    lookup_free(lookup);
    while (!list_empty(&asks)) {
        struct resolver_ask *ask = container_of(asks.next, struct resolver_ask, link);
        void (*done)(void *, const struct resolver_answer *) = ask->done;
        void *owner = ask->owner;
        list_remove(&ask->link);
        slab_put(&ask_slab, ask);
        counters->dns_stale += kept.answer.stale;
        done(owner, &kept.answer);
    }
}

static void work(struct ring_flush *flusher) {
    struct resolver *resolver = container_of(flusher, struct resolver, flusher);
    while (!list_empty(&resolver->over))
        tell(container_of(resolver->over.next, struct lookup, link));
    if (resolver->channel)
        channel_set_timer(resolver);
}

// ---- asking -----------------------------------------------------------------------------------------------

// An address is its own answer.
static bool told_literal(struct resolver *resolver, struct slice name, int family,
                         void (*done)(void *, const struct resolver_answer *), void *owner) {
    struct addr addr;
    if (addr_parse_ip(name, 0, &addr) < 0)
        return false;
    if (family != AF_UNSPEC && family != addr_family(&addr)) {
        tell_failure(DNS_no_address, done, owner);
        return true;
    }
    const struct resolver_answer answer = {
        .addrs = &addr, .count = 1, .left_ms = resolver->conf.max_ttl, .text = ""
    };
    done(owner, &answer);
    return true;
}

static void tell_known(struct resolver *resolver, struct dns_entry *entry,
                       void (*done)(void *, const struct resolver_answer *), void *owner) {
    struct kept_answer kept;
    dns_cache_touch(&resolver->cache, entry);
    keep_answer(&resolver->cache, entry, &kept);
    counters->dns_hits++;
    counters->dns_stale += kept.answer.stale;
    done(owner, &kept.answer);
}

struct resolver_ask *resolver_ask(struct resolver *resolver, struct resolver_guide *guide, struct slice name, int family,
                                  void (*done)(void *owner, const struct resolver_answer *answer),
                                  void *owner) {
    char lower[DNS_NAME_MAX + 1];
    if (family != DNS_SERVICES && told_literal(resolver, name, family, done, owner))
        return NULL;
    if (!host_name_valid(name)) {
        tell_failure(DNS_bad_name, done, owner);
        return NULL;
    }
    for (size_t i = 0; i < name.len; i++)
        lower[i] = (char)(name.at[i] >= 'A' && name.at[i] <= 'Z' ? name.at[i] | 0x20 : name.at[i]);
    name = slice_make(lower, name.len);
    if (guide)
        return guide->ask(guide, resolver, name, family, done, owner);

    enum dns_failure failure = DNS_busy;
    struct dns_entry *entry = dns_cache_find(&resolver->cache, name, family);
    enum dns_knowledge knows = entry ? dns_cache_knows(&resolver->cache, entry, clock_ms()) : DNS_UNKNOWN;
    if (knows == DNS_STALE && !entry->lookup && dns_entry_due(entry, clock_ms()))
        (void)lookup_begin(resolver, entry, &failure);  // for the next one; nobody waits while resolvers fail
    if (knows != DNS_UNKNOWN) {
        tell_known(resolver, entry, done, owner);
        return NULL;
    }

    if (!entry && resolver->lookup_count < resolver->conf.queries)  // else nothing makes room for it
        entry = dns_cache_need(&resolver->cache, name, family);
    struct lookup *lookup = entry ? entry->lookup : NULL;
    counters->dns_misses++;
    if (!lookup && entry)
        lookup = lookup_begin(resolver, entry, &failure);
    struct resolver_ask *ask = lookup ? slab_get(&ask_slab) : NULL;
    if (!ask) {
        counters->dns_refused++;
        tell_failure(lookup ? DNS_memory : failure, done, owner);
        return NULL;
    }
    dns_cache_touch(&resolver->cache, entry);
    *ask = (struct resolver_ask){ .done = done, .owner = owner };
    list_push_back(&lookup->asks, &ask->link);
    return ask;
}

void resolver_cancel(struct resolver_ask *ask) {
    if (!ask)
        return;
    if (ask->cancelled) {
        ask->cancelled(ask);
        return;
    }
    list_remove(&ask->link);
    slab_put(&ask_slab, ask);
}

// ---- life -------------------------------------------------------------------------------------------------

static void resolver_free(struct resolver *resolver) {
    if (resolver->channel)
        channel_close(resolver);
    list_each(link, &resolver->lookups) {
        counters->dns_lookups_active--;
        lookup_free(container_of(link, struct lookup, link));
    }
    list_each(link, &resolver->over) lookup_free(container_of(link, struct lookup, link));
    list_remove(&resolver->flusher.link);
    pretend_release(resolver);
    dns_cache_release(&resolver->cache);
    free(resolver->conf.servers);
    free(resolver);
}

struct resolver *resolver_make(const struct conf_resolver *conf) {
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (!resolver)
        return NULL;
    resolver->refs = 1;
    resolver->conf = *conf;
    resolver->conf.servers = NULL;
    list_init(&resolver->watched);
    list_init(&resolver->lookups);
    list_init(&resolver->over);
    list_init(&resolver->flusher.link);
    resolver->flusher.flush = work;
    if (conf->server_count > 0) {
        size_t bytes = conf->server_count * sizeof *conf->servers;
        resolver->conf.servers = malloc(bytes);
        if (resolver->conf.servers)
            memcpy(resolver->conf.servers, conf->servers, bytes);
    }
    if ((conf->server_count > 0 && !resolver->conf.servers) ||
        dns_cache_init(&resolver->cache, &resolver->conf) < 0) {
        free(resolver->conf.servers);
        free(resolver);
        return NULL;
    }
    return resolver;
}

int resolver_new(const struct conf_resolver *conf, struct resolver **ret_resolver, struct error *error) {
    struct resolver *resolver = resolver_make(conf);
    if (!resolver)
        return error_set(error, -ENOMEM, "memory is out");
    resolver->mark = channel_system_mark();
    int rc = channel_open(resolver, error);
    if (rc < 0) {
        resolver_free(resolver);
        return rc;
    }
    *ret_resolver = resolver;
    return 0;
}

struct resolver *resolver_ref(struct resolver *resolver) {
    resolver->refs++;
    return resolver;
}

void resolver_unref(struct resolver *resolver) {
    if (resolver && --resolver->refs == 0)
        resolver_free(resolver);
}

bool resolver_fits(const struct resolver *resolver, const struct conf_resolver *conf) {
    const struct conf_resolver *own = &resolver->conf;
    if (own->server_count != conf->server_count || own->timeout != conf->timeout ||
        own->tries != conf->tries || own->min_ttl != conf->min_ttl || own->max_ttl != conf->max_ttl ||
        own->negative_ttl != conf->negative_ttl || own->stale != conf->stale || own->cache != conf->cache ||
        own->queries != conf->queries)
        return false;
    for (unsigned i = 0; i < conf->server_count; i++)
        if (!addr_eq(&own->servers[i], &conf->servers[i]))
            return false;
    struct file_mark mark = channel_system_mark();
    return conf->server_count > 0 || file_mark_same(&resolver->mark, &mark);
}

const struct conf_resolver *resolver_conf(const struct resolver *resolver) {
    return &resolver->conf;
}

const char *resolver_library(void) {
    static char text[32];
    snprintf(text, sizeof text, "c-ares %s", ares_version(NULL));
    return text;
}
