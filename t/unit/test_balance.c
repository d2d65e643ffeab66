// SPDX-License-Identifier: BSD-2-Clause
// proxy/balance, proxy/roster, proxy/hash_ring and proxy/sticky: whom each algorithm chooses how often, what moves when a
// server comes or goes, and who is asked when some may not be. Upstreams are made by hand, nothing is connected.
#include "proxy/balance.h"
#include "proxy/sticky.h"

#include "base/clock.h"
#include "ring/ring.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REQUESTS = 100000, SERVERS = 1000 };

static struct conf_upstream conf;
static struct conf_server lines[SERVERS];
static char names[SERVERS][32];
static struct upstream *upstream;
static struct standings *standings;
static struct exchange x;

static void set_up(void) {
    clock_stand(1000000000);
    clock_advance(3600000000);
    ring_do_without();
    standings = standings_map(2048, 2);
    cr_assert_not_null(standings);
    conf = (struct conf_upstream){ .name = "app" };
    x = (struct exchange){ .upstream_conf = &conf };
}

static void tear_down(void) {
    arena_release(&x.arena);
    upstream_free(upstream);
    standings_unmap(standings);
}

TestSuite(balance, .init = set_up, .fini = tear_down);

// Weights in order; more servers than weights have the last one.
static void make(enum conf_balance balance, unsigned count, const uint64_t *weights, unsigned weight_count) {
    struct error error;
    conf.balance = balance;
    conf.servers = lines;
    conf.server_count = count;
    for (unsigned i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "10.0.%u.%u:8080", i / 250, i % 250 + 1);
        lines[i].name = names[i];
        lines[i].weight = weights ? weights[i < weight_count ? i : weight_count - 1] : 1;
        lines[i].next = i + 1 < count ? &lines[i + 1] : NULL;
        cr_assert_eq(addr_parse(slice_of(names[i]), &lines[i].addr, &error), 0);
    }
    upstream = upstream_new(&conf, &(struct upstream_options){ .standings = standings });
    cr_assert_not_null(upstream);
    x.upstream = upstream;
}

static unsigned index_of(const struct server *server) {
    unsigned i = 0;
    while (i < upstream->server_count && upstream->servers[i] != server)
        i++;
    cr_assert_lt(i, upstream->server_count);
    return i;
}

static struct server *choose(void) {
    bool wait;
    return balance_choose(upstream, &x, &wait);
}

static void by_header(unsigned number) {
    static char value[32];
    static struct header header = { .name = SLICE_LIT("x-user"), .id = HEADER_OTHER };
    snprintf(value, sizeof value, "user-%u", number);
    header.value = slice_of(value);
    x.req.headers = (struct headers){ .at = &header, .count = 1, .room = 1 };
}

// Requests that come one by one.
static void count(unsigned counts[], unsigned requests) {
    memset(counts, 0, upstream->server_count * sizeof *counts);
    for (unsigned i = 0; i < requests; i++) {
        by_header(i);
        struct server *server = choose();
        cr_assert_not_null(server);
        counts[index_of(server)]++;
    }
}

static void expect_shares(void) {
    unsigned counts[SERVERS];
    uint64_t total = 0;
    for (unsigned i = 0; i < upstream->server_count; i++)
        total += upstream->servers[i]->weight;
    count(counts, REQUESTS);
    for (unsigned i = 0; i < upstream->server_count; i++) {
        double ideal = (double)REQUESTS * (double)upstream->servers[i]->weight / (double)total;
        cr_expect(counts[i] > 0.95 * ideal && counts[i] < 1.05 * ideal, "server %u: %u requests, ideal %.0f", i,
                  counts[i], ideal);
    }
}

static void use_hash(void) {
    conf.hash = HASH_HEADER;
    conf.hash_name = "x-user";
}

static const uint64_t weights[] = { 1, 2, 3, 4 };

