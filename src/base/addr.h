// SPDX-License-Identifier: BSD-2-Clause
// A socket address of one of the three families that the proxy speaks: IPv4, IPv6, unix. Text to address and
// back, numbers only: names are the resolver's. Used by listeners, upstreams, scripts and logs.
#ifndef MOONGATE_BASE_ADDR_H
#define MOONGATE_BASE_ADDR_H

#include "base/error.h"
#include "base/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

// May be handed to the kernel as it is: &addr->sa, addr->len. All zero (AF_UNSPEC, len 0) is "no address".
struct addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t len;
};

// Room for any printed address with its NUL; an IP alone needs ADDR_IP_MAX.
enum { ADDR_TEXT_MAX = 128, ADDR_IP_MAX = 46 };

// "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "*:80" (every IPv4 address), "unix:/path",
// "unix:@abstract". IPv4 is four decimal numbers without leading zeros. -EINVAL with a text that says what
// was expected.
int addr_parse(struct slice text, struct addr *ret_addr, struct error *error)
    __attribute__((warn_unused_result));
// A plain IPv4 or IPv6 address without brackets, port or scope; -EINVAL for anything else.
int addr_parse_ip(struct slice text, uint16_t port, struct addr *ret_addr)
    __attribute__((warn_unused_result));
// Copies what accept(2), getsockname(2) and friends wrote. -EAFNOSUPPORT for other families, -EINVAL for a
// wrong length.
int addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *ret_addr)
    __attribute__((warn_unused_result));

// These write text and a NUL to the caller's buffer and return the text's length.
// The IP as RFC 5952 says, an IPv4-mapped one as IPv4; "unix" for a unix socket, "-" for no address.
size_t addr_print_ip(const struct addr *addr, char text[ADDR_IP_MAX]);
// With the port: "ip:port", "[v6]:port", "unix:/path", "unix:@abstract", "unix:" (unnamed), "-": what
// addr_parse reads.
size_t addr_print(const struct addr *addr, char text[ADDR_TEXT_MAX]);

static inline int addr_family(const struct addr *addr) {
    return addr->sa.sa_family;
}
// 0 where there is none.
uint16_t addr_port(const struct addr *addr);
void addr_set_port(struct addr *addr, uint16_t port);
// The same family, address, scope and port.
bool addr_eq(const struct addr *a, const struct addr *b);
// The IP in IPv6 form, IPv4 as ::ffff:a.b.c.d, so that one client has one key whichever socket it came in by.
// Zeros (and false) where there is no IP.
bool addr_key(const struct addr *addr, uint8_t ret_key[16]);

#endif
