// SPDX-License-Identifier: BSD-2-Clause
// The resolver of resolver.h: joins asks for one name into one lookup, has c-ares carry it out over sockets
// that the ring polls, and tells the answers. c-ares calls back from the middle of its own work, so answers
// are told in the ring's next flush: whoever is told may ask again, or end whatever he likes but the
// resolver.
//
// Who owns what
//   lookup   c-ares, until it calls answered(); of those that were given up nothing else is left
//   ask      the caller, until it is told or cancels; on its lookup's list
//   watched  a socket of c-ares's: the ring, until the poll's last completion; then whoever closed it
#include "net/resolver.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/slab.h"
#include "base/timer.h"
#include "ring/ring.h"

#include <ares.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RESOLV_CONF "/etc/resolv.conf"

// What tells whether a file is still the one that was read.
struct file_mark {
    struct timespec changed;
    ino_t inode;
    off_t size;
};

struct resolver {
    unsigned refs;
    struct conf_resolver conf;
    struct dns_cache cache;
    ares_channel channel;   // NULL: pretended
    struct file_mark mark;  // of /etc/resolv.conf, where no servers are configured
    struct list watched;
    struct list lookups;        // asked for
    struct list over;           // ended, not told
    unsigned lookup_count;      // those that c-ares has
    struct ring_flush flusher;  // tells, and sets the timer
    struct timer timer;         // of c-ares's next time-out
    struct pretended *pretended;
};

struct lookup {
    struct list link;
    struct resolver *resolver;
    struct dns_entry *entry;
    struct list asks;
    struct timer timer;  // resolver_timeout; pretended: until it is answered
    enum {
        LOOKUP_ASKED,     // c-ares has it; the entry points here
        LOOKUP_OVER,      // on the list of those to be told; the entry points here
        LOOKUP_GIVEN_UP,  // c-ares has it and nobody waits; entry is NULL
    } state;
};

struct resolver_ask {
    struct list link;
    void (*done)(void *owner, const struct resolver_answer *answer);
    void *owner;
};

struct watched {
    struct op op;
    struct list link;
    struct resolver *resolver;  // NULL: c-ares has closed it
    int fd;
    unsigned wanted, armed;  // events
    bool in_use;             // c-ares is at work on it
};

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

static struct slab ask_slab = SLAB_INIT(sizeof(struct resolver_ask), 64);
// Closed while the kernel polled them: here they can be found until it lets go.
static struct list closing = { &closing, &closing };

static void work_later(struct resolver *resolver) {
    ring_flush_later(&resolver->flusher);
}

// ---- sockets ----------------------------------------------------------------------------------------------

static void watch(struct watched *watched) {
    if (watched->op.pending) {
        ring_cancel(&watched->op);  // polled() goes on with what is wanted now
        return;
    }
    watched->armed = watched->wanted;
    ring_poll_once(&watched->op, watched->fd, watched->armed);
}

static void watched_free(struct watched *watched) {
    list_remove(&watched->link);
    free(watched);
}

static void polled(struct op *op, const struct completion *c) {
    struct watched *watched = container_of(op, struct watched, op);
    struct resolver *resolver = watched->resolver;
    if (resolver && c->res != -ECANCELED) {
        // An error is found by reading or writing.
        unsigned events = c->res < 0 ? POLLERR : (unsigned)c->res;
        bool bad = events & (POLLERR | POLLHUP | POLLNVAL);
        bool in = (watched->armed & POLLIN) && (bad || (events & POLLIN));
        bool out = (watched->armed & POLLOUT) && (bad || (events & POLLOUT));
        watched->in_use = true;
        ares_process_fd(resolver->channel, in ? watched->fd : ARES_SOCKET_BAD,
                        out ? watched->fd : ARES_SOCKET_BAD);
        watched->in_use = false;
        work_later(resolver);
    }
    if (!watched->resolver)
        watched_free(watched);
    else if (!watched->op.pending)
        watch(watched);
}

static struct watched *find_watched(const struct resolver *resolver, int fd) {
    list_each(link, &resolver->watched) {
        struct watched *watched = container_of(link, struct watched, link);
        if (watched->fd == fd)
            return watched;
    }
    return NULL;
}

