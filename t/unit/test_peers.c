// SPDX-License-Identifier: BSD-2-Clause
// net/peers: who counts as one client, and that nothing is kept of those who are gone.
#include "net/peers.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static struct addr ip(const char *text) {
    struct addr addr;
    cr_assert_eq(addr_parse_ip(slice_of(text), 80, &addr), 0, "%s", text);
    return addr;
}

static struct peer *enter(const char *text, uint64_t most, int expected) {
    struct addr addr = ip(text);
    struct peer *peer = NULL;
    cr_assert_eq(peers_enter(&addr, most, &peer), expected, "%s", text);
    return peer;
}

Test(peers, an_address_has_as_many_as_allowed) {
    struct peer *first = enter("192.0.2.1", 2, 0);
    cr_assert_eq(enter("192.0.2.1", 2, 0), first);
    enter("192.0.2.1", 2, -EDQUOT);
    enter("192.0.2.2", 2, 0);
    peers_leave(first);
    cr_assert_eq(enter("192.0.2.1", 2, 0), first);
    enter("192.0.2.1", 2, -EDQUOT);
}

Test(peers, an_ipv6_client_is_its_first_64_bits) {
    enter("2001:db8:1:2::1", 1, 0);
    enter("2001:db8:1:2:ffff::9", 1, -EDQUOT);
    enter("2001:db8:1:3::1", 1, 0);
}

Test(peers, an_ipv4_client_that_came_by_ipv6_is_the_same) {
    enter("192.0.2.1", 1, 0);
    enter("::ffff:192.0.2.1", 1, -EDQUOT);
    enter("::ffff:192.0.2.2", 1, 0);
}

Test(peers, unix_sockets_are_not_counted) {
    struct addr addr = { .un = { .sun_family = AF_UNIX }, .len = 2 };
    for (int i = 0; i < 3; i++) {
        struct peer *peer = (struct peer *)&addr;
        cr_assert_eq(peers_enter(&addr, 1, &peer), 0);
        cr_assert_null(peer);
    }
    peers_leave(NULL);
    cr_assert_eq(peers_count(), 0);
}

Test(peers, nothing_is_kept_of_those_who_are_gone) {
    enum { COUNT = 20000 };
    static struct peer *peers[COUNT];
    char text[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "10.1.%d.%d", i / 250, i % 250);
        peers[i] = enter(text, 1, 0);
    }
    cr_assert_eq(peers_count(), COUNT);
    for (int i = 0; i < COUNT; i++)
        peers_leave(peers[i]);
    cr_assert_eq(peers_count(), 0);
    enter("10.1.0.0", 1, 0);
}
