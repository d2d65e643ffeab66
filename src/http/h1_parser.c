// SPDX-License-Identifier: BSD-2-Clause
// llhttp's callbacks and the checks of h1_parser.h. llhttp decides where a message begins and ends;
// everything that two parsers might read in two ways is refused in check_framing() and the field callbacks.
#include "http/h1_parser.h"

#include "base/list.h"
#include "http/rules.h"
#include "http/target.h"

#include <errno.h>

static struct h1_parser *parser_of(llhttp_t *llhttp) {
    return container_of(llhttp, struct h1_parser, llhttp);
}

static int fail(struct h1_parser *parser, unsigned status, const char *why) {
    if (!parser->error_status) {
        parser->error_status = status;
        parser->error_why = why;
    }
    return -1;
}

static int append(struct h1_parser *parser, struct slice *to, const char *at, size_t len) {
    return arena_append(parser->arena, to, at, len) < 0 ? fail(parser, 503, "memory is out") : 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    if (parser->request->target.len + len > parser->limits.max_uri)
        return fail(parser, 414, "the request target is longer than max_uri");
    return append(parser, &parser->request->target, at, len);
}

static int on_method(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return append(parser, &parser->request->method, at, len);
}

static int count_head(struct h1_parser *parser, size_t len) {
    parser->head_bytes += len;
    return parser->head_bytes > parser->limits.max_head
        ? fail(parser, 431, "the head is longer than max_head")
        : 0;
}

static int on_status(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return count_head(parser, len) ? -1 : append(parser, &parser->response->reason, at, len);
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return count_head(parser, len) ? -1 : append(parser, &parser->name, at, len);
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return count_head(parser, len) ? -1 : append(parser, &parser->value, at, len);
}

static int on_header_value_complete(llhttp_t *llhttp) {
    struct h1_parser *parser = parser_of(llhttp);
    struct headers *headers = parser->request ? &parser->request->headers : &parser->response->headers;
    if (parser->head_done)
        headers = parser->request ? &parser->request->trailers : &parser->response->trailers;
    struct slice name = parser->name, value = slice_trim(parser->value);
    parser->name = parser->value = slice_make(NULL, 0);
    if (count_head(parser, 4))  // colon, space and the line's end: once a field, however many pieces it came in
        return -1;
    if (++parser->header_count > parser->limits.max_headers)
        return fail(parser, 431, "the head has more fields than max_headers");
    if (!header_name_valid(name))
        return fail(parser, 400, "a field name is empty or holds a character that is not allowed");
    if (!header_value_valid(value))
        return fail(parser, 400, "a field value holds a control character");
    if (parser->head_done && !rules_trailer_allowed(header_id_of(name)))
        return 0;  // RFC 9110, 6.5.1: may be dropped
    return headers_add(headers, parser->arena, name, value) < 0 ? fail(parser, 503, "memory is out") : 0;
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
                return fail(parser, 400, "more than one Content-Length");
            length = header;
        } else if (header->id == HEADER_transfer_encoding) {
            if (coding)
                return fail(parser, 400, "more than one Transfer-Encoding");
            coding = header;
        }
    }
    if (length && coding)
        return fail(parser, 400, "both Content-Length and Transfer-Encoding");
    if (coding) {
        if (!v11)
            return fail(parser, 400, "Transfer-Encoding in an HTTP/1.0 message");
        if (!slice_ieq(coding->value, SLICE_LIT("chunked")))
            return fail(parser, 501, "a transfer coding other than chunked");
        *ret_framing = BODY_CHUNKED;
        return 0;
    }
    if (length) {
        if (slice_to_u64(length->value, ret_length) < 0)
            return fail(parser, 400, "Content-Length is not a number");
        *ret_framing = BODY_LENGTH;
    }
    return 0;
}

