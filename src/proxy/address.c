// SPDX-License-Identifier: BSD-2-Clause
// The book of address.h. An upstream of an address or a name stays while an exchange has chosen it, or one of
// its connections carries something; its idle connections go with it.
#include "proxy/address.h"

#include "base/host_name.h"
#include "proxy/allow.h"
#include "tls/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { ADDRESSES_MAX = 4096, TEXT_MAX = DNS_NAME_MAX + 16, KEY_MAX = ADDR_TEXT_MAX + DNS_NAME_MAX + 16 };

static const struct slice https = SLICE_LIT("https://");

struct address_entry {
    struct conf_upstream conf;  // first: upstream->conf is its address
    struct address_entry *chain;
    struct upstream *upstream;
    struct conf_server server;
    struct named named;
    char name[];  // as addresses print, or "name:port" in lower case; with "https://" before it, and where a
                  // name was resolved a space and the name behind it
};

static struct address_entry *entry_of(const struct upstream *upstream) {
    return (struct address_entry *)(uintptr_t)upstream->conf;
}

static struct address_entry **bucket_of(struct address_book *book, struct slice text) {
    return &book->buckets[slice_hash(text, book->seed) % (sizeof book->buckets / sizeof *book->buckets)];
}

static void entry_free(struct address_book *book, struct upstream *upstream) {
    struct address_entry *entry = entry_of(upstream), **at = bucket_of(book, slice_of(entry->name));
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    book->count--;
    upstream_free(upstream);
    free(entry);
}

void address_book_init(struct address_book *book, const struct conf_upstream *defaults) {
    *book = (struct address_book){ .defaults = defaults };
    list_init(&book->upstreams);
    if (getrandom(&book->seed, sizeof book->seed, GRND_NONBLOCK) != (ssize_t)sizeof book->seed)
        book->seed = (uint64_t)(uintptr_t)book;
}

void address_book_release(struct address_book *book) {
    list_each(link, &book->upstreams) entry_free(book, container_of(link, struct upstream, link));
    tls_client_unref(book->tls);
}

static bool make_room(struct address_book *book) {
    if (book->count < ADDRESSES_MAX)
        return true;
    for (struct list *link = book->upstreams.prev; link != &book->upstreams; link = link->prev) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        const struct server *server = upstream->servers[0];
        if (upstream->users == 0 && server->active == 0 && list_empty(&server->attempts)) {
            entry_free(book, upstream);
            return true;
        }
    }
    return false;
}

// What those with https:// are connected to by. Reading all that the system trusts takes a while: on demand.
static struct tls_client *tls_of(struct address_book *book, struct error *error) {
    const struct conf_tls *tls = book->conf ? &book->conf->of_address_tls : NULL;
    if (book->tls)
        return tls_client_ref(book->tls);
    if (!tls || !tls->ca_text.at)
        error_set(error, -ENOENT, "there are no authorities to trust (fetch_ca)");
    else if (tls_client_new(book->conf, tls, PROTOCOL_AUTO, &book->tls, error) == 0)
        return tls_client_ref(book->tls);
    return NULL;
}

// `addr` is NULL for a name, which `named` describes. host: that a certificate must have; none: what the text
// says.
static struct upstream *add(struct address_book *book, struct slice text, const struct addr *addr,
                            const struct named *named, struct slice host, struct error *error) {
    bool secure = slice_starts(text, https);
    if (!make_room(book)) {
        error_set(error, -ENOSPC, "%u addresses and names of scripts are in use", book->count);
        return NULL;
    }
    struct address_entry *entry = calloc(1, sizeof *entry + text.len + 1);
    struct upstream *upstream = NULL;
    if (entry) {
        entry->conf = *book->defaults;
        memcpy(entry->name, text.at, text.len);
        entry->conf.name = entry->name;
        entry->server.name = entry->name + (secure ? https.len : 0);
        if (host.len > 0)
            entry->server.host = slice_make(entry->name + text.len - host.len, host.len);
        entry->conf.servers = &entry->server;
        entry->conf.server_count = 1;
        entry->server.weight = 1;
        if (addr)
            entry->server.addr = *addr;
        const struct upstream_options options = { .book = book };
        upstream = upstream_new(&entry->conf, &options);
    }
    if (!upstream) {
        free(entry);
        error_set(error, -ENOMEM, "memory is out");
        return NULL;
    }
    if (secure && addr && !(upstream->tls = tls_of(book, error))) {
        upstream_free(upstream);
        free(entry);
        return NULL;
    }
    if (!addr) {
        entry->named = *named;
        entry->named.host.at = entry->server.name;
        upstream->named = &entry->named;
    }
    struct address_entry **bucket = bucket_of(book, text);
    entry->upstream = upstream;
    entry->chain = *bucket;
    *bucket = entry;
    list_push_front(&book->upstreams, &upstream->link);
    book->count++;
    return upstream;
}

