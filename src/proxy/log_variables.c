// SPDX-License-Identifier: BSD-2-Clause
// What the variables of log_variables.h print of an exchange. Called through the table by log_format.c.
#include "proxy/log_variables.h"

#include "base/addr.h"
#include "base/clock.h"
#include "net/conn.h"
#include "net/proxy_header.h"
#include "proxy/log_format.h"
#include "proxy/upstream.h"
#include "tls/stream.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

// What is the same for all lines of a second.
static struct {
    uint64_t second;
    char local[27], iso[26];  // with their NUL
    size_t local_len, iso_len;
    unsigned pid;
} cached = { .second = UINT64_MAX };

static bool worker_known;
static unsigned worker_number;

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
    line_print_padded(at, (unsigned)tm.tm_mday, 2);
    memcpy(at + 3, months + tm.tm_mon * 3, 3);
    line_print_padded(at + 7, (unsigned)tm.tm_year + 1900, 4);
    line_print_padded(at + 12, (unsigned)tm.tm_hour, 2);
    line_print_padded(at + 15, (unsigned)tm.tm_min, 2);
    line_print_padded(at + 18, (unsigned)tm.tm_sec, 2);
    at[21] = sign;
    line_print_padded(at + 22, (unsigned)(minutes / 60), 2);
    line_print_padded(at + 24, (unsigned)(minutes % 60), 2);
    cached.local_len = sizeof cached.local - 1;

    at = cached.iso;
    memcpy(at, "yyyy-mm-ddThh:mm:ss+hh:mm", sizeof cached.iso);
    line_print_padded(at, (unsigned)tm.tm_year + 1900, 4);
    line_print_padded(at + 5, (unsigned)tm.tm_mon + 1, 2);
    line_print_padded(at + 8, (unsigned)tm.tm_mday, 2);
    memcpy(at + 11, cached.local + 12, 8);
    at[19] = sign;
    memcpy(at + 20, cached.local + 22, 2);
    memcpy(at + 23, cached.local + 24, 2);
    cached.iso_len = sizeof cached.iso - 1;

    cached.pid = (unsigned)getpid();
    cached.second = second;
}

void log_variables_tick(void) {
    uint64_t second = clock_cached.wall_us / 1000000;
    if (second != cached.second)
        remember_second(second);
}

void log_format_set_worker(unsigned worker) {
    worker_known = true;
    worker_number = worker;
}

// ---- one function a variable ------------------------------------------------------------------------------

static struct conn *client_of(struct log_line *line) {
    return line->x->down && line->x->down->conn ? line->x->down->conn(line->x) : NULL;
}

// NULL when the client has gone.
static const struct addr *remote_of(struct log_line *line) {
    struct conn *conn = client_of(line);
    return conn ? conn_remote(conn) : NULL;
}

static const struct addr *local_of(struct log_line *line) {
    struct conn *conn = client_of(line);
    return conn ? conn_local(conn) : NULL;
}

// IPv4 by hand: it is nearly every line's first field.
static void put_ip(struct log_line *line, const struct addr *addr) {
    if (addr && addr_family(addr) == AF_INET) {
        const uint8_t *bytes = (const uint8_t *)&addr->in4.sin_addr;
        line_open(line);
        for (unsigned i = 0; i < 4; i++) {
            if (i > 0)
                line_char(line, '.');
            line_digits(line, bytes[i]);
        }
        line_close(line);
        return;
    }
    if (!addr || addr_family(addr) == AF_UNSPEC) {
        line_absent(line);
        return;
    }
    char text[ADDR_IP_MAX];
    line_safe(line, text, addr_print_ip(addr, text));
}

static void put_port(struct log_line *line, const struct addr *addr) {
    if (!addr || addr_port(addr) == 0)
        line_absent(line);
    else
        line_number(line, addr_port(addr));
}

static void put_remote_addr(struct log_line *line) {
    put_ip(line, remote_of(line));
}

static void put_proxy_addr(struct log_line *line) {
    struct conn *conn = client_of(line);
    const struct proxied *proxied = conn ? conn_proxied(conn) : NULL;
    put_ip(line, proxied ? &proxied->proxy : NULL);
}

static void put_remote_port(struct log_line *line) {
    put_port(line, remote_of(line));
}

static void put_local_addr(struct log_line *line) {
    put_ip(line, local_of(line));
}

