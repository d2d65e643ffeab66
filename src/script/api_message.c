// SPDX-License-Identifier: BSD-2-Clause
// Requests and responses for scripts: what is read, what may be changed and how the change stays consistent
// (path, raw path, query and target say the same), and answers that a script gives itself.
#include "script/api_impl.h"

#include "base/clock.h"
#include "base/handle.h"
#include "http/target.h"
#include "script/host.h"

#include <errno.h>
#include <stdio.h>

bool mg_response_open(const struct exchange *x) {
    // A body hook begins before the head is sent; how far before is nothing to build on.
    if (task_running && task_running->hook == HOOK_response_body)
        return false;
    return x->step == EXCHANGE_response || (x->step == EXCHANGE_reply && !x->head_sent);
}

static struct exchange *exchange_of(double handle) {
    return handle_get(HANDLE_EXCHANGE, mg_handle(handle));
}

// host[:port] of the request, apart; port 0 when it is not given.
static struct slice split_authority(const struct request *req, unsigned *ret_port) {
    struct slice host = req->authority;
    if (host.len == 0 && !headers_get(&req->headers, HEADER_host, &host))
        host = slice_make("", 0);
    size_t end = host.len;
    while (end > 0 && host.at[end - 1] >= '0' && host.at[end - 1] <= '9')
        end--;
    uint64_t port = 0;
    if (end > 0 && host.at[end - 1] == ':') {
        if (end < host.len && slice_to_u64(slice_from(host, end), &port) < 0)
            port = 0;
        host.len = end - 1;
    }
    *ret_port = port <= 65535 ? (unsigned)port : 0;
    return host;
}

int mg_request_text(double handle, int field, struct mg_text *ret_text) {
    static char text[256];
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    const struct request *req = &x->req;
    switch (field) {
    case MG_REQ_ID:
        mg_text_set(ret_text, slice_of(exchange_id(x)));
        return MG_OK;
    case MG_REQ_METHOD:
        mg_text_set(ret_text, req->method);
        return MG_OK;
    case MG_REQ_TARGET:
        mg_text_set(ret_text, req->target);
        return MG_OK;
    case MG_REQ_PATH:
        mg_text_set(ret_text, req->path);
        return MG_OK;
    case MG_REQ_RAW_PATH:
        mg_text_set(ret_text, req->raw_path);
        return MG_OK;
    case MG_REQ_QUERY:
        mg_text_set(ret_text, req->query);
        return req->query.at ? MG_OK : MG_NONE;
    case MG_REQ_HOST: {
        unsigned port;
        struct slice host = split_authority(req, &port);
        if (host.len > sizeof text)
            host.len = sizeof text;
        for (size_t i = 0; i < host.len; i++)
            text[i] = host.at[i] >= 'A' && host.at[i] <= 'Z' ? (char)(host.at[i] | 0x20) : host.at[i];
        mg_text_set(ret_text, slice_make(text, host.len));
        return MG_OK;
    }
    case MG_REQ_SCHEME:
        mg_text_set(ret_text, req->scheme.len > 0 ? req->scheme : SLICE_LIT("http"));
        return MG_OK;
    case MG_REQ_VERSION:
        mg_text_set(ret_text,
                    slice_make(text, (size_t)snprintf(text, sizeof text, "%u.%u", req->major, req->minor)));
        return MG_OK;
    case MG_REQ_UPSTREAM:
        mg_text_set(ret_text, x->upstream_name);
        return x->upstream_name.len > 0 ? MG_OK : MG_NONE;
    case MG_REQ_TERMINATION:
        mg_text_set(ret_text, slice_of(close_reason_name(x->reason)));
        return MG_OK;
    case MG_REQ_BALANCE_KEY:
        mg_text_set(ret_text, x->balance_key);
        return x->balance_key.at ? MG_OK : MG_NONE;
    }
    return MG_NONE;
}

static unsigned request_port(const struct exchange *x) {
    unsigned port;
    split_authority(&x->req, &port);
    return port > 0 ? port : slice_eq(x->req.scheme, SLICE_LIT("https")) ? 443 : 80;
}

// Seconds between two moments in microseconds. MG_NONE when one of them has not come.
static int seconds(uint64_t from, uint64_t to, double *ret_number) {
    *ret_number = to > from ? (double)(to - from) / 1e6 : 0;
    return from && to ? MG_OK : MG_NONE;
}

