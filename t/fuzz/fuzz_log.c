// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the access log: the first byte chooses the style, the first line is a format, the rest the values of a
// request and its response, a line each. A line of the log is one line, printable, with nothing in it that could pass
// for the end of a quoted value; in JSON it is an object that a reader takes.
#include "base/clock.h"
#include "fuzz.h"
#include "proxy/log_format.h"
#include "proxy/upstream.h"

static struct conn *no_conn(struct exchange *x) {
    (void)x;
    return NULL;
}

static const struct downstream_ops down = { .conn = no_conn };
static const struct conf_upstream upstream_conf = { .name = "app" };
static struct upstream upstream = { .conf = &upstream_conf };
static struct exchange_site site = { .name = "web" };

// ---- a reader of JSON, as much of it as a line needs ----------------------------------------------------------

static const char *json_string(const char *at, const char *end) {
    must(at < end && *at == '"');
    for (at++; at < end && *at != '"'; at++) {
        unsigned char c = (unsigned char)*at;
        must(c >= 0x20 && c != 0x7f);
        if (c == '\\') {
            must(++at < end);
            if (*at == 'u') {
                must(end - at > 4 && strspn(at + 1, "0123456789abcdefABCDEF") >= 4);
                at += 4;
            } else {
                must(*at == '"' || *at == '\\');
            }
        } else if (c >= 0x80) {  // what is not ASCII is UTF-8
            unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
            must(c >= 0xc2 && c <= 0xf4 && (size_t)(end - at) > more);
            for (; more > 0; more--)
                must(((unsigned char)*++at & 0xc0) == 0x80);
        }
    }
    must(at < end);
    return at + 1;
}

static const char *json_value(const char *at, const char *end) {
    static const char *const words[] = { "null", "true", "false" };
    must(at < end);
    if (*at == '"')
        return json_string(at, end);
    for (unsigned i = 0; i < 3; i++)
        if (slice_starts(slice_make(at, (size_t)(end - at)), slice_of(words[i])))
            return at + strlen(words[i]);
    const char *start = at;
    while (at < end && ((*at >= '0' && *at <= '9') || *at == '.'))
        at++;
    must(at > start);
    return at;
}

static void check_json(struct slice line) {
    const char *at = line.at, *end = line.at + line.len;
    must(line.len > 2 && *at == '{');
    do {
        at = json_string(at + 1, end);
        must(at < end && *at == ':');
        at = json_value(at + 1, end);
        must(at < end);
    } while (*at == ',');
    must(*at == '}' && at + 1 == end);
}

// ---- the others -----------------------------------------------------------------------------------------------

static unsigned quotes(struct slice text) {
    unsigned n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.at[i] == '"';
    return n;
}

static void check_text(struct slice line, struct slice format) {
    for (size_t i = 0; i < format.len; i++)
        if (format.at[i] < 0x20 || format.at[i] == 0x7f)
            return;  // an operator's own
    for (size_t i = 0; i < line.len; i++)
        must(line.at[i] >= 0x20 && line.at[i] != 0x7f);
    must(quotes(line) == quotes(format));
}

static void fill(struct exchange *x, struct slice rest) {
    x->req.method = fuzz_line(&rest);
    x->wire_target = x->req.target = fuzz_line(&rest);
    x->req.path = fuzz_line(&rest);
    x->req.query = fuzz_line(&rest);
    x->req.authority = fuzz_line(&rest);
    x->upstream_name = fuzz_line(&rest);
    x->res.reason = fuzz_line(&rest);
    for (unsigned i = 0; rest.len > 0; i++) {
        static const struct slice names[] = { SLICE_LIT("User-Agent"), SLICE_LIT("Referer"), SLICE_LIT("X-Field"),
                                              SLICE_LIT("Authorization"), SLICE_LIT("Cookie") };
        must(headers_add(i % 2 ? &x->res.headers : &x->req.headers, &x->arena, names[i / 2 % 5], fuzz_line(&rest)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static char line[1 << 25];  // for as many variables with as long values as an input has room for
    if (len < 2)
        return 0;
    enum conf_log_style style = (enum conf_log_style)(bytes[0] % 3);
    struct slice rest = slice_make((const char *)bytes + 2, len - 2), first = fuzz_line(&rest);
    struct slice text = style == LOG_STYLE_FORMAT ? first : SLICE_LIT("\"\"\"\"\"\"");  // as many as combined has
    struct error error = { "" };
    struct log_format *format = NULL;
    char *copy = strndup(text.at, text.len);
    must(copy);
    text.len = strlen(copy);
    size_t limit = bytes[1] & 1 ? 1 + bytes[1] / 2 : SIZE_MAX;
    clock_cached.wall_us = 1700000000000000u;
    int rc = log_format_new(style, copy, &format, &error);
    if (rc < 0) {
        must(style == LOG_STYLE_FORMAT && strncmp(error.text, "column ", 7) == 0);
    } else {
        struct exchange x = {
            .site = &site, .down = &down, .head_sent = true, .attempt = 1, .upstream = &upstream,
            .req = { .scheme = SLICE_LIT("http"), .major = 1, .minor = 1 }, .res = { .status = 200 },
            .at = { .started = 1, .received = 2 },
        };
        arena_init(&x.arena);
        fill(&x, rest);
        size_t n = log_format_line(format, &x, line, sizeof line, limit);
        must(n > 0 && line[n - 1] == '\n');
        struct slice whole = slice_make(line, n - 1);
        if (style == LOG_STYLE_JSON)
            check_json(whole);
        else
            check_text(whole, text);
        // Room that does not suffice is never written beyond.
        char *narrow = malloc(n);
        must(log_format_line(format, &x, narrow, n - 1, limit) == 0);
        free(narrow);
        arena_release(&x.arena);
    }
    log_format_free(format);
    free(copy);
    return 0;
}
