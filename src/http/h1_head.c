// SPDX-License-Identifier: BSD-2-Clause
// What a complete head says, for h1_head.h: how long the message is (RFC 9112, 6), for whom it is, what it
// wishes. The fields' own syntax has been checked by h1_parser.c.
#include "http/h1_head.h"

#include "http/target.h"

#include <errno.h>

// What a Transfer-Encoding other than "chunked" is answered: 501 when it is a list of codings that are known
// to exist, ending in chunked (RFC 9112, 6.1); 400 for all else, which some parser might take for chunked.
static unsigned coding_status(struct slice value) {
    static const struct slice known[] = { SLICE_LIT("gzip"), SLICE_LIT("x-gzip"), SLICE_LIT("deflate"),
                                          SLICE_LIT("compress"), SLICE_LIT("x-compress") };
    struct slice chunked = SLICE_LIT("chunked");
    for (;;) {
        const char *comma = value.len > 0 ? memchr(value.at, ',', value.len) : NULL;
        struct slice coding =
            slice_trim(slice_make(value.at, comma ? (size_t)(comma - value.at) : value.len));
        if (!comma)
            return slice_ieq(coding, chunked) ? 501 : 400;
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= slice_ieq(coding, known[i]);
        if (!found)
            return 400;
        value = slice_from(value, (size_t)(comma - value.at) + 1);
    }
}

// One Content-Length of digits, or one Transfer-Encoding that is "chunked", never both (RFC 9112, 6.1 to
// 6.3).
static int check_framing(struct h1_parser *parser, const struct headers *headers, bool v11,
                         enum body_framing *ret_framing, uint64_t *ret_length) {
    const struct header *length = NULL, *coding = NULL;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->id == HEADER_content_length) {
            if (length)
                return h1_parser_fail(parser, 400, "more than one Content-Length");
            length = header;
        } else if (header->id == HEADER_transfer_encoding) {
            if (coding)
                return h1_parser_fail(parser, 400, "more than one Transfer-Encoding");
            coding = header;
        }
    }
    if (length && coding)
        return h1_parser_fail(parser, 400, "both Content-Length and Transfer-Encoding");
    if (coding) {
        if (!v11)
            return h1_parser_fail(parser, 400, "Transfer-Encoding in an HTTP/1.0 message");
        if (!slice_ieq(coding->value, SLICE_LIT("chunked")))
            return h1_parser_fail(parser, coding_status(coding->value),
                                  "a transfer coding other than chunked");
        *ret_framing = BODY_CHUNKED;
        return 0;
    }
    if (length) {
        // Beyond 63 bits a server that counts with a sign would see a negative length.
        if (slice_to_u64(length->value, ret_length) < 0 || *ret_length > INT64_MAX)
            return h1_parser_fail(parser, 400, "Content-Length is not a number, or too large a one");
        *ret_framing = BODY_LENGTH;
    }
    return 0;
}

