// SPDX-License-Identifier: BSD-2-Clause
// What is read of a client's hello, and its fingerprint; names of certificates and hosts.
#include "tls/hello.h"
#include "tls/names.h"

#include <criterion/criterion.h>
#include <stdio.h>

// The published example of JA4's description, with what clients make up (GREASE) in between.
static const char ciphers[] =
    "\x0a\x0a\x13\x01\x13\x02\x13\x03\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30\xcc\xa9\xcc\xa8\xc0\x13\xc0"
    "\x14\x00\x9c\x00\x9d\x00\x2f\x00\x35";
static const char alpn[] = "\0\x0c\x02h2\x08http/1.1";
static const char versions[] = "\x06\x1a\x1a\x03\x04\x03\x03";
static const char algorithms[] = "\0\x10\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05\x05\x01\x08\x06\x06\x01";
static const char server_name[] = "\0\x0b\0\0\x08host.com";

#define BYTES(array) slice_make(array, sizeof(array) - 1)

static struct tls_hello example(void) {
    return (struct tls_hello){
        .version = 0x0303,
        .ciphers = BYTES(ciphers),
        .extension_count = 17,
        .extensions = { 0x1a1a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005,
                        0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015 },
        .server_name = BYTES(server_name),
        .alpn = BYTES(alpn),
        .versions = BYTES(versions),
        .algorithms = BYTES(algorithms),
    };
}

static void is_print(const struct tls_hello *hello, const char *expected) {
    char print[HELLO_FINGERPRINT + 1];
    cr_assert_eq(hello_fingerprint(hello, print), 0);
    cr_assert_str_eq(print, expected);
}

Test(hello, the_published_example) {
    struct tls_hello hello = example();
    is_print(&hello, "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

Test(hello, the_order_of_ciphers_and_extensions_does_not_matter) {
    struct tls_hello hello = example();
    char other[sizeof ciphers - 1];
    for (size_t i = 0; i < sizeof other; i += 2)
        memcpy(other + i, ciphers + sizeof other - 2 - i, 2);
    hello.ciphers = slice_make(other, sizeof other);
    hello.extensions[1] = 0x0015;
    hello.extensions[16] = 0x001b;
    is_print(&hello, "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

Test(hello, a_poor_one) {
    struct tls_hello hello = { .version = 0x0301 };
    is_print(&hello, "t10i000000_000000000000_000000000000");
    hello.version = 0x9999;
    is_print(&hello, "t00i000000_000000000000_000000000000");
}

Test(hello, an_odd_protocol_is_shown_by_its_digits) {
    struct tls_hello hello = { .version = 0x0303, .alpn = BYTES("\0\x03\x02\xab\xcd") };
    is_print(&hello, "t12i0000ad_000000000000_000000000000");
}

Test(hello, what_it_offers) {
    struct tls_hello hello = example();
    char text[64];
    cr_assert(slice_eq(hello_server_name(&hello), SLICE_LIT("host.com")));
    cr_assert_eq(hello_alpn(&hello, text, sizeof text), 11);
    cr_assert_str_eq(text, "h2 http/1.1");
    hello_versions(&hello, text, sizeof text);
    cr_assert_str_eq(text, "TLSv1.3 TLSv1.2");
    hello.versions = (struct slice){ 0 };
    hello_versions(&hello, text, sizeof text);
    cr_assert_str_eq(text, "TLSv1.2");
}

Test(hello, lists_that_lie_are_read_to_their_end) {
    struct tls_hello hello = { .version = 0x0303,
                               .alpn = BYTES("\xff\xff\x02h2\x09http/1.1"),
                               .versions = BYTES("\xff\x03\x04\x03"),
                               .server_name = BYTES("\0\x20\0\0\x20host"),
                               .algorithms = BYTES("\0") };
    char text[64];
    hello_alpn(&hello, text, sizeof text);
    cr_assert_str_eq(text, "h2");
    hello_versions(&hello, text, sizeof text);
    cr_assert_str_eq(text, "TLSv1.3");
    cr_assert_eq(hello_server_name(&hello).len, 0);
    hello.alpn = BYTES("\0\x06\0\x04name");
    cr_assert_eq(hello_alpn(&hello, text, sizeof text), 0, "an empty protocol ends it");
    hello.alpn = BYTES("\0\x05\x04n me");
    hello_alpn(&hello, text, sizeof text);
    cr_assert_str_eq(text, "n?me");
    cr_assert_eq(hello_alpn(&hello, text, 4), 0, "what does not fit is left out");
}

Test(names, hosts_and_wildcards) {
    struct names *names = names_new();
    int exact, wild, deep;
    cr_assert_eq(names_add(names, SLICE_LIT("Example.com"), &exact), 0);
    cr_assert_eq(names_add(names, SLICE_LIT("*.example.com"), &wild), 0);
    cr_assert_eq(names_add(names, SLICE_LIT("deep.example.com"), &deep), 0);
    cr_assert_eq(names_find(names, SLICE_LIT("example.COM")), &exact);
    cr_assert_eq(names_find(names, SLICE_LIT("example.com.")), &exact);
    cr_assert_eq(names_find(names, SLICE_LIT("any.example.com")), &wild);
    cr_assert_eq(names_find(names, SLICE_LIT("deep.example.com")), &deep);
    cr_assert_null(names_find(names, SLICE_LIT("a.b.example.com")));
    cr_assert_null(names_find(names, SLICE_LIT(".example.com")));
    cr_assert_null(names_find(names, SLICE_LIT("com")));
    cr_assert_null(names_find(names, SLICE_LIT("")));
    for (int i = 0; i < 1000; i++) {
        char text[32];
        sprintf(text, "host%d.test", i);
        cr_assert_eq(names_add(names, slice_of(text), &exact), 0);
    }
    cr_assert_eq(names_find(names, SLICE_LIT("host777.test")), &exact);
    cr_assert(names_has(names, SLICE_LIT("*.EXAMPLE.com")));
    cr_assert_not(names_has(names, SLICE_LIT("any.example.com")));
    names_free(names);
}

Test(names, a_certificates_name_and_a_host) {
    cr_assert(name_fits(SLICE_LIT("a.test"), SLICE_LIT("A.test")));
    cr_assert(name_fits(SLICE_LIT("*.test"), SLICE_LIT("a.TEST")));
    cr_assert_not(name_fits(SLICE_LIT("*.test"), SLICE_LIT("a.b.test")));
    cr_assert_not(name_fits(SLICE_LIT("*.test"), SLICE_LIT(".test")));
    cr_assert_not(name_fits(SLICE_LIT("*"), SLICE_LIT("test")));
    cr_assert_not(name_fits(SLICE_LIT("*x.test"), SLICE_LIT("ax.test")));
}
