// SPDX-License-Identifier: BSD-2-Clause
// Compiles formats and prints lines. Two halves: what prints a value of a certain kind in the place where the
// item stands (quoted, bare or JSON), and the variables on top of that. Called by access_log.c.
//
// To add a variable: a row in LOG_VARIABLES and a function put_NAME that calls exactly one of put_text(),
// put_safe(), put_number(), put_seconds(), put_flag(), put_absent(), or opens and closes a value of several
// parts.
#include "proxy/log_format.h"

#include "base/addr.h"
#include "base/check.h"
#include "base/clock.h"
#include "net/conn.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

//  X(name, documentation). Names that end in _NAME stand for a family: any field's name in place of NAME.
// clang-format off
#define LOG_VARIABLES(X) \
    X(remote_addr, "the client's IP address, \"unix\" for a unix socket") \
    X(remote_port, "the client's port") \
    X(remote_user, "the user name of HTTP basic authentication (RFC 7617), checked or not") \
    X(local_addr, "the address that the client connected to") \
    X(local_port, "the port that the client connected to") \
    X(connection, "the client connection's number, unique in the worker's life") \
    X(request_id, "the request id that error responses and the error log show") \
    X(time_local, "when the line was written, local time: 23/Nov/2026:13:05:00 +0100") \
    X(time_iso8601, "when the line was written, local time: 2026-11-23T13:05:00+01:00") \
    X(msec, "when the line was written, in seconds since 1970 with milliseconds") \
    X(request, "the request line: method, target and protocol") \
    X(method, "the request's method") \
    X(target, "the request's target as the client sent it") \
    X(path, "the normalised path without the query") \
    X(query, "the query without its question mark") \
    X(host, "the host that was asked for, with its port if one was given") \
    X(scheme, "http or https") \
    X(protocol, "the request's protocol: HTTP/1.1") \
    X(status, "the response's status; absent when no response was begun") \
    X(reason, "the response's reason phrase") \
    X(bytes_sent, "bytes of the response body sent to the client") \
    X(bytes_received, "bytes of the request body received from the client") \
    X(request_header_NAME, "a field of the request, underscores for dashes; repeated ones joined by commas") \
    X(response_header_NAME, "a field of the response, likewise") \
    X(upstream_addr, "the server that was asked last, as the configuration names it") \
    X(upstream_name, "the upstream that the request was routed to") \
    X(upstream_attempts, "how many times a server was asked") \
    X(upstream_reused, "yes when the last attempt used a pooled connection, no when it was a new one") \
    X(upstream_connect_time, "seconds from the complete request head to the connection to the server") \
    X(upstream_header_time, "seconds from then until the response head was complete") \
    X(upstream_time, "seconds from the connection to the server to the exchange's end") \
    X(receive_time, "seconds from the first byte of the request head to its last") \
    X(first_byte_time, "seconds from the first byte of the request to that of the response") \
    X(total_time, "seconds from the first byte of the request to the exchange's end") \
    X(termination, "why the exchange ended, none when as it should") \
    X(frontend, "the frontend's name") \
    X(worker, "the worker's number") \
    X(pid, "the worker's process id")
// clang-format on

// The built-in formats. In JSON lines each key is the variable's name.
static const char combined_format[] =
    "$remote_addr - $remote_user [$time_local] \"$request\" $status $bytes_sent "
    "\"$request_header_referer\" \"$request_header_user_agent\"";

// clang-format off
static const char *const json_fields[] = {
    "time_iso8601", "msec", "request_id", "connection", "remote_addr", "remote_port", "frontend",
    "scheme", "method", "host", "target", "protocol", "request_header_referer", "request_header_user_agent",
    "status", "bytes_received", "bytes_sent", "first_byte_time", "total_time",
    "upstream_name", "upstream_addr", "upstream_attempts", "upstream_reused", "upstream_connect_time",
    "upstream_header_time", "upstream_time", "termination", "worker",
};
// clang-format on