Test(balance, round_robin_gives_shares_by_weight) {
    make(BALANCE_ROUND_ROBIN, 4, weights, 4);
    expect_shares();
}

Test(balance, least_conn_gives_shares_by_weight_while_all_are_idle) {
    make(BALANCE_LEAST_CONN, 4, weights, 4);
    expect_shares();
}

Test(balance, random2_gives_shares_by_weight_while_all_are_idle) {
    make(BALANCE_RANDOM2, 4, weights, 4);
    expect_shares();
}

Test(balance, a_hash_gives_shares_by_weight) {
    use_hash();
    make(BALANCE_HASH, 4, weights, 4);
    expect_shares();
}

Test(balance, equal_weights_give_equal_shares) {
    static const enum conf_balance all[] = { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM2, BALANCE_HASH };
    use_hash();
    for (unsigned i = 0; i < 4; i++) {
        make(all[i], 5, NULL, 0);
        expect_shares();
        upstream_free(upstream);
        upstream = NULL;
    }
}

// Requests that last: one in `slow` of a server's ends for each that begins.
static void keep_busy(unsigned active[], unsigned requests) {
    static struct server *under_way[400];
    unsigned count = 0;
    for (unsigned i = 0; i < requests; i++) {
        by_header(i);
        struct server *server = choose();
        cr_assert_not_null(server);
        server_take_place(server);
        if (count == 400) {
            unsigned at = (unsigned)((i * 2654435761u) >> 8) % 400;
            server_give_place(under_way[at]);
            under_way[at] = server;
        } else {
            under_way[count++] = server;
        }
    }
    for (unsigned i = 0; i < upstream->server_count; i++)
        active[i] = upstream->servers[i]->active;
    for (unsigned i = 0; i < count; i++)
        server_give_place(under_way[i]);
}

Test(balance, least_conn_and_random2_keep_what_is_under_way_by_weight) {
    static const enum conf_balance both[] = { BALANCE_LEAST_CONN, BALANCE_RANDOM2 };
    for (unsigned n = 0; n < 2; n++) {
        unsigned active[4];
        make(both[n], 4, weights, 4);
        keep_busy(active, 20000);
        for (unsigned i = 0; i < 4; i++) {
            double ideal = 40.0 * (i + 1), most = n == 0 ? 1.05 : 1.15;
            cr_expect(active[i] <= most * ideal + 1 && active[i] >= ideal / most - 1, "server %u: %u, ideal %.0f", i,
                      active[i], ideal);
        }
        upstream_free(upstream);
        upstream = NULL;
    }
}

Test(balance, least_conn_sees_what_other_workers_have_there) {
    make(BALANCE_LEAST_CONN, 2, NULL, 0);
    upstream->servers[0]->standing->counts[1].active = 10;
    clock_advance(2000);
    for (unsigned i = 0; i < 10; i++) {
        struct server *server = choose();
        cr_assert_eq(index_of(server), 1);
        server_take_place(server);
    }
    for (unsigned i = 0; i < 10; i++)
        server_give_place(upstream->servers[1]);
}

// ---- consistent hashing -----------------------------------------------------------------------------------------

static void whose(struct server *owners[], unsigned keys) {
    for (unsigned i = 0; i < keys; i++) {
        by_header(i);
        owners[i] = choose();
        cr_assert_not_null(owners[i]);
    }
}

static unsigned moved(struct server *const before[], struct server *const after[], unsigned keys,
                      const struct server *but) {
    unsigned count = 0;
    for (unsigned i = 0; i < keys; i++) {
        count += before[i] != after[i];
        // Nothing moves between those that stay.
        cr_assert(before[i] == after[i] || before[i] == but || after[i] == but);
    }
    return count;
}

static struct server *before[REQUESTS], *after[REQUESTS];

