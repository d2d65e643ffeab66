// SPDX-License-Identifier: BSD-2-Clause
// Upstreams of one address each, for the addresses that scripts name instead of an upstream of the
// configuration. One book for each generation; the frontends of the generation look addresses up in it.
#ifndef MOONGATE_PROXY_ADDRESS_H
#define MOONGATE_PROXY_ADDRESS_H

#include "base/error.h"
#include "base/list.h"
#include "conf/conf.h"
#include "proxy/upstream.h"

struct address_book {
    const struct conf_upstream *defaults;
    struct list upstreams;  // struct upstream, the last used first
    unsigned count;
};

void address_book_init(struct address_book *book, const struct conf_upstream *defaults);
// Closes idle connections. No exchange may use one of its upstreams any more.
void address_book_release(struct address_book *book);
// NULL with an error when the text is no address, memory is out, or there are too many.
struct upstream *address_book_find(struct address_book *book, struct slice text, struct error *error);

#endif
