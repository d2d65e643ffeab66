// SPDX-License-Identifier: BSD-2-Clause
// Addresses: text to address and back, and what is refused with which words.
#include "base/addr.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct addr parse(const char *text) {
    struct addr addr = { 0 };
    struct error error = { "" };
    cr_assert(addr_parse(slice_of(text), &addr, &error) == 0, "%s: %s", text, error.text);
    return addr;
}

static void check_prints(const char *text, const char *expected) {
    struct addr addr = parse(text);
    char printed[ADDR_TEXT_MAX];
    size_t len = addr_print(&addr, printed);
    cr_assert_str_eq(printed, expected);
    cr_assert_eq(len, strlen(expected));
}

Test(addr, prints_what_it_reads) {
    static const char *const same[] = { "127.0.0.1:80",     "0.0.0.0:0",      "255.255.255.255:65535",
                                        "[::1]:80",         "[::]:443",       "[2001:db8::1]:1",
                                        "unix:/run/a.sock", "unix:@moongate", "[1:2:3:4:5:6:7:8]:9",
                                        "[fe80::1%1]:5" };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        check_prints(same[i], same[i]);
}

Test(addr, star_is_every_ipv4_address) {
    check_prints("*:8080", "0.0.0.0:8080");
}

Test(addr, ipv6_is_printed_in_canonical_form) {
    check_prints("[2001:DB8:0:0:1:0:0:1]:80", "[2001:db8::1:0:0:1]:80");  // the first of two equal runs
    check_prints("[2001:0:0:1:0:0:0:1]:80", "[2001:0:0:1::1]:80");        // the longer one
    check_prints("[2001:db8:0:1:1:1:1:1]:80", "[2001:db8:0:1:1:1:1:1]:80");  // a single zero group stays
    check_prints("[0:0:0:0:0:0:0:0]:80", "[::]:80");
    check_prints("[1:0:0:0:0:0:0:0]:80", "[1::]:80");
    check_prints("[0:1:2:3:4:5:0:0]:80", "[0:1:2:3:4:5::]:80");
    check_prints("[00ab:0001::000f]:80", "[ab:1::f]:80");
}

Test(addr, mapped_ipv4_is_printed_as_ipv4) {
    check_prints("[::ffff:192.0.2.7]:80", "192.0.2.7:80");
    struct addr addr = parse("[::ffff:192.0.2.7]:80");
    char ip[ADDR_IP_MAX];
    cr_assert_eq(addr_print_ip(&addr, ip), 9);
    cr_assert_str_eq(ip, "192.0.2.7");
}

Test(addr, random_ipv6_agrees_with_the_c_library) {
    srand(7);
    for (int round = 0; round < 20000; round++) {
        struct addr addr = { .in6.sin6_family = AF_INET6, .len = sizeof(struct sockaddr_in6) };
        for (int i = 0; i < 8; i++) {
            int r = rand();
            uint16_t group = r % 2 ? 0 : (uint16_t)(r >> 8 & (r & 2 ? 0xffff : 0xf));
            addr.in6.sin6_addr.s6_addr[2 * i] = (uint8_t)(group >> 8);
            addr.in6.sin6_addr.s6_addr[2 * i + 1] = (uint8_t)group;
        }
        char ours[ADDR_IP_MAX], theirs[INET6_ADDRSTRLEN];
        addr_print_ip(&addr, ours);
        inet_ntop(AF_INET6, &addr.in6.sin6_addr, theirs, sizeof theirs);
        struct addr again;
        cr_assert_eq(addr_parse_ip(slice_of(ours), 0, &again), 0);
        if (!strchr(ours, '.'))
            cr_assert(addr_eq(&addr, &again));
        if (!strchr(theirs, '.'))
            cr_assert_str_eq(ours, theirs);
    }
}