Test(balance, one_of_n_that_leaves_moves_its_keys_alone) {
    static const unsigned sizes[] = { 2, 3, 10, 50, 200 };
    use_hash();
    for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        make(BALANCE_HASH, sizes[n], NULL, 0);
        whose(before, REQUESTS);
        struct server *gone = upstream->servers[sizes[n] / 2];
        struct addr addr = gone->addr;
        server_take_place(gone);  // it stays in memory
        upstream_remove(gone);
        whose(after, REQUESTS);
        unsigned count = moved(before, after, REQUESTS, gone);
        cr_expect(count * sizes[n] <= 1.3 * REQUESTS, "of %u servers: %u keys", sizes[n], count);
        // And when it comes again they come back.
        struct server *back = upstream_add(upstream, &lines[sizes[n] / 2], &addr, NULL);
        cr_assert_not_null(back);
        whose(before, REQUESTS);
        cr_expect(moved(after, before, REQUESTS, back) == count);
        server_give_place(gone);
        upstream_free(upstream);
        upstream = NULL;
    }
}

Test(balance, one_more_server_takes_its_share_of_the_keys_alone) {
    use_hash();
    make(BALANCE_HASH, 10, NULL, 0);
    whose(before, REQUESTS);
    struct error error;
    struct addr addr;
    cr_assert_eq(addr_parse(SLICE_LIT("10.9.9.9:80"), &addr, &error), 0);
    struct server *more = upstream_add(upstream, &lines[0], &addr, NULL);
    cr_assert_not_null(more);
    whose(after, REQUESTS);
    unsigned count = moved(before, after, REQUESTS, more);
    cr_expect(count * 11 <= 1.3 * REQUESTS && count * 11 >= 0.7 * REQUESTS, "%u keys", count);
}

Test(balance, a_weight_that_changes_moves_as_many_keys_as_it_must) {
    use_hash();
    make(BALANCE_HASH, 10, NULL, 0);
    whose(before, REQUESTS);
    atomic_store(&upstream->servers[3]->standing->weight, 2);
    clock_advance(1000000);
    whose(after, REQUESTS);
    unsigned count = moved(before, after, REQUESTS, upstream->servers[3]);
    cr_expect(count > 0.7 * (2.0 / 11 - 0.1) * REQUESTS && count < 1.3 * (2.0 / 11 - 0.1) * REQUESTS, "%u", count);
}

Test(balance, keys_of_a_server_that_is_down_go_to_all_others_and_come_back) {
    unsigned counts[10] = { 0 };
    use_hash();
    make(BALANCE_HASH, 10, NULL, 0);
    whose(before, REQUESTS);
    struct server *down = upstream->servers[4];
    atomic_store(&down->standing->down_until_ms, clock_ms() + 500);
    whose(after, REQUESTS);
    unsigned count = moved(before, after, REQUESTS, down);
    for (unsigned i = 0; i < REQUESTS; i++)
        if (before[i] == down) {
            cr_assert(after[i] != down);
            counts[index_of(after[i])]++;
        }
    for (unsigned i = 0; i < 10; i++)
        cr_expect(i == 4 || (counts[i] > count / 9 * 0.7 && counts[i] < count / 9 * 1.3), "%u: %u of %u", i, counts[i],
                  count);
    clock_advance(600000);
    whose(after, REQUESTS);
    cr_expect_eq(moved(before, after, REQUESTS, NULL), 0);
}

Test(balance, a_key_that_was_tried_goes_to_the_next_and_the_same) {
    use_hash();
    make(BALANCE_HASH, 10, NULL, 0);
    for (unsigned i = 0; i < 1000; i++) {
        by_header(i);
        struct server *first = choose();
        x.tried = first->bit;
        struct server *second = choose();
        cr_assert_neq(first, second);
        cr_assert_eq(second, choose());
        x.tried = 0;
    }
}