enum place {
    PLACE_BARE,    // in an own format outside quotes: a space would end the field, so it is escaped too
    PLACE_QUOTED,  // between quotes
    PLACE_JSON,    // a JSON value
};

struct line;

struct item {
    struct slice literal;  // stands before the value
    void (*put)(struct line *line);
    enum place place;
    enum header_id id;  // of a header variable
    struct slice name;  // and its field's name when the id is HEADER_OTHER
};

struct log_format {
    struct arena arena;  // the texts
    struct slice tail;   // after the last item, with the newline
    unsigned count;
    struct item items[];
};

// A line being printed. Once something did not fit, nothing more does.
struct line {
    char *at, *end;
    bool full;
    size_t limit;
    struct exchange *x;
    const struct item *item;
};

// What is the same for all lines of a second.
static struct {
    uint64_t second;
    char local[27], iso[26];  // with their NUL
    size_t local_len, iso_len;
    unsigned pid;
} cached = { .second = UINT64_MAX };

static bool worker_known;
static unsigned worker_number;

// ---- values -----------------------------------------------------------------------------------------------------

static bool has_room(struct line *line, size_t len) {
    if (__builtin_expect((size_t)(line->end - line->at) >= len, 1))
        return true;
    line->full = true;
    line->end = line->at;
    return false;
}

static void put_raw(struct line *line, const char *at, size_t len) {
    if (has_room(line, len)) {
        memcpy(line->at, at, len);
        line->at += len;
    }
}

static void put_char(struct line *line, char c) {
    if (has_room(line, 1))
        *line->at++ = c;
}

static const char pairs[201] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

// Writes exactly `digits` digits.
static void print_padded(char *at, unsigned value, unsigned digits) {
    for (; digits >= 2; digits -= 2, value /= 100)
        memcpy(at + digits - 2, pairs + value % 100 * 2, 2);
    if (digits)
        *at = (char)('0' + value % 10);
}

static void put_digits(struct line *line, uint64_t value) {
    char text[20], *at = text + sizeof text;
    for (; value >= 100; value /= 100)
        memcpy(at -= 2, pairs + value % 100 * 2, 2);
    if (value >= 10)
        memcpy(at -= 2, pairs + value * 2, 2);
    else
        *--at = (char)('0' + value);
    put_raw(line, at, (size_t)(text + sizeof text - at));
}

// The length of the UTF-8 sequence (RFC 3629) at the front, 0 when it is none.
static unsigned utf8_length(const unsigned char *at, size_t len) {
    unsigned char first = at[0];
    unsigned want = 0;
    if (first >= 0xc2 && first <= 0xdf)
        want = 2;
    else if (first >= 0xe0 && first <= 0xef)
        want = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        want = 4;
    if (want == 0 || want > len)
        return 0;
    for (unsigned i = 1; i < want; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) ||  // overlong; surrogates
        (first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f))    // overlong; beyond U+10FFFF
        return 0;
    return want;
}

enum { ESCAPED_MAX = 6 };  // the longest that one byte becomes: \u001f

// Copies or escapes what stands at the front; returns how many bytes of it that were. The caller saw to the
// room: ESCAPED_MAX, whatever it is.
static size_t print_escaped(char **to, const unsigned char *at, size_t len, enum place place) {
    static const char hex[] = "0123456789ABCDEF";
    unsigned char c = at[0];
    bool plain = c > 0x20 && c < 0x7f && c != '"' && c != '\\';
    if (plain || (c == ' ' && place != PLACE_BARE)) {
        *(*to)++ = (char)c;
        return 1;
    }
    if (place != PLACE_JSON) {
        memcpy(*to, (char[]){ '\\', 'x', hex[c >> 4], hex[c & 15] }, 4);
        *to += 4;
        return 1;
    }
    if (c == '"' || c == '\\') {
        memcpy(*to, (char[]){ '\\', (char)c }, 2);
        *to += 2;
        return 1;
    }
    unsigned sequence = c < 0x80 ? 1 : utf8_length(at, len);
    if (sequence == 0) {
        memcpy(*to, "\\ufffd", 6);
        *to += 6;
        return 1;
    }
    if (c < 0x80 || (c == 0xc2 && at[1] < 0xa0)) {  // controls of both sets: a terminal obeys the second, too
        unsigned char code = c < 0x80 ? c : at[1];
        memcpy(*to, (char[]){ '\\', 'u', '0', '0', hex[code >> 4], hex[code & 15] }, 6);
        *to += 6;
        return sequence;
    }
    memcpy(*to, at, sequence);
    *to += sequence;
    return sequence;
}

