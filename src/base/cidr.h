// SPDX-License-Identifier: BSD-2-Clause
// Sets of IPv4 and IPv6 networks, each with a number (which rule, which label); a look-up finds the number of
// the longest network that holds an address. Filled, built once, then read only. Made while a configuration
// or a script loads (the functions before cidr_build may block on a file and allocate); look-ups do neither.
#ifndef MOONGATE_BASE_CIDR_H
#define MOONGATE_BASE_CIDR_H

#include "base/addr.h"

struct cidr;

// An empty set that takes at most `limit` networks. NULL when memory is out.
struct cidr *cidr_new(uint32_t limit) __attribute__((warn_unused_result));
void cidr_free(struct cidr *cidr);

// "10.0.0.0/8", "2001:db8::/32" or a plain address. `value` is any number below UINT32_MAX; of the same
// network twice, the later value counts. "::/0" holds no IPv4 address; networks inside ::ffff:0:0/96 are
// IPv4's. -EINVAL (with the right network when host bits are set), -E2BIG at the limit, -ENOMEM.
int cidr_add(struct cidr *cidr, struct slice network, uint32_t value, struct error *error)
    __attribute__((warn_unused_result));

// Adds every line of a file: one network a line, # begins a comment, blank lines and CRLF are passed over.
// The error says path:line:column; what was read before it stays added.
int cidr_load_file(struct cidr *cidr, const char *path, uint32_t value, struct error *error)
    __attribute__((warn_unused_result));

// Makes the set ready for look-ups and closed for additions. -ENOMEM: still open, may be tried again.
int cidr_build(struct cidr *cidr) __attribute__((warn_unused_result));

// 0 and the value of the longest network, -ENOENT when there is none (also for unix sockets).
int cidr_lookup(const struct cidr *cidr, const struct addr *addr, uint32_t *ret_value)
    __attribute__((warn_unused_result));
// The same for a plain IP as text; -EINVAL when it is none.
int cidr_lookup_text(const struct cidr *cidr, struct slice ip, uint32_t *ret_value)
    __attribute__((warn_unused_result));

// Networks added; after cidr_build, without repetitions.
uint32_t cidr_count(const struct cidr *cidr);
// Memory in use.
size_t cidr_bytes(const struct cidr *cidr);

#endif
