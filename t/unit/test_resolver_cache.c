// SPDX-License-Identifier: BSD-2-Clause
// net/resolver_cache: how long answers hold, what failures leave of them, and who goes when it is full.
#include "net/resolver_cache.h"

#include "base/counters.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static struct conf_resolver conf;
static struct dns_cache cache;

static void set_up(void) {
    conf = (struct conf_resolver){
        .min_ttl = 2000, .max_ttl = 60000, .negative_ttl = 5000, .stale = 10000, .cache = 4, .queries = 8
    };
    cr_assert_eq(dns_cache_init(&cache, &conf), 0);
}

static void tear_down(void) {
    dns_cache_release(&cache);
    cr_assert_eq(counters->dns_entries_active, 0);
}

TestSuite(resolver_cache, .init = set_up, .fini = tear_down);

static struct dns_entry *need(const char *name) {
    return dns_cache_need(&cache, slice_of(name), AF_UNSPEC);
}

static struct dns_entry *find(const char *name) {
    return dns_cache_find(&cache, slice_of(name), AF_UNSPEC);
}

static void answer(struct dns_entry *entry, const char *ip, uint64_t ttl_s, uint64_t now_ms) {
    struct addr addr;
    cr_assert_eq(addr_parse_ip(slice_of(ip), 0, &addr), 0);
    cr_assert_eq(dns_cache_answered(&cache, entry, &addr, 1, ttl_s, now_ms), 0);
}

Test(resolver_cache, of_a_new_name_nothing_is_known) {
    cr_assert_null(find("a.test"));
    struct dns_entry *entry = need("a.test");
    cr_assert_eq(find("a.test"), entry);
    cr_assert_eq(need("a.test"), entry);
    cr_assert_null(dns_cache_find(&cache, SLICE_LIT("a.test"), AF_INET6), "families are kept apart");
    cr_assert_eq(dns_cache_knows(&cache, entry, 0), DNS_UNKNOWN);
    cr_assert_eq(dns_cache_knows(&cache, entry, UINT64_MAX / 2), DNS_UNKNOWN);
}

Test(resolver_cache, addresses_of_both_families_come_back_as_they_were) {
    struct dns_entry *entry = need("a.test");
    const char *texts[] = { "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2", "0.0.0.0", "::" };
    struct addr addrs[5], got[5];
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(addr_parse_ip(slice_of(texts[i]), 0, &addrs[i]), 0);
    cr_assert_eq(dns_cache_answered(&cache, entry, addrs, 5, 10, 0), 0);
    dns_entry_addrs(entry, got);
    for (unsigned i = 0; i < 5; i++)
        cr_assert(addr_eq(&got[i], &addrs[i]) && got[i].len == addrs[i].len, "%s", texts[i]);
}

Test(resolver_cache, an_answer_holds_for_its_time) {
    struct dns_entry *entry = need("a.test");
    answer(entry, "192.0.2.1", 30, 1000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 1000), DNS_FRESH);
    cr_assert_eq(dns_entry_left_ms(entry, 1000), 30000);
    cr_assert_eq(dns_entry_left_ms(entry, 1001), 29999);
    cr_assert_eq(dns_entry_left_ms(entry, 30001), 999);
    cr_assert_eq(dns_cache_knows(&cache, entry, 30999), DNS_FRESH);
    cr_assert_eq(dns_cache_knows(&cache, entry, 31000), DNS_UNKNOWN, "not stale: nothing has failed");
    cr_assert_eq(dns_entry_left_ms(entry, 31000), 0);
}

Test(resolver_cache, times_stay_between_floor_and_ceiling) {
    struct dns_entry *entry = need("a.test");
    answer(entry, "192.0.2.1", 0, 1000);
    cr_assert_eq(dns_entry_left_ms(entry, 1000), 2000);
    answer(entry, "192.0.2.1", 61, 1000);
    cr_assert_eq(dns_entry_left_ms(entry, 1000), 60000);
    answer(entry, "192.0.2.1", UINT64_MAX, 1000);
    cr_assert_eq(dns_entry_left_ms(entry, 1000), 60000);
}