int h1_head_request(struct h1_parser *parser) {
    struct request *request = parser->request;
    const char *why = NULL;
    request->major = parser->llhttp.http_major;
    request->minor = parser->llhttp.http_minor;
    if (request->major != 1 || request->minor > 1)
        return h1_parser_fail(parser, 505, "the HTTP version is neither 1.0 nor 1.1");
    bool v11 = request->minor == 1;
    const struct header *host = NULL;
    for (uint32_t i = 0; i < request->headers.count; i++)
        if (request->headers.at[i].id == HEADER_host) {
            if (host)
                return h1_parser_fail(parser, 400, "more than one Host");
            host = &request->headers.at[i];
        }
    if (!host && v11)
        return h1_parser_fail(parser, 400, "Host is missing");
    // An empty Host is for targets without an authority: those of http have one (RFC 9110, 7.2 and 4.2.1).
    if (host && !authority_valid(host->value))
        return h1_parser_fail(parser, 400, "Host is empty or not host[:port]");
    request->head = slice_eq(request->method, SLICE_LIT("HEAD"));
    request->idempotent = method_idempotent(request->method);
    int rc = target_parse(request, parser->arena, &why);
    if (rc < 0)
        return h1_parser_fail(parser, rc == -ENOMEM ? 503 : 400, why);
    // An absolute target's authority counts (RFC 9112, 3.2.2); Host is made to agree.
    if (request->authority.len > 0 &&
        headers_set(&request->headers, parser->arena, header_name_of(HEADER_host), request->authority) < 0)
        return h1_parser_fail(parser, 503, "memory is out");
    if (request->authority.len == 0 && host)
        request->authority = host->value;
    if (check_framing(parser, &request->headers, v11, &request->framing, &request->length) < 0)
        return -1;
    // What follows a CONNECT belongs to the tunnel (RFC 9110, 9.3.6), or is content: depending on who reads.
    if (slice_eq(request->method, SLICE_LIT("CONNECT")) &&
        (request->framing == BODY_CHUNKED || request->length > 0))
        return h1_parser_fail(parser, 400, "CONNECT with content");
    if (!v11 && request->framing == BODY_NONE &&
        (slice_eq(request->method, SLICE_LIT("POST")) || slice_eq(request->method, SLICE_LIT("PUT"))))
        return h1_parser_fail(parser, 411, "an HTTP/1.0 request with content needs Content-Length");
    request->expect_continue =
        v11 && headers_list_has(&request->headers, HEADER_expect, SLICE_LIT("100-continue"));
    // An upgrade to HTTP/2 would carry requests past every rule and script: such a wish is ignored, as RFC
    // 9110, 7.8 allows.
    request->upgrade = v11 && headers_find(&request->headers, HEADER_upgrade) &&
        headers_list_has(&request->headers, HEADER_connection, SLICE_LIT("upgrade")) &&
        !headers_list_has(&request->headers, HEADER_upgrade, SLICE_LIT("h2c")) &&
        !headers_list_has(&request->headers, HEADER_upgrade, SLICE_LIT("h2"));
    return 0;
}

int h1_head_response(struct h1_parser *parser) {
    struct response *response = parser->response;
    response->status = parser->llhttp.status_code;
    response->major = parser->llhttp.http_major;
    response->minor = parser->llhttp.http_minor;
    if (response->major != 1 || response->minor > 1)
        return h1_parser_fail(parser, 502, "the HTTP version is neither 1.0 nor 1.1");
    if (response->status < 100 || response->status > 599)
        return h1_parser_fail(parser, 502, "the status is not between 100 and 599");
    if (!header_value_valid(response->reason))
        return h1_parser_fail(parser, 502, "the reason phrase holds a control character");
    if (check_framing(parser, &response->headers, response->minor == 1, &response->framing,
                      &response->length) < 0)
        return -1;
    bool interim = response->status < 200, bodiless = interim || response->status == 204;
    bool length = response->framing == BODY_LENGTH && response->length > 0;
    if (bodiless && response->framing == BODY_CHUNKED)
        return h1_parser_fail(parser, 502, "a transfer coding in a response that has no content");
    // Whoever believed such a length would take the next response's head for content.
    if ((interim && length) || (response->status == 205 && length && !parser->no_body))
        return h1_parser_fail(parser, 502, "a Content-Length in a response that has no content");
    if (bodiless || response->status == 304 || parser->no_body)
        response->framing = BODY_NONE;
    else if (response->framing == BODY_NONE)
        response->framing = BODY_CLOSE;
    bool closes = headers_list_has(&response->headers, HEADER_connection, SLICE_LIT("close"));
    bool keeps = headers_list_has(&response->headers, HEADER_connection, SLICE_LIT("keep-alive"));
    response->keep_alive = !closes && (response->minor == 1 || keeps) && response->framing != BODY_CLOSE &&
        !(bodiless && length);  // the content that 204 cannot have may still come
    return 0;
}