Test(addr, refuses_what_is_not_an_address_and_says_what_is) {
    static const struct {
        const char *text, *words;
    } bad[] = {
        { "", "expected IP:PORT" },
        { "80", "not an address with a port" },
        { "127.0.0.1", "has no port: expected \"127.0.0.1:PORT\"" },
        { "::1", "has no port: expected \"[::1]:PORT\"" },
        { "::1:80", "expected \"[::1:80]:PORT\"" },
        { "[::1]", "not an address with a port" },
        { "[::1]80", "not an address with a port" },
        { "[127.0.0.1]:80", "not an address" },
        { "fe80::zz:80", "not an IP address" },
        { "localhost:80", "\"localhost\" is not an IP address" },
        { "127.0.0.01:80", "not an IP address" },
        { "127.0.0.256:80", "not an IP address" },
        { "127.0.1:80", "not an IP address" },
        { "127.0.0.1.1:80", "not an IP address" },
        { "127.0.0.1:", "bad port \"\"" },
        { "127.0.0.1:65536", "from 0 to 65535" },
        { "127.0.0.1:-1", "bad port" },
        { "127.0.0.1:000080", "bad port" },
        { "127.0.0.1: 80", "bad port" },
        { "[fe80::1%nosuchinterface0]:80", "network interface" },
        { "[fe80::1%]:80", "network interface" },
        { "unix:", "unix:/PATH" },
        { "unix:/", "unix:/PATH" },
        { "unix:relative", "unix:/PATH" },
        { "unix:@", "unix:/PATH" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct addr addr = { .len = 99 };
        struct error error = { "" };
        cr_assert_eq(addr_parse(slice_of(bad[i].text), &addr, &error), -EINVAL, "%s was read", bad[i].text);
        cr_assert(strstr(error.text, bad[i].words), "%s: %s", bad[i].text, error.text);
        cr_assert_eq(addr.len, 99, "an address was written for %s", bad[i].text);
    }
}

Test(addr, unix_paths_have_a_limit) {
    char text[256] = "unix:/";
    memset(text + 6, 'a', 106);
    char printed[ADDR_TEXT_MAX];
    struct addr addr = parse(text);  // 107 bytes of path and the NUL: just fits
    addr_print(&addr, printed);
    cr_assert_str_eq(printed, text);
    text[112] = 'a';
    struct error error;
    cr_assert_eq(addr_parse(slice_of(text), &addr, &error), -EINVAL);
    cr_assert(strstr(error.text, "at most 107 bytes"), "%s", error.text);
    cr_assert_eq(addr_parse(slice_make("unix:/a\0b", 9), &addr, &error), -EINVAL);
}

Test(addr, plain_ips_are_read_without_port) {
    struct addr addr;
    cr_assert_eq(addr_parse_ip(slice_of("10.1.2.3"), 7, &addr), 0);
    cr_assert_eq(addr_port(&addr), 7);
    cr_assert_eq(addr_parse_ip(slice_of("::1"), 0, &addr), 0);
    static const char *const bad[] = { "",      ":",   "10.1.2",  "10.1.2.3:7", "[::1]",
                                       "::1%1", ":::", "1::2::3", "::1 " };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(addr_parse_ip(slice_of(bad[i]), 0, &addr), -EINVAL, "%s was read", bad[i]);
    cr_assert_eq(addr_parse_ip(slice_make("::1\0", 4), 0, &addr), -EINVAL);
}

Test(addr, equality_and_ports) {
    struct addr a = parse("127.0.0.1:80"), b = parse("127.0.0.1:80"), c = parse("[::1]:80"),
                d = parse("unix:/a");
    cr_assert(addr_eq(&a, &b));
    cr_assert_not(addr_eq(&a, &c));
    addr_set_port(&b, 81);
    cr_assert_not(addr_eq(&a, &b));
    cr_assert_eq(addr_port(&b), 81);
    addr_set_port(&c, 1);
    cr_assert_eq(addr_port(&c), 1);
    cr_assert_eq(addr_port(&d), 0);
    struct addr e = d;
    e.len--;  // some kernels' calls do not count the NUL
    cr_assert(addr_eq(&d, &e));
    struct addr none = { 0 };
    char text[ADDR_TEXT_MAX];
    cr_assert_eq(addr_print(&none, text), 1);
    cr_assert_str_eq(text, "-");
}

Test(addr, one_client_has_one_key) {
    struct addr a = parse("192.0.2.7:80"), b = parse("[::ffff:192.0.2.7]:90"), c = parse("unix:/a");
    uint8_t x[16], y[16];
    cr_assert(addr_key(&a, x));
    cr_assert(addr_key(&b, y));
    cr_assert_arr_eq(x, y, 16);
    cr_assert_not(addr_key(&c, y));
    cr_assert_arr_eq(y, (uint8_t[16]){ 0 }, 16);
}

Test(addr, copies_what_the_kernel_writes) {
    struct addr a = parse("[::1]:80"), b;
    cr_assert_eq(addr_from_sockaddr(&a.sa, a.len, &b), 0);
    cr_assert(addr_eq(&a, &b));
    cr_assert_eq(addr_from_sockaddr(&a.sa, 1, &b), -EINVAL);
    cr_assert_eq(addr_from_sockaddr(&a.sa, 16, &b), -EINVAL);
    struct sockaddr_un unnamed = { .sun_family = AF_UNIX };
    cr_assert_eq(addr_from_sockaddr((struct sockaddr *)&unnamed, sizeof unnamed.sun_family, &b), 0);
    char text[ADDR_TEXT_MAX];
    addr_print(&b, text);
    cr_assert_str_eq(text, "unix:");
    struct sockaddr other = { .sa_family = AF_PACKET };
    cr_assert_eq(addr_from_sockaddr(&other, sizeof other, &b), -EAFNOSUPPORT);
}