// Whether none of eight bytes needs a look: all from `floor` to 0x7e, no quote and no backslash. Eight at
// once, by the borrow into each byte's highest bit.
static bool all_plain(uint64_t bytes, unsigned floor) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\', del = bytes ^ ones * 0x7f;
    uint64_t found = bytes | ((bytes - ones * floor) & ~bytes) | ((quote - ones) & ~quote) |
        ((backslash - ones) & ~backslash) | ((del - ones) & ~del);
    return (found & tops) == 0;
}

// Part of a value: a peer's bytes, escaped for the place.
static void put_part(struct line *line, struct slice text) {
    const enum place place = line->item->place;
    const unsigned floor = place == PLACE_BARE ? 0x21 : 0x20;
    const unsigned char *at = (const unsigned char *)text.at;
    size_t len = text.len < line->limit ? text.len : line->limit;
    while (len > 0) {
        // The last bytes' UTF-8 sequence may be cut by the limit; then it counts as broken.
        uint64_t bytes;
        if (len >= sizeof bytes && (size_t)(line->end - line->at) >= sizeof bytes) {
            memcpy(&bytes, at, sizeof bytes);
            if (all_plain(bytes, floor)) {
                memcpy(line->at, &bytes, sizeof bytes);
                line->at += sizeof bytes, at += sizeof bytes, len -= sizeof bytes;
                continue;
            }
        }
        for (const unsigned char *stop = at + (len < sizeof bytes ? len : sizeof bytes); at < stop;) {
            if (!has_room(line, ESCAPED_MAX))
                return;
            size_t passed = print_escaped(&line->at, at, len, place);
            at += passed, len -= passed;
        }
    }
    if (text.len > line->limit)
        put_raw(line, "...", 3);
}

static void put_open(struct line *line) {
    if (line->item->place == PLACE_JSON)
        put_char(line, '"');
}

static void put_close(struct line *line) {
    put_open(line);
}

static void put_absent(struct line *line) {
    if (line->item->place == PLACE_JSON)
        put_raw(line, "null", 4);
    else
        put_char(line, '-');
}

// A peer's or an operator's text; an empty one counts as absent.
static void put_text(struct line *line, struct slice text) {
    if (text.len == 0) {
        put_absent(line);
        return;
    }
    put_open(line);
    put_part(line, text);
    put_close(line);
}

// Text that moongate made: nothing in it needs to be escaped anywhere.
static void put_safe(struct line *line, const char *at, size_t len) {
    put_open(line);
    put_raw(line, at, len);
    put_close(line);
}

static void put_number(struct line *line, uint64_t value) {
    put_digits(line, value);
}

static void put_flag(struct line *line, bool value) {
    if (line->item->place == PLACE_JSON)
        put_raw(line, value ? "true" : "false", value ? 4 : 5);
    else
        put_raw(line, value ? "yes" : "no", value ? 3 : 2);
}

static void put_fraction(struct line *line, uint64_t whole, unsigned fraction, unsigned digits) {
    char text[8] = ".";
    print_padded(text + 1, fraction, digits);
    put_digits(line, whole);
    put_raw(line, text, digits + 1);
}