int mg_request_number(double handle, int field, double *ret_number) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    uint64_t now = x->at.ended ? x->at.ended : clock_us_now();
    switch (field) {
    case MG_REQ_ATTEMPT:
        *ret_number = x->attempt > 0 ? x->attempt : 1;  // 0 before the first route
        return MG_OK;
    case MG_REQ_PORT:
        *ret_number = request_port(x);
        return MG_OK;
    case MG_REQ_BYTES_RECEIVED:
        *ret_number = (double)x->req_bytes;
        return MG_OK;
    case MG_REQ_BYTES_SENT:
        *ret_number = (double)x->res_bytes;
        return MG_OK;
    case MG_REQ_TOTAL_TIME:
        return seconds(x->at.started, now, ret_number);
    case MG_REQ_FIRST_BYTE_TIME:
        return seconds(x->at.started, x->at.first_byte, ret_number);
    case MG_REQ_UPSTREAM_TIME:
        return seconds(x->at.dialled, now, ret_number);
    }
    return MG_NONE;
}

int mg_request_failure(double handle, uint32_t n, struct mg_text *ret_server, struct mg_text *ret_kind,
                       struct mg_text *ret_why) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    const struct exchange_failure *failure = x->failures;
    while (failure && n-- > 0)
        failure = failure->before;
    if (!failure)
        return MG_NONE;
    mg_text_set(ret_server, failure->server);
    mg_text_set(ret_kind, slice_of(close_reason_name(failure->reason)));
    mg_text_set(ret_why, slice_of(close_reason_text(failure->reason)));
    return MG_OK;
}

// ---- changes of a request ---------------------------------------------------------------------------------

// Encodes what may not stand in a target. keep: characters that stay besides the unreserved ones (RFC 3986).
static struct slice encode(struct arena *arena, struct slice from, const char *keep) {
    static const char digits[] = "0123456789ABCDEF";
    char *to = arena_alloc(arena, from.len * 3 + 1);
    size_t n = 0;
    if (!to)
        return slice_make(NULL, 0);
    for (size_t i = 0; i < from.len; i++) {
        unsigned char c = (unsigned char)from.at[i];
        unsigned char low = c | 0x20;
        if ((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || (c && strchr(keep, c))) {
            to[n++] = (char)c;
        } else {
            to[n++] = '%';
            to[n++] = digits[c >> 4];
            to[n++] = digits[c & 15];
        }
    }
    to[n] = 0;
    return slice_make(to, n);
}

static int rebuild_target(struct exchange *x) {
    struct request *req = &x->req;
    struct slice target = { NULL, 0 };
    if (arena_append(&x->arena, &target, req->raw_path.at, req->raw_path.len) < 0 ||
        (req->query.at &&
         (arena_append(&x->arena, &target, "?", 1) < 0 ||
          arena_append(&x->arena, &target, req->query.at, req->query.len) < 0)))
        return mg_error("memory is out");
    req->target = target;
    req->rewritten = true;
    return MG_OK;
}

static int set_path(struct exchange *x, struct slice path) {
    static const char keep[] = "-._~!$&'()*+,;=:@/";
    if (path.len == 0 || path.at[0] != '/')
        return mg_error("a path begins with \"/\"");
    struct slice raw = encode(&x->arena, path, keep), normal;
    int rc = raw.at ? path_normalise(raw, &x->arena, &normal) : -ENOMEM;
    if (rc == -ENOMEM)
        return mg_error("memory is out");
    if (rc < 0)
        return mg_error("the path holds a control character or leads above its root");
    raw = encode(&x->arena, normal, keep);
    if (!raw.at)
        return mg_error("memory is out");
    x->req.path = normal;
    x->req.raw_path = raw;
    x->req.doubts = memchr(normal.at, '\\', normal.len) ? PATH_ENCODED_BACKSLASH : 0;  // all else is gone
    return rebuild_target(x);
}

static int set_query(struct exchange *x, struct slice query) {
    struct slice copy = { NULL, 0 };
    if (query.at) {
        copy = encode(&x->arena, query, "-._~!$&'()*+,;=:@/?%");
        if (!copy.at)
            return mg_error("memory is out");
    }
    x->req.query = copy;
    return rebuild_target(x);
}

static int set_target(struct exchange *x, struct slice target) {
    if (target.len == 0 || target.at[0] != '/')
        return mg_error("a target begins with \"/\"");
    struct request changed = x->req;
    const char *why = "";
    changed.target = arena_copy(&x->arena, target);
    if (!changed.target.at)
        return mg_error("memory is out");
    if (target_parse(&changed, &x->arena, &why) < 0)
        return mg_error("%s", why);
    changed.rewritten = true;
    x->req = changed;
    return MG_OK;
}

static int set_method(struct exchange *x, struct slice method) {
    struct request *req = &x->req;
    struct slice head = SLICE_LIT("HEAD");
    if (!method_valid(method))
        return mg_error("that is no request method");
    if (slice_eq(method, req->method))
        return MG_OK;
    // Both decide how the messages are framed, and the client's codec has decided already.
    if (req->head || slice_eq(method, head) || slice_eq(method, SLICE_LIT("CONNECT")))
        return mg_error("the method cannot be changed from or to HEAD, nor to CONNECT");
    struct slice copy = arena_copy(&x->arena, method);
    if (!copy.at)
        return mg_error("memory is out");
    req->method = copy;
    req->idempotent = method_idempotent(copy);
    return MG_OK;
}

int mg_request_set(double handle, int field, const char *at, size_t len) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    struct slice value = slice_make(at, len);
    if (x->step != EXCHANGE_request && x->step != EXCHANGE_route)
        return mg_error("the request has been sent: it can be changed in the request and route hooks");
    if (field == MG_REQ_BALANCE_KEY) {
        x->balance_key = at ? arena_copy(&x->arena, value) : value;
        return at && !x->balance_key.at ? mg_error("memory is out") : MG_OK;
    }
    if (slice_eq(x->req.method, SLICE_LIT("CONNECT")) || slice_eq(x->req.path, SLICE_LIT("*")))
        return mg_error("a %.*s request of this form cannot be changed", SLICE_ARG(x->req.method));
    switch (field) {
    case MG_REQ_METHOD:
        return set_method(x, value);
    case MG_REQ_PATH:
        return set_path(x, value);
    case MG_REQ_QUERY:
        return set_query(x, value);
    case MG_REQ_TARGET:
        return set_target(x, value);
    }
    return mg_error("that cannot be set");
}