// c-ares says what it waits for on a socket of its; for nothing when it is about to close it. The number may
// be used for another socket at once.
static void socket_changed(void *owner, ares_socket_t fd, int readable, int writable) {
    struct resolver *resolver = owner;
    struct watched *watched = find_watched(resolver, fd);
    unsigned wanted = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
    if (!wanted) {
        if (!watched)
            return;
        watched->resolver = NULL;
        list_remove(&watched->link);
        list_push_back(&closing, &watched->link);
        if (watched->op.pending)
            ring_cancel(&watched->op);
        else if (!watched->in_use)
            watched_free(watched);
        return;
    }
    if (!watched) {
        watched = calloc(1, sizeof *watched);
        if (!watched)
            return;  // nothing will be heard there: it is a time-out
        watched->resolver = resolver;
        watched->fd = fd;
        op_init(&watched->op, polled);
        list_push_back(&resolver->watched, &watched->link);
    }
    bool changed = watched->wanted != wanted;
    watched->wanted = wanted;
    if (changed && !watched->in_use)
        watch(watched);
}

// ---- lookups ----------------------------------------------------------------------------------------------

static void lookup_free(struct lookup *lookup) {
    timer_stop(&lookup->timer);
    list_remove(&lookup->link);
    free(lookup);
}

static void over(struct lookup *lookup) {
    struct resolver *resolver = lookup->resolver;
    timer_stop(&lookup->timer);
    lookup->state = LOOKUP_OVER;
    list_remove(&lookup->link);
    list_push_back(&resolver->over, &lookup->link);
    work_later(resolver);
}

static void failed(struct lookup *lookup, enum dns_failure failure) {
    static struct log_limit limit;
    uint32_t suppressed;
    struct dns_entry *entry = lookup->entry;
    dns_cache_failed(&lookup->resolver->cache, entry, failure, clock_ms());
    if (failure == DNS_no_name || failure == DNS_no_address || failure == DNS_bad_name) {
        counters->dns_not_found++;
        log_debug("resolver: \"%s\": %s", entry->name, dns_failure_text(failure));
        return;
    }
    counters->dns_failures++;
    counters->dns_timeouts += failure == DNS_timeout;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("resolver: \"%s\": %s", entry->name, dns_failure_text(failure));
}

static void succeeded(struct lookup *lookup, const struct addr *addrs, unsigned count, uint64_t ttl) {
    if (dns_cache_answered(&lookup->resolver->cache, lookup->entry, addrs, count, ttl, clock_ms()) < 0)
        failed(lookup, DNS_memory);
}

static void took_too_long(struct timer *timer) {
    struct lookup *lookup = container_of(timer, struct lookup, timer);
    struct resolver *resolver = lookup->resolver;
    struct lookup *told = calloc(1, sizeof *told);
    failed(lookup, DNS_timeout);
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
    over(told);
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

static void take(struct lookup *lookup, const struct ares_addrinfo *info) {
    struct addr addrs[DNS_ADDRESSES_MAX];
    unsigned count = 0;
    uint64_t ttl = UINT32_MAX;
    for (const struct ares_addrinfo_cname *name = info->cnames; name; name = name->next)
        if (name->ttl >= 0 && (uint64_t)name->ttl < ttl)
            ttl = (uint64_t)name->ttl;
    for (const struct ares_addrinfo_node *node = info->nodes; node && count < DNS_ADDRESSES_MAX;
         node = node->ai_next) {
        if (addr_from_sockaddr(node->ai_addr, node->ai_addrlen, &addrs[count]) < 0)
            continue;
        addr_set_port(&addrs[count++], 0);
        if (node->ai_ttl >= 0 && (uint64_t)node->ai_ttl < ttl)
            ttl = (uint64_t)node->ai_ttl;
    }
    if (count > 0)
        succeeded(lookup, addrs, count, ttl);
    else
        failed(lookup, DNS_no_address);
}

// c-ares lets go of a lookup; perhaps at once, from within ares_getaddrinfo().
static void answered(void *owner, int status, int timeouts, struct ares_addrinfo *info) {
    struct lookup *lookup = owner;
    struct resolver *resolver = lookup->resolver;
    (void)timeouts;
    resolver->lookup_count--;
    counters->dns_lookups_active--;
    if (lookup->state == LOOKUP_GIVEN_UP || status == ARES_EDESTRUCTION) {
        lookup_free(lookup);
    } else {
        if (status == ARES_SUCCESS)
            take(lookup, info);
        else
            failed(lookup, failure_of(status));
        over(lookup);
    }
    if (info)
        ares_freeaddrinfo(info);
}

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
        succeeded(lookup, addrs, count, found->ttl);
    else
        failed(lookup, found && found->failure ? found->failure : found ? DNS_no_address : DNS_no_name);
    over(lookup);
}