// A duration between two moments in microseconds, 0 being "has not happened".
static void put_seconds(struct line *line, uint64_t from, uint64_t to) {
    if (from == 0 || to == 0) {
        put_absent(line);
        return;
    }
    uint64_t us = to > from ? to - from : 0;
    put_fraction(line, us / 1000000, (unsigned)(us % 1000000), 6);
}

// ---- variables --------------------------------------------------------------------------------------------------

static struct conn *client_of(struct line *line) {
    return line->x->down && line->x->down->conn ? line->x->down->conn(line->x) : NULL;
}

// IPv4 by hand: it is nearly every line's first field.
static void put_ip(struct line *line, const struct addr *addr) {
    if (addr_family(addr) == AF_INET) {
        const uint8_t *bytes = (const uint8_t *)&addr->in4.sin_addr;
        put_open(line);
        for (unsigned i = 0; i < 4; i++) {
            if (i > 0)
                put_char(line, '.');
            put_digits(line, bytes[i]);
        }
        put_close(line);
        return;
    }
    if (addr_family(addr) == AF_UNSPEC) {
        put_absent(line);
        return;
    }
    char text[ADDR_IP_MAX];
    put_safe(line, text, addr_print_ip(addr, text));
}

static void put_port(struct line *line, const struct addr *addr) {
    if (addr_port(addr) == 0)
        put_absent(line);
    else
        put_number(line, addr_port(addr));
}

static void put_remote_addr(struct line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        put_ip(line, conn_remote(conn));
    else
        put_absent(line);
}

static void put_remote_port(struct line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        put_port(line, conn_remote(conn));
    else
        put_absent(line);
}

static void put_local_addr(struct line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        put_ip(line, conn_local(conn));
    else
        put_absent(line);
}

static void put_local_port(struct line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        put_port(line, conn_local(conn));
    else
        put_absent(line);
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void put_remote_user(struct line *line) {
    struct slice value;
    if (!headers_get(&line->x->req.headers, HEADER_authorization, &value) ||
        !slice_istarts(value, SLICE_LIT("basic "))) {
        put_absent(line);
        return;
    }
    value = slice_trim(slice_from(value, 6));
    char user[256];
    size_t len = 0;
    bool colon = false;
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < value.len && !colon && len < sizeof user; i++) {
        int six = base64_value(value.at[i]);
        if (six < 0)
            break;
        bits = bits << 6 | (uint32_t)six;
        have += 6;
        if (have >= 8) {
            have -= 8;
            char c = (char)(bits >> have);
            colon = c == ':';
            if (!colon)
                user[len++] = c;
        }
    }
    put_text(line, slice_make(user, colon ? len : 0));  // without a colon all of it may be a password
}

static void put_connection(struct line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        put_number(line, conn->id);
    else
        put_absent(line);
}

static void put_request_id(struct line *line) {
    put_text(line, slice_of(exchange_id(line->x)));
}

static void put_time_local(struct line *line) {
    put_safe(line, cached.local, cached.local_len);
}

static void put_time_iso8601(struct line *line) {
    put_safe(line, cached.iso, cached.iso_len);
}

static void put_msec(struct line *line) {
    put_fraction(line, cached.second, (unsigned)(clock_cached.wall_us / 1000 % 1000), 3);
}

static void put_version(struct line *line) {
    put_raw(line, "HTTP/", 5);
    put_digits(line, line->x->req.major);
    put_char(line, '.');
    put_digits(line, line->x->req.minor);
}

static void put_request(struct line *line) {
    const struct request *req = &line->x->req;
    if (req->method.len == 0) {
        put_absent(line);
        return;
    }
    put_open(line);
    put_part(line, req->method);
    put_char(line, ' ');
    put_part(line, line->x->wire_target);
    put_char(line, ' ');
    put_version(line);
    put_close(line);
}

static void put_method(struct line *line) {
    put_text(line, line->x->req.method);
}

static void put_target(struct line *line) {
    put_text(line, line->x->wire_target);
}

static void put_path(struct line *line) {
    put_text(line, line->x->req.path);
}

