// SPDX-License-Identifier: BSD-2-Clause
// route_allow: networks of the configuration, and what "public" means: what IANA's registries of
// special-purpose addresses (RFC 6890) leave over.
#include "proxy/allow.h"

#include "base/cidr.h"

#include <string.h>

static const struct {
    const char *network;
    bool public;
} registries[] = {
    { "0.0.0.0/0", true },
    { "0.0.0.0/8", false },        // this network
    { "10.0.0.0/8", false },       // private
    { "100.64.0.0/10", false },    // carriers' translation
    { "127.0.0.0/8", false },      // loopback
    { "169.254.0.0/16", false },   // link-local; clouds' metadata
    { "172.16.0.0/12", false },    // private
    { "192.0.0.0/24", false },     // protocol assignments
    { "192.0.2.0/24", false },     // documentation
    { "192.88.99.0/24", false },   // 6to4 relays
    { "192.168.0.0/16", false },   // private
    { "198.18.0.0/15", false },    // benchmarks
    { "198.51.100.0/24", false },  // documentation
    { "203.0.113.0/24", false },   // documentation
    { "224.0.0.0/3", false },      // multicast, reserved, broadcast
    // Of IPv6 only global unicast; ways to say an IPv4 address in it are not, as they lead to any.
    { "::/0", false },
    { "2000::/3", true },
    { "2001::/23", false },      // protocol assignments, Teredo
    { "2001:db8::/32", false },  // documentation
    { "2002::/16", false },      // 6to4
    { "3fff::/20", false },      // documentation
};

// NULL: memory is out, and nothing is public.
static const struct cidr *public_networks(void) {
    static struct cidr *set;
    struct error error;
    if (set)
        return set;
    struct cidr *made = cidr_new(sizeof registries / sizeof *registries);
    int rc = made ? 0 : -1;
    for (unsigned i = 0; i < sizeof registries / sizeof *registries && rc == 0; i++)
        rc = cidr_add(made, slice_of(registries[i].network), registries[i].public, &error);
    if (rc == 0 && cidr_build(made) == 0)
        set = made;
    else
        cidr_free(made);
    return set;
}

static bool is_public(const struct addr *addr) {
    const struct cidr *set = public_networks();
    uint32_t public = 0;
    return set && cidr_lookup(set, addr, &public) == 0 && public;
}

static bool holds(const struct conf_network *network, const uint8_t key[16]) {
    unsigned bytes = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->key, key, bytes) != 0)
        return false;
    return rest == 0 || ((network->key[bytes] ^ key[bytes]) >> (8 - rest)) == 0;
}

bool allow_addr(const struct conf_allow *allow, const struct addr *addr) {
    uint8_t key[16];
    if (allow->any)
        return true;
    if (!addr_key(addr, key))
        return false;
    for (unsigned i = 0; i < allow->count; i++)
        if (holds(&allow->networks[i], key))
            return true;
    return allow->public && is_public(addr);
}
