// SPDX-License-Identifier: BSD-2-Clause
// llhttp's callbacks and the checks of h1_parser.h. llhttp decides where a message begins and ends;
// everything that two parsers might read in two ways is refused: what the lines look like before llhttp sees
// them (check_lines(), check_chunk_line()), what they mean in the field callbacks and http/h1_head.c.
#include "http/h1_parser.h"

#include "base/list.h"
#include "http/h1_head.h"
#include "http/rules.h"

static struct h1_parser *parser_of(llhttp_t *llhttp) {
    return container_of(llhttp, struct h1_parser, llhttp);
}

int h1_parser_fail(struct h1_parser *parser, unsigned status, const char *why) {
    if (!parser->error_status) {
        parser->error_status = status;
        parser->error_why = why;
    }
    return -1;
}

static int append(struct h1_parser *parser, struct slice *to, const char *at, size_t len) {
    return arena_append(parser->arena, to, at, len) < 0 ? h1_parser_fail(parser, 503, "memory is out") : 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    if (parser->request->target.len + len > parser->limits.max_uri)
        return h1_parser_fail(parser, 414, "the request target is longer than max_uri");
    return append(parser, &parser->request->target, at, len);
}

static int on_status(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return append(parser, &parser->response->reason, at, len);
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    return append(parser, &parser->name, at, len);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    if (parser->value.len == 0) {
        const char *blank = at;
        while (blank > parser->piece && is_blank(blank[-1]))
            parser->tab |= *--blank == '\t';
        parser->tab |= blank == parser->piece && parser->tab_before_piece;
    }
    return append(parser, &parser->value, at, len);
}

static int on_header_value_complete(llhttp_t *llhttp) {
    struct h1_parser *parser = parser_of(llhttp);
    struct headers *headers = parser->request ? &parser->request->headers : &parser->response->headers;
    if (parser->head_done)
        headers = parser->request ? &parser->request->trailers : &parser->response->trailers;
    struct slice name = parser->name, value = slice_trim(parser->value);
    bool tab = parser->tab || (parser->value.len > 0 && memchr(parser->value.at, '\t', parser->value.len));
    parser->name = parser->value = slice_make(NULL, 0);
    parser->tab = false;
    if (++parser->header_count > parser->limits.max_headers)
        return h1_parser_fail(parser, 431, "the head has more fields than max_headers");
    if (!header_name_valid(name))
        return h1_parser_fail(parser, 400, "a field name is empty or holds a character that is not allowed");
    if (!header_value_valid(value))
        return h1_parser_fail(parser, 400, "a field value holds a control character");
    enum header_id id = header_id_of(name);
    if (tab && (id == HEADER_transfer_encoding || id == HEADER_content_length))
        return h1_parser_fail(parser, 400, "a tab in Content-Length or Transfer-Encoding");
    if (id == HEADER_OTHER && header_poses_as_framing(name))
        return h1_parser_fail(parser, 400,
                              "a field named as Content-Length or Transfer-Encoding, with \"_\" for \"-\"");
    if (parser->head_done) {
        enum rules_trailer rule = rules_trailer(name);
        // A client is told; of a response the field is only dropped: its head has been passed on already.
        if (rule == TRAILER_REFUSED && parser->request)
            return h1_parser_fail(parser, 400, "a trailer field that would frame or route the message");
        if (rule != TRAILER_PASSED)
            return 0;
    }
    return headers_add(headers, parser->arena, name, value) < 0 ? h1_parser_fail(parser, 503, "memory is out")
                                                                : 0;
}

static int on_headers_complete(llhttp_t *llhttp) {
    struct h1_parser *parser = parser_of(llhttp);
    if ((parser->request ? h1_head_request(parser) : h1_head_response(parser)) < 0)
        return -1;
    parser->head_done = true;
    if (parser->ops->head(parser) != 0)
        return -1;
    if (parser->response && parser->response->status == 101)
        return 2;  // what follows is another protocol
    return parser->response && parser->response->framing == BODY_NONE ? 1 : 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len) {
    struct h1_parser *parser = parser_of(llhttp);
    parser->overhead -= parser->overhead < len ? parser->overhead : len;
    if (parser->response && parser->response->status == 205)
        return h1_parser_fail(parser, 502, "content in a 205 response");
    return parser->ops->body(parser, at, len) == 0 ? 0 : -1;
}

// llhttp stops where a chunk's line ends and where its data do: execute() has to know where lines are.
static int on_chunk_header(llhttp_t *llhttp) {
    (void)llhttp;
    return HPE_PAUSED;
}