static void put_query(struct line *line) {
    put_text(line, line->x->req.query);
}

static void put_host(struct line *line) {
    put_text(line, line->x->req.authority);
}

static void put_scheme(struct line *line) {
    put_text(line, line->x->req.scheme);
}

static void put_protocol(struct line *line) {
    put_open(line);
    put_version(line);
    put_close(line);
}

static void put_status(struct line *line) {
    if (line->x->head_sent && line->x->res.status)
        put_number(line, line->x->res.status);
    else
        put_absent(line);
}

static void put_reason(struct line *line) {
    put_text(line, line->x->head_sent ? line->x->res.reason : slice_make(NULL, 0));
}

static void put_bytes_sent(struct line *line) {
    put_number(line, line->x->res_bytes);
}

static void put_bytes_received(struct line *line) {
    put_number(line, line->x->req_bytes);
}

static void put_field(struct line *line, const struct headers *headers) {
    const struct item *item = line->item;
    bool any = false;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->id != item->id || header->name.len == 0 || header->value.len == 0)
            continue;
        if (item->id == HEADER_OTHER && !slice_ieq(header->name, item->name))
            continue;
        if (any)
            put_raw(line, ", ", item->place == PLACE_BARE ? 1 : 2);
        else
            put_open(line);
        any = true;
        put_part(line, header->value);
    }
    if (any)
        put_close(line);
    else
        put_absent(line);
}

static void put_request_header_NAME(struct line *line) {
    put_field(line, &line->x->req.headers);
}

static void put_response_header_NAME(struct line *line) {
    put_field(line, &line->x->res.headers);
}

static void put_upstream_addr(struct line *line) {
    put_text(line, line->x->upstream_name);
}

static void put_upstream_name(struct line *line) {
    put_text(line, line->x->upstream ? slice_of(line->x->upstream->conf->name) : slice_make(NULL, 0));
}

static void put_upstream_attempts(struct line *line) {
    put_number(line, line->x->attempt);
}

static void put_upstream_reused(struct line *line) {
    if (line->x->at.dialled)
        put_flag(line, line->x->reused);
    else
        put_absent(line);
}

static void put_upstream_connect_time(struct line *line) {
    put_seconds(line, line->x->at.received, line->x->at.dialled);
}

static void put_upstream_header_time(struct line *line) {
    put_seconds(line, line->x->at.dialled, line->x->at.responded);
}

static uint64_t end_of(const struct exchange *x) {
    return x->at.ended ? x->at.ended : clock_us_now();
}

static void put_upstream_time(struct line *line) {
    put_seconds(line, line->x->at.dialled, end_of(line->x));
}

static void put_receive_time(struct line *line) {
    put_seconds(line, line->x->at.started, line->x->at.received);
}

static void put_first_byte_time(struct line *line) {
    put_seconds(line, line->x->at.started, line->x->at.first_byte);
}

static void put_total_time(struct line *line) {
    put_seconds(line, line->x->at.started, end_of(line->x));
}

static void put_termination(struct line *line) {
    struct slice name = slice_of(close_reason_name(line->x->reason));
    put_safe(line, name.at, name.len);
}

static void put_frontend(struct line *line) {
    put_text(line, line->x->site ? slice_of(line->x->site->name) : slice_make(NULL, 0));
}

static void put_worker(struct line *line) {
    if (worker_known)
        put_number(line, worker_number);
    else
        put_absent(line);
}

static void put_pid(struct line *line) {
    put_number(line, cached.pid);
}

static const struct variable {
    struct slice name;
    void (*put)(struct line *line);
    const char *doc;
} variables[] = {
#define X(variable, doc) { { #variable, sizeof #variable - 1 }, put_##variable, doc },
    LOG_VARIABLES(X)
#undef X
};
enum { VARIABLE_COUNT = sizeof variables / sizeof *variables };

void log_format_print_variables(void (*print)(void *to, const char *name, const char *doc), void *to) {
    for (unsigned i = 0; i < VARIABLE_COUNT; i++)
        print(to, variables[i].name.at, variables[i].doc);
}

