// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/1 parser: the same result however the input is cut, and everything refused that two parsers might
// read in two ways (RFC 9112, 11). Each case is fed whole, byte by byte and split at every point.
#include "http/h1_parser.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

// What a parse came to, as text, so that two of them can be compared.
struct outcome {
    enum h1_result result;
    unsigned status;
    const char *why;
    size_t used;
    char text[8192];
};

static struct h1_parser parser;
static char body[65536];
static size_t body_len;
static unsigned heads;

static int on_head(struct h1_parser *p) {
    cr_assert_eq(p, &parser);
    heads++;
    return 0;
}

static int on_body(struct h1_parser *p, const char *at, size_t len) {
    (void)p;
    cr_assert_leq(body_len + len, sizeof body);
    memcpy(body + body_len, at, len);
    body_len += len;
    return 0;
}

static const struct h1_parser_ops ops = { .head = on_head, .body = on_body };
static const struct h1_limits usual = { 4096, 20, 256, 0, 0 };
static struct h1_limits limits = { 4096, 20, 256, 0, 0 };

static void print(struct outcome *to, size_t *n, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void print(struct outcome *to, size_t *n, const char *format, ...) {
    va_list args;
    va_start(args, format);
    *n += (size_t)vsnprintf(to->text + *n, sizeof to->text - *n, format, args);
    va_end(args);
    cr_assert_lt(*n, sizeof to->text);
}

static void print_fields(struct outcome *to, size_t *n, const struct headers *headers) {
    for (uint32_t i = 0; i < headers->count; i++)
        print(to, n, "%.*s: %.*s\n", SLICE_ARG(headers->at[i].name), SLICE_ARG(headers->at[i].value));
}

enum kind { REQUEST, RESPONSE, RESPONSE_TO_HEAD };

// Feeds the pieces that `cut` says: 0 whole, 1 byte by byte, else the first piece has cut - 1 bytes.
static struct outcome feed(enum kind kind, struct slice input, size_t cut, bool eof) {
    static struct request request;
    static struct response response;
    static struct outcome outcome;
    struct arena arena;
    size_t n = 0;
    arena_init(&arena);
    outcome = (struct outcome){ .result = H1_MORE };
    request = (struct request){ 0 };
    response = (struct response){ 0 };
    body_len = heads = 0;
    if (kind == REQUEST)
        h1_parser_request(&parser, &ops, limits, &arena, &request);
    else
        h1_parser_response(&parser, &ops, limits, &arena, &response, kind == RESPONSE_TO_HEAD);
    while (outcome.used < input.len && outcome.result == H1_MORE) {
        size_t len = cut == 1 ? 1 : cut && outcome.used == 0 ? cut - 1 : input.len - outcome.used;
        // A copy of its own: reading beyond the piece, or keeping a pointer into it, is seen by the
        // sanitizer.
        char *piece = malloc(len);
        size_t used = len;
        memcpy(piece, input.at + outcome.used, len);
        outcome.result = h1_parser_feed(&parser, piece, len, &used);
        memset(piece, '!', len);
        free(piece);
        cr_assert_leq(used, len);
        if (outcome.result == H1_MORE)
            cr_assert_eq(used, len);
        outcome.used += used;
    }
    if (eof && outcome.result == H1_MORE && h1_parser_eof(&parser))
        outcome.result = H1_DONE;
    if (outcome.result == H1_BAD) {
        outcome.status = parser.error_status;
        outcome.why = parser.error_why;
        outcome.used = 0;
        cr_assert(outcome.status != 0 && outcome.why && *outcome.why, "a refusal without status or reason");
    } else {
        cr_assert_eq(parser.error_status, 0);
        if (kind == REQUEST)
            print(&outcome, &n, "%.*s|%.*s|%.*s|%u.%u|%d|%llu|%d%d%d\n", SLICE_ARG(request.method),
                  SLICE_ARG(request.target), SLICE_ARG(request.path), request.major, request.minor,
                  request.framing, (unsigned long long)request.length, request.expect_continue,
                  request.upgrade, request.head);
        else
            print(&outcome, &n, "%u|%.*s|%u.%u|%d|%llu|%d\n", response.status, SLICE_ARG(response.reason),
                  response.major, response.minor, response.framing, (unsigned long long)response.length,
                  response.keep_alive);
        print_fields(&outcome, &n, kind == REQUEST ? &request.headers : &response.headers);
        print(&outcome, &n, "-- %zu: %.*s\n", body_len, (int)body_len, body);
        print_fields(&outcome, &n, kind == REQUEST ? &request.trailers : &response.trailers);
        if (outcome.result == H1_DONE)
            cr_assert_eq(heads, 1);
    }
    arena_release(&arena);
    return outcome;
}

// Whole, byte by byte and at every split point: one result.
static struct outcome parse_as(enum kind kind, struct slice input, bool eof) {
    static struct outcome whole;
    whole = feed(kind, input, 0, eof);
    for (size_t cut = 1; cut <= input.len; cut++) {
        struct outcome other = feed(kind, input, cut, eof);
        cr_assert_eq(other.result, whole.result, "cut %zu of \"%.*s\": %d instead of %d (%s; %s)", cut,
                     SLICE_ARG(input), other.result, whole.result, other.why, whole.why);
        cr_assert_eq(other.status, whole.status, "cut %zu of \"%.*s\": %u %s instead of %u %s", cut,
                     SLICE_ARG(input), other.status, other.why, whole.status, whole.why);
        cr_assert_eq(other.used, whole.used, "cut %zu of \"%.*s\"", cut, SLICE_ARG(input));
        cr_assert_str_eq(other.text, whole.text, "cut %zu of \"%.*s\":\n%s\n%s", cut, SLICE_ARG(input),
                         other.text, whole.text);
    }
    return whole;
}

static void taken(enum kind kind, struct slice input, bool eof, size_t left, const char *text) {
    struct outcome outcome = parse_as(kind, input, eof);
    cr_assert_eq(outcome.result, H1_DONE, "\"%.*s\": %d, %u %s", SLICE_ARG(input), outcome.result,
                 outcome.status, outcome.why);
    cr_assert_eq(input.len - outcome.used, left, "\"%.*s\": %zu bytes are left", SLICE_ARG(input),
                 input.len - outcome.used);
    cr_assert_str_eq(outcome.text, text, "\"%.*s\":\n%s", SLICE_ARG(input), outcome.text);
}
#define TAKEN(input, left, text)          taken(REQUEST, SLICE_LIT(input), false, left, text)
#define TAKEN_RESPONSE(input, left, text) taken(RESPONSE, SLICE_LIT(input), false, left, text)

static void refused(enum kind kind, struct slice input, unsigned status) {
    struct outcome outcome = parse_as(kind, input, false);
    cr_assert_eq(outcome.result, H1_BAD, "\"%.*s\" was taken (%d):\n%s", SLICE_ARG(input), outcome.result,
                 outcome.text);
    if (status)
        cr_assert_eq(outcome.status, status, "\"%.*s\": %u %s", SLICE_ARG(input), outcome.status,
                     outcome.why);
}
#define REFUSED(input, status)  refused(REQUEST, SLICE_LIT(input), status)
#define REFUSED_RESPONSE(input) refused(RESPONSE, SLICE_LIT(input), 0)

// ---- what is taken ----------------------------------------------------------------------------------------

Test(h1_parser, a_request_without_content) {
    TAKEN("GET /a/%62?q HTTP/1.1\r\nHost: h\r\nX-One:  two \t\r\nx-empty:\r\n\r\n", 0,
          "GET|/a/%62?q|/a/b|1.1|0|0|000\nHost: h\nX-One: two\nx-empty: \n-- 0: \n");
    TAKEN("GET / HTTP/1.0\r\n\r\n", 0, "GET|/|/|1.0|0|0|000\n-- 0: \n");
    TAKEN("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", 0, "HEAD|/|/|1.1|0|0|001\nHost: h\n-- 0: \n");
}

Test(h1_parser, what_follows_a_request_is_left) {
    TAKEN("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\n", 17,
          "GET|/|/|1.1|0|0|000\nHost: h\n-- 0: \n");
    TAKEN("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET", 3,
          "POST|/|/|1.1|1|3|000\nHost: h\nContent-Length: 3\n-- 3: abc\n");
    TAKEN("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 1,
          "POST|/|/|1.1|2|0|000\nHost: h\nTransfer-Encoding: chunked\n-- 0: \n");
    TAKEN("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nX", 1,
          "GET|/|/|1.1|0|0|000\nHost: h\nConnection: close\n-- 0: \n");
}

Test(h1_parser, empty_lines_before_a_request_are_passed_over) {
    TAKEN("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 0, "GET|/|/|1.1|0|0|000\nHost: h\n-- 0: \n");
}

Test(h1_parser, chunked_content_and_trailers) {
    TAKEN("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
          "Chunked\r\n\r\n3\r\nabc\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\n"
          "X-Sum: 1\r\nAuthorization: evil\r\n\r\n",
          0, "POST|/|/|1.1|2|0|000\nHost: h\nTransfer-Encoding: Chunked\n-- 13: abc0123456789\nX-Sum: 1\n");
}

Test(h1_parser, expectation_and_upgrade) {
    TAKEN("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 0\r\n\r\n", 0,
          "POST|/|/|1.1|1|0|100\nHost: h\nExpect: 100-Continue\nContent-Length: 0\n-- 0: \n");
    TAKEN(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05",
        2, "GET|/|/|1.1|0|0|010\nHost: h\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n-- 0: \n");
    // Upgrade without Connection, and in HTTP/1.0, mean nothing.
    TAKEN("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", 0,
          "GET|/|/|1.1|0|0|000\nHost: h\nUpgrade: websocket\n-- 0: \n");
    TAKEN("GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0,
          "GET|/|/|1.0|0|0|000\nConnection: Upgrade\nUpgrade: websocket\n-- 0: \n");
    // One to HTTP/2 would tunnel requests that nobody looks at.
    TAKEN("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", 0,
          "GET|/|/|1.1|0|0|000\nHost: h\nConnection: Upgrade\nUpgrade: websocket, H2C\n-- 0: \n");
}

Test(h1_parser, an_upgrade_with_content_reads_the_content) {
    TAKEN("POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nabGET",
          3, "POST|/|/|1.1|1|2|010\nHost: h\nConnection: Upgrade\nUpgrade: x\nContent-Length: 2\n-- 2: ab\n");
}

Test(h1_parser, host_agrees_with_an_absolute_target) {
    TAKEN("GET http://a:81/x HTTP/1.1\r\nHost: evil\r\n\r\n", 0,
          "GET|http://a:81/x|/x|1.1|0|0|000\nHost: a:81\n-- 0: \n");
    TAKEN("GET http://a HTTP/1.0\r\n\r\n", 0, "GET|http://a|/|1.0|0|0|000\nhost: a\n-- 0: \n");
}

Test(h1_parser, asterisk_and_connect) {
    TAKEN("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 0, "OPTIONS|*|*|1.1|0|0|000\nHost: h\n-- 0: \n");
    TAKEN("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 0,
          "CONNECT|h:443|h:443|1.1|0|0|000\nHost: h:443\n-- 0: \n");
    REFUSED("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("CONNECT h:443 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 400);
    REFUSED("CONNECT h:443 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

Test(h1_parser, responses) {
    TAKEN_RESPONSE("HTTP/1.1 200 All Fine\r\nContent-Length: 2\r\n\r\nabHTTP", 4,
                   "200|All Fine|1.1|1|2|1\nContent-Length: 2\n-- 2: ab\n");
    TAKEN_RESPONSE("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 0,
                   "200||1.1|1|0|1\nContent-Length: 0\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: "
                   "close\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
                   0, "200|OK|1.1|2|0|0\nTransfer-Encoding: chunked\nConnection: close\n-- 1: a\nX: y\n");
    TAKEN_RESPONSE("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 0,
                   "200|OK|1.0|1|1|0\nContent-Length: 1\n-- 1: a\n");
    TAKEN_RESPONSE("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", 0,
                   "200|OK|1.0|1|1|1\nContent-Length: 1\nConnection: keep-alive\n-- 1: a\n");
}

Test(h1_parser, responses_that_never_have_content) {
    TAKEN_RESPONSE("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/", 5,
                   "204|No Content|1.1|0|5|0\nContent-Length: 5\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\nHTTP/", 5,
                   "204|No Content|1.1|0|0|1\nContent-Length: 0\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/", 5,
                   "304|Not Modified|1.1|0|5|1\nContent-Length: 5\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/", 5,
                   "304|Not Modified|1.1|0|0|1\nTransfer-Encoding: chunked\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", 12, "100|Continue|1.1|0|0|1\n-- 0: \n");
    TAKEN_RESPONSE("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200", 12,
                   "103|Early Hints|1.1|0|0|1\nLink: x\n-- 0: \n");
    taken(RESPONSE_TO_HEAD, SLICE_LIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/"), false, 5,
          "200|OK|1.1|0|5|1\nContent-Length: 5\n-- 0: \n");
    taken(RESPONSE_TO_HEAD, SLICE_LIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nH"), false, 1,
          "200|OK|1.1|0|0|1\nTransfer-Encoding: chunked\n-- 0: \n");
    taken(RESPONSE_TO_HEAD, SLICE_LIT("HTTP/1.1 200 OK\r\n\r\nH"), false, 1, "200|OK|1.1|0|0|1\n-- 0: \n");
}

Test(h1_parser, switching_protocols_ends_the_message) {
    TAKEN_RESPONSE(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\x81\x05hello", 7,
        "101|Switching Protocols|1.1|0|0|1\nConnection: Upgrade\nUpgrade: x\n-- 0: \n");
}

Test(h1_parser, content_until_the_end_of_the_connection) {
    taken(RESPONSE, SLICE_LIT("HTTP/1.1 200 OK\r\n\r\nabc"), true, 0, "200|OK|1.1|3|0|0\n-- 3: abc\n");
    taken(RESPONSE, SLICE_LIT("HTTP/1.0 200 OK\r\n\r\n"), true, 0, "200|OK|1.0|3|0|0\n-- 0: \n");
}

Test(h1_parser, an_early_end_is_no_end) {
    static const struct slice cut_short[] = {
        SLICE_LIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd"),
        SLICE_LIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"),
        SLICE_LIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n"),
        SLICE_LIT("HTTP/1.1 200 OK\r\nX: y\r\n"),
        SLICE_LIT("HTTP/1.1 200 OK\r\n\r"),
        SLICE_LIT("HTTP"),
    };
    for (size_t i = 0; i < sizeof cut_short / sizeof *cut_short; i++)
        cr_assert_eq(parse_as(RESPONSE, cut_short[i], true).result, H1_MORE, "%.*s", SLICE_ARG(cut_short[i]));
    cr_assert_eq(parse_as(REQUEST, SLICE_LIT("GET / HTTP/1.1\r\nHost: h\r\n"), true).result, H1_MORE);
}

// ---- what is refused --------------------------------------------------------------------------------------

#define POST "POST / HTTP/1.1\r\nHost: h\r\n"

Test(h1_parser, two_lengths_are_refused) {
    REFUSED(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5\r\ncontent-length: 6\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400);
}

Test(h1_parser, lengths_that_are_no_number_are_refused) {
    REFUSED(POST "Content-Length: +5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: -5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5,5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5, 5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5 5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 0x5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5a\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5.0\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: \"5\"\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length:\r\n\r\n", 400);
    REFUSED(POST "Content-Length: \r\n\r\n", 400);
    REFUSED(POST "Content-Length: 18446744073709551616\r\n\r\n", 400);
    REFUSED(POST "Content-Length: 9223372036854775808\r\n\r\n", 400);
    REFUSED(POST "Content-Length:\t5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 5\t\r\n\r\nabcde", 400);
    REFUSED(POST "Content_Length: 5\r\n\r\nabcde", 400);
    REFUSED(POST "content-lengtH: 5\r\ncontent_length: 5\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: 99999999999999999999999999\r\n\r\n", 400);
    REFUSED(POST "Content-Length: 5\0\r\n\r\nabcde", 400);
    REFUSED(POST "Content-Length: \v5\r\n\r\nabcde", 400);
}

Test(h1_parser, a_length_may_have_zeros_and_spaces_around) {
    TAKEN(POST "Content-Length:  005 \r\n\r\nabcde", 0,
          "POST|/|/|1.1|1|5|000\nHost: h\nContent-Length: 005\n-- 5: abcde\n");
}

Test(h1_parser, codings_that_are_not_chunked_alone_are_refused) {
    REFUSED(POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501);
    REFUSED(POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 0);
    REFUSED(POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: \x0b"
                 "chunked\r\n\r\n0\r\n\r\n",
            400);
    REFUSED(POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: \t chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: gzip,chunked, chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(POST "Transfer-Encoding: gzip,,chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

Test(h1_parser, lines_that_are_read_in_two_ways_are_refused) {
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400);  // continued
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX:\r\n b\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\nHost: h\r\n\r\n", 400);  // bare LF
    REFUSED("GET / HTTP/1.1\r\nHost: h\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\n\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n", 400);
    REFUSED("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\rX: a\r\n\r\n", 400);  // bare CR
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\rb\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 0);
}

Test(h1_parser, names_that_are_read_in_two_ways_are_refused) {
    REFUSED("GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost\t: h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX\0Y: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX\x7f: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\nX\xc3\xa4: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\n\"X\": a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h\r\n(X): a\r\n\r\n", 400);
}

Test(h1_parser, control_characters_in_values_are_refused) {
    for (int c = 0; c < 0x80; c++) {
        char text[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a?b\r\n\r\n";
        text[sizeof text - 7] = (char)c;
        struct slice input = slice_make(text, sizeof text - 1);
        cr_assert_eq(memchr(text, '?', sizeof text), c == '?' ? memchr(text, '?', sizeof text) : NULL);
        enum h1_result result = parse_as(REQUEST, input, false).result;
        cr_assert_eq(result, (c < 0x20 && c != '\t') || c == 0x7f ? H1_BAD : H1_DONE, "character %d", c);
    }
}

Test(h1_parser, one_host_in_1_1) {
    REFUSED("GET / HTTP/1.1\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    REFUSED("GET http://a/ HTTP/1.1\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.0\r\nHost:\r\n\r\n", 400);
}

Test(h1_parser, request_lines_that_are_read_in_two_ways_are_refused) {
    REFUSED("GET /\r\n\r\n", 400);  // HTTP/0.9
    REFUSED("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 0);
    REFUSED("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED(" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /# HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

Test(h1_parser, any_token_is_a_method) {
    TAKEN("get / HTTP/1.1\r\nHost: h\r\n\r\n", 0, "get|/|/|1.1|0|0|000\nHost: h\n-- 0: \n");
    TAKEN("\r\nBREW!#$%&'*+-.^_`|~09 / HTTP/1.1\r\nHost: h\r\n\r\n", 0,
          "BREW!#$%&'*+-.^_`|~09|/|/|1.1|0|0|000\nHost: h\n-- 0: \n");
    TAKEN("X / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabX", 1,
          "X|/|/|1.1|1|2|000\nHost: h\nContent-Length: 2\n-- 2: ab\n");
    TAKEN("SOURCE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0,
          "SOURCE|/|/|1.1|2|0|000\nHost: h\nTransfer-Encoding: chunked\n-- 0: \n");
    REFUSED("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("G\xc3\xa4T / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("G\0T / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("\x16\x03\x01", 400);  // at once: a TLS greeting has no space
    static const char sixty_four[] = "ABCDEFGHIJKLMNOPABCDEFGHIJKLMNOPABCDEFGHIJKLMNOPABCDEFGHIJKLMNOP";
    char text[128];
    size_t n = (size_t)sprintf(text, "%s / HTTP/1.1\r\nHost: h\r\n\r\n", sixty_four);
    cr_assert_eq(parse_as(REQUEST, slice_make(text, n), false).result, H1_DONE);
    n = (size_t)sprintf(text, "%sQ", sixty_four);
    refused(REQUEST, slice_make(text, n), 501);
}

Test(h1_parser, versions) {
    REFUSED("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET / http/1.1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET / HTTP/1\r\nHost: h\r\n\r\n", 0);
    REFUSED("GET / ICE/1.0\r\nHost: h\r\n\r\n", 0);
    REFUSED("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0);
    REFUSED("SOURCE / ICE/1.0\r\nHost: h\r\n\r\n", 0);
    REFUSED("OPTIONS / RTSP/1.0\r\nHost: h\r\n\r\n", 0);
}

#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

Test(h1_parser, chunks_that_are_read_in_two_ways_are_refused) {
    REFUSED(CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "+3\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED " 3\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "g\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\rabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\r\nabc\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\r\nabc0\r\n\r\n", 400);
    REFUSED(CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a\rb\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\t\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3 ;a\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a=\x01\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a=\"\x7f\"\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a=\"b\nc\"\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3;a=\"b\rc\"\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\r\r\nabc\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "3\r\nabc\r\r\n0\r\n\r\n", 400);
    REFUSED(CHUNKED "0\n\r\n", 400);
    REFUSED(CHUNKED "0\r\n\n", 400);
}

Test(h1_parser, trailers_keep_the_rules_of_fields) {
    REFUSED(CHUNKED "0\r\nX : a\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nX: a\nY: b\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nX: a\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nX: a\r\n b\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nX: a\x01\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\n: a\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nContent-Length: 3\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nX: a\r\nHost: evil\r\n\r\n", 400);
    REFUSED(CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

Test(h1_parser, limits_hold) {
    char text[16384];
    size_t n = (size_t)sprintf(text, "GET /");
    memset(text + n, 'a', 255);
    n += 255;
    size_t end = n + (size_t)sprintf(text + n, " HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert_eq(parse_as(REQUEST, slice_make(text, end), false).result, H1_DONE);
    end = n + (size_t)sprintf(text + n, "a HTTP/1.1\r\nHost: h\r\n\r\n");
    refused(REQUEST, slice_make(text, end), 414);
    // Not before the end only: an endless one is refused where the limit is passed.
    refused(REQUEST, slice_make(text, 262), 414);

    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 19; i++)
        n += (size_t)sprintf(text + n, "X: y\r\n");
    end = n + (size_t)sprintf(text + n, "\r\n");
    cr_assert_eq(parse_as(REQUEST, slice_make(text, end), false).result, H1_DONE);
    end = n + (size_t)sprintf(text + n, "X: y\r\n\r\n");
    refused(REQUEST, slice_make(text, end), 431);

    // Close to max_head, in whatever pieces.
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\n");
    memset(text + n, 'n', 4000);
    end = n + 4000 + (size_t)sprintf(text + n + 4000, ": v\r\n\r\n");
    cr_assert_eq(parse_as(REQUEST, slice_make(text, end), false).result, H1_DONE);

    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
    memset(text + n, 'v', 4200);
    cr_assert_eq(feed(REQUEST, slice_make(text, n + 4200), 0, false).status, 431);
    cr_assert_eq(feed(REQUEST, slice_make(text, n + 4200), 1, false).status, 431);
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\n");
    memset(text + n, 'n', 4200);
    cr_assert_eq(feed(REQUEST, slice_make(text, n + 4200), 0, false).status, 431);
    n = (size_t)sprintf(text, "HTTP/1.1 200 ");
    memset(text + n, 'r', 4200);
    cr_assert_eq(feed(RESPONSE, slice_make(text, n + 4200), 1, false).result, H1_BAD);
}

static struct outcome feed_limited(struct slice input, size_t cut, struct h1_limits other) {
    limits = other;
    struct outcome outcome = feed(REQUEST, input, cut, false);
    limits = usual;
    return outcome;
}

Test(h1_parser, a_line_is_bounded) {
    struct h1_limits narrow = usual;
    char text[256];
    narrow.max_line = 40;
    size_t n = (size_t)sprintf(text, "GET /%0100d HTTP/1.1\r\nHost: h\r\nX: %036d\r\n\r\n", 0, 0);
    for (size_t cut = 0; cut <= n; cut++)
        cr_assert_eq(feed_limited(slice_make(text, n), cut, narrow).result, H1_DONE);
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\nX: %038d", 0);
    for (size_t cut = 0; cut <= n; cut++)
        cr_assert_eq(feed_limited(slice_make(text, n), cut, narrow).status, 431);
    n = (size_t)sprintf(text, CHUNKED "1;%045d\r\na\r\n0\r\n\r\n", 0);
    for (size_t cut = 0; cut <= n; cut++)
        cr_assert_eq(feed_limited(slice_make(text, n), cut, narrow).status, 400);
    n = (size_t)sprintf(text, CHUNKED "0\r\nX: %045d\r\n\r\n", 0);
    for (size_t cut = 0; cut <= n; cut++)
        cr_assert_eq(feed_limited(slice_make(text, n), cut, narrow).status, 431);
}

// Trailers belong to what a request's head may take.
Test(h1_parser, trailers_count_as_fields_of_the_head) {
    static char text[8192];
    size_t n = (size_t)sprintf(text, CHUNKED "0\r\n");
    for (int i = 0; i < 19; i++)
        n += (size_t)sprintf(text + n, "X: y\r\n");
    n += (size_t)sprintf(text + n, "\r\n");
    refused(REQUEST, slice_make(text, n), 431);
    n = (size_t)sprintf(text, POST "Transfer-Encoding: chunked\r\nX: %02000d\r\n\r\n0\r\nX: %02100d\r\n\r\n",
                        0, 0);
    cr_assert_eq(feed(REQUEST, slice_make(text, n), 0, false).status, 431);
    cr_assert_eq(feed(REQUEST, slice_make(text, n), 1, false).status, 431);
}

// One-byte chunks cost more than what they bring: so many, and no more.
Test(h1_parser, chunk_framing_is_bounded) {
    static char text[65536];
    struct h1_limits narrow = usual;
    narrow.max_chunk_overhead = 1000;
    size_t n = (size_t)sprintf(text, CHUNKED);
    for (int i = 0; i < 240; i++)
        n += (size_t)sprintf(text + n, "1\r\na\r\n");
    size_t end = n + (size_t)sprintf(text + n, "0\r\n\r\n");
    for (size_t cut = 0; cut < 100; cut++)
        cr_assert_eq(feed_limited(slice_make(text, end), cut, narrow).result, H1_DONE);
    for (int i = 0; i < 20; i++)
        n += (size_t)sprintf(text + n, "1\r\na\r\n");
    cr_assert_eq(feed_limited(slice_make(text, n), 0, narrow).status, 400);
    cr_assert_eq(feed_limited(slice_make(text, n), 1, narrow).status, 400);
    // As long as there is more content than framing there is no end.
    n = (size_t)sprintf(text, CHUNKED);
    for (int i = 0; i < 600; i++)
        n += (size_t)sprintf(text + n, "6\r\nabcdef\r\n");
    n += (size_t)sprintf(text + n, "0\r\n\r\n");
    cr_assert_eq(feed_limited(slice_make(text, n), 0, narrow).result, H1_DONE);
    cr_assert_eq(feed_limited(slice_make(text, n), 1, narrow).result, H1_DONE);
}

// What is thrown away is bounded too: it would keep a worker busy for nothing.
Test(h1_parser, chunk_extensions_are_bounded) {
    static char text[20000];
    size_t n = (size_t)sprintf(text, CHUNKED "1;");
    memset(text + n, 'e', sizeof text - n);
    cr_assert_eq(feed(REQUEST, slice_make(text, sizeof text), n + 1, false).result, H1_BAD);
    cr_assert_eq(feed(REQUEST, slice_make(text, sizeof text), 1, false).result, H1_BAD);
    // The bound is for one extension, not for all of them together.
    n = (size_t)sprintf(text, CHUNKED);
    for (int i = 0; i < 100; i++)
        n += (size_t)sprintf(text + n, "1;%0100d\r\na\r\n", i);
    n += (size_t)sprintf(text + n, "0\r\n\r\n");
    cr_assert_eq(feed(REQUEST, slice_make(text, n), 1, false).result, H1_DONE);
    cr_assert_eq(feed(REQUEST, slice_make(text, n), 0, false).result, H1_DONE);
}

Test(h1_parser, empty_lines_before_a_request_are_bounded) {
    static char text[20000];
    for (size_t i = 0; i < sizeof text; i += 2)
        memcpy(text + i, "\r\n", 2);
    cr_assert_eq(feed(REQUEST, slice_make(text, sizeof text), 0, false).result, H1_BAD);
    cr_assert_eq(feed(REQUEST, slice_make(text, sizeof text), 1, false).result, H1_BAD);
}

Test(h1_parser, responses_keep_the_same_rules) {
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\nX: a\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nX : a\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200 O\x01K\r\n\r\n");
    REFUSED_RESPONSE("HTTP/2.0 200 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 099 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 600 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 20 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 2000 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 abc OK\r\n\r\n");
    REFUSED_RESPONSE("ICY 200 OK\r\n\r\n");
    REFUSED_RESPONSE("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n");
    REFUSED_RESPONSE("SSH-2.0-OpenSSH_9.2\r\n");
    REFUSED_RESPONSE("\r\nHTTP/1.1 200 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1  200 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 0200 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 200OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.2 200 OK\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 103 Early\r\nContent-Length: 1\r\n\r\n");
    REFUSED_RESPONSE("HTTP/1.1 205 Reset\r\nContent-Length: 1\r\n\r\na");
    REFUSED_RESPONSE("HTTP/1.1 205 Reset\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
}
