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

Test(target, what_leads_above_the_root_is_refused) {
    BAD("/..");
    BAD("/../");
    BAD("/../..");
    BAD("/../../etc/passwd");
    BAD("/a/../../../b");
    BAD("//../a");
    BAD("/a//../../b");
    BAD("/a/./../../b");
    BAD("/a%2fb/../../c");  // above it where %2f is no separator
    BAD("/%2f/../b");       // above it where it is one
    NORMAL("/a/b/../../c/..", "/");
}

Test(target, dot_segments_that_not_every_parser_sees_are_refused) {
    static const char *const dots[] = { "%2e%2e",     "%2E%2E", ".%2e",   "%2e.",      "%2e",       "..;",
                                        "..;a=b",     ".;",     ".;x",    "%2e%2e;",   "..%3b",     "..%2f",
                                        "..%2fb",     "%2f..",  "b%2f..", "..%5c",     "%5C..",     "..%5cb",
                                        "b%5c..%2fb", "%2f.",   ".%5c",   "%2e%2e%2f", "b%2f..%2fc" };
    for (size_t i = 0; i < sizeof dots / sizeof *dots; i++) {
        char raw[64];
        int n = sprintf(raw, "/a/%s", dots[i]);
        refuses(slice_make(raw, (size_t)n));
        n = sprintf(raw, "/a/%s/c", dots[i]);
        refuses(slice_make(raw, (size_t)n));
    }
    NORMAL("/a/..b", "/a/..b");
    NORMAL("/a/...", "/a/...");
    NORMAL("/a/%2e%2e%2e", "/a/...");
    NORMAL("/a/b..;c", "/a/b..;c");
    NORMAL("/a/%2ehidden", "/a/.hidden");
    NORMAL("/a/...;b", "/a/...;b");
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
    NORMAL("/%c3%a4", "/\xc3\xa4");
    NORMAL("/%5c", "/\\");
}

Test(target, encoded_controls_and_overlong_characters_are_refused) {
    for (int c = 0; c < 256; c++) {
        char raw[16];
        struct slice path;
        struct slice text = slice_make(raw, (size_t)sprintf(raw, "/a%%%02xb", c));
        int rc = path_normalise(text, &arena, &path);
        cr_assert_eq(rc, c < 0x20 || c == 0x7f ? -EINVAL : 0, "%s", raw);
    }
    BAD("/%c0%ae%c0%ae/a");
    BAD("/%c0%af");
    BAD("/%c1%9c");
    BAD("/%e0%80%af");
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
    BAD("/a\\b");
    BAD("/a\"b");
    BAD("/a<b>");
    BAD("/a{b}");
    BAD("/a`b");
    BAD("/a?b");
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
                cr_assert(memmem(raw, len + 1, "..", 2) || memchr(raw, '%', len + 1), "%.*s",
                          SLICE_ARG(text));
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
    parses("GET", "/a?[]{}|^`\\%zz%", "", "/a", "/a", "[]{}|^`\\%zz%");
    parses("GET", "/[a]|^", "", "/[a]|^", "/[a]|^", NULL);
}

Test(target, absolute_form) {
    parses("GET", "http://h", "h", "/", "/", NULL);
    parses("GET", "http://h?q", "h", "/", "/", "q");
    parses("GET", "HTTP://h:80/a/../b?q", "h:80", "/a/../b", "/b", "q");
    parses("GET", "https://[::1]:8443/", "[::1]:8443", "/", "/", NULL);
}