// Has c-ares ask. NULL: it cannot be, *ret_failure says why.
static struct lookup *lookup_begin(struct resolver *resolver, struct dns_entry *entry,
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
        const struct pretended *found = find_pretended(resolver, slice_make(entry->name, entry->len));
        timer_init(&lookup->timer, pretend_answer);
        if (found && found->delay_ms > 0)
            timer_start(&lookup->timer, found->delay_ms);
        else
            pretend_answer(&lookup->timer);
        return lookup;
    }
    timer_init(&lookup->timer, took_too_long);
    timer_start(&lookup->timer, resolver->conf.timeout);
    const struct ares_addrinfo_hints hints = { .ai_family = entry->family, .ai_socktype = SOCK_STREAM };
    ares_getaddrinfo(resolver->channel, entry->name, NULL, &hints, answered, lookup);
    work_later(resolver);
    return lookup;
}

// ---- telling ----------------------------------------------------------------------------------------------

// An answer that stays while others are told it, whatever they make of the cache.
struct kept_answer {
    struct resolver_answer answer;
    struct addr addrs[DNS_ADDRESSES_MAX];
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
        kept->answer =
            (struct resolver_answer){ .failure = entry->failure, .text = dns_failure_text(entry->failure) };
        return;
    }
    dns_entry_addrs(entry, kept->addrs);
    kept->answer = (struct resolver_answer){ .addrs = kept->addrs,
                                             .count = entry->count,
                                             .ttl = dns_entry_ttl(entry, clock_ms()),
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

static void process_timeouts(struct timer *timer) {
    struct resolver *resolver = container_of(timer, struct resolver, timer);
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    work_later(resolver);
}

static void work(struct ring_flush *flusher) {
    struct resolver *resolver = container_of(flusher, struct resolver, flusher);
    while (!list_empty(&resolver->over))
        tell(container_of(resolver->over.next, struct lookup, link));
    if (!resolver->channel)
        return;
    struct timeval left;
    if (ares_timeout(resolver->channel, NULL, &left))
        timer_start(&resolver->timer, (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 + 1);
    else
        timer_stop(&resolver->timer);
}

// ---- asking -----------------------------------------------------------------------------------------------

bool resolver_is_name(struct slice text) {
    bool digits = true;
    size_t label = 0;
    if (text.len > 0 && text.at[text.len - 1] == '.')
        text.len--;
    if (text.len == 0 || text.len > DNS_NAME_MAX - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            digits = true;
            continue;
        }
        bool digit = c >= '0' && c <= '9';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!digit && !letter && c != '-' && c != '_')
            return false;
        digits = digits && digit;
        if (++label > 63)
            return false;
    }
    return label > 0 && !digits;
}

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
        .addrs = &addr, .count = 1, .ttl = (uint32_t)(resolver->conf.max_ttl / 1000), .text = ""
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

struct resolver_ask *resolver_ask(struct resolver *resolver, struct slice name, int family,
                                  void (*done)(void *owner, const struct resolver_answer *answer),
                                  void *owner) {
    char lower[DNS_NAME_MAX + 1];
    if (told_literal(resolver, name, family, done, owner))
        return NULL;
    if (!resolver_is_name(name)) {
        tell_failure(DNS_bad_name, done, owner);
        return NULL;
    }
    for (size_t i = 0; i < name.len; i++)
        lower[i] = (char)(name.at[i] >= 'A' && name.at[i] <= 'Z' ? name.at[i] | 0x20 : name.at[i]);
    name = slice_make(lower, name.len);

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
    list_remove(&ask->link);
    slab_put(&ask_slab, ask);
}

// ---- life -------------------------------------------------------------------------------------------------

static struct file_mark mark_of(const char *path) {
    struct stat found;
    if (stat(path, &found) < 0)
        return (struct file_mark){ 0 };
    return (struct file_mark){ found.st_mtim, found.st_ino, found.st_size };
}

static bool mark_same(const struct file_mark *a, const struct file_mark *b) {
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
        a->inode == b->inode && a->size == b->size;
}

// How long the first try waits: c-ares doubles it with each round through the servers, and all rounds
// together are to take a little less than resolver_timeout: where the addresses of one family never come,
// those of the other are told in time.
static int first_try_ms(const struct conf_resolver *conf, unsigned servers) {
    uint64_t parts = servers * ((1ull << conf->tries) - 1);
    uint64_t ms = (conf->timeout - conf->timeout / 10) / (parts ? parts : 1);
    return ms < 20 ? 20 : (int)ms;
}

