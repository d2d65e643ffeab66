// SPDX-License-Identifier: BSD-2-Clause
// Feeds the HTTP/1 parser for the targets of requests and responses: an input whole, byte by byte and cut at random,
// which must all come to the same message. What is fed is freed at once, so that a pointer kept into it is seen.
#ifndef MOONGATE_FUZZ_H1_FEED_H
#define MOONGATE_FUZZ_H1_FEED_H

#include "base/block.h"
#include "base/list.h"
#include "fuzz.h"
#include "http/h1_parser.h"

struct feed {
    struct h1_parser parser;
    struct arena arena;
    struct request request;  // or
    struct response response;
    struct queue body;
    enum h1_result result;
    size_t used;
};

// What is to be parsed, and how.
struct feed_input {
    struct slice text;
    bool response, to_head;  // to_head: the response answers a HEAD
    bool tight;              // limits that a short input reaches
    bool roomy;              // for what was written again: it may have a field more, and a space in each
};

// Where an input is cut: nowhere, everywhere, or as a seed says.
enum feed_cut { CUT_NOWHERE, CUT_EVERYWHERE, CUT_SEED };

static inline int feed_on_head(struct h1_parser *parser) {
    (void)parser;
    return 0;
}

static inline int feed_on_body(struct h1_parser *parser, const char *at, size_t len) {
    return queue_copy(&container_of(parser, struct feed, parser)->body, at, len);
}

static inline void feed_piece(struct feed *feed, const char *at, size_t len) {
    size_t used = len;
    char *copy = fuzz_copy(at, len);
    feed->result = h1_parser_feed(&feed->parser, copy, len, &used);
    free(copy);
    must(used <= len);
    must(feed->result != H1_MORE || used == len);
    must((feed->result == H1_BAD) == (feed->parser.error_status != 0));
    must(feed->result != H1_BAD || (feed->parser.error_why && *feed->parser.error_why));
    feed->used += used;
}

static inline struct feed *feed_new(const struct feed_input *input, enum feed_cut cut, unsigned seed) {
    static const struct h1_parser_ops ops = { .head = feed_on_head, .body = feed_on_body };
    struct h1_limits wide = { .max_head = 16384, .max_headers = 100, .max_uri = 8192,
                              .max_line = 8192, .max_chunk_overhead = 65536 },
                     tight = { .max_head = 160, .max_headers = 4, .max_uri = 40,
                               .max_line = 60, .max_chunk_overhead = 50 };
    struct h1_limits limits = input->tight ? tight : wide;
    if (input->roomy)
        limits = (struct h1_limits){ .max_head = 65536, .max_headers = 200, .max_uri = 16384,
                                     .max_line = 16384, .max_chunk_overhead = 65536 };
    struct feed *feed = calloc(1, sizeof *feed);
    must(feed);
    arena_init(&feed->arena);
    queue_init(&feed->body);
    if (input->response)
        h1_parser_response(&feed->parser, &ops, limits, &feed->arena, &feed->response, input->to_head);
    else
        h1_parser_request(&feed->parser, &ops, limits, &feed->arena, &feed->request);
    struct slice rest = input->text;
    while (rest.len > 0 && feed->result == H1_MORE) {
        size_t n = cut == CUT_NOWHERE ? rest.len : 1;
        if (cut == CUT_SEED) {
            seed = seed * 1103515245u + 12345u;
            n += (seed >> 16) % 48;
        }
        n = n < rest.len ? n : rest.len;
        feed_piece(feed, rest.at, n);
        rest = slice_from(rest, n);
    }
    if (input->response && feed->result == H1_MORE && h1_parser_eof(&feed->parser))
        feed->result = H1_DONE;
    return feed;
}

static inline void feed_free(struct feed *feed) {
    queue_release(&feed->body);
    arena_release(&feed->arena);
    free(feed);
}

// A queue's bytes in one piece; it is empty afterwards. The caller frees.
static inline char *feed_text(struct queue *queue, size_t *ret_len) {
    struct span span;
    char *text = malloc(queue->bytes + 1);
    size_t n = 0;
    must(text);
    while (queue_take(queue, &span)) {
        memcpy(text + n, span.at, span.len);
        n += span.len;
        block_unref(span.block);
    }
    *ret_len = n;
    return text;
}

// How the bytes lie in blocks depends on how they came.
static inline bool feed_same_body(const struct queue *a, const struct queue *b) {
    const struct piece *p = a->head, *q = b->head;
    size_t i = 0, j = 0;
    while (p && q) {
        if (i == p->span.len) {
            p = p->next;
            i = 0;
        } else if (j == q->span.len) {
            q = q->next;
            j = 0;
        } else if (p->span.at[i++] != q->span.at[j++]) {
            return false;
        }
    }
    return a->bytes == b->bytes;
}

static inline bool feed_same_fields(const struct headers *a, const struct headers *b) {
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++)
        same = slice_eq(a->at[i].name, b->at[i].name) && slice_eq(a->at[i].value, b->at[i].value);
    return same;
}

// Which of several faults is named, and how much was used before one, may depend on the cuts. Nothing else may.
static inline void feed_same(struct feed *a, struct feed *b) {
    must(a->result == b->result);
    if (a->result == H1_BAD)
        return;
    must(a->used == b->used);
    must(a->parser.head_done == b->parser.head_done);
    must(feed_same_body(&a->body, &b->body));
    must(slice_eq(a->request.method, b->request.method) && slice_eq(a->request.target, b->request.target));
    must(slice_eq(a->request.path, b->request.path) && slice_eq(a->request.authority, b->request.authority));
    must(a->request.framing == b->request.framing && a->request.length == b->request.length);
    must(feed_same_fields(&a->request.headers, &b->request.headers));
    must(feed_same_fields(&a->request.trailers, &b->request.trailers));
    must(a->response.status == b->response.status && slice_eq(a->response.reason, b->response.reason));
    must(a->response.framing == b->response.framing && a->response.length == b->response.length);
    must(a->response.keep_alive == b->response.keep_alive);
    must(feed_same_fields(&a->response.headers, &b->response.headers));
    must(feed_same_fields(&a->response.trailers, &b->response.trailers));
}

// The parse of the whole input, after the cut ones were found to be the same.
static inline struct feed *feed_all_ways(const struct feed_input *input, unsigned seed) {
    struct feed *whole = feed_new(input, CUT_NOWHERE, 0), *bytes = feed_new(input, CUT_EVERYWHERE, 0),
                *cut = feed_new(input, CUT_SEED, seed);
    feed_same(whole, bytes);
    feed_same(whole, cut);
    feed_free(bytes);
    feed_free(cut);
    return whole;
}

#endif
