// SPDX-License-Identifier: BSD-2-Clause
// The writer of h1_write.h: room for a whole head is reserved once, then filled with plain copies.
#include "http/h1_write.h"

#include <errno.h>
#include <stdio.h>

enum { FRAMING_ROOM = 160 };  // the most that framing and connection fields take

static char *put(char *to, struct slice from) {
    if (from.len > 0)
        memcpy(to, from.at, from.len);
    return to + from.len;
}

static char *put_lit(char *to, const char *text, size_t len) {
    memcpy(to, text, len);
    return to + len;
}
#define PUT(to, text) put_lit(to, text, sizeof(text) - 1)

static char *put_number(char *to, uint64_t number) {
    char digits[20];
    size_t n = sizeof digits;
    do
        digits[--n] = (char)('0' + number % 10);
    while (number /= 10);
    return put_lit(to, digits + n, sizeof digits - n);
}

static size_t fields_size(const struct headers *headers) {
    size_t size = 0;
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->at[i].name.len > 0)
            size += headers->at[i].name.len + headers->at[i].value.len + 4;
    return size;
}

static char *put_fields(char *to, const struct headers *headers, bool keep_length) {
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->name.len == 0 || header->id == HEADER_transfer_encoding ||
            (header->id == HEADER_content_length && !keep_length))
            continue;
        to = put(to, header->name);
        to = PUT(to, ": ");
        to = put(to, header->value);
        to = PUT(to, "\r\n");
    }
    return to;
}

static char *put_framing(char *to, enum body_framing framing, uint64_t length, const char *connection) {
    if (framing == BODY_CHUNKED) {
        to = PUT(to, "transfer-encoding: chunked\r\n");
    } else if (framing == BODY_LENGTH) {
        to = PUT(to, "content-length: ");
        to = put_number(to, length);
        to = PUT(to, "\r\n");
    }
    if (connection) {
        to = PUT(to, "connection: ");
        to = put_lit(to, connection, strlen(connection));
        to = PUT(to, "\r\n");
    }
    return PUT(to, "\r\n");
}

int h1_write_request(struct queue *out, const struct request *request, const char *connection) {
    // A server gets the origin form, whatever form came from the client (RFC 9112, 3.2.1).
    struct slice target = request->target, query = { NULL, 0 };
    if (target.len > 0 && target.at[0] != '/' && !slice_eq(request->method, SLICE_LIT("CONNECT"))) {
        target = request->raw_path;
        query = request->query;
    }
    size_t room =
        request->method.len + target.len + query.len + fields_size(&request->headers) + FRAMING_ROOM;
    char *start = queue_reserve(out, room);
    if (!start)
        return -ENOMEM;
    char *to = put(start, request->method);
    *to++ = ' ';
    to = put(to, target);
    if (query.at) {
        *to++ = '?';
        to = put(to, query);
    }
    to = PUT(to, " HTTP/1.1\r\n");
    to = put_fields(to, &request->headers, false);
    // A method that expects content is told that there is none (RFC 9110, 8.6).
    enum body_framing framing = request->framing;
    if (framing == BODY_NONE &&
        (slice_eq(request->method, SLICE_LIT("POST")) || slice_eq(request->method, SLICE_LIT("PUT"))))
        framing = BODY_LENGTH;
    to = put_framing(to, framing, request->framing == BODY_LENGTH ? request->length : 0, connection);
    queue_wrote(out, (size_t)(to - start));
    return 0;
}

int h1_write_response(struct queue *out, unsigned status, struct slice reason, const struct headers *headers,
                      enum body_framing framing, uint64_t length, bool keep_length, const char *connection) {
    size_t room = reason.len + fields_size(headers) + FRAMING_ROOM;
    char *start = queue_reserve(out, room);
    if (!start)
        return -ENOMEM;
    char *to = PUT(start, "HTTP/1.1 ");
    to = put_number(to, status);
    *to++ = ' ';
    to = put(to, reason);
    to = PUT(to, "\r\n");
    to = put_fields(to, headers, keep_length);
    to = put_framing(to, framing, length, connection);
    queue_wrote(out, (size_t)(to - start));
    return 0;
}

int h1_write_body(struct queue *out, struct queue *body, bool chunked) {
    if (!chunked && queue_empty(out)) {
        queue_move(out, body);
        return 0;
    }
    struct span span;
    while (queue_take(body, &span)) {
        char size[12];
        int n = chunked ? snprintf(size, sizeof size, "%x\r\n", span.len) : 0;
        if (chunked && span.len == 0) {
            block_unref(span.block);
            continue;
        }
        if (n > 0 && queue_copy(out, size, (size_t)n) < 0) {
            block_unref(span.block);
            return -ENOMEM;
        }
        if (queue_put(out, span) < 0 || (chunked && queue_copy(out, "\r\n", 2) < 0))
            return -ENOMEM;
    }
    return 0;
}

int h1_write_last_chunk(struct queue *out, const struct headers *trailers) {
    size_t room = fields_size(trailers) + 8;
    char *start = queue_reserve(out, room);
    if (!start)
        return -ENOMEM;
    char *to = PUT(start, "0\r\n");
    to = put_fields(to, trailers, false);
    to = PUT(to, "\r\n");
    queue_wrote(out, (size_t)(to - start));
    return 0;
}
