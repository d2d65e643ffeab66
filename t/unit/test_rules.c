// SPDX-License-Identifier: BSD-2-Clause
// What happens to header fields between the two sides: hop-by-hop fields, X-Forwarded-*, Forwarded, trailers.
#include "http/rules.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct arena arena;
static struct request request;
static struct headers *const headers = &request.headers;

static void set_up(void) {
    arena_init(&arena);
    request = (struct request){ .scheme = SLICE_LIT("http"), .authority = SLICE_LIT("h.example:8080") };
}

static void tear_down(void) {
    arena_release(&arena);
}

TestSuite(rules, .init = set_up, .fini = tear_down);

static void add(const char *name, const char *value) {
    cr_assert_eq(headers_add(headers, &arena, slice_of(name), slice_of(value)), 0);
}

static const char *dump(void) {
    static char text[4096];
    size_t n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->at[i].name.len > 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%.*s=%.*s;", SLICE_ARG(headers->at[i].name),
                                  SLICE_ARG(headers->at[i].value));
    return text;
}

Test(rules, hop_by_hop_fields_go) {
    add("Host", "h");
    add("Connection", "keep-alive");
    add("Keep-Alive", "timeout=5");
    add("Proxy-Connection", "keep-alive");
    add("TE", "trailers");
    add("Upgrade", "websocket");
    add("Proxy-Authorization", "Basic x");
    add("Proxy-Authenticate", "Basic");
    add("Transfer-Encoding", "chunked");
    add("Trailer", "X-Sum");
    add("Accept", "*/*");
    rules_strip_hop_by_hop(headers, false);
    cr_assert_str_eq(dump(), "Host=h;Transfer-Encoding=chunked;Trailer=X-Sum;Accept=*/*;");
}

Test(rules, via_tells_the_version_as_it_came) {
    cr_assert_eq(rules_add_via(headers, &arena, 1, 1, NULL), 0);
    cr_assert_eq(rules_add_via(headers, &arena, 1, 0, "edge"), 0);
    cr_assert_eq(rules_add_via(headers, &arena, 2, 0, "edge"), 0);
    cr_assert_str_eq(dump(), "via=1.0 edge;via=2.0 edge;");
}

Test(rules, date_is_added_where_it_is_missing) {
    clock_cached.wall_us = 784111777ull * 1000000;
    cr_assert_eq(rules_add_date(headers, &arena), 0);
    cr_assert_eq(rules_add_date(headers, &arena), 0);
    cr_assert_str_eq(dump(), "date=Sun, 06 Nov 1994 08:49:37 GMT;");
}

