// SPDX-License-Identifier: BSD-2-Clause
// proxy/address and proxy/allow: the book of addresses and names that scripts give, which address of a name is next,
// and which addresses are public.
#include "proxy/address.h"

#include "base/clock.h"
#include "proxy/allow.h"
#include "ring/ring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct address_book book;
static struct conf_upstream defaults = { .eject = { .connect = 2, .time = 1000, .most = 30000 } };
static const struct conf_allow any = { .any = true }, public = { .public = true }, none = { 0 };

static void set_up(void) {
    clock_update();
    ring_do_without();
    address_book_init(&book, &defaults);
}

static void tear_down(void) {
    address_book_release(&book);
    cr_assert_eq(book.count, 0);
}

TestSuite(address, .init = set_up, .fini = tear_down);

static struct upstream *find(const char *text) {
    struct error error;
    return address_book_find(&book, slice_of(text), &error);
}

// What a name stands for: addresses with spaces between them.
static struct resolver_answer answer_of(const char *list) {
    static struct addr addrs[8];
    struct resolver_answer answer = { .addrs = addrs };
    char copy[256];
    snprintf(copy, sizeof copy, "%s", list);
    for (char *rest = copy, *one; (one = strsep(&rest, " "));)
        cr_assert_eq(addr_parse_ip(slice_of(one), 0, &addrs[answer.count++]), 0, "%s", one);
    return answer;
}

static const char *choose(const char *list, const struct conf_allow *allow, uint64_t tried) {
    struct upstream *upstream = find("name.test:80");
    struct resolver_answer answer = answer_of(list);
    static struct error error;
    struct server *server = address_choose(upstream->named, &answer, allow, tried, NULL, &error);
    return server ? server->name : error.text;
}

static uint64_t bit(const char *text) {
    return address_bit(find(text)->servers[0]);
}

Test(address, a_text_has_one_upstream) {
    struct upstream *upstream = find("127.0.0.1:80");
    cr_assert(upstream && !upstream->named && upstream->server_count == 1);
    cr_assert_eq(find("127.0.0.1:80"), upstream);
    cr_assert_neq(find("127.0.0.1:81"), upstream);
    cr_assert(find("unix:/run/a.sock") && find("[::1]:80"));
    struct upstream *named = find("Name.Test:8080");
    cr_assert(named && named->named && named->named->port == 8080);
    cr_assert(slice_eq(named->named->host, SLICE_LIT("name.test")));
    cr_assert_eq(find("NAME.test:8080"), named);
    cr_assert_eq(book.count, 5);
}

Test(address, what_is_neither_has_none) {
    const char *bad[] = { "",        "name",     "name:",    "name:0",     "name:65536", "name:99999999",
                          "name:8o", ":80",      "a..b:80",  "-",          "127.0.0.1",  "127.0.0.1:0",
                          "*:80",    "1.2.3:80", "na me:80", "name:80:80", "[::1]" };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_null(find(bad[i]), "%s", bad[i]);
    cr_assert_eq(book.count, 0);
}

Test(address, those_of_a_name_take_turns) {
    const char *seen[4];
    for (int i = 0; i < 4; i++)
        seen[i] = choose("192.0.2.1 192.0.2.2 2001:db8::1", &any, 0);
    cr_assert_str_neq(seen[0], seen[1]);
    cr_assert_str_eq(seen[0], seen[2]);
    cr_assert_str_eq(seen[1], seen[3]);
}

Test(address, what_was_tried_comes_last) {
    uint64_t first = bit("192.0.2.1:80"), second = bit("192.0.2.2:80");
    cr_assert_neq(first, second);
    for (int i = 0; i < 4; i++) {
        cr_assert_str_eq(choose("192.0.2.1 192.0.2.2", &any, first), "192.0.2.2:80");
        cr_assert_str_eq(choose("192.0.2.1 192.0.2.2", &any, second), "192.0.2.1:80");
        cr_assert_str_eq(choose("192.0.2.1 2001:db8::1", &any, first), "[2001:db8::1]:80");
        cr_assert_str_eq(choose("192.0.2.1", &any, first), "192.0.2.1:80", "there is no other");
    }
}

Test(address, what_could_not_be_connected_to_lately_comes_later) {
    struct server *down = find("192.0.2.1:80")->servers[0];
    server_failed(down);
    server_failed(down);
    for (int i = 0; i < 4; i++) {
        cr_assert_str_eq(choose("192.0.2.1 192.0.2.2", &any, 0), "192.0.2.2:80");
        cr_assert_str_eq(choose("192.0.2.1 192.0.2.2", &any, bit("192.0.2.2:80")), "192.0.2.1:80");
    }
}

