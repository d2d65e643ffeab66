// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for requests: the first byte says where the input is cut. The parse must come to the same whole
// and cut, and a request that is taken must read the same when it has been written again, which is what the
// next server sees.
// Build: clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -DLLHTTP_STRICT_MODE=1 -Isrc, this file,
// llhttp's sources, src/http/{h1_parser,h1_write,message,rules,target}.c and the sources of src/base; run
// with t/fuzz/corpus/request
#include "base/list.h"
#include "http/h1_parser.h"
#include "http/h1_write.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct parse {
    struct h1_parser parser;
    struct arena arena;
    struct request request;
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
    char *copy =
        malloc(len ? len : 1);  // so that a read beyond the piece, or a pointer kept into it, is seen
    if (!copy)
        abort();
    memcpy(copy, at, len);
    parse->result = h1_parser_feed(&parse->parser, copy, len, &used);
    free(copy);
    if (used > len || (parse->result == H1_MORE && used != len))
        abort();
    parse->used += used;
    if ((parse->result == H1_BAD) != (parse->parser.error_status != 0))
        abort();
}

static struct parse *parse(const char *at, size_t len, size_t cut) {
    struct parse *to = calloc(1, sizeof *to);
    if (!to)
        abort();
    arena_init(&to->arena);
    queue_init(&to->body);
    h1_parser_request(&to->parser, &ops, (struct h1_limits){ 16384, 100, 8192 }, &to->arena, &to->request);
    if (cut > len)
        cut = len;
    if (cut > 0)
        feed(to, at, cut);
    if (to->result == H1_MORE && cut < len)
        feed(to, at + cut, len - cut);
    return to;
}

static void parse_free(struct parse *parse) {
    queue_release(&parse->body);
    arena_release(&parse->arena);
    free(parse);
}

// A queue's bytes in one piece.
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

static bool framing_field(const struct header *header) {
    return header->name.len == 0 || header->id == HEADER_content_length ||
        header->id == HEADER_transfer_encoding;
}

static void same_fields(const struct headers *a, const struct headers *b) {
    uint32_t j = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        if (framing_field(&a->at[i]))
            continue;
        while (j < b->count && framing_field(&b->at[j]))
            j++;
        if (j == b->count || !slice_eq(a->at[i].name, b->at[j].name) ||
            !slice_eq(a->at[i].value, b->at[j].value))
            abort();
        j++;
    }
}

static void written_again(struct parse *first) {
    struct queue out;
    size_t body_len, len, again_len;
    queue_init(&out);
    char *body = text_of(&first->body, &body_len);
    struct queue copy;
    queue_init(&copy);
    bool chunked = first->request.framing == BODY_CHUNKED;
    if (h1_write_request(&out, &first->request, NULL) < 0 || queue_copy(&copy, body, body_len) < 0 ||
        h1_write_body(&out, &copy, chunked) < 0 ||
        (chunked && h1_write_last_chunk(&out, &first->request.trailers) < 0))
        abort();
    char *text = text_of(&out, &len);
    struct parse *second = parse(text, len, 0);
    if (first->request.minor == 1 ||
        headers_find(&first->request.headers, HEADER_host)) {  // the exchange adds a missing Host
        if (second->result != H1_DONE || second->used != len)
            abort();
        char *again = text_of(&second->body, &again_len);
        if (again_len != body_len || memcmp(again, body, body_len) != 0)
            abort();
        free(again);
        if (!slice_eq(first->request.method, second->request.method) ||
            !slice_eq(first->request.target, second->request.target) ||
            !slice_eq(first->request.path, second->request.path) ||
            !slice_eq(first->request.authority, second->request.authority))
            abort();
        same_fields(&first->request.headers, &second->request.headers);
        same_fields(&first->request.trailers, &second->request.trailers);
    }
    parse_free(second);
    free(text);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0)
        return 0;
    const char *at = (const char *)bytes + 1;
    struct parse *whole = parse(at, len - 1, 0), *cut = parse(at, len - 1, bytes[0]);
    // Which of several faults is named may depend on where the input was cut.
    if (whole->result != cut->result || (whole->result != H1_BAD && whole->used != cut->used))
        abort();
    if (whole->result == H1_DONE) {
        const struct slice path = whole->request.path;
        bool star = slice_eq(path, SLICE_LIT("*")),
             connect = slice_eq(whole->request.method, SLICE_LIT("CONNECT"));
        if (!star && !connect && (path.len == 0 || path.at[0] != '/' || memmem(path.at, path.len, "/../", 4)))
            abort();
        if (whole->request.framing == BODY_LENGTH && whole->request.length != whole->body.bytes)
            abort();
        written_again(whole);
    }
    parse_free(whole);
    parse_free(cut);
    return 0;
}
