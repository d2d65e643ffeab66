// SPDX-License-Identifier: BSD-2-Clause
// Sets of networks: longest match in both families against a plain search, what is refused, files, size and
// speed.
#include "base/cidr.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

static void add(struct cidr *cidr, const char *network, uint32_t value) {
    struct error error = { "" };
    cr_assert(cidr_add(cidr, slice_of(network), value, &error) == 0, "%s: %s", network, error.text);
}

static int find(const struct cidr *cidr, const char *ip) {
    uint32_t value = 0;
    int rc = cidr_lookup_text(cidr, slice_of(ip), &value);
    return rc < 0 ? rc : (int)value;
}

Test(cidr, longest_network_wins) {
    struct cidr *cidr = cidr_new(100);
    add(cidr, "10.1.2.3", 4);
    add(cidr, "10.0.0.0/8", 1);
    add(cidr, "10.1.2.0/24", 3);
    add(cidr, "10.1.0.0/16", 2);
    add(cidr, "2001:db8::/32", 5);
    add(cidr, "2001:db8::1", 6);
    add(cidr, "2001:db8:0:0:8000::/65", 7);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(cidr_count(cidr), 7);
    cr_assert_eq(find(cidr, "10.1.2.3"), 4);
    cr_assert_eq(find(cidr, "10.1.2.4"), 3);
    cr_assert_eq(find(cidr, "10.1.3.0"), 2);
    cr_assert_eq(find(cidr, "10.255.255.255"), 1);
    cr_assert_eq(find(cidr, "11.0.0.0"), -ENOENT);
    cr_assert_eq(find(cidr, "9.255.255.255"), -ENOENT);
    cr_assert_eq(find(cidr, "2001:db8::1"), 6);
    cr_assert_eq(find(cidr, "2001:db8::2"), 5);
    cr_assert_eq(find(cidr, "2001:db8::8000:0:0:0"), 7);
    cr_assert_eq(find(cidr, "2001:db9::"), -ENOENT);
    cr_assert_eq(find(cidr, "example"), -EINVAL);
    cidr_free(cidr);
}

Test(cidr, an_empty_set_holds_nothing) {
    struct cidr *cidr = cidr_new(0);
    cr_assert_eq(find(cidr, "10.0.0.1"), -ENOENT);  // also before it is built
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(find(cidr, "10.0.0.1"), -ENOENT);
    cr_assert_eq(find(cidr, "::"), -ENOENT);
    cidr_free(cidr);
    cidr_free(NULL);
}