Test(balance, everybody_makes_the_same_table) {
    use_hash();
    make(BALANCE_HASH, 10, NULL, 0);
    whose(before, 1000);
    static char first[1000][32];
    for (unsigned i = 0; i < 1000; i++)
        snprintf(first[i], sizeof first[i], "%s", before[i]->name);
    upstream_free(upstream);
    // In another order, as names of the DNS may come.
    make(BALANCE_HASH, 10, NULL, 0);
    struct addr addr = upstream->servers[2]->addr;
    upstream_remove(upstream->servers[2]);
    cr_assert_not_null(upstream_add(upstream, &lines[2], &addr, NULL));
    whose(after, 1000);
    for (unsigned i = 0; i < 1000; i++)
        cr_assert_str_eq(first[i], after[i]->name);
}

Test(balance, a_request_without_a_key_goes_to_each_in_turn) {
    use_hash();
    make(BALANCE_HASH, 3, NULL, 0);
    x.req.headers = (struct headers){ 0 };
    unsigned counts[3] = { 0 };
    for (unsigned i = 0; i < 30; i++)
        counts[index_of(choose())]++;
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(counts[i], 10);
}

Test(balance, a_bound_of_load_holds_for_one_key_that_all_ask_for) {
    use_hash();
    conf.hash_load = 125;
    make(BALANCE_HASH, 8, weights, 4);
    by_header(7);
    uint64_t total = 0;
    for (unsigned i = 0; i < 8; i++)
        total += upstream->servers[i]->weight;
    for (unsigned n = 1; n <= 4000; n++) {
        struct server *server = choose();
        cr_assert_not_null(server);
        server_take_place(server);
        cr_assert(server->active <= 1.25 * n * (double)server->weight / (double)total + 1, "%u of %u", server->active,
                  n);
    }
    for (unsigned i = 0; i < 8; i++)
        while (upstream->servers[i]->active > 0)
            server_give_place(upstream->servers[i]);
    // Where there is no load the key has one server.
    struct server *first = choose();
    for (unsigned n = 0; n < 100; n++)
        cr_assert_eq(choose(), first);
}

// ---- who may be asked -------------------------------------------------------------------------------------------

static void set_down(unsigned index) {
    atomic_store(&upstream->servers[index]->standing->down_until_ms, clock_ms() + 60000);
}

static void set_admin(unsigned index, enum standing_admin admin) {
    atomic_store(&upstream->servers[index]->standing->admin, admin);
}

// Which servers 100 requests go to, as bits.
static unsigned asked(void) {
    unsigned set = 0;
    for (unsigned i = 0; i < 100; i++) {
        by_header(i);
        struct server *server = choose();
        if (server)
            set |= 1u << index_of(server);
    }
    return set;
}

static const enum conf_balance algorithms[] = { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM2,
                                                BALANCE_HASH };

static void with_each_algorithm(void (*scenario)(void)) {
    use_hash();
    for (unsigned i = 0; i < 4; i++) {
        make(algorithms[i], 4, NULL, 0);
        scenario();
        upstream_free(upstream);
        upstream = NULL;
        standings_unmap(standings);
        standings = standings_map(2048, 2);
    }
}

static void backups(void) {
    cr_expect_eq(asked(), 3);
    set_down(0);
    cr_expect_eq(asked(), 2);
    set_down(1);
    cr_expect_eq(asked(), 12, "the backups");
    set_admin(2, ADMIN_drain);
    cr_expect_eq(asked(), 8);
    set_down(3);
    // None is well: those of the first level are the ones to try.
    cr_expect_eq(asked(), 3);
    clock_advance(61000000);
    cr_expect_eq(asked(), 3);
}

Test(balance, backups_are_asked_when_none_of_the_others_may_be) {
    lines[2].backup = lines[3].backup = true;
    with_each_algorithm(backups);
}

static void drain_and_down(void) {
    set_admin(1, ADMIN_drain);
    set_admin(2, ADMIN_down);
    cr_expect_eq(asked(), 9);
    set_admin(0, ADMIN_down);
    set_admin(3, ADMIN_down);
    cr_expect_eq(asked(), 0);
    set_admin(3, ADMIN_up);
    cr_expect_eq(asked(), 8);
    set_admin(0, ADMIN_up);
    set_admin(1, ADMIN_up);
    set_admin(2, ADMIN_up);
    clock_advance(1000);
    cr_expect_eq(asked(), 15);
}