static struct upstream *find(struct address_book *book, struct slice text) {
    struct address_entry *entry = *bucket_of(book, text);
    while (entry && !slice_eq(slice_of(entry->name), text))
        entry = entry->chain;
    if (!entry)
        return NULL;
    list_remove(&entry->upstream->link);
    list_push_front(&book->upstreams, &entry->upstream->link);
    return entry->upstream;
}

// The key of an address. host: of a name with https:// that it was resolved for; none: it was given as it is.
static struct slice key_of(const struct addr *addr, bool secure, struct slice host, char *to) {
    size_t len = secure ? https.len : 0;
    memcpy(to, https.at, len);
    len += addr_print(addr, to + len);
    if (host.len > 0) {
        to[len++] = ' ';
        memcpy(to + len, host.at, host.len);
    }
    return slice_make(to, len + host.len);
}

static struct upstream *find_addr(struct address_book *book, const struct addr *addr, bool secure,
                                  struct slice host, struct error *error) {
    char text[KEY_MAX];
    struct slice key = key_of(addr, secure, host, text);
    struct upstream *upstream = find(book, key);
    return upstream ? upstream : add(book, key, addr, NULL, host, error);
}

// What of a name with https:// its addresses are told apart by: nothing without.
static struct slice host_of(const struct named *named) {
    return named->secure ? named->host : slice_make(NULL, 0);
}

// named: its host's text is not looked at, but for the length.
static struct upstream *find_name(struct address_book *book, struct slice text, const struct named *named,
                                  struct error *error) {
    char lower[TEXT_MAX];
    size_t len = named->secure ? https.len : 0;
    memcpy(lower, https.at, len);
    for (size_t i = 0; i < text.len; i++)
        lower[len++] = (char)(text.at[i] >= 'A' && text.at[i] <= 'Z' ? text.at[i] | 0x20 : text.at[i]);
    text = slice_make(lower, len);
    struct upstream *upstream = find(book, text);
    return upstream ? upstream : add(book, text, NULL, named, slice_make(NULL, 0), error);
}

struct upstream *address_book_find(struct address_book *book, struct slice text, struct error *error) {
    struct addr addr;
    struct slice host;
    uint16_t port;
    bool secure = slice_istarts(text, https);
    text = slice_from(text, secure ? https.len : 0);
    if (host_name_split(text, &host, &port)) {
        const struct named named = { book, slice_make(NULL, host.len), port, secure };
        return find_name(book, text, &named, error);
    }
    if (addr_parse(text, &addr, error) < 0)
        return NULL;
    bool local = addr_family(&addr) == AF_UNIX;
    if (text.at[0] == '*' || (local && secure) || (!local && addr_port(&addr) == 0)) {
        error_set(error, -EINVAL, "expected one address with a port");
        return NULL;
    }
    return find_addr(book, &addr, secure, slice_make(NULL, 0), error);
}

// ---- the addresses of a name ------------------------------------------------------------------------------

static uint64_t bit_of(const struct addr *addr) {
    uint8_t key[16];
    addr_key(addr, key);
    return 1ull << (slice_hash(slice_make((const char *)key, sizeof key), 0) & 63);
}

uint64_t address_bit(const struct server *server) {
    return bit_of(&server->addr);
}

// Whether connecting to it failed lately. Only what has a server can have failed.
static bool is_down(const struct named *named, const struct addr *addr) {
    char text[KEY_MAX];
    const struct upstream *upstream = find(named->book, key_of(addr, named->secure, host_of(named), text));
    return upstream && server_is_down(upstream->servers[0]);
}

struct server *address_choose(const struct named *named, const struct resolver_answer *answer,
                              const struct conf_allow *allow, uint64_t tried, const struct addr *beside,
                              struct error *error) {
    enum { GOOD, SAME_FAMILY, DOWN, TRIED, NONE };
    struct address_book *book = named->book;
    // Those of the first one's family take turns; the others, which this machine may not reach, come behind.
    unsigned turns = 1, best_rank = NONE;
    while (turns < answer->count && addr_family(&answer->addrs[turns]) == addr_family(&answer->addrs[0]))
        turns++;
    unsigned begin = book->turn++ % turns;
    struct addr best = { 0 };
    for (unsigned i = 0; i < answer->count && best_rank > GOOD; i++) {
        struct addr addr = answer->addrs[i < turns ? (begin + i) % turns : i];
        if (!allow_addr(allow, &addr))
            continue;
        addr_set_port(&addr, named->port);
        bool same = beside && addr_family(&addr) == addr_family(beside);
        unsigned rank = tried & bit_of(&addr) ? TRIED : is_down(named, &addr) ? DOWN : same ? SAME_FAMILY : GOOD;
        if (rank < best_rank) {
            best_rank = rank;
            best = addr;
        }
    }
    if (best_rank == NONE) {
        char first[ADDR_IP_MAX];
        addr_print_ip(&answer->addrs[0], first);
        error_set(error, -EACCES, "it stands for %s%s, which route_allow does not let in", first,
                  answer->count > 1 ? " and others" : "");
        return NULL;
    }
    struct upstream *upstream = find_addr(book, &best, named->secure, host_of(named), error);
    return upstream ? upstream->servers[0] : NULL;
}
