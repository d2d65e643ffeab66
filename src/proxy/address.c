// SPDX-License-Identifier: BSD-2-Clause
// The book of address.h. An upstream of an address or a name stays while an exchange has chosen it, or one of
// its connections carries something; its idle connections go with it.
#include "proxy/address.h"

#include "base/clock.h"
#include "proxy/allow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { ADDRESSES_MAX = 4096, TEXT_MAX = DNS_NAME_MAX + 8 };

struct address_entry {
    struct conf_upstream conf;  // first: upstream->conf is its address
    struct address_entry *chain;
    struct upstream *upstream;
    struct conf_server server;
    struct named named;
    char name[];  // as addresses print, or "name:port" in lower case
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
}

static bool make_room(struct address_book *book) {
    if (book->count < ADDRESSES_MAX)
        return true;
    for (struct list *link = book->upstreams.prev; link != &book->upstreams; link = link->prev) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        const struct server *server = &upstream->servers[0];
        if (upstream->users == 0 && server->active == 0 && list_empty(&server->attempts)) {
            entry_free(book, upstream);
            return true;
        }
    }
    return false;
}

// `addr` is NULL for a name, whose host is the text's first `host_len` bytes.
static struct upstream *add(struct address_book *book, struct slice text, const struct addr *addr,
                            size_t host_len, uint16_t port, struct error *error) {
    if (!make_room(book)) {
        error_set(error, -ENOSPC, "%u addresses and names of scripts are in use", book->count);
        return NULL;
    }
    struct address_entry *entry = calloc(1, sizeof *entry + text.len + 1);
    struct upstream *upstream = NULL;
    if (entry) {
        entry->conf = *book->defaults;
        memcpy(entry->name, text.at, text.len);
        entry->conf.name = entry->server.name = entry->name;
        entry->conf.servers = &entry->server;
        entry->conf.server_count = 1;
        entry->server.weight = 1;
        if (addr)
            entry->server.addr = *addr;
        upstream = upstream_new(&entry->conf);
    }
    if (!upstream) {
        free(entry);
        error_set(error, -ENOMEM, "memory is out");
        return NULL;
    }
    upstream->book = book;
    if (!addr) {
        entry->named = (struct named){ book, slice_make(entry->name, host_len), port };
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

static struct upstream *find_addr(struct address_book *book, const struct addr *addr, struct error *error) {
    char text[ADDR_TEXT_MAX];
    struct slice name = slice_make(text, addr_print(addr, text));
    struct upstream *upstream = find(book, name);
    return upstream ? upstream : add(book, name, addr, 0, 0, error);
}

// "name:port"; false when it is none.
static bool split(struct slice text, size_t *ret_host_len, uint16_t *ret_port) {
    const char *colon = text.len < TEXT_MAX ? memchr(text.at, ':', text.len) : NULL;
    unsigned port = 0;
    if (!colon)
        return false;
    size_t host_len = (size_t)(colon - text.at), digits = text.len - host_len - 1;
    for (size_t i = 0; i < digits && digits <= 5; i++) {
        char c = colon[1 + i];
        if (c < '0' || c > '9')
            return false;
        port = port * 10 + (unsigned)(c - '0');
    }
    if (digits > 5 || port == 0 || port > 65535 || !resolver_is_name(slice_make(text.at, host_len)))
        return false;
    *ret_host_len = host_len;
    *ret_port = (uint16_t)port;
    return true;
}

static struct upstream *find_name(struct address_book *book, struct slice text, size_t host_len,
                                  uint16_t port, struct error *error) {
    char lower[TEXT_MAX];
    for (size_t i = 0; i < text.len; i++)
        lower[i] = (char)(text.at[i] >= 'A' && text.at[i] <= 'Z' ? text.at[i] | 0x20 : text.at[i]);
    text = slice_make(lower, text.len);
    struct upstream *upstream = find(book, text);
    return upstream ? upstream : add(book, text, NULL, host_len, port, error);
}

struct upstream *address_book_find(struct address_book *book, struct slice text, struct error *error) {
    struct addr addr;
    size_t host_len;
    uint16_t port;
    if (split(text, &host_len, &port))
        return find_name(book, text, host_len, port, error);
    if (addr_parse(text, &addr, error) < 0)
        return NULL;
    if (text.at[0] == '*' || (addr_family(&addr) != AF_UNIX && addr_port(&addr) == 0)) {
        error_set(error, -EINVAL, "expected one address with a port");
        return NULL;
    }
    return find_addr(book, &addr, error);
}

// ---- the addresses of a name ------------------------------------------------------------------------------

static uint64_t bit_of(const struct addr *addr) {
    uint8_t key[16];
    addr_key(addr, key);
    return 1ull << (slice_hash(slice_make((const char *)key, sizeof key), 0) & 63);
}

uint64_t address_bit(const struct server *server) {
    return bit_of(&server->conf->addr);
}

// Whether connecting to it failed lately. Only what has a server can have failed.
static bool is_down(struct address_book *book, const struct addr *addr) {
    char text[ADDR_TEXT_MAX];
    const struct upstream *upstream = find(book, slice_make(text, addr_print(addr, text)));
    return upstream && upstream->servers[0].down_until_ms > clock_ms();
}

struct server *address_choose(const struct named *named, const struct resolver_answer *answer,
                              const struct conf_allow *allow, uint64_t tried, struct error *error) {
    struct address_book *book = named->book;
    // Those of the first one's family take turns; the others, which this machine may not reach, come behind.
    unsigned turns = 1, best_rank = 3;
    while (turns < answer->count && addr_family(&answer->addrs[turns]) == addr_family(&answer->addrs[0]))
        turns++;
    unsigned begin = book->turn++ % turns;
    struct addr best = { 0 };
    for (unsigned i = 0; i < answer->count && best_rank > 0; i++) {
        struct addr addr = answer->addrs[i < turns ? (begin + i) % turns : i];
        if (!allow_addr(allow, &addr))
            continue;
        addr_set_port(&addr, named->port);
        unsigned rank = tried & bit_of(&addr) ? 2 : is_down(book, &addr) ? 1 : 0;
        if (rank < best_rank) {
            best_rank = rank;
            best = addr;
        }
    }
    if (best_rank == 3) {
        char first[ADDR_IP_MAX];
        addr_print_ip(&answer->addrs[0], first);
        error_set(error, -EACCES, "it stands for %s%s, which route_allow does not let in", first,
                  answer->count > 1 ? " and others" : "");
        return NULL;
    }
    struct upstream *upstream = find_addr(book, &best, error);
    return upstream ? &upstream->servers[0] : NULL;
}
