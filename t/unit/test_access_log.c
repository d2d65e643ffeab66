// SPDX-License-Identifier: BSD-2-Clause
// The access log: what lines look like, that none can be forged, what is wrong with a format, and that lines
// reach files whole and in order through the real ring, whatever the file does. Exchanges are made by hand;
// conns are real.
#include "proxy/access_log.h"
#include "proxy/log_format.h"

#include "base/clock.h"
#include "base/counters.h"
#include "proxy/upstream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

// ---- an exchange made by hand -----------------------------------------------------------------------------------

static struct conn *client;

static struct conn *get_client(struct exchange *x) {
    (void)x;
    return client;
}

static const struct downstream_ops fake_downstream = { .conn = get_client };
static const struct conf_upstream upstream_conf = { .name = "app" };
static struct upstream fake_upstream = { .conf = &upstream_conf };
static struct exchange_site site = { .name = "web" };

static void add(struct exchange *x, struct headers *headers, const char *name, const char *value) {
    cr_assert_eq(headers_add(headers, &x->arena, slice_of(name), slice_of(value)), 0);
}

static void make_exchange(struct exchange *x) {
    *x = (struct exchange){
        .site = &site,
        .down = &fake_downstream,
        .head_sent = true,
        .attempt = 2,
        .reused = true,
        .upstream = &fake_upstream,
        .upstream_name = SLICE_LIT("10.0.0.1:9000"),
        .wire_target = SLICE_LIT("/a%20b?q=1"),
        .id = "01abc",
        .req_bytes = 7,
        .res_bytes = 123456,
        .req = { .method = SLICE_LIT("GET"),
                 .target = SLICE_LIT("/rewritten"),
                 .path = SLICE_LIT("/a b"),
                 .query = SLICE_LIT("q=1"),
                 .scheme = SLICE_LIT("http"),
                 .authority = SLICE_LIT("example.org:8080"),
                 .major = 1,
                 .minor = 1 },
        .res = { .status = 200, .reason = SLICE_LIT("All Right") },
        .at = { .started = 1000000,
                .received = 1000005,
                .dialled = 1001005,
                .responded = 3501005,
                .first_byte = 3501010,
                .ended = 4000000 },
    };
    arena_init(&x->arena);
    add(x, &x->req.headers, "Host", "example.org:8080");
    add(x, &x->req.headers, "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36");
    add(x, &x->req.headers, "Referer", "http://example.org/from");
    add(x, &x->req.headers, "X-Two", "one");
    add(x, &x->req.headers, "x-two", "two");
    add(x, &x->res.headers, "Content-Type", "text/html");
}

static const char *print(enum conf_log_style style, const char *text, struct exchange *x) {
    static char line[65536];
    struct error error = { "" };
    struct log_format *format = NULL;
    cr_assert_eq(log_format_new(style, text, &format, &error), 0, "%s", error.text);
    size_t len = log_format_line(format, x, line, sizeof line - 1, SIZE_MAX);
    cr_assert(len > 0 && line[len - 1] == '\n');
    line[len - 1] = 0;
    log_format_free(format);
    return line;
}

#define expect(text, wanted)                                 \
    do {                                                     \
        const char *got = print(LOG_STYLE_FORMAT, text, &x); \
        cr_expect_str_eq(got, wanted, "%s: %s", text, got);  \
    } while (0)

static void set_time(uint64_t wall_us) {
    setenv("TZ", "Test-5:30", 1);  // half an hour beside the full one, east
    tzset();
    clock_cached.wall_us = wall_us;
}

static void start_ring(void) {
    struct error error = { "" };
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(ring_init(&(struct ring_options){ .entries = 64, .receive_bytes = 1 << 20 }, &error), 0,
                 "%s", error.text);
}