static int request_head(struct h1_parser *parser) {
    struct request *request = parser->request;
    const char *why = NULL;
    request->major = parser->llhttp.http_major;
    request->minor = parser->llhttp.http_minor;
    if (request->major != 1 || request->minor > 1)
        return fail(parser, 505, "the HTTP version is neither 1.0 nor 1.1");
    bool v11 = request->minor == 1;
    const struct header *host = NULL;
    for (uint32_t i = 0; i < request->headers.count; i++)
        if (request->headers.at[i].id == HEADER_host) {
            if (host)
                return fail(parser, 400, "more than one Host");
            host = &request->headers.at[i];
        }
    if (!host && v11)
        return fail(parser, 400, "Host is missing");
    if (host && !authority_valid(host->value))
        return fail(parser, 400, "Host is not host[:port]");
    request->head = slice_eq(request->method, SLICE_LIT("HEAD"));
    request->idempotent = method_idempotent(request->method);
    int rc = target_parse(request, parser->arena, &why);
    if (rc < 0)
        return fail(parser, rc == -ENOMEM ? 503 : 400, why);
    // An absolute target's authority counts (RFC 9112, 3.2.2); Host is made to agree.
    if (request->authority.len > 0 &&
        headers_set(&request->headers, parser->arena, header_name_of(HEADER_host), request->authority) < 0)
        return fail(parser, 503, "memory is out");
    if (request->authority.len == 0 && host)
        request->authority = host->value;
    if (check_framing(parser, &request->headers, v11, &request->framing, &request->length) < 0)
        return -1;
    if (!v11 && request->framing == BODY_NONE &&
        (slice_eq(request->method, SLICE_LIT("POST")) || slice_eq(request->method, SLICE_LIT("PUT"))))
        return fail(parser, 411, "an HTTP/1.0 request with content needs Content-Length");
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

static int response_head(struct h1_parser *parser) {
    struct response *response = parser->response;
    response->status = parser->llhttp.status_code;
    response->major = parser->llhttp.http_major;
    response->minor = parser->llhttp.http_minor;
    if (response->major != 1 || response->minor > 1)
        return fail(parser, 502, "the HTTP version is neither 1.0 nor 1.1");
    if (response->status < 100 || response->status > 599)
        return fail(parser, 502, "the status is not between 100 and 599");
    if (!header_value_valid(response->reason))
        return fail(parser, 502, "the reason phrase holds a control character");
    if (check_framing(parser, &response->headers, response->minor == 1, &response->framing,
                      &response->length) < 0)
        return -1;
    bool bodiless = response->status < 200 || response->status == 204 || response->status == 304;
    if (bodiless && response->framing == BODY_CHUNKED && response->status != 304)
        return fail(parser, 502, "a transfer coding in a response that has no content");
    if (bodiless || parser->no_body)
        response->framing = BODY_NONE;
    else if (response->framing == BODY_NONE)
        response->framing = BODY_CLOSE;
    bool closes = headers_list_has(&response->headers, HEADER_connection, SLICE_LIT("close"));
    bool keeps = headers_list_has(&response->headers, HEADER_connection, SLICE_LIT("keep-alive"));
    response->keep_alive = !closes && (response->minor == 1 || keeps) && response->framing != BODY_CLOSE;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp) {
    struct h1_parser *parser = parser_of(llhttp);
    if ((parser->request ? request_head(parser) : response_head(parser)) < 0)
        return -1;
    parser->head_done = true;
    parser->idle_bytes = 0;
    if (parser->ops->head(parser) != 0)
        return -1;
    if (parser->response && parser->response->status == 101)
        return 2;  // what follows is another protocol
    return parser->response && parser->response->framing == BODY_NONE ? 1 : 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    parser->idle_bytes = 0;
    return parser->ops->body(parser, at, len) == 0 ? 0 : -1;
}

// Stops behind the header of the last chunk: the lines from there on are trailers, and looked at as those of
// a head.
static int on_chunk_header(llhttp_t *llhttp) {
    struct h1_parser *parser = parser_of(llhttp);
    parser->idle_bytes = 0;
    parser->last_chunk = llhttp->content_length == 0;
    return parser->last_chunk ? HPE_PAUSED : 0;
}

static int on_message_complete(llhttp_t *llhttp) {
    parser_of(llhttp)->done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t *callbacks(void) {
    static llhttp_settings_t settings;
    if (!settings.on_body) {
        llhttp_settings_init(&settings);
        settings.on_url = on_url;
        settings.on_method = on_method;
        settings.on_status = on_status;
        settings.on_header_field = on_header_field;
        settings.on_header_value = on_header_value;
        settings.on_header_value_complete = on_header_value_complete;
        settings.on_headers_complete = on_headers_complete;
        settings.on_body = on_body;
        settings.on_chunk_header = on_chunk_header;
        settings.on_message_complete = on_message_complete;
    }
    return &settings;
}

static void begin(struct h1_parser *parser, llhttp_type_t type, const struct h1_parser_ops *ops,
                  struct h1_limits limits, struct arena *arena) {
    memset(parser, 0, sizeof *parser);
    llhttp_init(&parser->llhttp, type, callbacks());
    parser->ops = ops;
    parser->limits = limits;
    parser->arena = arena;
}

void h1_parser_request(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                       struct arena *arena, struct request *request) {
    begin(parser, HTTP_REQUEST, ops, limits, arena);
    parser->request = request;
}

void h1_parser_response(struct h1_parser *parser, const struct h1_parser_ops *ops, struct h1_limits limits,
                        struct arena *arena, struct response *response, bool to_head) {
    begin(parser, HTTP_RESPONSE, ops, limits, arena);
    parser->response = response;
    parser->no_body = to_head;
}

enum { EMPTY_LINES_MAX = 16 };  // before a request line (RFC 9112, 2.2)

// A part of the request line: two spaces, each alone, and the protocol of ours behind them. llhttp takes
// several spaces, and the protocols of streaming servers.
static int check_request_line(struct h1_parser *parser, const char *at, size_t len) {
    const char *end = at + len;
    if (parser->line_bytes > 0 && parser->last == ' ' && parser->spaces == 2 && *at != 'H')
        return fail(parser, 400, "the request line does not end in an HTTP version");
    for (const char *space = at; space < end && (space = memchr(space, ' ', (size_t)(end - space)));
         space++) {
        bool first = space == at && parser->line_bytes == 0;
        if (first || (space > at ? space[-1] : parser->last) == ' ' || ++parser->spaces > 2)
            return fail(parser, 400,
                        "the request line is not a method, a target and a version with one space between");
        if (parser->spaces == 2 && space + 1 < end && space[1] != 'H')
            return fail(parser, 400, "the request line does not end in an HTTP version");
    }
    return 0;
}

// Before llhttp sees a head or trailers: every line ends in CR LF and none continues the one before (RFC
// 9112, 2.2 and 5.2). Both are forgiven by some parsers and not by others.
static int check_lines(struct h1_parser *parser, const char *at, size_t len) {
    for (size_t i = 0; i < len && !parser->lines_done;) {
        if (parser->line_bytes == 0 && parser->lines > 0 && (at[i] == ' ' || at[i] == '\t'))
            return fail(parser, 400, "a field is continued on a second line");
        const char *end = memchr(at + i, '\n', len - i);
        size_t bytes = end ? (size_t)(end - (at + i)) : len - i;
        if (parser->lines == 0 && parser->request && bytes > 0 &&
            check_request_line(parser, at + i, bytes) < 0)
            return -1;
        parser->line_bytes += bytes;
        if (bytes > 0)
            parser->last = at[i + bytes - 1];
        if (!end)
            return 0;
        if (parser->line_bytes == 0 || parser->last != '\r')
            return fail(parser, 400, "a line does not end in CR LF");
        if (parser->line_bytes > 1)
            parser->lines++;
        else if (parser->lines > 0)
            parser->lines_done = true;
        else if (++parser->empty_lines > EMPTY_LINES_MAX)
            return fail(parser, 400, "too many empty lines before the request");
        parser->line_bytes = 0;
        i += bytes + 1;
    }
    return 0;
}

static enum llhttp_errno execute(struct h1_parser *parser, const char *at, size_t len) {
    if (!parser->lines_done && check_lines(parser, at, len) < 0)
        return HPE_USER;
    enum llhttp_errno rc = llhttp_execute(&parser->llhttp, at, len);
    if (rc != HPE_PAUSED || !parser->last_chunk)
        return rc;
    const char *rest = llhttp_get_error_pos(&parser->llhttp);
    llhttp_resume(&parser->llhttp);
    parser->last_chunk = parser->lines_done = false;
    parser->lines = 1;
    parser->line_bytes = 0;
    len -= (size_t)(rest - at);
    return len > 0 ? execute(parser, rest, len) : HPE_OK;
}

enum h1_result h1_parser_feed(struct h1_parser *parser, const char *at, size_t len, size_t *ret_used) {
    bool chunks = parser->head_done && parser->lines_done;
    parser->idle_bytes += len;
    enum llhttp_errno rc = execute(parser, at, len);
    // Chunk extensions are thrown away, but not without end.
    if (!parser->error_status && chunks && !parser->done && parser->idle_bytes > parser->limits.max_head)
        fail(parser, 400, "a chunk extension is longer than max_head");
    if (parser->error_status)
        return H1_BAD;
    *ret_used = len;
    if (parser->done) {
        const char *end = llhttp_get_error_pos(&parser->llhttp);
        if (end)
            *ret_used = (size_t)(end - at);
        return H1_DONE;
    }
    if (rc == HPE_OK)
        return H1_MORE;
    bool method = rc == HPE_INVALID_METHOD;
    bool version = rc == HPE_INVALID_VERSION;
    fail(parser, method ? 501 : version ? 505 : 400, llhttp_get_error_reason(&parser->llhttp));
    if (!parser->error_why || !*parser->error_why)
        parser->error_why = llhttp_errno_name(rc);
    return H1_BAD;
}

bool h1_parser_eof(struct h1_parser *parser) {
    if (!parser->head_done || !parser->response || parser->response->framing != BODY_CLOSE)
        return false;
    llhttp_finish(&parser->llhttp);
    return parser->error_status == 0;
}
