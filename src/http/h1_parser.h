// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1 message parsing on llhttp: one message at a time into a struct request or response, text copied into
// the exchange's arena, body passed on where it lies. What llhttp would let pass and must not be forwarded is
// refused here (RFC 9112). Used by h1_server.c and h1_client.c.
#ifndef MOONGATE_HTTP_H1_PARSER_H
#define MOONGATE_HTTP_H1_PARSER_H

#include "http/message.h"

#include <llhttp.h>

enum h1_result {
    H1_MORE,  // all input used, the message goes on
    H1_DONE,  // the message is complete; what was not used belongs to the next
    H1_BAD,   // parser->error_status and parser->error_why say what
};

struct h1_parser;

struct h1_parser_ops {
    // The head is complete and checked. Not 0: stop, error_status and error_why are set.
    int (*head)(struct h1_parser *parser);
    // A piece of the body, without transfer coding; `at` lies in what is being fed.
    int (*body)(struct h1_parser *parser, const char *at, size_t len);
};

struct h1_limits {
    size_t max_head, max_headers, max_uri;
};

struct h1_parser {
    llhttp_t llhttp;
    const struct h1_parser_ops *ops;
    struct arena *arena;
    struct request *request;    // or
    struct response *response;
    struct h1_limits limits;
    struct slice name, value;   // the field being read
    size_t head_bytes, header_count;
    size_t line_bytes;          // of the line of a head or trailers that is being read, over all feeds
    size_t idle_bytes;          // since a piece of the body or a chunk's header came
    unsigned lines, empty_lines, spaces;
    char last;
    bool head_done, done, lines_done;
    bool last_chunk;            // stopped behind its header
    bool no_body;               // response to HEAD
    const char *error_why;
    unsigned error_status;      // what to answer a client; for responses only that it is not 0 matters
};

// Prepares for the next message. request or response must be zeroed and lives as long as the parse does.
void h1_parser_request(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                       struct arena *arena, struct request *request);
void h1_parser_response(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                        struct arena *arena, struct response *response, bool to_head);
enum h1_result h1_parser_feed(struct h1_parser *parser, const char *at, size_t len, size_t *ret_used);
// The stream ended: true when that completes the message (a response delimited by the connection's end).
bool h1_parser_eof(struct h1_parser *parser);

#endif