void log_format_set_worker(unsigned worker) {
    worker_known = true;
    worker_number = worker;
}

// ---- a line -----------------------------------------------------------------------------------------------------

static void remember_second(uint64_t second) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";  // strftime's depend on the locale
    time_t now = (time_t)second;
    struct tm tm;
    if (!localtime_r(&now, &tm))
        tm = (struct tm){ .tm_mday = 1, .tm_year = 70 };
    long minutes = tm.tm_gmtoff / 60;
    char sign = minutes < 0 ? '-' : '+';
    if (minutes < 0)
        minutes = -minutes;

    char *at = cached.local;
    memcpy(at, "dd/Mon/yyyy:hh:mm:ss +hhmm", sizeof cached.local);
    print_padded(at, (unsigned)tm.tm_mday, 2);
    memcpy(at + 3, months + tm.tm_mon * 3, 3);
    print_padded(at + 7, (unsigned)tm.tm_year + 1900, 4);
    print_padded(at + 12, (unsigned)tm.tm_hour, 2);
    print_padded(at + 15, (unsigned)tm.tm_min, 2);
    print_padded(at + 18, (unsigned)tm.tm_sec, 2);
    at[21] = sign;
    print_padded(at + 22, (unsigned)(minutes / 60), 2);
    print_padded(at + 24, (unsigned)(minutes % 60), 2);
    cached.local_len = sizeof cached.local - 1;

    at = cached.iso;
    memcpy(at, "yyyy-mm-ddThh:mm:ss+hh:mm", sizeof cached.iso);
    print_padded(at, (unsigned)tm.tm_year + 1900, 4);
    print_padded(at + 5, (unsigned)tm.tm_mon + 1, 2);
    print_padded(at + 8, (unsigned)tm.tm_mday, 2);
    memcpy(at + 11, cached.local + 12, 8);
    at[19] = sign;
    memcpy(at + 20, cached.local + 22, 2);
    memcpy(at + 23, cached.local + 24, 2);
    cached.iso_len = sizeof cached.iso - 1;

    cached.pid = (unsigned)getpid();
    cached.second = second;
}

size_t log_format_line(const struct log_format *format, struct exchange *x, char *at, size_t room,
                       size_t limit) {
    uint64_t second = clock_cached.wall_us / 1000000;
    if (second != cached.second)
        remember_second(second);
    struct line line = { .at = at, .end = at + room, .limit = limit, .x = x };
    for (unsigned i = 0; i < format->count; i++) {
        line.item = &format->items[i];
        put_raw(&line, line.item->literal.at, line.item->literal.len);
        line.item->put(&line);
    }
    put_raw(&line, format->tail.at, format->tail.len);
    return line.full ? 0 : (size_t)(line.at - at);
}

// ---- compiling --------------------------------------------------------------------------------------------------

enum { NAME_SUFFIX = sizeof "NAME" - 1, NAME_MAX_BYTES = 64 };