// A real conn, of a client at 127.0.0.1.
static void start_client(void) {
    start_ring();
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), peer = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    cr_assert_eq(connect(peer, (struct sockaddr *)&addr, sizeof addr), 0);
    static const struct conn_handler handler;
    client = conn_accepted(accept(listener, NULL, NULL), &handler, NULL);
    cr_assert(client);
    close(listener);
}

// ---- lines ------------------------------------------------------------------------------------------------------

Test(access_log, combined_is_the_format_that_every_log_reader_knows) {
    struct exchange x;
    make_exchange(&x);
    start_client();
    set_time(1700000000000000 + 123456);
    const char *line = print(LOG_STYLE_COMBINED, NULL, &x);
    cr_assert_str_eq(line,
                     "127.0.0.1 - - [15/Nov/2023:03:43:20 +0530] \"GET /a%20b?q=1 HTTP/1.1\" 200 123456 "
                     "\"http://example.org/from\" "
                     "\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36\"",
                     "%s", line);
    x.req.headers.count = 1;
    add(&x, &x.req.headers, "Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    line = print(LOG_STYLE_COMBINED, NULL, &x);
    cr_assert_str_eq(
        line,
        "127.0.0.1 - Aladdin [15/Nov/2023:03:43:20 +0530] \"GET /a%20b?q=1 HTTP/1.1\" 200 123456 "
        "\"-\" \"-\"",
        "%s", line);
    arena_release(&x.arena);
}

Test(access_log, every_variable_prints_what_it_stands_for) {
    struct exchange x;
    make_exchange(&x);
    start_client();
    set_time(1700000000000000 + 123456);
    char wanted[200];
    expect("$remote_addr|$local_addr|$request_id", "127.0.0.1|127.0.0.1|01abc");
    snprintf(wanted, sizeof wanted, "%u|%u|%llu|%u", addr_port(conn_remote(client)),
             addr_port(conn_local(client)), (unsigned long long)client->id, (unsigned)getpid());
    expect("$remote_port|$local_port|$connection|$pid", wanted);
    expect("$time_iso8601 $msec", "2023-11-15T03:43:20+05:30 1700000000.123");
    expect("$method $target \"$path\" $query", "GET /a%20b?q=1 \"/a b\" q=1");
    expect("$host $scheme $protocol", "example.org:8080 http HTTP/1.1");
    expect("$status \"$reason\" $bytes_sent $bytes_received", "200 \"All Right\" 123456 7");
    expect("${request_header_x_two} $request_header_X_Two \"$request_header_x_two\"",
           "one,two one,two \"one, two\"");
    expect("$response_header_content_type;$request_header_content_type", "text/html;-");
    expect("$upstream_addr $upstream_name $upstream_attempts $upstream_reused", "10.0.0.1:9000 app 2 yes");
    expect("$upstream_connect_time $upstream_header_time $upstream_time", "0.001000 2.500000 2.998995");
    expect("$receive_time $first_byte_time $total_time", "0.000005 2.501010 3.000000");
    expect("$termination $frontend $worker", "none web -");
    access_log_set_worker(3);
    x.reason = CLOSE_send_timeout;
    expect("$termination $worker", "send_timeout 3");
    expect("${status}s cost $$5, $$status", "200s cost $5, $status");
    expect("no variable", "no variable");
    x.res_bytes = UINT64_MAX;
    expect("$bytes_sent", "18446744073709551615");
    arena_release(&x.arena);
}

static void count_variable(void *to, const char *name, const char *doc) {
    unsigned *count = to;
    cr_assert(name[0] && doc[0]);
    struct error error;
    char format[80];
    snprintf(format, sizeof format, "$%s", name);
    cr_assert_eq(access_log_check(format, &error), 0, "%s", error.text);
    ++*count;
}

Test(access_log, what_is_absent_is_a_dash) {
    struct exchange x = { .id = "" };
    client = NULL;
    expect("$remote_addr $remote_port $local_addr $local_port $remote_user $connection", "- - - - - -");
    expect("$request $method $target $path $query $host $scheme $status $reason", "- - - - - - - - -");
    expect("$request_header_host $response_header_x $upstream_addr $upstream_name $frontend", "- - - - -");
    expect("$upstream_reused $upstream_connect_time $upstream_header_time $upstream_time", "- - - -");
    expect("$receive_time $first_byte_time $total_time", "- - -");
    unsigned count = 0;
    access_log_print_variables(count_variable, &count);
    cr_assert_geq(count, 38);
}

Test(access_log, a_json_line_keeps_types_and_escapes) {
    struct exchange x;
    make_exchange(&x);
    start_client();
    set_time(1700000000000000 + 5000);
    x.req.headers.count = 0;
    add(&x, &x.req.headers, "User-Agent",
        "a\"b\\c\n\x01\x7f \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x99 \xc2\x9b \xff\xc0\x80\xed\xa0\x80\xe2\x82");
    char wanted[1024];
    snprintf(
        wanted, sizeof wanted,
        "{\"time_iso8601\":\"2023-11-15T03:43:20+05:30\",\"msec\":1700000000.005,\"request_id\":\"01abc\","
        "\"connection\":%llu,"
        "\"remote_addr\":\"127.0.0.1\",\"remote_port\":%u,\"frontend\":\"web\",\"scheme\":\"http\","
        "\"method\":\"GET\","
        "\"host\":\"example.org:8080\",\"target\":\"/a%%20b?q=1\",\"protocol\":\"HTTP/1.1\","
        "\"request_header_referer\":null,\"request_header_user_agent\":\"a\\\"b\\\\c\\u000A\\u0001\\u007F "
        "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x99 \\u009B "
        "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\","
        "\"status\":200,\"bytes_received\":7,\"bytes_sent\":123456,\"first_byte_time\":2.501010,\"total_"
        "time\":3.000000,"
        "\"upstream_name\":\"app\",\"upstream_addr\":\"10.0.0.1:9000\",\"upstream_attempts\":2,\"upstream_"
        "reused\":true,"
        "\"upstream_connect_time\":0.001000,\"upstream_header_time\":2.500000,\"upstream_time\":2.998995,"
        "\"termination\":\"none\",\"worker\":null}",
        (unsigned long long)client->id, addr_port(conn_remote(client)));
    const char *line = print(LOG_STYLE_JSON, NULL, &x);
    cr_assert_str_eq(line, wanted, "\n%s\n%s", line, wanted);
    arena_release(&x.arena);
}

Test(access_log, no_line_and_no_field_can_be_forged) {
    struct exchange x = { .id = "" };
    x.req.path = SLICE_LIT("/\" 200 1\r\n1.2.3.4 - - \\ \xff\t");
    expect("\"$path\"", "\"/\\x22 200 1\\x0D\\x0A1.2.3.4 - - \\x5C \\xFF\\x09\"");
    expect("$path", "/\\x22\\x20200\\x201\\x0D\\x0A1.2.3.4\\x20-\\x20-\\x20\\x5C\\x20\\xFF\\x09");
}

// The scan of eight bytes at once against the plain rule, each byte at each position.
Test(access_log, every_byte_is_escaped_wherever_it_stands) {
    struct exchange x = { .id = "" };
    for (unsigned c = 0; c < 256; c++)
        for (unsigned at = 0; at < 19; at++) {
            char path[20] = "aaaaaaaaaaaaaaaaaaa", wanted[80];
            path[at] = (char)c;
            x.req.path = slice_make(path, 19);
            for (unsigned quoted = 0; quoted < 2; quoted++) {
                bool plain = c > 0x20 && c < 0x7f && c != '"' && c != '\\';
                const char *form = plain || (c == ' ' && quoted) ? "%.*s%c%s" : "%.*s\\x%02X%s";
                int len = snprintf(wanted, sizeof wanted, form, (int)at, path, c, path + at + 1);
                char *line = (char *)print(LOG_STYLE_FORMAT, quoted ? "\"$path\"" : "_${path}_", &x);
                cr_assert(strlen(line) == (size_t)len + 2 && memcmp(line + 1, wanted, (size_t)len) == 0,
                          "%02x at %u: %s", c, at, line);
            }
        }
}

Test(access_log, a_line_never_leaves_its_room) {
    struct exchange x;
    make_exchange(&x);
    client = NULL;
    struct error error;
    for (int style = LOG_STYLE_COMBINED; style <= LOG_STYLE_JSON; style++) {
        struct log_format *format;
        cr_assert_eq(log_format_new((enum conf_log_style)style, NULL, &format, &error), 0);
        char full[2048];
        size_t len = log_format_line(format, &x, full, sizeof full, SIZE_MAX);
        for (size_t room = 0; room <= len + 8; room++) {
            char *exact = malloc(room + 1);
            exact[room] = 'E';
            size_t n = log_format_line(format, &x, exact, room, SIZE_MAX);
            cr_assert(n == 0 || (n == len && room >= len));
            cr_assert(n == len || room < len + 8);
            cr_assert_eq(exact[room], 'E');
            free(exact);
        }
        log_format_free(format);
    }
    arena_release(&x.arena);
}

// ---- formats ----------------------------------------------------------------------------------------------------

Test(access_log, a_wrong_format_is_told_with_its_column) {
    static const struct {
        const char *format, *error;
    } wrong[] = {
        { "$remote_adr", "column 1: unknown variable \"$remote_adr\", did you mean \"$remote_addr\"?" },
        { "ab $status ${statsu}", "column 12: unknown variable \"$statsu\", did you mean \"$status\"?" },
        { "\"$body_bytes_sent\"",
          "column 2: unknown variable \"$body_bytes_sent\", did you mean \"$bytes_sent\"?" },
        { "$http_cookie",
          "column 1: unknown variable \"$http_cookie\", did you mean \"$request_header_NAME\"?" },
        { "$http_user_agent",
          "column 1: unknown variable \"$http_user_agent\", did you mean \"$request_header_user_agent\"?" },
        { "$reqest_header_cookie",
          "column 1: unknown variable \"$reqest_header_cookie\", did you mean \"$request_header_NAME\"?" },
        { "$xyzzy_plugh", "column 1: unknown variable \"$xyzzy_plugh\"" },
        { "$request_header_",
          "column 1: \"$request_header_\" names no field, expected \"$request_header_NAME\"" },
        { "a $", "column 3: \"$\" without a variable's name, \"$$\" writes a dollar" },
        { "$ status", "column 1: \"$\" without a variable's name, \"$$\" writes a dollar" },
        { "${}", "column 1: \"$\" without a variable's name, \"$$\" writes a dollar" },
        { "${status", "column 1: \"${\" without \"}\" behind a variable's name" },
        { "${status }", "column 1: \"${\" without \"}\" behind a variable's name" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct error error = { "" };
        cr_expect_eq(access_log_check(wrong[i].format, &error), -EINVAL);
        cr_expect_str_eq(error.text, wrong[i].error, "%s", error.text);
    }
    struct error error = { "" };
    cr_assert_eq(access_log_check("", &error), 0);
    char *endless = calloc(1, 100001);
    memset(endless, 'a', 100000);
    endless[0] = '$';
    cr_assert_eq(access_log_check(endless, &error), -EINVAL);
    free(endless);
}

// ---- sinks ------------------------------------------------------------------------------------------------------

static struct conf_log_format number_format = { .name = "number", .text = "$bytes_sent $target" };

static struct access_log *open_log(const char *path, int fd) {
    struct error error = { "" };
    struct access_log *log = NULL;
    struct conf_access_log conf = { .path = path, .style = LOG_STYLE_FORMAT, .format = &number_format };
    cr_assert(access_log_sink_open(path, fd));
    cr_assert_eq(access_log_new(&conf, &log, &error), 0, "%s", error.text);
    return log;
}

static char path[64];

static int temporary(void) {
    snprintf(path, sizeof path, "/tmp/test_access_log.XXXXXX");
    int fd = mkostemp(path, O_APPEND);
    cr_assert_geq(fd, 0);
    unlink(path);
    return fd;
}

static void turn(uint64_t ms) {
    cr_assert_eq(ring_turn(ms), 0);
}

static void finish(void) {
    access_log_flush_all();
    for (int i = 0; i < 1000 && !access_log_idle(); i++)
        turn(10);
    cr_assert(access_log_idle());
}

static size_t read_all(int fd, char **ret_text) {
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    *ret_text = malloc((size_t)st.st_size + 1);
    cr_assert_eq(pread(fd, *ret_text, (size_t)st.st_size, 0), st.st_size);
    (*ret_text)[st.st_size] = 0;
    return (size_t)st.st_size;
}

// Numbered lines, in ascending order, each whole; returns how many.
static unsigned check_lines(const char *text, unsigned *next) {
    unsigned count = 0;
    while (*text) {
        unsigned number;
        char tail[16];
        cr_assert_eq(sscanf(text, "%u %15s", &number, tail), 2, "%.60s", text);
        cr_assert(number >= *next && strncmp(tail, "/xxx", 4) == 0, "%.60s", text);
        *next = number + 1;
        text = strchr(text, '\n');
        cr_assert(text);
        text++;
        count++;
    }
    return count;
}

static char filler[200];

static void write_lines(struct access_log *log, unsigned from, unsigned count) {
    struct exchange x = { .id = "" };
    memset(filler, 'x', sizeof filler);
    filler[0] = '/';
    x.wire_target = slice_make(filler, 90);
    for (unsigned i = from; i < from + count; i++) {
        x.res_bytes = i;
        access_log_write(log, &x);
    }
}

Test(access_log, a_line_waits_a_second_at_most) {
    start_ring();
    int fd = temporary();
    struct access_log *log = open_log("a", dup(fd));
    cr_assert(access_log_idle());
    write_lines(log, 0, 1);
    cr_assert_not(access_log_idle());
    char *text;
    uint64_t begun = clock_ms();
    while (read_all(fd, &text) == 0 && clock_ms() < begun + 3000) {
        free(text);
        turn(100);
    }
    cr_assert_leq(clock_ms() - begun, 1200);
    cr_assert_geq(clock_ms() - begun, 900);
    cr_assert_eq(strncmp(text, "0 /xxx", 6), 0);
    free(text);
    turn(0);
    cr_assert(access_log_idle());
    access_log_free(log);
}

Test(access_log, a_half_full_buffer_is_written_at_once) {
    start_ring();
    int fd = temporary();
    struct access_log *log = open_log("a", dup(fd));
    unsigned next = 0, count = 0;
    for (unsigned i = 0; i < 100; i++) {
        write_lines(log, i * 300, 300);
        uint64_t begun = clock_ms();
        turn(20);
        turn(0);
        cr_assert_leq(clock_ms() - begun, 500);
    }
    char *text;
    cr_assert_geq(read_all(fd, &text), 2700000);
    free(text);
    finish();
    read_all(fd, &text);
    count = check_lines(text, &next);
    cr_assert_eq(count, 30000);
    cr_assert_eq(counters->log_lines_dropped, 0);
    free(text);
    access_log_free(log);
}

Test(access_log, flushing_during_a_write_writes_the_rest_after_it) {
    start_ring();
    int fd = temporary();
    struct access_log *log = open_log("a", dup(fd));
    write_lines(log, 0, 500);  // the first half buffer is the kernel's, some lines are in the other
    uint64_t begun = clock_ms();
    finish();
    cr_assert_lt(clock_ms() - begun, 500);
    char *text;
    unsigned next = 0;
    read_all(fd, &text);
    cr_assert_eq(check_lines(text, &next), 500);
    free(text);
    access_log_free(log);
}

// Drains a pipe without waiting; appends to *text.
static void drain(int fd, char **text, size_t *len) {
    char bytes[65536];
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        *text = realloc(*text, *len + (size_t)n + 1);
        memcpy(*text + *len, bytes, (size_t)n);
        *len += (size_t)n;
        (*text)[*len] = 0;
    }
}

static void slow_pipe(int writer_flags) {
    start_ring();
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    cr_assert_eq(fcntl(ends[1], F_SETFL, writer_flags), 0);
    struct access_log *log = open_log("pipe", ends[1]);
    char *text = calloc(1, 1);
    size_t len = 0;
    for (unsigned i = 0; i < 40; i++) {  // 4 MB for a pipe and two buffers of 512 KiB each
        write_lines(log, i * 1000, 1000);
        turn(1);
    }
    uint64_t dropped = counters->log_lines_dropped;
    cr_assert_gt(dropped, 20000);
    cr_assert_lt(dropped, 35000);
    for (unsigned i = 0; i < 40; i++) {  // somebody reads again: nothing more is lost
        drain(ends[0], &text, &len);
        turn(10);
        turn(0);
        if (i >= 20)
            write_lines(log, 39980 + i, 1);
    }
    access_log_flush_all();
    for (int i = 0; i < 200 && !access_log_idle(); i++) {
        drain(ends[0], &text, &len);
        turn(10);
    }
    cr_assert(access_log_idle());
    drain(ends[0], &text, &len);
    cr_assert_eq(counters->log_lines_dropped, dropped);
    unsigned next = 0;
    cr_assert_eq(check_lines(text, &next), 40020 - dropped);
    cr_assert_eq(next, 40020);
    free(text);
    access_log_free(log);
}

Test(access_log, lines_that_find_both_buffers_full_are_counted) {
    slow_pipe(0);
}

Test(access_log, a_pipe_that_does_not_block_is_tried_again) {
    slow_pipe(O_NONBLOCK);
}

Test(access_log, a_full_disk_loses_lines_and_then_goes_on) {
    start_ring();
    struct access_log *log = open_log("full", open("/dev/full", O_WRONLY));
    write_lines(log, 0, 10);
    finish();
    cr_assert_eq(counters->log_lines_dropped, 10);
    write_lines(log, 10, 1000);
    finish();
    cr_assert_eq(counters->log_lines_dropped, 1010);
    int fd = temporary();
    cr_assert(access_log_sink_open("full", dup(fd)));
    write_lines(log, 1010, 1000);
    finish();
    char *text;
    unsigned next = 1010;
    read_all(fd, &text);
    cr_assert_eq(check_lines(text, &next), 1000);
    cr_assert_eq(counters->log_lines_dropped, 1010);
    free(text);
    access_log_free(log);
}

static void limit_file(rlim_t bytes) {
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(access_log, a_torn_line_is_ended_before_the_next) {
    start_ring();
    signal(SIGXFSZ, SIG_IGN);
    int fd = temporary();
    struct access_log *log = open_log("a", dup(fd));
    limit_file(250);
    write_lines(log, 100, 5);  // 95 bytes each: two fit and a part of the third
    finish();
    cr_assert_eq(counters->log_lines_dropped, 3);
    limit_file(RLIM_INFINITY);
    write_lines(log, 105, 5);
    finish();
    char *text;
    cr_assert_eq(read_all(fd, &text), 250 + 1 + 5 * 95);
    cr_assert_eq(strncmp(text + 190, "102 /xxx", 8), 0);
    cr_assert_eq(strncmp(text + 250, "\n105 /xxx", 9), 0);
    free(text);
    access_log_free(log);
}

Test(access_log, reopening_begins_the_new_file_after_what_was_written) {
    start_ring();
    int old = temporary(), between = temporary(), new = temporary();
    struct access_log *log = open_log("a", dup(old));
    write_lines(log, 0, 500);  // the first half buffer is the kernel's, some lines are in the other
    cr_assert(access_log_sink_open("a", dup(between)));
    cr_assert(access_log_sink_open("a", dup(new)));
    finish();
    write_lines(log, 500, 5);
    finish();
    char *text;
    unsigned next = 0;
    read_all(old, &text);
    cr_assert_eq(check_lines(text, &next), 500);
    free(text);
    cr_assert_eq(read_all(between, &text), 0);
    free(text);
    read_all(new, &text);
    cr_assert_eq(check_lines(text, &next), 5);
    free(text);
    int newest = temporary();
    cr_assert(access_log_sink_open("a", dup(newest)));  // with nothing buffered: at once
    write_lines(log, 505, 1);
    finish();
    read_all(newest, &text);
    cr_assert_eq(check_lines(text, &next), 1);
    free(text);
    access_log_free(log);
}

Test(access_log, reopening_leaves_a_stuck_pipe_behind) {
    start_ring();
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    struct access_log *log = open_log("pipe", ends[1]);
    write_lines(log, 0, 1200);
    for (int i = 0; i < 10; i++)
        turn(20);
    int fd = temporary();
    cr_assert(access_log_sink_open("pipe", dup(fd)));
    finish();
    char *text = calloc(1, 1), *rest;
    size_t len = 0;
    drain(ends[0], &text, &len);
    read_all(fd, &rest);
    unsigned count = 0;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        count++;  // the last one may be torn
    unsigned next = count;
    count += check_lines(rest, &next);
    cr_assert_eq(count + counters->log_lines_dropped, 1200);
    free(text);
    free(rest);
    access_log_free(log);
}

Test(access_log, a_line_too_long_for_a_buffer_is_shortened) {
    start_ring();
    int fd = temporary();
    struct access_log *log = open_log("a", dup(fd));
    static char target[100000];
    memset(target, 'a', sizeof target);
    struct exchange x = { .res_bytes = 1, .wire_target = { target, sizeof target } };
    access_log_write(log, &x);
    x.wire_target.len = 50000;
    access_log_write(log, &x);
    finish();
    char *text;
    cr_assert_eq(read_all(fd, &text), 2 + 512 + 3 + 1 + 2 + 50000 + 1);
    cr_assert_eq(strncmp(text + 2 + 510, "aa...\n1 aaa", 11), 0);
    cr_assert_eq(counters->log_lines_dropped, 0);
    free(text);
    access_log_free(log);
}

Test(access_log, a_log_without_a_descriptor_is_an_error) {
    struct error error = { "" };
    struct access_log *log;
    struct conf_access_log conf = { .path = "/nowhere", .style = LOG_STYLE_COMBINED };
    cr_assert_eq(access_log_new(&conf, &log, &error), -ENOENT);
    cr_assert_str_eq(error.text, "access log \"/nowhere\": no descriptor was opened for it");
    access_log_free(NULL);
}

// ---- speed ------------------------------------------------------------------------------------------------------

static double time_lines(enum conf_log_style style) {
    enum { LINES = 200000 };
    struct exchange x;
    make_exchange(&x);
    struct error error;
    struct log_format *format;
    cr_assert_eq(log_format_new(style, NULL, &format, &error), 0);
    char line[4096];
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (unsigned i = 0; i < LINES; i++) {
        x.res_bytes = i;
        size_t len = log_format_line(format, &x, line, sizeof line, SIZE_MAX);
        __asm__ volatile("" : : "r"(len), "r"(line) : "memory");
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    log_format_free(format);
    arena_release(&x.arena);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / LINES;
}

Test(access_log, a_combined_line_costs_less_than_a_microsecond) {
    start_client();
    double combined = time_lines(LOG_STYLE_COMBINED), json = time_lines(LOG_STYLE_JSON);
    cr_log_warn("%.0f ns a combined line, %.0f ns a JSON line", combined, json);
    cr_assert(SLOW || combined < 1000, "%.0f ns", combined);
}
