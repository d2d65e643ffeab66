// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for addresses and networks as text, which come from configurations, scripts and files of networks: each
// line is read as both. What is taken prints as text that reads as the same address; a network holds its own address and
// nothing is found in a set that no network holds.
#include "base/cidr.h"
#include "fuzz.h"

static void check_address(struct slice text) {
    struct addr addr, again;
    struct error error = { "" };
    char printed[ADDR_TEXT_MAX];
    if (addr_parse(text, &addr, &error) < 0) {
        must(error.text[0]);
    } else {
        size_t len = addr_print(&addr, printed);
        must(len > 0 && len < sizeof printed && printed[len] == 0);
        must(addr_parse(slice_make(printed, len), &again, &error) == 0);
        must(addr_eq(&addr, &again));
    }
}

static void check_ip(struct slice text) {
    struct addr addr, again;
    char ip[ADDR_IP_MAX];
    uint8_t key[16], same[16];
    if (addr_parse_ip(text, 80, &addr) < 0)
        return;
    size_t len = addr_print_ip(&addr, ip);
    must(len > 0 && len < sizeof ip);
    must(addr_parse_ip(slice_make(ip, len), 80, &again) == 0);
    must(addr_key(&addr, key) && addr_key(&again, same) && memcmp(key, same, sizeof key) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    enum { NETWORKS = 32 };
    struct slice rest = slice_make((const char *)bytes, len), texts[NETWORKS];
    struct cidr *cidr = cidr_new(NETWORKS);
    uint32_t taken = 0, value;
    struct error error = { "" };
    must(cidr);
    for (unsigned i = 0; rest.len > 0; i++) {
        struct slice line = fuzz_line(&rest);
        char *copy = fuzz_copy(line.at, line.len);
        struct slice text = slice_make(copy, line.len);
        check_address(text);
        check_ip(text);
        int rc = cidr_add(cidr, text, taken, &error);
        must(rc == 0 || error.text[0]);
        if (rc == 0) {
            must(taken < NETWORKS);
            texts[taken++] = line;
        }
        free(copy);
    }
    must(cidr_count(cidr) == taken);
    must(cidr_build(cidr) == 0 && cidr_count(cidr) <= taken);
    for (uint32_t i = 0; i < taken; i++) {
        const char *slash = memchr(texts[i].at, '/', texts[i].len);
        struct slice ip = slice_make(texts[i].at, slash ? (size_t)(slash - texts[i].at) : texts[i].len);
        struct addr addr;
        must(addr_parse_ip(ip, 0, &addr) == 0);
        // "::/0" and its kind begin where IPv4's place is not, so the network's first address is in it, or in a longer one.
        must(cidr_lookup(cidr, &addr, &value) == 0 && value < taken);
    }
    cidr_free(cidr);
    return 0;
}
