// SPDX-License-Identifier: BSD-2-Clause
// Upstreams that no configuration names: of the addresses and names that scripts give instead. One book for
// each generation; the frontends of the generation look them up in it. An address has a server and its pool;
// a name has neither: before each attempt it is resolved, and the attempt goes to the server of one of its
// addresses.
#ifndef MOONGATE_PROXY_ADDRESS_H
#define MOONGATE_PROXY_ADDRESS_H

#include "base/error.h"
#include "base/list.h"
#include "conf/conf.h"
#include "net/resolver.h"
#include "proxy/upstream.h"

struct address_book {
    const struct conf *conf;
    const struct conf_upstream *defaults;
    struct tls_client *tls;     // for https://; NULL: not wanted yet
    struct resolver *resolver;  // the generation's; NULL: names are not resolved (tests of scripts)
    struct list upstreams;      // struct upstream, the last used first
    struct address_entry *buckets[1024];  // by their texts
    uint64_t seed;              // clients may choose the texts
    unsigned count;
    unsigned turn;              // among the addresses of names
};

// What named points at.
struct named {
    struct address_book *book;
    struct slice host;
    uint16_t port;
    bool secure;
};

void address_book_init(struct address_book *book, const struct conf_upstream *defaults);
// Closes idle connections. No exchange may use one of its upstreams any more.
void address_book_release(struct address_book *book);
// Of "127.0.0.1:80", "unix:/path" and the like, or of "name.example:80"; with "https://" before it,
// connections are encrypted and the server must have a certificate for the address or the name. When the book
// is full, the upstream goes that was not used for the longest time and is in nobody's use. NULL with an
// error when the text is neither, memory is out, or all are in use.
struct upstream *address_book_find(struct address_book *book, struct slice text, struct error *error);

// The server for an attempt at a name: of its addresses that may be reached one that has not been tried for
// this exchange and could be connected to lately; the exchange's next attempt tries another. beside: where one is
// sought because this one takes long, that of the other family comes first; NULL: none is. NULL with an error: -EACCES when `allow` lets none of them in, -ENOSPC, -ENOMEM.
struct server *address_choose(const struct named *named, const struct resolver_answer *answer,
                              const struct conf_allow *allow, uint64_t tried, const struct addr *beside,
                              struct error *error);
// Of an address's server, among the bits of x->tried; two may share one, which costs an attempt's choice
// only.
uint64_t address_bit(const struct server *server);

#endif
