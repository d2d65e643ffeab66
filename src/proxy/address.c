// SPDX-License-Identifier: BSD-2-Clause
// The book of address.h. An entry lives as long as its generation: exchanges point at it, and its pool of
// connections empties by itself.
#include "proxy/address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MAX = 4096 };

struct entry {
    struct conf_upstream conf;  // first: upstream->conf is its address
    struct conf_server server;
    char name[ADDR_TEXT_MAX];  // as addresses print
};

void address_book_init(struct address_book *book, const struct conf_upstream *defaults) {
    book->defaults = defaults;
    book->count = 0;
    list_init(&book->upstreams);
}

void address_book_release(struct address_book *book) {
    list_each(link, &book->upstreams) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        struct entry *entry = (struct entry *)(uintptr_t)upstream->conf;
        upstream_free(upstream);
        free(entry);
    }
    book->count = 0;
}

static struct upstream *add(struct address_book *book, const struct addr *addr, const char *name) {
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    entry->conf = *book->defaults;
    entry->conf.name = entry->server.name = strcpy(entry->name, name);
    entry->conf.servers = &entry->server;
    entry->conf.server_count = 1;
    entry->server.addr = *addr;
    entry->server.weight = 1;
    struct upstream *upstream = upstream_new(&entry->conf);
    if (!upstream) {
        free(entry);
        return NULL;
    }
    list_push_front(&book->upstreams, &upstream->link);
    book->count++;
    return upstream;
}

struct upstream *address_book_find(struct address_book *book, struct slice text, struct error *error) {
    struct addr addr;
    char name[ADDR_TEXT_MAX];
    if (addr_parse(text, &addr, error) < 0)
        return NULL;
    if (text.at[0] == '*' || (addr_family(&addr) != AF_UNIX && addr_port(&addr) == 0)) {
        error_set(error, -EINVAL, "expected one address with a port");
        return NULL;
    }
    addr_print(&addr, name);
    list_each(link, &book->upstreams) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        if (strcmp(upstream->conf->name, name) == 0) {
            list_remove(link);
            list_push_front(&book->upstreams, link);
            return upstream;
        }
    }
    if (book->count >= ADDRESSES_MAX) {
        error_set(error, -ENOSPC, "scripts have named %u addresses already", book->count);
        return NULL;
    }
    struct upstream *upstream = add(book, &addr, name);
    if (!upstream)
        error_set(error, -ENOMEM, "memory is out");
    return upstream;
}