Test(resolver_cache, that_there_is_none_holds_for_the_negative_time) {
    struct dns_entry *entry = need("a.test");
    dns_cache_failed(&cache, entry, DNS_no_name, 1000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 5999), DNS_FAILED);
    cr_assert_eq(entry->failure, DNS_no_name);
    cr_assert_eq(dns_cache_knows(&cache, entry, 6000), DNS_UNKNOWN);
}

Test(resolver_cache, a_failure_leaves_what_was_known) {
    struct dns_entry *entry = need("a.test");
    answer(entry, "192.0.2.1", 10, 0);
    dns_cache_failed(&cache, entry, DNS_timeout, 8000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 9999), DNS_FRESH);
    cr_assert_eq(dns_cache_knows(&cache, entry, 10000), DNS_STALE);
    cr_assert_not(dns_entry_due(entry, 12999));
    cr_assert(dns_entry_due(entry, 13000), "then it may be asked for again, in the background");
    cr_assert_eq(dns_cache_knows(&cache, entry, 19999), DNS_STALE);
    cr_assert_eq(dns_cache_knows(&cache, entry, 20000), DNS_UNKNOWN);
    dns_cache_failed(&cache, entry, DNS_timeout, 20000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 20000), DNS_FAILED, "too old by now");
    answer(entry, "192.0.2.2", 10, 21000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 21000), DNS_FRESH);
    cr_assert_eq(dns_cache_knows(&cache, entry, 31000), DNS_UNKNOWN);
}

Test(resolver_cache, memory_that_was_out_is_asked_for_again_at_once) {
    struct dns_entry *entry = need("a.test");
    dns_cache_failed(&cache, entry, DNS_memory, 1000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 1000), DNS_UNKNOWN);
}

Test(resolver_cache, that_a_name_is_gone_is_no_failure) {
    struct dns_entry *entry = need("a.test");
    answer(entry, "192.0.2.1", 10, 0);
    dns_cache_failed(&cache, entry, DNS_no_name, 10000);
    cr_assert_eq(dns_cache_knows(&cache, entry, 10000), DNS_FAILED);
    cr_assert_eq(entry->count, 0);
}

Test(resolver_cache, the_one_unused_for_longest_goes) {
    const char *names[] = { "a.test", "b.test", "c.test", "d.test" };
    for (unsigned i = 0; i < 4; i++)
        answer(need(names[i]), "192.0.2.1", 10, 0);
    dns_cache_touch(&cache, find("a.test"));
    need("e.test");
    cr_assert(find("a.test") && find("c.test") && find("d.test") && find("e.test"));
    cr_assert_null(find("b.test"));
    cr_assert_eq(counters->dns_entries_active, 4);
}

Test(resolver_cache, a_name_that_is_being_asked_for_stays) {
    const char *names[] = { "a.test", "b.test", "c.test", "d.test" };
    for (unsigned i = 0; i < 4; i++)
        need(names[i])->lookup = &conf;
    cr_assert_null(need("e.test"));
    find("c.test")->lookup = NULL;
    cr_assert(need("e.test"));
    cr_assert_null(find("c.test"));
}

Test(resolver_cache, names_of_one_bucket_are_told_apart) {
    conf.cache = 1000;
    char name[16];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "n%d.test", i);
        struct dns_entry *entry = need(name);
        answer(entry, "192.0.2.1", 10, (uint64_t)i);
    }
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "n%d.test", i);
        cr_assert_eq(find(name)->fresh_ms, 10000u + (unsigned)i);
    }
}

Test(resolver_cache, every_failure_has_a_text_and_a_number) {
    for (int failure = DNS_none + 1; failure <= DNS_memory; failure++) {
        cr_assert_neq(dns_failure_text((enum dns_failure)failure)[0], 0);
        cr_assert_lt(dns_failure_errno((enum dns_failure)failure), 0);
    }
}