// ---- arguments of the query -------------------------------------------------------------------------------

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t mg_arg_decode(struct slice from, char *to) {
    size_t n = 0;
    for (size_t i = 0; i < from.len; i++) {
        char c = from.at[i];
        int high = -1, low = -1;
        if (c == '%' && i + 2 < from.len) {
            high = hex_digit(from.at[i + 1]);
            low = hex_digit(from.at[i + 2]);
        }
        if (c == '+') {
            c = ' ';
        } else if (high >= 0 && low >= 0) {
            c = (char)(high << 4 | low);
            i += 2;
        }
        to[n++] = c;
    }
    return n;
}

static int decode(struct exchange *x, struct slice from, struct mg_text *ret_text) {
    if (from.len == 0 || (!memchr(from.at, '%', from.len) && !memchr(from.at, '+', from.len))) {
        mg_text_set(ret_text, from);
        return MG_OK;
    }
    char *to = arena_alloc(&x->arena, from.len + 1);
    if (!to)
        return mg_error("memory is out");
    mg_text_set(ret_text, slice_make(to, mg_arg_decode(from, to)));
    return MG_OK;
}

bool mg_arg_take(struct slice *rest, struct slice *ret_name, struct slice *ret_value) {
    while (rest->len > 0) {
        const char *end = memchr(rest->at, '&', rest->len);
        struct slice part = slice_make(rest->at, end ? (size_t)(end - rest->at) : rest->len);
        *rest = slice_from(*rest, part.len + 1);
        if (part.len == 0)
            continue;
        const char *mark = memchr(part.at, '=', part.len);
        *ret_name = mark ? slice_make(part.at, (size_t)(mark - part.at)) : part;
        *ret_value = mark ? slice_from(part, ret_name->len + 1) : slice_make(part.at + part.len, 0);
        return true;
    }
    return false;
}

int mg_request_arg(double handle, const char *name_at, size_t len, struct mg_text *ret_value) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    struct slice rest = x->req.query, name, value;
    while (mg_arg_take(&rest, &name, &value)) {
        struct mg_text decoded;
        int rc = decode(x, name, &decoded);
        if (rc != MG_OK)
            return rc;
        if ((size_t)decoded.len == len && memcmp(decoded.at, name_at, len) == 0)
            return decode(x, value, ret_value);
    }
    return MG_NONE;
}