static bool is_family(const struct variable *variable) {
    return variable->name.len > NAME_SUFFIX &&
        memcmp(variable->name.at + variable->name.len - NAME_SUFFIX, "NAME", NAME_SUFFIX) == 0;
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// Names that other proxies' formats use, for who brings one along.
// clang-format off
static const char *const known_elsewhere[][2] = {
    { "body_bytes_sent", "bytes_sent" }, { "request_length", "bytes_received" },
    { "request_method", "method" },
    { "request_uri", "target" }, { "uri", "path" }, { "args", "query" }, { "query_string", "query" },
    { "http_host", "host" }, { "server_name", "host" }, { "server_addr", "local_addr" },
    { "server_port", "local_port" }, { "server_protocol", "protocol" }, { "request_time", "total_time" },
    { "upstream_response_time", "upstream_time" },
    { "http_user_agent", "request_header_user_agent" }, { "http_referer", "request_header_referer" },
    { "http_x_forwarded_for", "request_header_x_forwarded_for" },
};
// clang-format on

// How many letters must be inserted, removed or changed to make one text of the other (Levenshtein).
static unsigned distance(struct slice a, struct slice b) {
    unsigned row[NAME_MAX_BYTES + 1];
    for (unsigned i = 0; i <= b.len; i++)
        row[i] = i;
    for (unsigned i = 0; i < a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = i + 1;
        for (unsigned k = 0; k < b.len; k++) {
            unsigned changed = diagonal + (a.at[i] != b.at[k]);
            unsigned shorter = (row[k] < row[k + 1] ? row[k] : row[k + 1]) + 1;
            diagonal = row[k + 1];
            row[k + 1] = changed < shorter ? changed : shorter;
        }
    }
    return row[b.len];
}

static struct slice suggest(struct slice name) {
    for (size_t i = 0; i < sizeof known_elsewhere / sizeof *known_elsewhere; i++)
        if (slice_ieq(name, slice_of(known_elsewhere[i][0])))
            return slice_of(known_elsewhere[i][1]);
    if (slice_istarts(name, SLICE_LIT("http_")))
        return SLICE_LIT("request_header_NAME");
    if (slice_istarts(name, SLICE_LIT("sent_http_")) || slice_istarts(name, SLICE_LIT("upstream_http_")))
        return SLICE_LIT("response_header_NAME");
    struct slice best = { NULL, 0 };
    unsigned best_distance = (unsigned)name.len / 3 + 1;
    for (unsigned i = 0; i < VARIABLE_COUNT && name.len <= NAME_MAX_BYTES; i++) {
        struct slice a = name, b = variables[i].name;
        if (is_family(&variables[i])) {  // what comes before the field's name counts
            const char *mark = memmem(name.at, name.len, "header", 6);
            if (!mark)
                continue;
            b.len -= NAME_SUFFIX;
            a.len = (size_t)(mark - name.at) + 7 < name.len ? (size_t)(mark - name.at) + 7 : name.len;
        }
        unsigned d = distance(a, b);
        if (d <= best_distance) {
            best = variables[i].name;
            best_distance = d - (d > 0);  // only a nearer one replaces it
        }
    }
    return best;
}

// Field names in formats: letters, digits and _, which stands for a dash.
static int compile_field(struct log_format *format, struct item *item, struct slice name) {
    struct slice field = arena_copy(&format->arena, name);
    if (!field.at)
        return -ENOMEM;
    for (size_t i = 0; i < field.len; i++)
        if (field.at[i] == '_')
            ((char *)field.at)[i] = '-';
    item->name = field;
    item->id = header_id_of(field);
    return 0;
}

static int compile_variable(struct log_format *format, struct item *item, struct slice name, size_t column,
                            struct error *error) {
    for (unsigned i = 0; i < VARIABLE_COUNT; i++) {
        const struct variable *variable = &variables[i];
        struct slice prefix = slice_make(variable->name.at, variable->name.len - NAME_SUFFIX);
        if (is_family(variable) && slice_starts(name, prefix)) {
            if (name.len == prefix.len)
                return error_set(error, -EINVAL,
                                 "column %zu: \"$%.*s\" names no field, expected \"$%.*sNAME\"", column,
                                 SLICE_ARG(name), SLICE_ARG(prefix));
            item->put = variable->put;
            return compile_field(format, item, slice_from(name, prefix.len)) < 0
                ? error_set(error, -ENOMEM, "memory is out")
                : 0;
        }
        if (!is_family(variable) && slice_eq(name, variable->name)) {
            item->put = variable->put;
            return 0;
        }
    }
    struct slice near = suggest(name);
    int shown = name.len < NAME_MAX_BYTES ? (int)name.len : NAME_MAX_BYTES;
    error_set(error, -EINVAL, "column %zu: unknown variable \"$%.*s\"", column, shown, name.at);
    if (near.len > 0)
        error_set(error, -EINVAL, "column %zu: unknown variable \"$%.*s\", did you mean \"$%.*s\"?", column,
                  shown, name.at, SLICE_ARG(near));
    return -EINVAL;
}

// Takes "$name" or "${name}" off the front of *rest.
static int next_name(struct slice *rest, size_t column, struct slice *ret_name, struct error *error) {
    struct slice s = slice_from(*rest, 1);
    bool braces = s.len > 0 && s.at[0] == '{';
    if (braces)
        s = slice_from(s, 1);
    size_t len = 0;
    while (len < s.len && is_name_char(s.at[len]))
        len++;
    if (braces && (len == s.len || s.at[len] != '}'))
        return error_set(error, -EINVAL, "column %zu: \"${\" without \"}\" behind a variable's name", column);
    if (len == 0)
        return error_set(error, -EINVAL,
                         "column %zu: \"$\" without a variable's name, \"$$\" writes a dollar", column);
    *ret_name = slice_make(s.at, len);
    *rest = slice_from(s, len + braces);
    return 0;
}

static int compile_text(struct log_format *format, const char *text, struct error *error) {
    struct slice rest = slice_of(text), literal = SLICE_LIT("");
    bool quoted = false;
    while (rest.len > 0) {
        size_t column = (size_t)(rest.at - text) + 1;
        if (rest.at[0] != '$' || (rest.len > 1 && rest.at[1] == '$')) {
            if (arena_append(&format->arena, &literal, rest.at, 1) < 0)
                return error_set(error, -ENOMEM, "memory is out");
            quoted ^= rest.at[0] == '"';
            rest = slice_from(rest, rest.at[0] == '$' ? 2 : 1);
            continue;
        }
        struct item *item = &format->items[format->count];
        struct slice name;
        int rc = next_name(&rest, column, &name, error);
        if (rc == 0)
            rc = compile_variable(format, item, name, column, error);
        if (rc < 0)
            return rc;
        item->place = quoted ? PLACE_QUOTED : PLACE_BARE;
        item->literal = literal;
        literal = SLICE_LIT("");
        format->count++;
    }
    if (arena_append(&format->arena, &literal, "\n", 1) < 0)
        return error_set(error, -ENOMEM, "memory is out");
    format->tail = literal;
    return 0;
}

static int compile_json(struct log_format *format, struct error *error) {
    for (unsigned i = 0; i < sizeof json_fields / sizeof *json_fields; i++) {
        struct item *item = &format->items[format->count++];
        const char *literal = arena_printf(&format->arena, "%c\"%s\":", i == 0 ? '{' : ',', json_fields[i]);
        if (!literal)
            return error_set(error, -ENOMEM, "memory is out");
        item->literal = slice_of(literal);
        item->place = PLACE_JSON;
        int rc = compile_variable(format, item, slice_of(json_fields[i]), 1, error);
        if (rc < 0)
            return rc;
    }
    format->tail = SLICE_LIT("}\n");
    return 0;
}

int log_format_new(enum conf_log_style style, const char *text, struct log_format **ret_format,
                   struct error *error) {
    if (style == LOG_STYLE_COMBINED)
        text = combined_format;
    size_t room = sizeof json_fields / sizeof *json_fields;
    if (style != LOG_STYLE_JSON) {
        room = 0;
        for (const char *at = text; *at; at++)
            room += *at == '$';
    }
    struct log_format *format = calloc(1, sizeof *format + room * sizeof *format->items);
    if (!format)
        return error_set(error, -ENOMEM, "memory is out");
    arena_init(&format->arena);
    int rc = style == LOG_STYLE_JSON ? compile_json(format, error) : compile_text(format, text, error);
    if (rc < 0) {
        log_format_free(format);
        return rc;
    }
    *ret_format = format;
    return 0;
}

void log_format_free(struct log_format *format) {
    if (!format)
        return;
    arena_release(&format->arena);
    free(format);
}
