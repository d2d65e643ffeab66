// SPDX-License-Identifier: BSD-2-Clause
// Header fields: known names, look-up, change, validity; status reasons and method properties. Used by
// codecs, the exchange and the script API.
#include "http/message.h"

#include <errno.h>

static const struct slice known_names[HEADER_ID_COUNT] = {
#define X(id, name) [HEADER_##id] = SLICE_LIT(name),
    KNOWN_HEADERS(X)
#undef X
};

struct slice header_name_of(enum header_id id) {
    return known_names[id];
}

// `known` is in lower case. Quicker than strncasecmp(3) for names this short, of which there are a dozen a message. Only
// letters differ from a letter or hyphen in the bit for case alone, but for '\r', which no name holds.
static bool same_letters(const char *name, const char *known, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((name[i] | 0x20) != known[i])
            return false;
    return true;
}

enum header_id header_id_of(struct slice name) {
    // Ids by length of the name, so that most unknown names cost one or two comparisons.
    enum { LONGEST = 19, SAME_LENGTH = 5 };
    static uint8_t by_length[LONGEST + 1][SAME_LENGTH];
    static bool ready;
    if (!ready) {
        for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
            uint8_t *row = by_length[known_names[id].len];
            unsigned n = 0;
            while (n < SAME_LENGTH - 1 && row[n])
                n++;
            row[n] = (uint8_t)id;
        }
        ready = true;
    }
    if (name.len > LONGEST)
        return HEADER_OTHER;
    const uint8_t *row = by_length[name.len];
    for (unsigned n = 0; n < SAME_LENGTH && row[n]; n++)
        if (same_letters(name.at, known_names[row[n]].at, name.len))
            return (enum header_id)row[n];
    return HEADER_OTHER;
}

int headers_add(struct headers *headers, struct arena *arena, struct slice name, struct slice value) {
    if (headers->count == headers->room) {
        uint32_t room = headers->room ? headers->room * 2 : 24;
        struct header *at = arena_alloc(arena, room * sizeof *at);
        if (!at)
            return -ENOMEM;
        if (headers->count > 0)
            memcpy(at, headers->at, headers->count * sizeof *at);
        headers->at = at;
        headers->room = room;
    }
    enum header_id id = header_id_of(name);
    headers->at[headers->count++] = (struct header){ name, value, id };
    headers->seen |= 1ull << id;
    return 0;
}

static bool same_name(const struct header *header, struct slice name, enum header_id id) {
    if (header->name.len == 0)
        return false;
    return id != HEADER_OTHER ? header->id == id
                              : header->id == HEADER_OTHER && slice_ieq(header->name, name);
}

int headers_set(struct headers *headers, struct arena *arena, struct slice name, struct slice value) {
    enum header_id id = header_id_of(name);
    bool found = false;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->at[i];
        if (!same_name(header, name, id))
            continue;
        if (found)
            header->name.len = 0;
        else
            header->value = value;
        found = true;
    }
    return found ? 0 : headers_add(headers, arena, name, value);
}

unsigned headers_remove(struct headers *headers, struct slice name) {
    enum header_id id = header_id_of(name);
    unsigned removed = 0;
    for (uint32_t i = 0; i < headers->count; i++)
        if (same_name(&headers->at[i], name, id)) {
            headers->at[i].name.len = 0;
            removed++;
        }
    return removed;
}

unsigned headers_remove_id(struct headers *headers, enum header_id id) {
    return headers_remove(headers, known_names[id]);
}

const struct header *headers_next(const struct headers *headers, struct slice name, uint32_t *position) {
    enum header_id id = header_id_of(name);
    while (*position < headers->count) {
        const struct header *header = &headers->at[(*position)++];
        if (same_name(header, name, id))
            return header;
    }
    return NULL;
}

_Static_assert(HEADER_ID_COUNT <= 64, "headers.seen has a bit for each known field");

const struct header *headers_find(const struct headers *headers, enum header_id id) {
    if (!(headers->seen >> id & 1))
        return NULL;
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->at[i].id == id && headers->at[i].name.len > 0)
            return &headers->at[i];
    return NULL;
}

bool headers_list_has(const struct headers *headers, enum header_id id, struct slice token) {
    if (!(headers->seen >> id & 1))
        return false;
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->at[i].id != id || headers->at[i].name.len == 0)
            continue;
        struct slice rest = headers->at[i].value, element;
        while (slice_next_element(&rest, &element))
            if (slice_ieq(element, token))
                return true;
    }
    return false;
}