int mg_request_arg_next(double handle, uint32_t *position, struct mg_text *ret_name,
                        struct mg_text *ret_value) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    struct slice rest = slice_from(x->req.query, *position), name, value;
    if (!mg_arg_take(&rest, &name, &value))
        return MG_NONE;
    *position = (uint32_t)(x->req.query.len - rest.len);
    int rc = decode(x, name, ret_name);
    return rc == MG_OK ? decode(x, value, ret_value) : rc;
}

int mg_request_reading(double handle, uint32_t n, struct mg_text *ret_path) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    const struct request *req = &x->req;
    if (n >= path_reading_count(req->doubts))
        return MG_NONE;
    if (n == 0) {
        mg_text_set(ret_path, req->path);
        return MG_OK;
    }
    char *to = arena_alloc(&x->arena, req->raw_path.len + 1);
    if (!to)
        return mg_error("memory is out");
    mg_text_set(ret_path, path_reading(req->raw_path, req->doubts, n, to));
    return MG_OK;
}

// ---- answers ----------------------------------------------------------------------------------------------

int mg_reply_begin(double handle) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    if (x->head_sent || x->step >= EXCHANGE_finish)
        return mg_error("it is too late to answer: the response is on its way");
    if (!task_running || task_running->x != x)
        return mg_error("a request is answered by a hook of its own");
    if (task_running->hook == HOOK_response_body)
        return mg_error("a response on its way cannot be answered otherwise: cut it off with res:abort()");
    exchange_record_of(x)->reply = (struct headers){ 0 };
    return MG_OK;
}

int mg_reply_field(double handle, const char *name_at, size_t name_len, const char *value_at,
                   size_t value_len) {
    struct exchange *x = exchange_of(handle);
    if (!x || !task_running || task_running->x != x)
        return MG_STALE;
    struct slice name = slice_make(name_at, name_len), value = slice_trim(slice_make(value_at, value_len));
    int rc = mg_header_check(MG_RESPONSE, name, value);
    if (rc != MG_OK)
        return rc;
    name = arena_copy(&x->arena, name);
    value = arena_copy(&x->arena, value);
    if (!name.at || !value.at || headers_add(&exchange_record_of(x)->reply, &x->arena, name, value) < 0)
        return mg_error("memory is out");
    return MG_OK;
}

int mg_reply_end(double handle, int status, const char *body, size_t len) {
    struct exchange *x = exchange_of(handle);
    if (!x || !task_running || task_running->x != x)
        return MG_STALE;
    if (status < 200 || status > 599)
        return mg_error("the status of an answer is 200 to 599");
    if (len > 0 && (status == 204 || status == 205 || status == 304))
        return mg_error("an answer %d has no body", status);
    if (exchange_respond(x, (unsigned)status, &exchange_record_of(x)->reply, slice_make(body, len)) < 0)
        return mg_error("the answer could not be made: too late, or memory is out");
    return MG_OK;
}

// ---- responses --------------------------------------------------------------------------------------------

int mg_response_status(double handle) {
    struct exchange *x = exchange_of(handle);
    return x ? x->res.status : MG_STALE;
}

static bool bodiless(int status) {
    return status < 200 || status == 204 || status == 304;
}

int mg_response_set_status(double handle, int status) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    if (!mg_response_open(x))
        return mg_error("a response can be changed in the response and error hooks alone");
    if (status < 200 || status > 599)
        return mg_error("the status of a response is 200 to 599");
    if (bodiless(status) != bodiless(x->res.status))
        return mg_error(
            "a response %u cannot become %d, one has a body and the other has not: use req:respond(...)",
            x->res.status, status);
    if (status != x->res.status) {
        x->res.status = (uint16_t)status;
        x->res.reason = slice_of(status_reason((unsigned)status));
    }
    return MG_OK;
}

int mg_response_reason(double handle, struct mg_text *ret_text) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    mg_text_set(ret_text, x->res.reason);
    return MG_OK;
}

int mg_response_set_reason(double handle, const char *at, size_t len) {
    struct exchange *x = exchange_of(handle);
    if (!x)
        return MG_STALE;
    if (!mg_response_open(x))
        return mg_error("a response can be changed in the response and error hooks alone");
    if (!header_value_valid(slice_make(at, len)))
        return mg_error("the reason has a control character (CR, LF, NUL ...)");
    struct slice copy = arena_copy(&x->arena, slice_make(at, len));
    if (!copy.at)
        return mg_error("memory is out");
    x->res.reason = copy;
    return MG_OK;
}