Test(cidr, the_whole_internet_is_a_network_per_family) {
    struct cidr *cidr = cidr_new(10);
    add(cidr, "0.0.0.0/0", 1);
    add(cidr, "128.0.0.0/1", 2);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(find(cidr, "127.0.0.1"), 1);
    cr_assert_eq(find(cidr, "255.255.255.255"), 2);
    cr_assert_eq(find(cidr, "::ffff:1.2.3.4"), 1);
    cr_assert_eq(find(cidr, "::1"), -ENOENT);
    cidr_free(cidr);
    cidr = cidr_new(10);
    add(cidr, "::/0", 1);
    add(cidr, "::ffff:10.0.0.0/104", 2);
    add(cidr, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", 3);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(find(cidr, "::1"), 1);
    cr_assert_eq(find(cidr, "11.0.0.1"), -ENOENT);
    cr_assert_eq(find(cidr, "10.9.9.9"), 2);
    cr_assert_eq(find(cidr, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 3);
    struct addr unix_socket = { .un.sun_family = AF_UNIX, .len = 2 };
    uint32_t value;
    cr_assert_eq(cidr_lookup(cidr, &unix_socket, &value), -ENOENT);
    cidr_free(cidr);
}

Test(cidr, of_equal_networks_the_later_value_counts) {
    struct cidr *cidr = cidr_new(10);
    for (uint32_t value = 1; value <= 5; value++)
        add(cidr, "192.0.2.0/24", value);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(cidr_count(cidr), 1);
    cr_assert_eq(find(cidr, "192.0.2.77"), 5);
    cidr_free(cidr);
}

Test(cidr, refuses_what_is_not_a_network_and_says_what_is) {
    static const struct {
        const char *text, *words;
    } bad[] = {
        { "", "is not a network: expected IPV4/0-32" },
        { "/8", "is not a network" },
        { "10/8", "is not a network" },
        { "10.0.0.0/", "bad prefix length \"\": expected 0 to 32" },
        { "10.0.0.0/33", "expected 0 to 32" },
        { "10.0.0.0/-1", "expected 0 to 32" },
        { "10.0.0.0/08", "expected 0 to 32" },
        { "10.0.0.0/8/8", "expected 0 to 32" },
        { "::/129", "expected 0 to 128" },
        { "::/99999999999999999999", "expected 0 to 128" },
        { "10.0.0.1/8", "expected \"10.0.0.0/8\"" },
        { "10.255.255.255/9", "expected \"10.128.0.0/9\"" },
        { "1.2.3.4/0", "expected \"0.0.0.0/0\"" },
        { "2001:db8::1/33", "expected \"2001:db8::/33\"" },
        { "::ffff:10.0.0.1/104", "expected \"10.0.0.0/8\"" },
        { "::ffff:0:0/90", "expected \"::ffc0:0:0/90\"" },
        { "example.com/24", "is not a network" },
    };
    struct cidr *cidr = cidr_new(10);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error error = { "" };
        cr_assert_eq(cidr_add(cidr, slice_of(bad[i].text), 1, &error), -EINVAL, "%s was read", bad[i].text);
        cr_assert(strstr(error.text, bad[i].words), "%s: %s", bad[i].text, error.text);
    }
    cr_assert_eq(cidr_count(cidr), 0);
    cidr_free(cidr);
}

Test(cidr, the_number_of_networks_is_limited) {
    struct cidr *cidr = cidr_new(1);
    struct error error = { "" };
    add(cidr, "10.0.0.1", 1);
    cr_assert_eq(cidr_add(cidr, slice_of("10.0.0.2"), 1, &error), -E2BIG);
    cr_assert(strstr(error.text, "more than 1 networks"), "%s", error.text);
    cidr_free(cidr);
}

static int load(const char *content, size_t len, struct cidr *cidr, struct error *error, char path[64]) {
    strcpy(path, "/tmp/moongate-test-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, content, len) == (ssize_t)len);
    close(fd);
    int rc = cidr_load_file(cidr, path, 7, error);
    unlink(path);
    return rc;
}

Test(cidr, files_have_comments_blank_lines_and_either_line_end) {
    static const char content[] =
        "\xef\xbb\xbf# a list\r\n\r\n10.0.0.0/8\r\n  192.0.2.1 # one\n\t\n2001:db8::/32#x\n::1";
    struct cidr *cidr = cidr_new(10);
    struct error error = { "" };
    char path[64];
    cr_assert_eq(load(content, sizeof content - 1, cidr, &error, path), 0, "%s", error.text);
    cr_assert_eq(cidr_build(cidr), 0);
    cr_assert_eq(cidr_count(cidr), 4);
    cr_assert_eq(find(cidr, "10.9.8.7"), 7);
    cr_assert_eq(find(cidr, "192.0.2.1"), 7);
    cr_assert_eq(find(cidr, "2001:db8::9"), 7);
    cr_assert_eq(find(cidr, "::1"), 7);
    cidr_free(cidr);
}

Test(cidr, errors_in_files_have_line_and_column) {
    static char endless[3000];
    memset(endless, '1', sizeof endless);
    static const struct {
        const char *content;
        size_t len;
        const char *words;
    } bad[] = {
        { "10.0.0.0/8\n\n  10.0.0.1/8\n", 25, ":3:3: \"10.0.0.1/8\" has bits set behind its prefix" },
        { "10.0.0.0/8 deny\n", 16, ":1:12: \"deny\" follows the network" },
        { "1.2.3.4\0\n", 9, ":1:1: " },
        { "::1\r::2\n", 8, ":1:1: " },
        { "::1\n::2\n::3\n::4\n", 16, ":4:1: more than 3 networks" },
        { endless, sizeof endless, ":1:1024: line is too long" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cidr *cidr = cidr_new(3);
        struct error error = { "" };
        char path[64];
        cr_assert_lt(load(bad[i].content, bad[i].len, cidr, &error, path), 0);
        cr_assert(strncmp(error.text, path, strlen(path)) == 0 && strstr(error.text, bad[i].words), "%zu: %s",
                  i, error.text);
        cidr_free(cidr);
    }
    struct cidr *cidr = cidr_new(3);
    struct error error = { "" };
    cr_assert_eq(cidr_load_file(cidr, "/nonexistent/list", 1, &error), -ENOENT);
    cr_assert(strstr(error.text, "cannot open \"/nonexistent/list\": No such file"), "%s", error.text);
    cr_assert_eq(cidr_load_file(cidr, "/tmp", 1, &error), -EISDIR);
    cr_assert(strstr(error.text, "cannot read \"/tmp\": Is a directory"), "%s", error.text);
    cidr_free(cidr);
}

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

struct plain {
    uint8_t key[16];
    unsigned bits;
};

static bool inside(const struct plain *net, const uint8_t key[16]) {
    for (unsigned bit = 0; bit < net->bits; bit++)
        if ((net->key[bit / 8] ^ key[bit / 8]) >> (7 - bit % 8) & 1)
            return false;
    return true;
}

// Few distinct bytes make networks that nest and touch.
static void random_key(uint8_t key[16], bool v4) {
    memset(key, 0, 16);
    if (v4)
        key[10] = key[11] = 0xff;
    for (int i = v4 ? 12 : 0; i < 16; i++)
        key[i] = (uint8_t)(rnd() % 4 ? (rnd() % 2 ? 0 : 255) : rnd());
}

static struct addr addr_of(const uint8_t key[16]) {
    struct addr addr = { .in6.sin6_family = AF_INET6, .len = sizeof(struct sockaddr_in6) };
    memcpy(&addr.in6.sin6_addr, key, 16);
    return addr;
}

Test(cidr, random_sets_agree_with_a_plain_search) {
    enum { NETS = 300 };
    static struct plain nets[NETS];
    for (int round = 0; round < (SLOW ? 10 : 40); round++) {
        struct cidr *cidr = cidr_new(NETS);
        int count = (int)(rnd() % NETS) + 1;
        for (int n = 0; n < count; n++) {
            bool v4 = rnd() % 2;
            random_key(nets[n].key, v4);
            nets[n].bits = v4 ? 96 + (unsigned)(rnd() % 33) : (unsigned)(rnd() % 129);
            if (!v4 && rnd() % 2)
                nets[n].bits = 128 - (unsigned)(rnd() % 8);
            for (unsigned bit = nets[n].bits; bit < 128; bit++)
                nets[n].key[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
            struct addr addr = addr_of(nets[n].key);
            char text[ADDR_TEXT_MAX];
            size_t len = addr_print_ip(&addr, text);
            snprintf(text + len, sizeof text - len, "/%u",
                     strchr(text, '.') ? nets[n].bits - 96 : nets[n].bits);
            add(cidr, text, (uint32_t)n);
        }
        cr_assert_eq(cidr_build(cidr), 0);
        for (int probe = 0; probe < 2000; probe++) {
            uint8_t key[16];
            bool v4 = rnd() % 2;
            random_key(key, v4);
            if (rnd() % 2) {
                memcpy(key, nets[rnd() % (unsigned)count].key, 16);
                key[15] ^= (uint8_t)(rnd() % 3);
            }
            static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
            v4 = memcmp(key, prefix, 12) == 0;
            int best = -1;
            for (int n = 0; n < count; n++) {
                bool net_v4 = memcmp(nets[n].key, prefix, 12) == 0 && nets[n].bits >= 96;
                if (net_v4 == v4 && inside(&nets[n], key) && (best < 0 || nets[n].bits >= nets[best].bits))
                    best = n;
            }
            struct addr addr = addr_of(key);
            uint32_t value;
            int rc = cidr_lookup(cidr, &addr, &value);
            cr_assert_eq(rc < 0 ? -1 : (int)value, best);
        }
        cidr_free(cidr);
    }
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);  // others may be busy meanwhile
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double least(double a, double b) {
    return a < b ? a : b;
}

static void measure(const char *name, bool v4) {
    enum { NETS = 100000, PROBES = 1 << 16 };
    static struct addr probes[PROBES];
    struct cidr *cidr = cidr_new(NETS);
    double start = seconds();
    for (int n = 0; n < NETS; n++) {
        char text[64];
        uint32_t a = (uint32_t)rnd(), b = (uint32_t)rnd();
        unsigned bits = 24 + (unsigned)(rnd() % 9);
        a &= ~0u << (32 - bits);
        if (v4)
            snprintf(text, sizeof text, "%u.%u.%u.%u/%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
                     bits);
        else
            snprintf(text, sizeof text, "2%03x:%x:%x::/48", a >> 20, b >> 16, b & 0xffff);
        add(cidr, text, (uint32_t)n);
        if (n < PROBES) {
            char *slash = strchr(text, '/');
            cr_assert_eq(addr_parse_ip(slice_make(text, (size_t)(slash - text)), 0, &probes[n]), 0);
        }
    }
    cr_assert_eq(cidr_build(cidr), 0);
    double built = seconds();
    uint32_t value, found = 0;
    for (int n = 0; n < PROBES; n++)
        found += cidr_lookup(cidr, &probes[n], &value) == 0;
    cr_assert_eq(found, PROBES);
    double each = 1e9, few = 1e9;  // the best of several turns, nanoseconds
    for (int turn = 0; turn < 8; turn++) {
        double from = seconds();
        for (int n = 0; n < PROBES; n++)
            found += cidr_lookup(cidr, &probes[n], &value) == 0;
        double between = seconds();
        for (int n = 0; n < PROBES; n++)
            found += cidr_lookup(cidr, &probes[n % 64], &value) == 0;
        double to = seconds();
        each = least(each, (between - from) / PROBES * 1e9);
        few = least(few, (to - between) / PROBES * 1e9);
    }
    fprintf(
        stderr,
        "%s: %u networks built in %.0f ms, %.1f MiB; a look-up %.0f ns (65,536 addresses), %.0f ns (64)\n",
        name, cidr_count(cidr), (built - start) * 1e3, (double)cidr_bytes(cidr) / 1048576, each, few);
    cr_assert_lt(cidr_bytes(cidr), 20u << 20);
    if (!SLOW)
        cr_assert_lt(few, 1000.0);  // many addresses measure the cache, and who else uses it
    cidr_free(cidr);
}

Test(cidr, a_hundred_thousand_networks_are_small_and_quick) {
    measure("IPv4 /24 to /32", true);
    measure("IPv6 /48", false);
}