Test(balance, servers_that_drain_or_are_set_down_get_nothing) {
    with_each_algorithm(drain_and_down);
}

static void panics(void) {
    set_admin(0, ADMIN_down);
    set_down(1);
    cr_expect_eq(asked(), 12, "two of three");
    set_down(2);
    cr_expect_eq(asked(), 14, "one of three: all but the one that is set down");
    set_down(3);
    cr_expect_eq(asked(), 14);
}

Test(balance, with_too_few_servers_all_are_asked) {
    conf.panic = 50;
    with_each_algorithm(panics);
}

static void no_panic(void) {
    set_down(1);
    set_down(2);
    set_down(3);
    cr_expect_eq(asked(), 1);
    set_down(0);
    cr_expect_eq(asked(), 15);
}

Test(balance, without_panic_all_are_asked_only_when_none_is_well) {
    with_each_algorithm(no_panic);
}

static void tried(void) {
    x.tried = upstream->servers[0]->bit | upstream->servers[2]->bit;
    set_down(3);
    cr_expect_eq(asked(), 2);
    x.tried |= upstream->servers[1]->bit;
    cr_expect_eq(asked(), 7, "those that are well, again");
    x.tried = 0;
}

Test(balance, servers_that_were_tried_are_asked_when_there_is_no_other) {
    with_each_algorithm(tried);
}

static void busy(void) {
    bool wait;
    for (unsigned i = 0; i < 4; i++)
        server_take_place(upstream->servers[i]);
    server_give_place(upstream->servers[2]);
    cr_expect_eq(asked(), 4);
    server_take_place(upstream->servers[2]);
    cr_expect_null(balance_choose(upstream, &x, &wait));
    cr_expect(wait);
    x.tried = upstream->servers[0]->bit;
    server_give_place(upstream->servers[0]);
    cr_expect_null(balance_choose(upstream, &x, &wait), "one that failed is not asked instead of one that is busy");
    cr_expect(wait);
    x.tried = 0;
    for (unsigned i = 1; i < 4; i++)
        server_give_place(upstream->servers[i]);
}

Test(balance, servers_with_max_active_are_waited_for) {
    conf.max_active = 1;
    with_each_algorithm(busy);
}

Test(balance, a_server_that_came_back_gets_its_weight_by_and_by) {
    static const double expected[] = { 0.1 / 1.1, 0.25 / 1.25, 0.5 / 1.5, 0.75 / 1.75, 0.5 };
    conf.slow_start = 10000;
    make(BALANCE_ROUND_ROBIN, 2, NULL, 0);
    atomic_store(&upstream->servers[1]->standing->up_since_ms, clock_ms());
    for (unsigned i = 0; i < 5; i++) {
        unsigned counts[2];
        count(counts, 10000);
        cr_expect(counts[1] > 9500 * expected[i] && counts[1] < 10500 * expected[i], "after %u s: %u", i * 5 / 2,
                  counts[1]);
        clock_advance(2500000);
    }
}

Test(balance, a_weight_set_live_counts_in_a_moment) {
    unsigned counts[2];
    make(BALANCE_ROUND_ROBIN, 2, NULL, 0);
    count(counts, 100);
    atomic_store(&upstream->servers[1]->standing->weight, 3);
    clock_advance(1000);
    count(counts, 1000);
    cr_expect_eq(counts[1], 750);
}

// ---- sticky -----------------------------------------------------------------------------------------------------

static struct conf_sticky sticky = { .name = SLICE_LIT("srv"), .path = "/" };

static void make_sticky(void) {
    conf.sticky = &sticky;
    make(BALANCE_ROUND_ROBIN, 4, NULL, 0);
}

