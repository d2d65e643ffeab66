// SPDX-License-Identifier: BSD-2-Clause
// Compiles a format into a row of items, each a literal and a variable, and prints a line by going along it.
// Called by access_log.c.
#include "proxy/log_format.h"

#include "proxy/log_variables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

struct log_format {
    struct arena arena;  // the texts
    struct slice tail;   // after the last item, with the newline
    unsigned count;
    struct log_item items[];
};

// ---- a line -----------------------------------------------------------------------------------------------

size_t log_format_line(const struct log_format *format, struct exchange *x, char *at, size_t room,
                       size_t limit) {
    log_variables_tick();
    struct log_line line = { .at = at, .end = at + room, .limit = limit, .x = x };
    for (unsigned i = 0; i < format->count; i++) {
        line.item = &format->items[i];
        line_raw(&line, line.item->literal.at, line.item->literal.len);
        line.item->put(&line);
    }
    line_raw(&line, format->tail.at, format->tail.len);
    return line.full ? 0 : (size_t)(line.at - at);
}

// ---- compiling --------------------------------------------------------------------------------------------

enum { NAME_SUFFIX = sizeof "NAME" - 1, NAME_MAX_BYTES = 64 };

static bool is_family(const struct log_variable *variable) {
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
    for (unsigned i = 0; i < LOG_VARIABLE_COUNT && name.len <= NAME_MAX_BYTES; i++) {
        struct slice a = name, b = log_variables[i].name;
        if (is_family(&log_variables[i])) {  // what comes before the field's name counts
            const char *mark = memmem(name.at, name.len, "header", 6);
            if (!mark)
                continue;
            b.len -= NAME_SUFFIX;
            a.len = (size_t)(mark - name.at) + 7 < name.len ? (size_t)(mark - name.at) + 7 : name.len;
        }
        unsigned d = distance(a, b);
        if (d <= best_distance) {
            best = log_variables[i].name;
            best_distance = d - (d > 0);  // only a nearer one replaces it
        }
    }
    return best;
}

// Field names in formats: letters, digits and _, which stands for a dash.
static int compile_field(struct log_format *format, struct log_item *item, struct slice name) {
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

static int compile_variable(struct log_format *format, struct log_item *item, struct slice name,
                            size_t column, struct error *error) {
    for (unsigned i = 0; i < LOG_VARIABLE_COUNT; i++) {
        const struct log_variable *variable = &log_variables[i];
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
        struct log_item *item = &format->items[format->count];
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
        struct log_item *item = &format->items[format->count++];
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
