// SPDX-License-Identifier: BSD-2-Clause
// Request targets and path normalisation with hostile input: what is decoded, what is refused, never above
// the root.
#include "http/target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static struct arena arena;

static void set_up(void) {
    arena_init(&arena);
}

static void tear_down(void) {
    arena_release(&arena);
}

TestSuite(target, .init = set_up, .fini = tear_down);

static void normalises(struct slice raw, struct slice expected) {
    struct slice path = { 0 };
    int rc = path_normalise(raw, &arena, &path);
    cr_assert_eq(rc, 0, "\"%.*s\" was refused", SLICE_ARG(raw));
    cr_assert(slice_eq(path, expected), "\"%.*s\": \"%.*s\" instead of \"%.*s\"", SLICE_ARG(raw),
              SLICE_ARG(path), SLICE_ARG(expected));
}
#define NORMAL(raw, expected) normalises(SLICE_LIT(raw), SLICE_LIT(expected))

static void refuses(struct slice raw) {
    struct slice path = { 0 };
    cr_assert_eq(path_normalise(raw, &arena, &path), -EINVAL, "\"%.*s\" was taken", SLICE_ARG(raw));
}
#define BAD(raw) refuses(SLICE_LIT(raw))

Test(target, plain_paths_stay) {
    NORMAL("/", "/");
    NORMAL("/a", "/a");
    NORMAL("/a/b.c/", "/a/b.c/");
    NORMAL("/a;b=c,d@e:f!$&'()*+~", "/a;b=c,d@e:f!$&'()*+~");
    NORMAL("/.a", "/.a");
    NORMAL("/..a/b", "/..a/b");
    NORMAL("/...", "/...");
    NORMAL("/a./b..", "/a./b..");
}

Test(target, dot_segments_go) {
    NORMAL("/.", "/");
    NORMAL("/./", "/");
    NORMAL("/a/./b", "/a/b");
    NORMAL("/a/.", "/a/");
    NORMAL("/a/..", "/");
    NORMAL("/a/../", "/");
    NORMAL("/a/b/..", "/a/");
    NORMAL("/a/b/../", "/a/");
    NORMAL("/a/b/../c", "/a/c");
    NORMAL("/a/b/../../c", "/c");
    NORMAL("/a/b/c/./../../g", "/a/g");
}

Test(target, nothing_leads_above_the_root) {
    NORMAL("/..", "/");
    NORMAL("/../", "/");
    NORMAL("/../..", "/");
    NORMAL("/../../etc/passwd", "/etc/passwd");
    NORMAL("/a/../../../b", "/b");
    NORMAL("//../a", "/a");
    NORMAL("/%2e%2e/%2E%2e/etc", "/etc");
    NORMAL("/a%2f..%2f..%2fb", "/b");
    NORMAL("/.%2e/b", "/b");
    NORMAL("/a/%2e%2e", "/");
    NORMAL("/a/b/%2e%2e%2f", "/a/");
}

Test(target, slashes_join) {
    NORMAL("//", "/");
    NORMAL("///", "/");
    NORMAL("//a", "/a");
    NORMAL("/a//b", "/a/b");
    NORMAL("/a///", "/a/");
    NORMAL("/a%2fb", "/a/b");
    NORMAL("/a%2F%2Fb", "/a/b");
}

Test(target, percent_is_decoded_once) {
    NORMAL("/%41%7a", "/Az");
    NORMAL("/%252e%252e/a", "/%2e%2e/a");
    NORMAL("/%25", "/%");
    NORMAL("/%3f%23", "/?#");
    NORMAL("/%ff", "/\xff");
    NORMAL("/%0a", "/\n");
}

Test(target, bad_percent_is_refused) {
    BAD("/%");
    BAD("/%4");
    BAD("/%4g");
    BAD("/%g4");
    BAD("/%%41");
    BAD("/% 1");
    BAD("/%+1");
    BAD("/a%00b");
    BAD("/%00");
}

