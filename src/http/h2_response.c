// SPDX-License-Identifier: BSD-2-Clause
// Responses of HTTP/2 as h2_response.h says.
#include "http/h2_response.h"

#include "http/rules.h"

static int refuse(struct h2_response *reader, const char *why) {
    if (!reader->why)
        reader->why = why;
    return -1;
}

static int out_of_memory(struct h2_response *reader) {
    reader->memory = true;
    return refuse(reader, "memory is out");
}

static int read_status(struct h2_response *reader, struct slice value) {
    uint64_t status;
    if (value.len != 3 || slice_to_u64(value, &status) < 0 || status < 100 || status > 599)
        return refuse(reader, "the status is not between 100 and 599");
    if (status == 101)
        return refuse(reader, "101, which HTTP/2 does not have");
    reader->response->status = (uint16_t)status;
    return 0;
}

// So much does a field count in HTTP/1 beside its name and value: the limits are the same for both.
enum { FIELD_EXTRA = 4 };

int h2_response_field(struct h2_response *reader, struct slice name, struct slice value) {
    struct response *response = reader->response;
    size_t bytes = name.len + value.len + FIELD_EXTRA;
    if (bytes > reader->room)
        return refuse(reader, "the head is longer than max_response_head");
    reader->room -= bytes;
    if (name.len > 0 && name.at[0] == ':')
        return slice_eq(name, SLICE_LIT(":status")) ? read_status(reader, value)
                                                    : refuse(reader, "a pseudo-header field of requests");
    if (reader->fields == 0)
        return refuse(reader, "the head has more fields than max_response_headers");
    reader->fields--;
    if (!header_name_valid(name))
        return refuse(reader, "a field name is empty or holds a character that is not allowed");
    if (!header_value_valid(value))
        return refuse(reader, "a field value holds a control character");
    if (header_poses_as_framing(name))
        return refuse(reader, "a field named as Content-Length or Transfer-Encoding, with \"_\" for \"-\"");
    if (reader->trailing && rules_trailer(name) != TRAILER_PASSED)
        return 0;
    name = arena_copy(reader->arena, name);
    value = arena_copy(reader->arena, value);
    if (!name.at || !value.at ||
        headers_add(reader->trailing ? &response->trailers : &response->headers, reader->arena, name, value) <
            0)
        return out_of_memory(reader);
    return 0;
}

int h2_response_head(struct h2_response *reader, bool ended) {
    struct response *response = reader->response;
    struct slice length;
    bool has_length = headers_get(&response->headers, HEADER_content_length, &length);
    response->major = 2;
    if (has_length && (slice_to_u64(length, &response->length) < 0 || response->length > INT64_MAX))
        return refuse(reader, "Content-Length is not a number, or too large a one");
    bool bodiless = response->status < 200 || response->status == 204;
    if (has_length && response->length > 0 && (bodiless || (response->status == 205 && !reader->to_head)))
        return refuse(reader, "a Content-Length in a response that has no content");
    if (bodiless || response->status == 304 || reader->to_head)
        response->framing = BODY_NONE;
    else if (has_length)
        response->framing = BODY_LENGTH;
    else
        response->framing = ended ? BODY_NONE : BODY_CHUNKED;
    return 0;
}