static void put_local_port(struct log_line *line) {
    put_port(line, local_of(line));
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

static void put_remote_user(struct log_line *line) {
    struct slice value;
    if (!headers_get(&line->x->req.headers, HEADER_authorization, &value) ||
        !slice_istarts(value, SLICE_LIT("basic "))) {
        line_absent(line);
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
    line_text(line, slice_make(user, colon ? len : 0));  // without a colon all of it may be a password
}

static void put_connection(struct log_line *line) {
    struct conn *conn = client_of(line);
    if (conn)
        line_number(line, conn->id);
    else
        line_absent(line);
}

static void put_request_id(struct log_line *line) {
    line_text(line, slice_of(exchange_id(line->x)));
}

static void put_time_local(struct log_line *line) {
    line_safe(line, cached.local, cached.local_len);
}

static void put_time_iso8601(struct log_line *line) {
    line_safe(line, cached.iso, cached.iso_len);
}

static void put_msec(struct log_line *line) {
    line_fraction(line, cached.second, (unsigned)(clock_cached.wall_us / 1000 % 1000), 3);
}

static void put_version(struct log_line *line) {
    line_raw(line, "HTTP/", 5);
    line_digits(line, line->x->req.major);
    line_char(line, '.');
    line_digits(line, line->x->req.minor);
}

static void put_request(struct log_line *line) {
    const struct request *req = &line->x->req;
    if (req->method.len == 0) {
        line_absent(line);
        return;
    }
    line_open(line);
    line_part(line, req->method);
    line_char(line, ' ');
    line_part(line, line->x->wire_target);
    line_char(line, ' ');
    put_version(line);
    line_close(line);
}

static void put_method(struct log_line *line) {
    line_text(line, line->x->req.method);
}

static void put_target(struct log_line *line) {
    line_text(line, line->x->wire_target);
}

static void put_path(struct log_line *line) {
    line_text(line, line->x->req.path);
}

static void put_query(struct log_line *line) {
    line_text(line, line->x->req.query);
}

static void put_host(struct log_line *line) {
    line_text(line, line->x->req.authority);
}

static void put_scheme(struct log_line *line) {
    line_text(line, line->x->req.scheme);
}

static void put_tls(struct log_line *line, enum tls_field field) {
    struct conn *conn = client_of(line);
    line_text(line, conn ? tls_field(conn, field) : (struct slice){ 0 });
}

#define TLS_VARIABLE(name)                               \
    static void put_tls_##name(struct log_line *line) { \
        put_tls(line, TLS_##name);                       \
    }
TLS_VARIABLE(version)
TLS_VARIABLE(cipher)
TLS_VARIABLE(group)
TLS_VARIABLE(server_name)
TLS_VARIABLE(alpn)
TLS_VARIABLE(resumed)
TLS_VARIABLE(fingerprint)
TLS_VARIABLE(client_subject)
TLS_VARIABLE(client_issuer)
TLS_VARIABLE(client_serial)
TLS_VARIABLE(client_fingerprint)
TLS_VARIABLE(client_names)

static void put_protocol(struct log_line *line) {
    line_open(line);
    put_version(line);
    line_close(line);
}

static void put_status(struct log_line *line) {
    if (line->x->head_sent && line->x->res.status)
        line_number(line, line->x->res.status);
    else
        line_absent(line);
}

static void put_reason(struct log_line *line) {
    line_text(line, line->x->head_sent ? line->x->res.reason : slice_make(NULL, 0));
}

static void put_bytes_sent(struct log_line *line) {
    line_number(line, line->x->res_bytes);
}

static void put_bytes_received(struct log_line *line) {
    line_number(line, line->x->req_bytes);
}

static void put_field(struct log_line *line, const struct headers *headers) {
    const struct log_item *item = line->item;
    bool any = false;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (header->id != item->id || header->name.len == 0 || header->value.len == 0)
            continue;
        if (item->id == HEADER_OTHER && !slice_ieq(header->name, item->name))
            continue;
        if (any)
            line_raw(line, ", ", item->place == PLACE_BARE ? 1 : 2);
        else
            line_open(line);
        any = true;
        line_part(line, header->value);
    }
    if (any)
        line_close(line);
    else
        line_absent(line);
}

static void put_request_header_NAME(struct log_line *line) {
    put_field(line, &line->x->req.headers);
}

static void put_response_header_NAME(struct log_line *line) {
    put_field(line, &line->x->res.headers);
}

static void put_upstream_addr(struct log_line *line) {
    line_text(line, line->x->upstream_name);
}

static void put_upstream_name(struct log_line *line) {
    line_text(line, line->x->upstream ? slice_of(line->x->upstream->conf->name) : slice_make(NULL, 0));
}

static void put_upstream_attempts(struct log_line *line) {
    line_number(line, line->x->attempt);
}

static void put_upstream_reused(struct log_line *line) {
    if (line->x->at.dialled)
        line_flag(line, line->x->reused);
    else
        line_absent(line);
}

static void put_upstream_hedged(struct log_line *line) {
    enum hedged hedged = line->x->hedged;
    if (hedged < HEDGED_RACING)
        line_absent(line);
    else if (hedged == HEDGED_WON)
        line_safe(line, "won", 3);
    else
        line_safe(line, "lost", 4);
}

static void put_upstream_connect_time(struct log_line *line) {
    line_seconds(line, line->x->at.received, line->x->at.dialled);
}

static void put_upstream_header_time(struct log_line *line) {
    line_seconds(line, line->x->at.dialled, line->x->at.responded);
}

static uint64_t end_of(const struct exchange *x) {
    return x->at.ended ? x->at.ended : clock_us_now();
}

static void put_upstream_time(struct log_line *line) {
    line_seconds(line, line->x->at.dialled, end_of(line->x));
}

static void put_receive_time(struct log_line *line) {
    line_seconds(line, line->x->at.started, line->x->at.received);
}

static void put_first_byte_time(struct log_line *line) {
    line_seconds(line, line->x->at.started, line->x->at.first_byte);
}

static void put_total_time(struct log_line *line) {
    line_seconds(line, line->x->at.started, end_of(line->x));
}

static void put_termination(struct log_line *line) {
    struct slice name = slice_of(close_reason_name(line->x->reason));
    line_safe(line, name.at, name.len);
}

static void put_frontend(struct log_line *line) {
    line_text(line, line->x->site ? slice_of(line->x->site->name) : slice_make(NULL, 0));
}

static void put_worker(struct log_line *line) {
    if (worker_known)
        line_number(line, worker_number);
    else
        line_absent(line);
}

static void put_pid(struct log_line *line) {
    line_number(line, cached.pid);
}

const struct log_variable log_variables[] = {
#define X(variable, doc) { { #variable, sizeof #variable - 1 }, put_##variable, doc },
    LOG_VARIABLES(X)
#undef X
};

void log_format_print_variables(void (*print)(void *to, const char *name, const char *doc), void *to) {
    for (unsigned i = 0; i < LOG_VARIABLE_COUNT; i++)
        print(to, log_variables[i].name.at, log_variables[i].doc);
}