Test(target, what_is_no_path_is_refused) {
    BAD("");
    BAD("a");
    BAD("../a");
    BAD("%2fa");
    BAD("/a b");
    BAD("/a\tb");
    BAD("/a\0b");
    BAD("/a\rb");
    BAD("/a\x7f");
    BAD("/\xc3\xa4");
    BAD("/a#b");
}

// All short strings over the dangerous characters: never outside, never with dots left, idempotent unless it
// was encoded.
Test(target, all_short_paths_stay_below_the_root) {
    static const char letters[] = "/.a%2eEF";
    enum { LONGEST = 6, BASE = sizeof letters - 1 };
    char raw[LONGEST + 1] = "/";
    for (unsigned len = 0; len < LONGEST; len++) {
        unsigned total = 1;
        for (unsigned i = 0; i < len; i++)
            total *= BASE;
        for (unsigned n = 0; n < total; n++) {
            unsigned rest = n;
            for (unsigned i = 0; i < len; i++, rest /= BASE)
                raw[1 + i] = letters[rest % BASE];
            struct slice path, again, text = slice_make(raw, len + 1);
            if (path_normalise(text, &arena, &path) < 0) {
                cr_assert(memchr(raw, '%', len + 1), "%.*s", SLICE_ARG(text));
                continue;
            }
            cr_assert(path.len > 0 && path.at[0] == '/', "%.*s", SLICE_ARG(text));
            for (size_t i = 0; i < path.len; i++) {
                struct slice tail = slice_from(path, i);
                cr_assert_not(slice_starts(tail, SLICE_LIT("//")), "%.*s", SLICE_ARG(text));
                cr_assert_not(slice_starts(tail, SLICE_LIT("/./")), "%.*s", SLICE_ARG(text));
                cr_assert_not(slice_starts(tail, SLICE_LIT("/../")), "%.*s", SLICE_ARG(text));
                cr_assert_not(slice_eq(tail, SLICE_LIT("/.")), "%.*s", SLICE_ARG(text));
                cr_assert_not(slice_eq(tail, SLICE_LIT("/..")), "%.*s", SLICE_ARG(text));
            }
            if (!memchr(raw, '%', len + 1)) {
                cr_assert_eq(path_normalise(path, &arena, &again), 0);
                cr_assert(slice_eq(path, again), "%.*s", SLICE_ARG(text));
            }
        }
        arena_release(&arena);
        arena_init(&arena);
    }
}

static int parse(const char *method, struct slice target, struct request *request) {
    const char *why = NULL;
    *request = (struct request){ .method = slice_of(method), .target = target };
    int rc = target_parse(request, &arena, &why);
    cr_assert(rc == 0 || why, "no reason given");
    return rc;
}

static void parses(const char *method, const char *target, const char *authority, const char *raw_path,
                   const char *path, const char *query) {
    struct request request;
    cr_assert_eq(parse(method, slice_of(target), &request), 0, "%s was refused", target);
    cr_assert(slice_eq(request.authority, slice_of(authority)), "%s: authority %.*s", target,
              SLICE_ARG(request.authority));
    cr_assert(slice_eq(request.raw_path, slice_of(raw_path)), "%s: raw path %.*s", target,
              SLICE_ARG(request.raw_path));
    cr_assert(slice_eq(request.path, slice_of(path)), "%s: path %.*s", target, SLICE_ARG(request.path));
    cr_assert_eq(request.query.at == NULL, query == NULL, "%s", target);
    cr_assert(slice_eq(request.query, slice_of(query)), "%s: query %.*s", target, SLICE_ARG(request.query));
}

Test(target, origin_form) {
    parses("GET", "/", "", "/", "/", NULL);
    parses("GET", "/a%20b?x=1&y=%2f", "", "/a%20b", "/a b", "x=1&y=%2f");
    parses("GET", "/a?", "", "/a", "/a", "");
    parses("GET", "/a?b?c", "", "/a", "/a", "b?c");
    parses("GET", "/a?/../..", "", "/a", "/a", "/../..");
    parses("GET", "//host/a", "", "//host/a", "/host/a", NULL);
}

