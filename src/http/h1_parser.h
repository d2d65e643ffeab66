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

// max_line and max_chunk_overhead: 0 is no limit.
struct h1_limits {
    size_t max_head, max_headers, max_uri;
    size_t max_line;            // bytes of the line of one field, or of one chunk's size and extensions
    size_t max_chunk_overhead;  // bytes of chunk framing that a body may have beyond its content
};

// What the next bytes are. llhttp is given no more at once than what belongs to one of these, so that the
// lines are looked at as they came.
enum h1_part {
    H1_METHOD,      // empty lines, the method: requests begin here
    H1_HEAD,        // the rest of the head
    H1_CHUNK_LINE,  // a chunk's size and extensions
    H1_CONTENT,     // content, with the line end of a chunk's data
    H1_TRAILERS,    // what follows the last chunk's line
};

enum h1_chunk { H1_CHUNK_SIZE, H1_CHUNK_EXTENSION, H1_CHUNK_END };  // what of a chunk's line was read last

struct h1_parser {
    llhttp_t llhttp;
    const struct h1_parser_ops *ops;
    struct arena *arena;
    struct request *request;  // or
    struct response *response;
    struct h1_limits limits;
    struct slice name, value;  // the field being read
    size_t head_bytes, header_count;
    enum h1_part part;
    size_t line_bytes;  // of the line that is being read, over all feeds
    size_t part_bytes;  // of the part of the request line that is being read
    size_t overhead;    // chunk framing beyond the content so far
    enum h1_chunk chunk;
    unsigned lines, empty_lines, spaces;
    char last;              // of the line
    const char *piece;      // what llhttp has been given
    bool tab;               // between the colon and the value, or in the value
    bool tab_before_piece;  // the blanks at the end of what llhttp had before hold a tab
    bool head_done, done;
    const char *late_why;  // what is wrong behind the piece; counts when llhttp finds nothing before
    unsigned late_status;
    bool no_body;  // response to HEAD
    const char *error_why;
    unsigned error_status;  // what to answer a client; for responses only that it is not 0 matters
};

// Prepares for the next message. request or response must be zeroed and lives as long as the parse does.
void h1_parser_request(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                       struct arena *arena, struct request *request);
void h1_parser_response(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                        struct arena *arena, struct response *response, bool to_head);
enum h1_result h1_parser_feed(struct h1_parser *parser, const char *at, size_t len, size_t *ret_used);
// Notes why the message is refused, unless something is noted already. -1.
int h1_parser_fail(struct h1_parser *parser, unsigned status, const char *why);
// The stream ended: true when that completes the message (a response delimited by the connection's end).
bool h1_parser_eof(struct h1_parser *parser);

#endif