Test(address, what_is_not_let_in_is_passed_over) {
    for (int i = 0; i < 4; i++)
        cr_assert_str_eq(choose("127.0.0.1 8.8.8.8 10.0.0.1 ::1", &public, 0), "8.8.8.8:80");
    cr_assert_str_eq(choose("8.8.8.8", &none, 0), "it stands for 8.8.8.8, which route_allow does not let in");
    cr_assert_str_eq(choose("127.0.0.1 ::1", &public, 0),
                     "it stands for 127.0.0.1 and others, which route_allow does not let in");
}

Test(address, those_in_nobodys_use_make_room) {
    struct upstream *used = find("used.test:80"), *active = find("127.0.0.1:1");
    char text[32];
    used->users = 1;
    active->servers[0]->active = 1;
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "n%d.test:80", i);
        cr_assert(find(text), "%s", text);
    }
    cr_assert_eq(book.count, 4096);
    cr_assert_eq(find("used.test:80"), used);
    cr_assert_eq(find("127.0.0.1:1"), active);
    list_each(link, &book.upstreams) container_of(link, struct upstream, link)->users = 1;
    cr_assert_null(find("more.test:80"));
    list_each(link, &book.upstreams) container_of(link, struct upstream, link)->users = 0;
    active->servers[0]->active = 0;
    cr_assert(find("more.test:80"));
}

Test(address, public_is_what_the_internet_routes) {
    static const struct {
        const char *ip;
        bool public;
    } cases[] = {
        { "8.8.8.8", true },
        { "1.1.1.1", true },
        { "223.255.255.255", true },
        { "172.32.0.1", true },
        { "100.128.0.1", true },
        { "192.169.0.1", true },
        { "2606:4700::1", true },
        { "2a00::1", true },
        { "0.0.0.0", false },
        { "10.255.255.255", false },
        { "127.0.0.1", false },
        { "127.255.0.1", false },
        { "169.254.1.1", false },
        { "172.31.255.255", false },
        { "192.168.0.1", false },
        { "100.64.0.1", false },
        { "192.0.0.1", false },
        { "192.0.2.1", false },
        { "198.18.0.1", false },
        { "224.0.0.1", false },
        { "255.255.255.255", false },
        { "240.0.0.1", false },
        { "::", false },
        { "::1", false },
        { "::ffff:10.0.0.1", false },
        { "::ffff:8.8.8.8", true },
        { "64:ff9b::a00:1", false },
        { "2002:a00:1::", false },
        { "2001::1", false },
        { "2001:db8::1", false },
        { "fc00::1", false },
        { "fdff::1", false },
        { "fe80::1", false },
        { "ff02::1", false },
        { "::10.0.0.1", false },
        { "4000::1", false },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct addr addr;
        cr_assert_eq(addr_parse_ip(slice_of(cases[i].ip), 0, &addr), 0);
        cr_assert_eq(allow_addr(&public, &addr), cases[i].public, "%s", cases[i].ip);
        cr_assert(allow_addr(&any, &addr));
        cr_assert_not(allow_addr(&none, &addr));
    }
}

Test(address, networks_are_compared_bit_by_bit) {
    struct addr addr;
    struct conf_network networks[2] = { { .bits = 96 + 12 }, { .bits = 33 } };
    const struct conf_allow allow = { .networks = networks, .count = 2 };
    cr_assert_eq(addr_parse_ip(SLICE_LIT("172.16.0.0"), 0, &addr), 0);
    addr_key(&addr, networks[0].key);
    cr_assert_eq(addr_parse_ip(SLICE_LIT("2001:db8:8000::"), 0, &addr), 0);
    addr_key(&addr, networks[1].key);
    const char *in[] = { "172.16.0.0", "172.31.255.255", "2001:db8:8000::1", "2001:db8:ffff::" };
    const char *out[] = { "172.15.255.255", "172.32.0.0", "2001:db8:7fff::1", "2001:db9::" };
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(addr_parse_ip(slice_of(in[i]), 0, &addr), 0);
        cr_assert(allow_addr(&allow, &addr), "%s", in[i]);
        cr_assert_eq(addr_parse_ip(slice_of(out[i]), 0, &addr), 0);
        cr_assert_not(allow_addr(&allow, &addr), "%s", out[i]);
    }
}