Test(rules, max_forwards_counts_down_for_options_alone) {
    const struct {
        const char *method, *value, *after;
        int rc;
    } cases[] = {
        { "OPTIONS", "2", "Max-Forwards=1;", 0 }, { "OPTIONS", "0", "Max-Forwards=0;", 1 },
        { "TRACE", "1", "Max-Forwards=0;", 0 },   { "GET", "0", "Max-Forwards=0;", 0 },
        { "OPTIONS", "x", "Max-Forwards=x;", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        request.headers = (struct headers){ 0 };
        request.method = slice_of(cases[i].method);
        add("Max-Forwards", cases[i].value);
        cr_assert_eq(rules_max_forwards(&request, &arena), cases[i].rc, "case %zu", i);
        cr_assert_str_eq(dump(), cases[i].after);
    }
}

Test(rules, what_connection_names_goes_wherever_it_stands) {
    add("X-Before", "1");
    add("connection", "close, x-before ,X-AFTER");
    add("X-After", "2");
    add("x-after", "3");
    add("Connection", "x-second");
    add("X-Second", "4");
    add("X-Kept", "5");
    rules_strip_hop_by_hop(headers, false);
    cr_assert_str_eq(dump(), "X-Kept=5;");
}

Test(rules, a_client_cannot_name_away_what_identifies_or_frames) {
    add("Connection",
        "Host, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, "
        "Forwarded, "
        "Authorization, Cookie");
    add("Host", "h");
    add("Content-Length", "3");
    add("X-Forwarded-For", "1");
    add("X-Forwarded-Host", "2");
    add("X-Forwarded-Proto", "3");
    add("Forwarded", "for=1");
    add("Authorization", "a");
    add("Cookie", "c");
    rules_strip_hop_by_hop(headers, false);
    cr_assert_str_eq(
        dump(),
        "Host=h;Content-Length=3;X-Forwarded-For=1;X-Forwarded-Host=2;X-Forwarded-Proto=3;Forwarded=for=1;"
        "Authorization=a;Cookie=c;");
}

Test(rules, upgrade_stays_when_it_is_wanted) {
    add("Connection", "Upgrade, HTTP2-Settings");
    add("Upgrade", "websocket");
    add("HTTP2-Settings", "x");
    rules_strip_hop_by_hop(headers, true);
    cr_assert_str_eq(dump(), "Upgrade=websocket;");
}

Test(rules, trailers_that_frame_or_route_are_refused) {
    static const char *const names[] = { "Content-Length", "transfer-encoding", "HOST",
                                         "Connection",     "upgrade",           "TE",
                                         "Trailer",        "Keep-Alive",        "Content-Encoding" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_assert_eq(rules_trailer(slice_of(names[i])), TRAILER_REFUSED, "%s", names[i]);
}

Test(rules, trailers_that_would_change_the_message_are_dropped) {
    static const char *const names[] = {
        "Authorization", "cookie",    "Set-Cookie",      "Content-Type",
        "Expect",        "Forwarded", "X-Forwarded-For", "x-forwarded-anything",
        "If-Match",      "Range",     "Cache-Control"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_assert_eq(rules_trailer(slice_of(names[i])), TRAILER_DROPPED, "%s", names[i]);
    cr_assert_eq(rules_trailer(SLICE_LIT("x-sum")), TRAILER_PASSED);
    cr_assert_eq(rules_trailer(SLICE_LIT("grpc-status")), TRAILER_PASSED);
    cr_assert_eq(rules_trailer(SLICE_LIT("etag")), TRAILER_PASSED);
}

static struct addr of(const char *text) {
    struct addr addr = { 0 };
    struct error error;
    cr_assert_eq(addr_parse(slice_of(text), &addr, &error), 0, "%s: %s", text, error.text);
    return addr;
}

static void forward(enum conf_x_forwarded x_forwarded, bool forwarded, const char *client) {
    struct conf_settings settings = { .x_forwarded = x_forwarded, .forwarded = forwarded };
    struct addr from = of(client), to = of("127.0.0.1:80");
    cr_assert_eq(rules_add_forwarded(&request, &arena, &settings, &from, &to), 0);
}

Test(rules, nothing_is_added_unasked) {
    add("X-Forwarded-For", "6.6.6.6");
    forward(X_FORWARDED_OFF, false, "10.0.0.1:1");
    cr_assert_str_eq(dump(), "X-Forwarded-For=6.6.6.6;");
}

Test(rules, x_forwarded_replaces_what_a_client_claims) {
    add("X-Forwarded-For", "6.6.6.6");
    add("x-forwarded-for", "7.7.7.7");
    add("X-Forwarded-Proto", "https");
    add("X-Forwarded-Host", "evil");
    forward(X_FORWARDED_REPLACE, false, "10.0.0.1:1");
    cr_assert_str_eq(dump(),
                     "X-Forwarded-For=10.0.0.1;X-Forwarded-Proto=http;X-Forwarded-Host=h.example:8080;");
}

Test(rules, x_forwarded_appends_as_the_last_element_of_one_field) {
    add("X-Forwarded-For", "6.6.6.6");
    add("Accept", "*/*");
    add("x-forwarded-for", "7.7.7.7, 8.8.8.8");
    add("X-Forwarded-Proto", "https");
    forward(X_FORWARDED_APPEND, false, "[2001:db8::1]:1");
    cr_assert_str_eq(
        dump(),
        "X-Forwarded-For=6.6.6.6, 7.7.7.7, 8.8.8.8, 2001:db8::1;Accept=*/*;X-Forwarded-Proto=https;"
        "x-forwarded-host=h.example:8080;");
}

// What a client leaves open would hold the element that is ours.
Test(rules, a_list_that_hides_what_follows_is_left_out) {
    struct slice value;
    add("Forwarded", "for=1");
    add("Forwarded", "for=\"2");
    add("Forwarded", "for=\"3\\\"");
    add("Forwarded", "");
    add("X-Forwarded-For", "6.6.6.6, \"");
    forward(X_FORWARDED_APPEND, true, "10.0.0.1:5");
    cr_assert(headers_get(headers, HEADER_x_forwarded_for, &value));
    cr_assert(slice_eq(value, SLICE_LIT("10.0.0.1")), "%.*s", SLICE_ARG(value));
    cr_assert(headers_get(headers, HEADER_forwarded, &value));
    cr_assert(slice_starts(value, SLICE_LIT("for=1, for=10.0.0.1;by=")), "%.*s", SLICE_ARG(value));
}

Test(rules, forwarded_quotes_what_needs_it) {
    forward(X_FORWARDED_OFF, true, "[2001:db8::1]:1");
    struct slice value = { 0 };
    cr_assert(headers_get(headers, HEADER_forwarded, &value));
    cr_assert(
        slice_eq(value, SLICE_LIT("for=\"[2001:db8::1]\";by=127.0.0.1;host=\"h.example:8080\";proto=http")),
        "%.*s", SLICE_ARG(value));
    // A second proxy adds its element behind.
    forward(X_FORWARDED_OFF, true, "10.0.0.1:1");
    cr_assert(headers_get(headers, HEADER_forwarded, &value));
    cr_assert(slice_eq(value,
                       SLICE_LIT("for=\"[2001:db8::1]\";by=127.0.0.1;host=\"h.example:8080\";proto=http, "
                                 "for=10.0.0.1;by=127.0.0.1;host=\"h.example:8080\";proto=http")),
              "%.*s", SLICE_ARG(value));
}

Test(rules, a_unix_peer_is_unknown) {
    forward(X_FORWARDED_OFF, true, "unix:/a");
    struct slice value = { 0 };
    cr_assert(headers_get(headers, HEADER_forwarded, &value));
    cr_assert(slice_starts(value, SLICE_LIT("for=unknown;by=127.0.0.1;")), "%.*s", SLICE_ARG(value));
}