// tchar of RFC 9110, 5.6.2
// clang-format off
static const bool token_char[256] = {
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
};
// clang-format on

static bool all_token(struct slice s) {
    for (size_t i = 0; i < s.len; i++)
        if (!token_char[(unsigned char)s.at[i]])
            return false;
    return s.len > 0;
}

bool header_name_valid(struct slice name) {
    return all_token(name);
}

bool header_poses_as_framing(struct slice name) {
    struct slice length = SLICE_LIT("content-length"), coding = SLICE_LIT("transfer-encoding");
    const struct slice *meant = name.len == length.len ? &length : name.len == coding.len ? &coding : NULL;
    for (size_t i = 0; meant && i < name.len; i++)
        if ((name.at[i] | 0x20) != meant->at[i] && !(name.at[i] == '_' && meant->at[i] == '-'))
            return false;
    return meant != NULL && header_id_of(name) == HEADER_OTHER;
}

struct slice request_origin_form(const struct request *request, struct arena *arena) {
    struct slice target = request->target, mark = SLICE_LIT("?");
    if ((target.len > 0 && target.at[0] == '/') || slice_eq(request->method, SLICE_LIT("CONNECT")))
        return target;
    if (!request->query.at)
        return request->raw_path;
    struct slice path = { 0 };
    if (arena_append(arena, &path, request->raw_path.at, request->raw_path.len) < 0 ||
        arena_append(arena, &path, mark.at, mark.len) < 0 ||
        arena_append(arena, &path, request->query.at, request->query.len) < 0)
        path.at = NULL;
    return path;
}

bool method_valid(struct slice method) {
    return all_token(method);
}

bool header_value_valid(struct slice value) {
    bool bad = false;  // without a branch for each byte: the compiler makes it wide
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        bad |= (c < 0x20 && c != '\t') || c == 0x7f;
    }
    return !bad;
}

bool method_idempotent(struct slice method) {
    static const struct slice names[] = { SLICE_LIT("GET"),     SLICE_LIT("HEAD"),  SLICE_LIT("PUT"),
                                          SLICE_LIT("OPTIONS"), SLICE_LIT("TRACE"), SLICE_LIT("DELETE") };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (slice_eq(method, names[i]))
            return true;
    return false;
}

//  X(status, reason): RFC 9110, 15, and those of RFC 6585
// clang-format off
#define STATUSES(X) \
    X(100, "Continue") X(101, "Switching Protocols") X(102, "Processing") X(103, "Early Hints") \
    X(200, "OK") X(201, "Created") X(202, "Accepted") X(203, "Non-Authoritative Information") \
    X(204, "No Content") X(205, "Reset Content") X(206, "Partial Content") X(207, "Multi-Status") \
    X(300, "Multiple Choices") X(301, "Moved Permanently") X(302, "Found") X(303, "See Other") \
    X(304, "Not Modified") X(307, "Temporary Redirect") X(308, "Permanent Redirect") \
    X(400, "Bad Request") X(401, "Unauthorized") X(402, "Payment Required") X(403, "Forbidden") \
    X(404, "Not Found") X(405, "Method Not Allowed") X(406, "Not Acceptable") \
    X(407, "Proxy Authentication Required") X(408, "Request Timeout") X(409, "Conflict") X(410, "Gone") \
    X(411, "Length Required") X(412, "Precondition Failed") X(413, "Content Too Large") \
    X(414, "URI Too Long") X(415, "Unsupported Media Type") X(416, "Range Not Satisfiable") \
    X(417, "Expectation Failed") X(418, "I'm a teapot") X(421, "Misdirected Request") \
    X(422, "Unprocessable Content") X(423, "Locked") X(425, "Too Early") X(426, "Upgrade Required") \
    X(428, "Precondition Required") X(429, "Too Many Requests") X(431, "Request Header Fields Too Large") \
    X(451, "Unavailable For Legal Reasons") \
    X(500, "Internal Server Error") X(501, "Not Implemented") X(502, "Bad Gateway") \
    X(503, "Service Unavailable") X(504, "Gateway Timeout") X(505, "HTTP Version Not Supported") \
    X(507, "Insufficient Storage") X(511, "Network Authentication Required")
// clang-format on

const char *status_reason(unsigned status) {
    switch (status) {
#define X(code, reason) \
    case code:          \
        return reason;
        STATUSES(X)
#undef X
    }
    return "";
}