static int on_chunk_complete(llhttp_t *llhttp) {
    return parser_of(llhttp)->part == H1_CONTENT ? HPE_PAUSED : 0;
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
        settings.on_status = on_status;
        settings.on_header_field = on_header_field;
        settings.on_header_value = on_header_value;
        settings.on_header_value_complete = on_header_value_complete;
        settings.on_headers_complete = on_headers_complete;
        settings.on_body = on_body;
        settings.on_chunk_header = on_chunk_header;
        settings.on_chunk_complete = on_chunk_complete;
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
    parser->part = H1_HEAD;
    parser->response = response;
    parser->no_body = to_head;
}

// ---- what llhttp is given ---------------------------------------------------------------------------------

enum {
    EMPTY_LINES_MAX = 16,  // before a request line (RFC 9112, 2.2)
    METHOD_MAX = 64,
    CHUNK_DIGITS_MAX = 16,
};

static size_t refuse(struct h1_parser *parser, unsigned status, const char *why) {
    h1_parser_fail(parser, status, why);
    return 0;
}

// Empty lines and the method. RFC 9110, 9.1 lets any token be a method and llhttp knows a list of them: so it
// is read here, and llhttp gets one that means the same to it. Returns how many bytes it used.
static size_t take_method(struct h1_parser *parser, const char *at, size_t len) {
    struct slice *method = &parser->request->method;
    size_t i = 0;
    for (; method->len == 0 && i < len && (at[i] == '\r' || at[i] == '\n'); i++) {
        if ((at[i] == '\n') != (parser->last == '\r'))
            return refuse(parser, 400, "a line does not end in CR LF");
        if (at[i] == '\n' && ++parser->empty_lines > EMPTY_LINES_MAX)
            return refuse(parser, 400, "too many empty lines before the request");
        parser->last = at[i];
    }
    if (i == len)
        return len;
    if (parser->last == '\r')
        return refuse(parser, 400, "a line does not end in CR LF");
    const char *space = memchr(at + i, ' ', len - i);
    struct slice part = slice_make(at + i, space ? (size_t)(space - (at + i)) : len - i);
    bool too_long = part.len > METHOD_MAX - method->len;
    if (too_long)
        part.len = METHOD_MAX - method->len;
    if (part.len > 0 ? !method_valid(part) : method->len == 0)
        return refuse(parser, 400, "the request does not begin with a method");
    if (too_long)
        return refuse(parser, 501, "the method is longer than any that there is");
    if (append(parser, method, part.at, part.len) < 0 || !space)
        return len;
    parser->part = H1_HEAD;
    parser->last = 0;
    parser->head_bytes = parser->line_bytes = method->len;
    bool connect = slice_eq(*method, SLICE_LIT("CONNECT"));
    llhttp_execute(&parser->llhttp, connect ? "CONNECT" : "POST", connect ? 7 : 4);
    return i + part.len;
}

static void set_part(struct h1_parser *parser, enum h1_part part) {
    parser->part = part;
    parser->line_bytes = 0;
    parser->last = 0;
    parser->chunk = H1_CHUNK_SIZE;
}

// Notes what is wrong at at[fit]; it counts unless llhttp finds fault with what stands before.
static size_t refuse_from(struct h1_parser *parser, size_t fit, unsigned status, const char *why) {
    parser->late_status = status;
    parser->late_why = why;
    return fit;
}

// A part of the request line behind the method: two spaces, each alone, and the version behind them in its
// one form (RFC 9112, 2.3). llhttp takes several spaces, and the protocols of streaming servers.
static size_t check_request_line(struct h1_parser *parser, const char *at, size_t len) {
    static const char form[] = "HTTP/1.1\r";
    for (size_t i = 0; i < len;) {
        if (parser->spaces == 2) {
            size_t n = parser->part_bytes++;
            bool digit = n == 5 || n == 7;
            if (n >= sizeof form - 1 || (digit ? at[i] < '0' || at[i] > '9' : at[i] != form[n]))
                return refuse_from(parser, i, 400, "the request line does not end in an HTTP version");
            i++;
            continue;
        }
        const char *space = memchr(at + i, ' ', len - i);
        size_t bytes = space ? (size_t)(space - (at + i)) : len - i;
        parser->part_bytes += bytes;
        i += bytes;
        if (!space)
            break;
        if (parser->spaces == 1 && parser->part_bytes == 0)
            return refuse_from(parser, i, 400, "the request line has two spaces in a row");
        parser->spaces++;
        parser->part_bytes = 0;
        i++;
    }
    return len;
}