Test(target, asterisk_and_connect) {
    parses("OPTIONS", "*", "", "*", "*", NULL);
    parses("OPTIONS", "http://h", "h", "*", "*", NULL);
    parses("OPTIONS", "http://h/", "h", "/", "/", NULL);
    parses("CONNECT", "h:443", "h:443", "h:443", "h:443", NULL);
    struct request request;
    cr_assert_eq(parse("GET", SLICE_LIT("*"), &request), -EINVAL);
    cr_assert_eq(parse("OPTIONS", SLICE_LIT("*/"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT("/"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT(""), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT("h"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT("h:"), &request), -EINVAL);
    cr_assert_eq(parse("CONNECT", SLICE_LIT("[::1]"), &request), -EINVAL);
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
        SLICE_LIT("http://a,b/"),
        SLICE_LIT("/a?\"b\""),
        SLICE_LIT("/a?<b>"),
        SLICE_LIT("/a\\..\\b"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct request request;
        cr_assert_eq(parse("GET", bad[i], &request), -EINVAL, "\"%.*s\" was taken", SLICE_ARG(bad[i]));
    }
}

Test(target, authorities) {
    static const struct slice good[] = {
        SLICE_LIT("h"),     SLICE_LIT("h.example:80"),           SLICE_LIT("127.0.0.1"),
        SLICE_LIT("[::1]"), SLICE_LIT("[::ffff:1.2.3.4]:65535"), SLICE_LIT("h:"),
        SLICE_LIT("a_b~c"), SLICE_LIT("xn--4ca.example:1")
    };
    static const struct slice bad[] = { SLICE_LIT(""),
                                        SLICE_LIT(":80"),
                                        SLICE_LIT("h:0"),
                                        SLICE_LIT("h:000080"),
                                        SLICE_LIT("h:8a"),
                                        SLICE_LIT("a,b"),
                                        SLICE_LIT("a, b"),
                                        SLICE_LIT("%41"),
                                        SLICE_LIT("a;b"),
                                        SLICE_LIT("a&b"),
                                        SLICE_LIT("[fe80::1%25eth0]"),
                                        SLICE_LIT("[fe80::1%eth0]"),
                                        SLICE_LIT("[1:2]"),
                                        SLICE_LIT("[1.2.3.4]"),
                                        SLICE_LIT("[v1.a]"),
                                        SLICE_LIT("[::1\0]"),
                                        SLICE_LIT("::1"),
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

// ---- readings ---------------------------------------------------------------------------------------------

// All readings of a target's path, each once, parted by blanks.
static const char *readings(const char *target) {
    static char text[4096];
    static char all[12][256];
    struct request request;
    size_t n = 0;
    cr_assert_eq(parse("GET", slice_of(target), &request), 0, "%s", target);
    unsigned count = path_reading_count(request.doubts);
    cr_assert_leq(count, 12);
    text[0] = 0;
    for (unsigned i = 0; i < count; i++) {
        struct slice reading = path_reading(request.raw_path, request.doubts, i, all[i]);
        cr_assert_leq(reading.len, request.raw_path.len + 1);
        all[i][reading.len] = 0;
        if (i == 0)
            cr_assert(slice_eq(reading, request.path), "%s: %s", target, all[i]);
        bool known = false;
        for (unsigned j = 0; j < i; j++)
            known |= strcmp(all[i], all[j]) == 0;
        if (!known)
            n += (size_t)sprintf(text + n, "%s%s", i ? " " : "", all[i]);
    }
    return text;
}
#define READ(target, expected) cr_assert_str_eq(readings(target), expected, "%s", readings(target))

Test(target, a_path_without_doubts_has_one_reading) {
    READ("/", "/");
    READ("/a/b.c?d//e", "/a/b.c");
    READ("/%41%20b/", "/A b/");
    READ("/caf%c3%a9", "/caf\xc3\xa9");
}

Test(target, doubtful_paths_have_several) {
    READ("//a", "/a //a");
    READ("/x/../a", "/a /x/../a");
    READ("/x//../a", "/a /x/../a /x/a /x//../a");
    READ("/./a/", "/a/ /./a/");
    READ("/@a%2fb", "/@a/b /@a%2Fb");
    READ("/a%5cb", "/a\\b /a/b");
    READ("/a%2f%5Cb", "/a/\\b /a%2F\\b /a/b /a//b");
    READ("/a%2fb/../c", "/a/c /a/b/../c /c /a%2Fb/../c");
}
