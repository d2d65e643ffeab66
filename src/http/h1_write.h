// SPDX-License-Identifier: BSD-2-Clause
// Writing HTTP/1: heads and body framing, always afresh and in one canonical form, onto a conn's output
// queue. Used by h1_server.c and h1_client.c.
#ifndef MOONGATE_HTTP_H1_WRITE_H
#define MOONGATE_HTTP_H1_WRITE_H

#include "base/block.h"
#include "http/message.h"

// Content-Length and Transfer-Encoding among the fields are passed over: framing says what is written.
// `connection` is the value of the Connection field, NULL for none. All return -ENOMEM when memory is out.
int h1_write_request(struct queue *out, const struct request *request, const char *connection)
    __attribute__((warn_unused_result));
// keep_length: the fields' own Content-Length stands (HEAD, 304: it speaks of another response's content).
int h1_write_response(struct queue *out, unsigned status, struct slice reason, const struct headers *headers,
                      enum body_framing framing, uint64_t length, bool keep_length, const char *connection)
    __attribute__((warn_unused_result));
// Moves the spans of a body, framed, and its end.
int h1_write_body(struct queue *out, struct queue *body, bool chunked) __attribute__((warn_unused_result));
int h1_write_last_chunk(struct queue *out, const struct headers *trailers)
    __attribute__((warn_unused_result));

#endif