// A part of the status line: nothing before it, three digits, one space on both sides of them. The space
// behind them may be missing with the reason (RFC 9112, 4): some servers leave it out, and nobody misreads it.
static size_t check_status_line(struct h1_parser *parser, const char *at, size_t len) {
    static const char form[] = "HTTP/1.v 999 ";  // v: 0 or 1
    enum { LAST = sizeof form - 2 };
    for (size_t i = 0, n = parser->line_bytes; i < len && n <= LAST; i++, n++) {
        bool fits = form[n] == '9' ? at[i] >= '0' && at[i] <= '9'
            : form[n] == 'v'       ? at[i] == '0' || at[i] == '1'
                                   : at[i] == form[n];
        if (!fits && !(n == LAST && at[i] == '\r'))
            return refuse_from(parser, i, 502, "the status line is not that of HTTP/1.0 or HTTP/1.1");
    }
    return len;
}

// The next part of a head or trailers: how much of it llhttp may see, at most to its end. Every line ends in
// CR LF, holds no other CR, and none continues the one before (RFC 9112, 2.2 and 5.2): all that is forgiven by
// some parsers and not by others.
static size_t check_lines(struct h1_parser *parser, const char *at, size_t len) {
    const struct h1_limits *limits = &parser->limits;
    for (size_t i = 0; i < len;) {
        bool request_line = parser->lines == 0 && parser->request;
        if (parser->line_bytes == 0 && parser->lines > 0 && is_blank(at[i]))
            return refuse_from(parser, i, 400, "a field is continued on a second line");
        const char *end = memchr(at + i, '\n', len - i);
        size_t bytes = end ? (size_t)(end - (at + i)) : len - i;
        size_t room = SIZE_MAX;  // the request line has limits of its own
        if (!request_line)
            room = limits->max_head -
                (parser->head_bytes < limits->max_head ? parser->head_bytes : limits->max_head);
        bool line_room =
            !request_line && limits->max_line > 0 && limits->max_line - parser->line_bytes < room;
        if (line_room)
            room = limits->max_line - parser->line_bytes;
        size_t known = bytes < room ? bytes : room;
        const char *cr = known > 0 ? memchr(at + i, '\r', known) : NULL;
        if (known > 0 && parser->last == '\r')
            return refuse_from(parser, i, 400, "a line holds a CR without LF");
        size_t before = cr ? (size_t)(cr - (at + i)) + 1 : known;
        if (request_line) {
            size_t fine = check_request_line(parser, at + i, before);
            if (fine < before)
                return i + fine;
        } else if (parser->lines == 0) {
            size_t fine = check_status_line(parser, at + i, before);
            if (fine < before)
                return i + fine;
        }
        if (before < known)
            return refuse_from(parser, i + before, 400, "a line holds a CR without LF");
        if (known < bytes)
            return refuse_from(parser, i + known, 431,
                               line_room ? "a line is longer than max_line"
                                         : "the head is longer than max_head");
        parser->line_bytes += bytes;
        parser->head_bytes += bytes + (end != NULL);
        if (bytes > 0)
            parser->last = at[i + bytes - 1];
        if (!end)
            return len;
        i += bytes;
        if (parser->line_bytes == 0 || parser->last != '\r')
            return refuse_from(parser, i, 400, "a line does not end in CR LF");
        if (request_line && (parser->spaces < 2 || parser->part_bytes < sizeof "HTTP/1.1"))
            return refuse_from(parser, i, 400, "the request line does not end in an HTTP version");
        bool empty = parser->line_bytes == 1;
        parser->line_bytes = 0;
        parser->last = 0;
        i++;
        if (empty && parser->lines > 0)
            return i;
        if (!empty)
            parser->lines++;
        else if (++parser->empty_lines > EMPTY_LINES_MAX)
            return refuse_from(parser, i, 400, "too many empty lines before the response");
    }
    return len;
}