static void with_cookie(const char *value) {
    memset(&x.req.headers, 0, sizeof x.req.headers);
    memset(&x.res.headers, 0, sizeof x.res.headers);
    x.sticky = 0;
    x.sticky_read = false;
    x.tried = 0;
    if (value)
        cr_assert_eq(headers_add(&x.req.headers, &x.arena, SLICE_LIT("Cookie"), slice_of(value)), 0);
    cr_assert_eq(sticky_read(&x), 0);
}

static const char *set_cookie(struct server *server) {
    const struct header *header;
    x.server = server;
    cr_assert_eq(sticky_answered(&x), 0);
    header = headers_find(&x.res.headers, HEADER_set_cookie);
    return header ? header->value.at : NULL;
}

static const char *cookie_for(unsigned index) {
    static char text[64];
    with_cookie(NULL);
    snprintf(text, sizeof text, "%s", set_cookie(upstream->servers[index]));
    *strchr(text, ';') = 0;
    return text;
}

Test(balance, a_client_with_a_cookie_stays_with_its_server) {
    make_sticky();
    for (unsigned i = 0; i < 4; i++) {
        const char *cookie = cookie_for(i);
        cr_expect_null(strstr(cookie, "10."), "%s", cookie);
        for (unsigned n = 0; n < 10; n++) {
            with_cookie(cookie);
            cr_assert_eq(index_of(choose()), i);
            cr_expect_null(set_cookie(upstream->servers[i]), "it is told once");
        }
    }
}

Test(balance, the_cookie_leaves_the_request_and_others_stay) {
    char text[128];
    make_sticky();
    const char *cookie = cookie_for(2);
    snprintf(text, sizeof text, "a=1;%s; b=\"2\"; srv=zzz;c", cookie);
    with_cookie(text);
    cr_expect_eq(index_of(choose()), 2);
    const struct header *left = headers_find(&x.req.headers, HEADER_cookie);
    cr_expect(slice_eq(left->value, SLICE_LIT("a=1; b=\"2\"; c")), "%.*s", SLICE_ARG(left->value));
    with_cookie(cookie);
    cr_expect_null(headers_find(&x.req.headers, HEADER_cookie));
}

Test(balance, a_server_that_drains_keeps_its_clients_and_one_that_is_down_does_not) {
    make_sticky();
    const char *cookie = cookie_for(1);
    set_admin(1, ADMIN_drain);
    with_cookie(cookie);
    cr_expect_eq(index_of(choose()), 1);
    set_admin(1, ADMIN_down);
    with_cookie(cookie);
    struct server *other = choose();
    cr_expect_neq(index_of(other), 1);
    cr_expect_not_null(set_cookie(other), "it is told of the new one");
    set_admin(1, ADMIN_up);
    set_down(1);
    with_cookie(cookie);
    cr_expect_neq(index_of(choose()), 1);
    atomic_store(&upstream->servers[1]->standing->down_until_ms, 0);
    with_cookie(cookie);
    x.tried = upstream->servers[1]->bit;
    cr_expect_neq(index_of(choose()), 1);
}

Test(balance, made_up_cookies_are_none) {
    static const char *const texts[] = { "srv=", "srv", "srv=0000000000000000", "srv=zzzzzzzzzzzzzzzz", "=;;=;srv==",
                                         "srv=00000000000000001", "srv=10.0.0.1:8080", "srv=ABCDEFABCDEFABCD", ";",
                                         "srv=\"\"" };
    make_sticky();
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        with_cookie(texts[i]);
        cr_expect_eq(x.sticky, 0, "%s", texts[i]);
        cr_expect_not_null(choose());
        cr_expect_not_null(set_cookie(upstream->servers[0]));
    }
}

