// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for responses: the first byte says where the input is cut, the second whether it answers a
// HEAD. The parse must come to the same whole and cut, and a response that is taken must read the same when
// it has been written again.
// Build as fuzz_request.c; run with t/fuzz/corpus/response
#include "base/list.h"
#include "http/h1_parser.h"
#include "http/h1_write.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct parse {
    struct h1_parser parser;
    struct arena arena;
    struct response response;
    struct queue body;
    enum h1_result result;
    size_t used;
};

static int on_head(struct h1_parser *parser) {
    (void)parser;
    return 0;
}

static int on_body(struct h1_parser *parser, const char *at, size_t len) {
    struct parse *parse = container_of(parser, struct parse, parser);
    return queue_copy(&parse->body, at, len);
}

static const struct h1_parser_ops ops = { .head = on_head, .body = on_body };

static void feed(struct parse *parse, const char *at, size_t len) {
    size_t used = len;
    char *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    memcpy(copy, at, len);
    parse->result = h1_parser_feed(&parse->parser, copy, len, &used);
    free(copy);
    if (used > len || (parse->result == H1_MORE && used != len))
        abort();
    parse->used += used;
}

static struct parse *parse(const char *at, size_t len, size_t cut, bool to_head) {
    struct parse *to = calloc(1, sizeof *to);
    if (!to)
        abort();
    arena_init(&to->arena);
    queue_init(&to->body);
    h1_parser_response(&to->parser, &ops, (struct h1_limits){ 16384, 100, 0 }, &to->arena, &to->response,
                       to_head);
    if (cut > len)
        cut = len;
    if (cut > 0)
        feed(to, at, cut);
    if (to->result == H1_MORE && cut < len)
        feed(to, at + cut, len - cut);
    if (to->result == H1_MORE && h1_parser_eof(&to->parser))
        to->result = H1_DONE;
    return to;
}

static void parse_free(struct parse *parse) {
    queue_release(&parse->body);
    arena_release(&parse->arena);
    free(parse);
}

static char *text_of(struct queue *queue, size_t *ret_len) {
    struct span span;
    char *text = malloc(queue->bytes + 1);
    size_t n = 0;
    while (queue_take(queue, &span)) {
        memcpy(text + n, span.at, span.len);
        n += span.len;
        block_unref(span.block);
    }
    *ret_len = n;
    return text;
}

static void written_again(struct parse *first, bool to_head) {
    const struct response *res = &first->response;
    struct queue out, copy;
    size_t body_len, len, again_len;
    queue_init(&out);
    queue_init(&copy);
    char *body = text_of(&first->body, &body_len);
    bool chunked = res->framing == BODY_CHUNKED;
    if (h1_write_response(&out, res->status, res->reason, &res->headers, res->framing, res->length,
                          res->framing == BODY_NONE, NULL) < 0 ||
        queue_copy(&copy, body, body_len) < 0 || h1_write_body(&out, &copy, chunked) < 0 ||
        (chunked && h1_write_last_chunk(&out, &res->trailers) < 0))
        abort();
    char *text = text_of(&out, &len);
    struct parse *second = parse(text, len, 0, to_head);
    if (second->result != H1_DONE || second->used != len || second->response.status != res->status)
        abort();
    char *again = text_of(&second->body, &again_len);
    if (again_len != body_len || memcmp(again, body, body_len) != 0)
        abort();
    free(again);
    parse_free(second);
    free(text);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len < 2)
        return 0;
    const char *at = (const char *)bytes + 2;
    bool to_head = bytes[1] & 1;
    struct parse *whole = parse(at, len - 2, 0, to_head), *cut = parse(at, len - 2, bytes[0], to_head);
    if (whole->result != cut->result || (whole->result != H1_BAD && whole->used != cut->used))
        abort();
    if (whole->result == H1_DONE) {
        if (whole->response.framing == BODY_NONE && whole->body.bytes > 0)
            abort();
        written_again(whole, to_head);
    }
    parse_free(whole);
    parse_free(cut);
    return 0;
}
