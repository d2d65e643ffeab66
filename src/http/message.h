// SPDX-License-Identifier: BSD-2-Clause
// Requests and responses as values, whatever protocol they came by. All text lives in the exchange's arena.
#ifndef MOONGATE_HTTP_MESSAGE_H
#define MOONGATE_HTTP_MESSAGE_H

#include "base/arena.h"
#include "base/slice.h"

//  X(id, name): fields that moongate itself looks at
#define KNOWN_HEADERS(X) \
    X(host, "host") \
    X(connection, "connection") \
    X(keep_alive, "keep-alive") \
    X(proxy_connection, "proxy-connection") \
    X(proxy_authenticate, "proxy-authenticate") \
    X(proxy_authorization, "proxy-authorization") \
    X(te, "te") \
    X(trailer, "trailer") \
    X(transfer_encoding, "transfer-encoding") \
    X(content_length, "content-length") \
    X(upgrade, "upgrade") \
    X(expect, "expect") \
    X(date, "date") \
    X(server, "server") \
    X(via, "via") \
    X(forwarded, "forwarded") \
    X(x_forwarded_for, "x-forwarded-for") \
    X(x_forwarded_proto, "x-forwarded-proto") \
    X(x_forwarded_host, "x-forwarded-host") \
    X(user_agent, "user-agent") \
    X(referer, "referer") \
    X(authorization, "authorization") \
    X(cookie, "cookie") \
    X(set_cookie, "set-cookie") \
    X(content_type, "content-type")

enum header_id {
    HEADER_OTHER,
#define X(id, name) HEADER_##id,
    KNOWN_HEADERS(X)
#undef X
    HEADER_ID_COUNT
};
enum header_id header_id_of(struct slice name);
struct slice header_name_of(enum header_id id);

struct header {
    struct slice name;   // as it came, case kept; len 0: deleted, to be passed over
    struct slice value;  // trimmed
    enum header_id id;
};

// Fields in the order in which they came; repeated ones stay apart.
struct headers {
    struct header *at;
    uint32_t count, room;  // count includes deleted ones
    uint64_t seen;         // bit n: a field of id n was added (it may be deleted since); most look-ups end here
};

int headers_add(struct headers *headers, struct arena *arena, struct slice name, struct slice value)
    __attribute__((warn_unused_result));
// Replaces the first field of that name in place, deletes the others; adds it when there is none.
int headers_set(struct headers *headers, struct arena *arena, struct slice name, struct slice value)
    __attribute__((warn_unused_result));
unsigned headers_remove(struct headers *headers, struct slice name);
unsigned headers_remove_id(struct headers *headers, enum header_id id);
// The next field of that name from *position on (start with 0), NULL at the end.
const struct header *headers_next(const struct headers *headers, struct slice name, uint32_t *position);
const struct header *headers_find(const struct headers *headers, enum header_id id);
static inline bool headers_get(const struct headers *headers, enum header_id id, struct slice *ret_value) {
    const struct header *header = headers_find(headers, id);
    if (header)
        *ret_value = header->value;
    return header != NULL;
}
// Whether `token` is an element of the comma-separated list that all fields of that id form; case is ignored.
bool headers_list_has(const struct headers *headers, enum header_id id, struct slice token);

bool header_name_valid(struct slice name);    // RFC 9110, 5.1: token
bool header_value_valid(struct slice value);  // RFC 9110, 5.5: no controls but HTAB
// A name that servers which hand fields to programs as variables (CGI) cannot tell from a framing field.
bool header_poses_as_framing(struct slice name);

enum body_framing {
    BODY_NONE,
    BODY_LENGTH,   // length says how many bytes
    BODY_CHUNKED,
    BODY_CLOSE,    // responses: until the connection ends
};

struct request {
    struct slice method;
    struct slice target;     // as on the wire
    struct slice path;       // percent-decoded once, dot segments removed: what routes and rules look at
    struct slice raw_path;   // the target's path, as on the wire
    struct slice query;      // without the '?'; at NULL when there is none
    struct slice scheme;     // "http" or "https"
    struct slice authority;  // host[:port], from Host or the absolute target
    struct headers headers;
    struct headers trailers;
    enum body_framing framing;
    uint64_t length;         // with BODY_LENGTH
    uint8_t major, minor;    // HTTP version of the message as received
    uint8_t doubts;          // in what raw_path can be read in several ways: enum path_doubt of http/target.h
    bool head;               // method is HEAD
    bool idempotent;         // RFC 9110, 9.2.2
    bool expect_continue;
    bool takes_trailers;     // TE says so
    bool upgrade;            // wants another protocol (Connection: upgrade); `upgrade` field says which
    bool tunnel;             // an upgrade whose bytes stay in the exchange, as bodies: its client's connection,
                             // or the server's, carries others (RFC 8441)
    bool rewritten;          // a script changed path, query or target: `target` holds the new one
};

// The rules of HTTP/1.0 hold: no interim responses, no chunks, the connection ends unless told otherwise.
static inline bool request_is_http10(const struct request *request) {
    return request->major == 1 && request->minor == 0;
}

// The target as servers get it, whatever form came from the client (RFC 9112, 3.2.1): path and query, or "*".
// at is NULL when memory is out.
struct slice request_origin_form(const struct request *request, struct arena *arena);

struct response {
    uint16_t status;
    struct slice reason;
    struct headers headers;
    struct headers trailers;
    enum body_framing framing;
    uint64_t length;
    uint8_t major, minor;
    bool keep_alive;         // the connection it came by may be used again
};

const char *status_reason(unsigned status);  // "" when unknown
bool method_valid(struct slice method);
bool method_idempotent(struct slice method);

#endif