Test(balance, a_cookie_holds_for_other_workers_and_generations_but_for_no_other_upstream) {
    char cookie[64];
    make_sticky();
    snprintf(cookie, sizeof cookie, "%s", cookie_for(3));
    upstream_free(upstream);
    make_sticky();
    with_cookie(cookie);
    cr_expect_eq(index_of(choose()), 3);
    upstream_free(upstream);
    conf.name = "other";
    make_sticky();
    with_cookie(cookie);
    cr_expect_eq(x.sticky, 0);
}

Test(balance, the_cookie_has_what_the_directive_says) {
    static struct conf_sticky full = { .name = SLICE_LIT("srv"), .path = "/app", .domain = "example.org", .ttl = 60000,
                                       .secure = true, .httponly = true, .samesite = "Lax", .key = "0123456789abcdef" };
    conf.sticky = &full;
    make(BALANCE_ROUND_ROBIN, 2, NULL, 0);
    with_cookie(NULL);
    const char *text = set_cookie(upstream->servers[0]);
    cr_expect_str_eq(strchr(text, ';'), "; Path=/app; Domain=example.org; Max-Age=60; Secure; HttpOnly; SameSite=Lax");
    cr_expect_eq(strspn(text + 4, "0123456789abcdef"), 16);
    uint32_t position = 0;
    const struct header *private = headers_next(&x.res.headers, SLICE_LIT("cache-control"), &position);
    cr_expect(private && slice_eq(private->value, SLICE_LIT("private")));
    // A key of the configuration's makes the same of it after a restart.
    standings_unmap(standings);
    standings = NULL;
    char before_it[64];
    snprintf(before_it, sizeof before_it, "%.20s", text);
    struct upstream *first = upstream;
    (void)first;
    upstream = NULL;
    make(BALANCE_ROUND_ROBIN, 2, NULL, 0);
    with_cookie(NULL);
    cr_expect_eq(strncmp(set_cookie(upstream->servers[0]), before_it, 20), 0);
    upstream_free(upstream);
    upstream = NULL;
}

// ---- what it costs ----------------------------------------------------------------------------------------------

// The clock of moongate stands still here.
static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t cost_ns(enum conf_balance balance, unsigned servers, const uint64_t *of_weights) {
    enum { ROUNDS = 200000 };
    use_hash();
    make(balance, servers, of_weights, of_weights ? 4 : 0);
    by_header(1);
    choose();
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < ROUNDS; i++) {
        by_header(0);
        if (!choose())
            cr_assert_fail("nobody");
    }
    uint64_t ns = (now_ns() - begin) / ROUNDS;
    upstream_free(upstream);
    upstream = NULL;
    return ns;
}

Test(balance, a_choice_by_key_or_chance_costs_as_much_of_a_thousand_as_of_three) {
    static const char *const balances[] = { "round_robin", "least_conn", "random2", "hash" };
    for (unsigned i = 0; i < 4; i++) {
        enum conf_balance balance = algorithms[i];
        uint64_t few = cost_ns(balance, 3, weights), many = cost_ns(balance, SERVERS, weights);
        uint64_t even = cost_ns(balance, SERVERS, NULL);
        printf("%s: %llu ns of 3 servers, %llu of %u, %llu with equal weights\n", balances[i], (unsigned long long)few,
               (unsigned long long)many, SERVERS, (unsigned long long)even);
        if (balance == BALANCE_RANDOM2 || balance == BALANCE_HASH)
            cr_expect(many < 20 * few + 1000);
    }
    struct hash_ring ring = { 0 };
    for (unsigned servers = 3; servers <= SERVERS; servers *= 10) {
        struct ring_member members[SERVERS];
        for (unsigned i = 0; i < servers; i++)
            members[i] = (struct ring_member){ .key = i * 0x9e3779b97f4a7c15u, .share = 1 };
        ring.members = members;
        ring.count = servers;
        uint64_t begin = now_ns();
        cr_assert_eq(hash_ring_make(&ring), 0);
        printf("a table of %u: %llu us\n", servers, (unsigned long long)(now_ns() - begin) / 1000);
    }
    ring.members = NULL;
    hash_ring_release(&ring);
}
