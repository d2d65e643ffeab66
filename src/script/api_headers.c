// SPDX-License-Identifier: BSD-2-Clause
// Header fields for scripts: look-up, change, and which fields a script must leave alone because the codecs
// frame messages by them. All text that comes from a script is copied to the exchange's arena.
#include "script/api_impl.h"

#include "base/handle.h"
#include "http/target.h"
#include "script/host.h"

static struct headers *headers_of(double handle, int whose, struct exchange **ret_x) {
    struct exchange *x = handle_get(HANDLE_EXCHANGE, mg_handle(handle));
    if (!x)
        return NULL;
    *ret_x = x;
    return whose == MG_REQUEST ? &x->req.headers : &x->res.headers;
}

int mg_header_id(const char *name, size_t len) {
    return (int)header_id_of(slice_make(name, len));
}

static bool protected_field(int whose, enum header_id id) {
    switch (id) {
    case HEADER_content_length:
    case HEADER_transfer_encoding:
    case HEADER_connection:
    case HEADER_keep_alive:
    case HEADER_proxy_connection:
    case HEADER_te:
    case HEADER_trailer:
    case HEADER_upgrade:
        return true;
    case HEADER_expect:
        return whose == MG_REQUEST;
    default:
        return false;
    }
}

static int check_name(int whose, struct slice name) {
    if (!header_name_valid(name))
        return mg_error("\"%.*s\" is no name of a header field", name.len > 100 ? 100 : (int)name.len,
                        name.at);
    if (protected_field(whose, header_id_of(name)))
        return mg_error(
            "the field \"%.*s\" frames the message or belongs to one connection: moongate writes it itself",
            SLICE_ARG(name));
    return MG_OK;
}

int mg_header_check(int whose, struct slice name, struct slice value) {
    int rc = check_name(whose, name);
    if (rc != MG_OK)
        return rc;
    if (!header_value_valid(value))
        return mg_error("the value of the field \"%.*s\" has a control character (CR, LF, NUL ...)",
                        SLICE_ARG(name));
    if (whose == MG_REQUEST && header_id_of(name) == HEADER_host && !authority_valid(value))
        return mg_error("the field \"host\" must be host[:port]");
    return MG_OK;
}

static int changeable(const struct exchange *x, int whose) {
    if (whose == MG_REQUEST && x->step != EXCHANGE_request && x->step != EXCHANGE_route)
        return mg_error(
            "the request has been sent: its fields can be changed in the request and route hooks");
    if (whose == MG_RESPONSE && !mg_response_open(x))
        return mg_error("the fields of a response can be changed in the response and error hooks alone");
    return MG_OK;
}

static bool same(const struct header *header, struct slice name, int id) {
    if (header->name.len == 0)
        return false;
    if (id != HEADER_OTHER)
        return (int)header->id == id;
    return header->id == HEADER_OTHER && header->name.len == name.len && slice_ieq(header->name, name);
}

// Repeated fields are one list (RFC 9110, 5.3); cookies have a separator of their own (RFC 6265, 5.4);
// Set-Cookie cannot be joined.
static int joined(struct exchange *x, const struct headers *headers, uint32_t first, struct slice name,
                  int id, struct mg_text *ret_value) {
    struct slice value = { NULL, 0 };
    const char *separator = id == HEADER_cookie ? "; " : ", ";
    for (uint32_t i = first; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (!same(header, name, id))
            continue;
        if ((i > first && arena_append(&x->arena, &value, separator, 2) < 0) ||
            arena_append(&x->arena, &value, header->value.at, header->value.len) < 0)
            return mg_error("memory is out");
    }
    mg_text_set(ret_value, value);
    return MG_OK;
}

int mg_headers_get(double handle, int whose, int id, const char *name, size_t len,
                   struct mg_text *ret_value) {
    struct exchange *x;
    struct headers *headers = headers_of(handle, whose, &x);
    if (!headers)
        return MG_STALE;
    struct slice wanted = slice_make(name, len);
    const struct header *found = NULL;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->at[i];
        if (!same(header, wanted, id))
            continue;
        if (found)
            return joined(x, headers, (uint32_t)(found - headers->at), wanted, id, ret_value);
        found = header;
        if (id == HEADER_set_cookie)
            break;
    }
    if (!found)
        return MG_NONE;
    mg_text_set(ret_value, found->value);
    return MG_OK;
}

static int put(double handle, int whose, struct slice name, struct slice value, bool add) {
    struct exchange *x;
    struct headers *headers = headers_of(handle, whose, &x);
    if (!headers)
        return MG_STALE;
    value = slice_trim(value);
    int rc = changeable(x, whose);
    if (rc == MG_OK)
        rc = mg_header_check(whose, name, value);
    if (rc != MG_OK)
        return rc;
    if (add && whose == MG_REQUEST && header_id_of(name) == HEADER_host)
        return mg_error("a request has one \"host\" field: set it instead");
    char *at = arena_alloc(&x->arena, name.len + value.len + 1);
    if (!at)
        return mg_error("memory is out");
    memcpy(at, name.at, name.len);
    memcpy(at + name.len, value.at, value.len);
    name.at = at;
    value.at = at + name.len;
    int err =
        add ? headers_add(headers, &x->arena, name, value) : headers_set(headers, &x->arena, name, value);
    return err < 0 ? mg_error("memory is out") : MG_OK;
}

int mg_headers_set(double handle, int whose, const char *name, size_t len, const char *value,
                   size_t value_len) {
    return put(handle, whose, slice_make(name, len), slice_make(value, value_len), false);
}

int mg_headers_add(double handle, int whose, const char *name, size_t len, const char *value,
                   size_t value_len) {
    return put(handle, whose, slice_make(name, len), slice_make(value, value_len), true);
}

int mg_headers_remove(double handle, int whose, const char *name, size_t len) {
    struct exchange *x;
    struct headers *headers = headers_of(handle, whose, &x);
    if (!headers)
        return MG_STALE;
    struct slice wanted = slice_make(name, len);
    int rc = changeable(x, whose);
    if (rc == MG_OK)
        rc = check_name(whose, wanted);
    if (rc != MG_OK)
        return rc;
    if (whose == MG_REQUEST && header_id_of(wanted) == HEADER_host)
        return mg_error("a request needs its \"host\" field");
    headers_remove(headers, wanted);
    return MG_OK;
}

int mg_headers_next(double handle, int whose, const char *name, size_t len, uint32_t *position,
                    struct mg_text *ret_name, struct mg_text *ret_value) {
    struct exchange *x;
    struct headers *headers = headers_of(handle, whose, &x);
    if (!headers)
        return MG_STALE;
    struct slice wanted = slice_make(name, len);
    int id = len > 0 ? (int)header_id_of(wanted) : HEADER_OTHER;
    while (*position < headers->count) {
        const struct header *header = &headers->at[(*position)++];
        if (header->name.len == 0 || (len > 0 && !same(header, wanted, id)))
            continue;
        mg_text_set(ret_name, header->name);
        mg_text_set(ret_value, header->value);
        return MG_OK;
    }
    return MG_NONE;
}