static int use_servers(struct resolver *resolver) {
    struct ares_addr_port_node *nodes = calloc(resolver->conf.server_count, sizeof *nodes);
    if (!nodes)
        return ARES_ENOMEM;
    for (unsigned i = 0; i < resolver->conf.server_count; i++) {
        const struct addr *addr = &resolver->conf.servers[i];
        nodes[i].family = addr_family(addr);
        nodes[i].udp_port = nodes[i].tcp_port = addr_port(addr);
        if (nodes[i].family == AF_INET)
            nodes[i].addr.addr4 = addr->in4.sin_addr;
        else
            memcpy(&nodes[i].addr.addr6, &addr->in6.sin6_addr, sizeof nodes[i].addr.addr6);
        nodes[i].next = i + 1 < resolver->conf.server_count ? &nodes[i + 1] : NULL;
    }
    int status = ares_set_servers_ports(resolver->channel, nodes);
    free(nodes);
    return status;
}

static unsigned system_servers(ares_channel channel) {
    struct ares_addr_port_node *nodes = NULL;
    unsigned count = 0;
    if (ares_get_servers_ports(channel, &nodes) == ARES_SUCCESS)
        for (const struct ares_addr_port_node *node = nodes; node; node = node->next)
            count++;
    ares_free_data(nodes);
    return count ? count : 1;
}

// Servers of the configuration are asked alone, for names as they are; else it is as on this system.
static int open_channel(struct resolver *resolver, struct error *error) {
    const struct conf_resolver *conf = &resolver->conf;
    bool own = conf->server_count > 0;
    unsigned servers = conf->server_count;
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    // Twice where the system says how many servers there are, as a time-out is set only with a channel's
    // making.
    for (int n = 0; n < 2 && status == ARES_SUCCESS; n++) {
        struct ares_options options = {
            .flags = own ? ARES_FLAG_NOSEARCH : 0,
            .timeout = first_try_ms(conf, servers ? servers : 1),
            .tries = (int)conf->tries,
            .lookups = own ? (char[]){ "b" } : (char[]){ "fb" },
            .sock_state_cb = socket_changed,
            .sock_state_cb_data = resolver,
        };
        int mask =
            ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
        if (own)
            mask |= ARES_OPT_DOMAINS;
        status = ares_init_options(&resolver->channel, &options, mask);
        if (status != ARES_SUCCESS || own || servers)
            break;
        servers = system_servers(resolver->channel);
        if (servers == 1)
            break;
        ares_destroy(resolver->channel);
        resolver->channel = NULL;
    }
    if (status == ARES_SUCCESS && own)
        status = use_servers(resolver);
    if (status == ARES_SUCCESS)
        return 0;
    return error_set(error, status == ARES_ENOMEM ? -ENOMEM : -EINVAL, "the resolver cannot be set up: %s",
                     ares_strerror(status));
}

static void resolver_free(struct resolver *resolver) {
    timer_stop(&resolver->timer);
    if (resolver->channel)
        ares_destroy(resolver->channel);  // answered() lets go of lookups, socket_changed() of sockets
    list_each(link, &resolver->lookups) {
        counters->dns_lookups_active--;
        lookup_free(container_of(link, struct lookup, link));
    }
    list_each(link, &resolver->over) lookup_free(container_of(link, struct lookup, link));
    list_remove(&resolver->flusher.link);
    for (struct pretended *one = resolver->pretended, *next; one; one = next) {
        next = one->next;
        free(one->addrs);
        free(one);
    }
    dns_cache_release(&resolver->cache);
    free(resolver->conf.servers);
    free(resolver);
}

static struct resolver *resolver_make(const struct conf_resolver *conf) {
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
    timer_init(&resolver->timer, process_timeouts);
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
    resolver->mark = mark_of(RESOLV_CONF);
    int rc = open_channel(resolver, error);
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
    struct file_mark mark = mark_of(RESOLV_CONF);
    return conf->server_count > 0 || mark_same(&resolver->mark, &mark);
}

const char *resolver_library(void) {
    static char text[32];
    snprintf(text, sizeof text, "c-ares %s", ares_version(NULL));
    return text;
}

// ---- pretending -------------------------------------------------------------------------------------------

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
