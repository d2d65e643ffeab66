// SPDX-License-Identifier: BSD-2-Clause
// The HTTP/1 writer: one canonical form, whatever came in.
#include "http/h1_write.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct arena arena;
static struct queue out;
static struct request request;
static struct headers headers;

static void set_up(void) {
    arena_init(&arena);
    queue_init(&out);
    headers = (struct headers){ 0 };
    request =
        (struct request){ .method = SLICE_LIT("GET"), .target = SLICE_LIT("/a?b"), .major = 1, .minor = 1 };
}

static void tear_down(void) {
    queue_release(&out);
    arena_release(&arena);
}

TestSuite(h1_write, .init = set_up, .fini = tear_down);

static void add(struct headers *to, const char *name, const char *value) {
    cr_assert_eq(headers_add(to, &arena, slice_of(name), slice_of(value)), 0);
}

static void wrote(const char *expected) {
    char text[8192];
    size_t n = 0;
    struct slice view;
    cr_assert_lt(out.bytes, sizeof text);
    while (queue_peek(&out, &view)) {
        memcpy(text + n, view.at, view.len);
        n += view.len;
        struct span span;
        cr_assert(queue_take(&out, &span));
        block_unref(span.block);
    }
    text[n] = 0;
    cr_assert_str_eq(text, expected);
}

Test(h1_write, a_request_head) {
    add(&request.headers, "Host", "h");
    add(&request.headers, "X-Gone", "1");
    add(&request.headers, "x-empty", "");
    cr_assert_eq(headers_remove(&request.headers, SLICE_LIT("x-gone")), 1);
    cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
    wrote("GET /a?b HTTP/1.1\r\nHost: h\r\nx-empty: \r\n\r\n");
}

Test(h1_write, the_version_is_ours) {
    request.minor = 0;
    cr_assert_eq(h1_write_request(&out, &request, "close"), 0);
    wrote("GET /a?b HTTP/1.1\r\nconnection: close\r\n\r\n");
}

Test(h1_write, framing_is_said_once_and_by_us) {
    request.method = SLICE_LIT("POST");
    add(&request.headers, "Content-Length", "00003");
    add(&request.headers, "Host", "h");
    request.framing = BODY_LENGTH;
    request.length = 3;
    cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
    wrote("POST /a?b HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\n");
    request.headers.count = 0;
    add(&request.headers, "Transfer-Encoding", "ChUnKeD");
    request.framing = BODY_CHUNKED;
    cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
    wrote("POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
}

Test(h1_write, framing_fields_that_a_script_added_do_not_leave) {
    add(&request.headers, "content-length", "100");
    add(&request.headers, "transfer-encoding", "gzip");
    cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
    wrote("GET /a?b HTTP/1.1\r\n\r\n");
}

Test(h1_write, a_method_that_expects_content_is_told_that_there_is_none) {
    const char *methods[] = { "POST", "PUT" };
    for (int i = 0; i < 2; i++) {
        char expected[100];
        request.method = slice_of(methods[i]);
        cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
        snprintf(expected, sizeof expected, "%s /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n", methods[i]);
        wrote(expected);
    }
    request.method = SLICE_LIT("DELETE");
    cr_assert_eq(h1_write_request(&out, &request, NULL), 0);
    wrote("DELETE /a?b HTTP/1.1\r\n\r\n");
}

Test(h1_write, the_largest_length) {
    request.framing = BODY_LENGTH;
    request.length = UINT64_MAX;
    cr_assert_eq(h1_write_request(&out, &request, "upgrade"), 0);
    wrote("GET /a?b HTTP/1.1\r\ncontent-length: 18446744073709551615\r\nconnection: upgrade\r\n\r\n");
}

Test(h1_write, a_response_head) {
    add(&headers, "Content-Length", "7");
    add(&headers, "Set-Cookie", "a");
    add(&headers, "Set-Cookie", "b");
    add(&headers, "Transfer-Encoding", "chunked");
    cr_assert_eq(h1_write_response(&out, 200, SLICE_LIT("OK"), &headers, BODY_LENGTH, 5, false, NULL), 0);
    wrote("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 5\r\n\r\n");
    cr_assert_eq(h1_write_response(&out, 200, SLICE_LIT(""), &headers, BODY_CHUNKED, 0, false, "close"), 0);
    wrote("HTTP/1.1 200 \r\nSet-Cookie: a\r\nSet-Cookie: b\r\ntransfer-encoding: chunked\r\nconnection: "
          "close\r\n\r\n");
    cr_assert_eq(h1_write_response(&out, 304, SLICE_LIT("Not Modified"), &headers, BODY_NONE, 0, true, NULL),
                 0);
    wrote("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n");
    cr_assert_eq(h1_write_response(&out, 200, SLICE_LIT("OK"), &headers, BODY_CLOSE, 0, false, "close"), 0);
    wrote("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nconnection: close\r\n\r\n");
}

Test(h1_write, a_head_larger_than_a_block) {
    static char value[100001];
    memset(value, 'v', 100000);
    add(&headers, "X", value);
    cr_assert_eq(h1_write_response(&out, 200, SLICE_LIT("OK"), &headers, BODY_NONE, 0, false, NULL), 0);
    cr_assert_eq(out.bytes, 17 + 3 + 100000 + 2 + 2);
}

// A span in a receive buffer: scarce, so nothing may be written behind it.
static unsigned released;
static void release(struct block *block) {
    released++;
    free(block);
}

static struct span received(const char *text) {
    struct block *block = malloc(sizeof *block + strlen(text));
    *block = (struct block){ .base = (char *)(block + 1),
                             .size = (uint32_t)strlen(text),
                             .used = (uint32_t)strlen(text),
                             .refs = 1,
                             .scarce = true,
                             .release = release };
    memcpy(block->base, text, strlen(text));
    return (struct span){ block, block->base, (uint32_t)strlen(text) };
}

static void put(struct queue *queue, const char *text) {
    cr_assert_eq(queue_put_whole(queue, received(text)), 0);
}

Test(h1_write, chunks) {
    struct queue body;
    char long_text[1001];
    memset(long_text, 'z', 1000);
    long_text[1000] = 0;
    queue_init(&body);
    put(&body, "abc");
    put(&body, "");  // nothing: would be read as the end
    put(&body, "0123456789abcdef");
    put(&body, long_text);
    cr_assert_eq(h1_write_body(&out, &body, true), 0);
    cr_assert(queue_empty(&body));
    struct headers none = { 0 };
    cr_assert_eq(h1_write_last_chunk(&out, &none), 0);
    char expected[1200];
    sprintf(expected, "3\r\nabc\r\n10\r\n0123456789abcdef\r\n3e8\r\n%s\r\n0\r\n\r\n", long_text);
    wrote(expected);
    cr_assert_eq(released, 4);
}

Test(h1_write, a_body_of_known_length_goes_as_it_is) {
    struct queue body;
    queue_init(&body);
    put(&body, "abc");
    put(&body, "def");
    cr_assert_eq(h1_write_body(&out, &body, false), 0);
    put(&body, "ghi");
    cr_assert_eq(h1_write_body(&out, &body, false), 0);
    cr_assert_eq(out.bytes, 9);
    wrote("abcdefghi");
    cr_assert_eq(released, 3);
}

Test(h1_write, trailers) {
    add(&headers, "X-Sum", "1");
    add(&headers, "X-Gone", "2");
    headers.at[1].name.len = 0;
    add(&headers, "Content-Length", "3");
    cr_assert_eq(h1_write_last_chunk(&out, &headers), 0);
    wrote("0\r\nX-Sum: 1\r\n\r\n");
}