Test(target, absolute_form) {
    parses("GET", "http://h", "h", "/", "/", NULL);
    parses("GET", "http://h?q", "h", "/", "/", "q");
    parses("GET", "HTTP://h:80/a/../b?q", "h:80", "/a/../b", "/b", "q");
    parses("GET", "https://[::1]:8443/", "[::1]:8443", "/", "/", NULL);
}

Test(target, asterisk_and_connect) {
    parses("OPTIONS", "*", "", "*", "*", NULL);
    parses("CONNECT", "h:443", "h:443", "h:443", "h:443", NULL);
    struct request request;
    cr_assert_eq(parse("GET", SLICE_LIT("*"), &request), -EINVAL);
    cr_assert_eq(parse("OPTIONS", SLICE_LIT("*/"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT("/"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT(""), &request), -EINVAL);
}

Test(target, what_is_no_target_is_refused) {
    static const struct slice bad[] = {
        SLICE_LIT(""),
        SLICE_LIT("a"),
        SLICE_LIT("?q"),
        SLICE_LIT("http:/a"),
        SLICE_LIT("http:///a"),
        SLICE_LIT("http://"),
        SLICE_LIT("http://?q"),
        SLICE_LIT("http://u@h/"),
        SLICE_LIT("http://h:x/"),
        SLICE_LIT("http://h:99999/"),
        SLICE_LIT("ftp://h/"),
        SLICE_LIT("file:///etc/passwd"),
        SLICE_LIT("javascript:1"),
        SLICE_LIT("/a b"),
        SLICE_LIT("/a\x01"),
        SLICE_LIT("/a?b c"),
        SLICE_LIT("/a?\x80"),
        SLICE_LIT("/a#f"),
        SLICE_LIT("/a?#f"),
        SLICE_LIT("/a\0"),
        SLICE_LIT("/%zz"),
        SLICE_LIT("http://h\\@evil/"),
        SLICE_LIT("http://[::1/"),
        SLICE_LIT("http://[]/"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct request request;
        cr_assert_eq(parse("GET", bad[i], &request), -EINVAL, "\"%.*s\" was taken", SLICE_ARG(bad[i]));
    }
}

Test(target, authorities) {
    static const struct slice good[] = {
        SLICE_LIT(""),          SLICE_LIT("h"),     SLICE_LIT("h.example:80"),
        SLICE_LIT("127.0.0.1"), SLICE_LIT("[::1]"), SLICE_LIT("[::ffff:1.2.3.4]:65535"),
        SLICE_LIT("h:"),        SLICE_LIT("a_b~c"), SLICE_LIT("%41")
    };
    static const struct slice bad[] = { SLICE_LIT(":80"),
                                        SLICE_LIT("h:65536"),
                                        SLICE_LIT("h:-1"),
                                        SLICE_LIT("h:+80"),
                                        SLICE_LIT("h: 80"),
                                        SLICE_LIT("h:80:80"),
                                        SLICE_LIT("h h"),
                                        SLICE_LIT("u@h"),
                                        SLICE_LIT("h/"),
                                        SLICE_LIT("h\\"),
                                        SLICE_LIT("h?"),
                                        SLICE_LIT("h#"),
                                        SLICE_LIT("h\0"),
                                        SLICE_LIT("\"h\""),
                                        SLICE_LIT("<h>"),
                                        SLICE_LIT("[::1"),
                                        SLICE_LIT("[::1]x"),
                                        SLICE_LIT("[g]"),
                                        SLICE_LIT("h%4"),
                                        SLICE_LIT("h%"),
                                        SLICE_LIT("h\t"),
                                        SLICE_LIT("\xc3\xa4"),
                                        SLICE_LIT("h:18446744073709551697") };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert(authority_valid(good[i]), "\"%.*s\" was refused", SLICE_ARG(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(authority_valid(bad[i]), "\"%.*s\" was taken", SLICE_ARG(bad[i]));
}