// A part of a chunk's line: digits of a size, extensions, CR LF. Extensions are thrown away, but not without
// end, and not when they hold what another parser might take for the line's end.
static int check_chunk_line(struct h1_parser *parser, const char *at, size_t len) {
    for (size_t i = 0; i < len; i++) {
        char c = at[i];
        bool hex = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        parser->line_bytes++;
        switch (parser->chunk) {
        case H1_CHUNK_SIZE:
            if (hex && parser->line_bytes <= CHUNK_DIGITS_MAX)
                break;
            if (hex || parser->line_bytes == 1 || (c != ';' && c != '\r'))
                return h1_parser_fail(parser, 400, "a chunk's size is not a hexadecimal number");
            parser->chunk = c == ';' ? H1_CHUNK_EXTENSION : H1_CHUNK_END;
            break;
        case H1_CHUNK_EXTENSION:
            if (c == '\r')
                parser->chunk = H1_CHUNK_END;
            else if (((unsigned char)c < 0x20 && c != '\t') || c == 0x7f)
                return h1_parser_fail(parser, 400, "a chunk extension holds a control character");
            break;
        case H1_CHUNK_END:
            if (c != '\n')
                return h1_parser_fail(parser, 400, "a chunk's line does not end in CR LF");
            break;
        }
    }
    if (parser->line_bytes >
        (parser->limits.max_line > 0 ? parser->limits.max_line : parser->limits.max_head))
        return h1_parser_fail(parser, 400, "a chunk extension is longer than max_line");
    parser->overhead += len;
    if (parser->limits.max_chunk_overhead > 0 && parser->overhead > parser->limits.max_chunk_overhead)
        return h1_parser_fail(
            parser, 400, "the chunks' framing is longer than their data by more than max_chunk_overhead");
    return 0;
}

// The blanks at the end of a piece: they may stand before a value that comes with the next one.
static void note_blanks(struct h1_parser *parser, const char *at, size_t len) {
    bool tab = false;
    while (len > 0 && is_blank(at[len - 1]))
        tab |= at[--len] == '\t';
    parser->tab_before_piece = tab || (len == 0 && parser->tab_before_piece);
}

static bool body_is_chunked(const struct h1_parser *parser) {
    return (parser->request ? parser->request->framing : parser->response->framing) == BODY_CHUNKED;
}

// llhttp saw `used` bytes and no fault: what comes next.
static int go_on(struct h1_parser *parser, const char *at, size_t used, bool paused) {
    switch (parser->part) {
    case H1_METHOD:
        break;
    case H1_HEAD:
        if (parser->head_done)
            set_part(parser, body_is_chunked(parser) ? H1_CHUNK_LINE : H1_CONTENT);
        else
            note_blanks(parser, at, used);
        break;
    case H1_TRAILERS:
        note_blanks(parser, at, used);
        break;
    case H1_CHUNK_LINE:
        if (check_chunk_line(parser, at, used) < 0)
            return -1;
        if (paused && parser->llhttp.content_length > 0) {
            set_part(parser, H1_CONTENT);
            parser->overhead += 2;
        } else if (paused) {
            set_part(parser, H1_TRAILERS);
            parser->lines = 1;  // as behind the first line of a head: an empty one ends the trailers
        }
        break;
    case H1_CONTENT:
        if (paused)
            set_part(parser, H1_CHUNK_LINE);
        break;
    }
    return 0;
}

// Stops behind the message's end, at what is refused (error_status is set then, or llhttp's errno returned),
// or where the input ends.
static enum llhttp_errno execute(struct h1_parser *parser, const char *at, size_t len) {
    while (len > 0) {
        if (parser->part == H1_METHOD) {
            size_t used = take_method(parser, at, len);
            if (parser->error_status)
                return HPE_USER;
            at += used;
            len -= used;
            continue;
        }
        bool lines = parser->part == H1_HEAD || parser->part == H1_TRAILERS;
        size_t fit = lines ? check_lines(parser, at, len) : len;
        parser->piece = at;
        enum llhttp_errno rc = llhttp_execute(&parser->llhttp, at, fit);
        if (parser->done || (rc != HPE_OK && rc != HPE_PAUSED))
            return rc;
        if (parser->late_status) {
            h1_parser_fail(parser, parser->late_status, parser->late_why);
            return HPE_USER;
        }
        size_t used = fit;
        if (rc == HPE_PAUSED) {
            used = (size_t)(llhttp_get_error_pos(&parser->llhttp) - at);
            llhttp_resume(&parser->llhttp);
        }
        if (go_on(parser, at, used, rc == HPE_PAUSED) < 0)
            return HPE_USER;
        at += used;
        len -= used;
    }
    return HPE_OK;
}

enum h1_result h1_parser_feed(struct h1_parser *parser, const char *at, size_t len, size_t *ret_used) {
    enum llhttp_errno rc = execute(parser, at, len);
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
    h1_parser_fail(parser, rc == HPE_INVALID_VERSION ? 505 : 400, llhttp_get_error_reason(&parser->llhttp));
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
