// SPDX-License-Identifier: BSD-2-Clause
// Header rules of rules.h.
#include "http/rules.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

//  X(name, rule): trailer fields that are not passed on; beside them the conditions (If-*) and X-Forwarded-*
// clang-format off
#define TRAILER_RULES(X) \
    X("content-length", REFUSED) X("transfer-encoding", REFUSED) X("host", REFUSED) X("connection", REFUSED) \
    X("upgrade", REFUSED) X("te", REFUSED) X("trailer", REFUSED) X("keep-alive", REFUSED) \
    X("proxy-connection", REFUSED) X("content-encoding", REFUSED) X("content-range", REFUSED) \
    X("content-type", DROPPED) X("content-location", DROPPED) X("content-disposition", DROPPED) \
    X("authorization", DROPPED) X("proxy-authorization", DROPPED) X("proxy-authenticate", DROPPED) \
    X("www-authenticate", DROPPED) X("cookie", DROPPED) X("set-cookie", DROPPED) X("forwarded", DROPPED) \
    X("via", DROPPED) X("expect", DROPPED) X("range", DROPPED) X("max-forwards", DROPPED) \
    X("cache-control", DROPPED) X("pragma", DROPPED) X("age", DROPPED) X("expires", DROPPED) \
    X("date", DROPPED) X("vary", DROPPED) X("location", DROPPED) X("retry-after", DROPPED) \
    X("warning", DROPPED) X("origin", DROPPED) X("referer", DROPPED) X("user-agent", DROPPED)
// clang-format on

static bool may_be_named(enum header_id id) {
    switch (id) {
    case HEADER_host:
    case HEADER_content_length:
    case HEADER_transfer_encoding:
    case HEADER_authorization:
    case HEADER_cookie:
    case HEADER_forwarded:
    case HEADER_x_forwarded_for:
    case HEADER_x_forwarded_proto:
    case HEADER_x_forwarded_host:
        return false;
    default:
        return true;
    }
}

void rules_strip_hop_by_hop(struct headers *headers, bool keep_upgrade) {
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->at[i];
        if (header->id == HEADER_OTHER || header->name.len == 0)
            continue;
        switch (header->id) {
        case HEADER_connection: {
            struct slice rest = header->value, name;
            while (slice_next_element(&rest, &name)) {
                enum header_id id = header_id_of(name);
                if (may_be_named(id) && !(id == HEADER_upgrade && keep_upgrade))
                    headers_remove(headers, name);
            }
            header->name.len = 0;
            break;
        }
        case HEADER_keep_alive:
        case HEADER_proxy_connection:
        case HEADER_te:
        case HEADER_proxy_authenticate:
        case HEADER_proxy_authorization:
            header->name.len = 0;
            break;
        case HEADER_upgrade:
            if (!keep_upgrade)
                header->name.len = 0;
            break;
        default:
            break;
        }
    }
}

int rules_join_cookies(struct headers *headers, struct arena *arena) {
    struct slice joined = { 0 };
    struct header *first = NULL;
    unsigned count = 0;
    if (!(headers->seen & 1ull << HEADER_cookie))
        return 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->at[i];
        if (header->id != HEADER_cookie || header->name.len == 0)
            continue;
        first = first ? first : header;
        count++;
        joined.len += header->value.len + 2;
    }
    if (count < 2)
        return 0;
    char *to = arena_alloc(arena, joined.len);
    if (!to)
        return -ENOMEM;
    joined.at = to;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->at[i];
        if (header->id != HEADER_cookie || header->name.len == 0)
            continue;
        memcpy(to, header->value.at, header->value.len);
        to += header->value.len;
        memcpy(to, "; ", 2);
        to += 2;
        if (header != first)
            header->name.len = 0;
    }
    first->value = slice_make(joined.at, joined.len - 2);
    return 0;
}

enum rules_trailer rules_trailer(struct slice name) {
    static const struct {
        struct slice name;
        enum rules_trailer rule;
    } rules[] = {
#define X(name, rule) { SLICE_LIT(name), TRAILER_##rule },
        TRAILER_RULES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (slice_ieq(name, rules[i].name))
            return rules[i].rule;
    return slice_istarts(name, SLICE_LIT("if-")) || slice_istarts(name, SLICE_LIT("x-forwarded-"))
        ? TRAILER_DROPPED
        : TRAILER_PASSED;
}

// A quoted string that is left open would swallow the element behind it, which is ours; with a backslash readers do not
// agree on where it closes.
static bool list_ends(struct slice value) {
    bool open = false;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] == '\\')
            return false;
        open ^= value.at[i] == '"';
    }
    return !open;
}

static int set_or_append(struct request *request, struct arena *arena, enum header_id id, struct slice value,
                         bool append) {
    const struct header *old = append ? headers_find(&request->headers, id) : NULL;
    if (!old)
        return headers_set(&request->headers, arena, header_name_of(id), value);
    // Several fields of the name count as one list: joined, so that the new element is the last for sure.
    struct slice joined = { 0 };
    for (uint32_t i = 0; i < request->headers.count; i++) {
        const struct header *header = &request->headers.at[i];
        if (header->id != id || header->name.len == 0 || header->value.len == 0 || !list_ends(header->value))
            continue;
        if (joined.len > 0 && arena_append(arena, &joined, ", ", 2) < 0)
            return -ENOMEM;
        if (arena_append(arena, &joined, header->value.at, header->value.len) < 0)
            return -ENOMEM;
    }
    if ((joined.len > 0 && arena_append(arena, &joined, ", ", 2) < 0) ||
        arena_append(arena, &joined, value.at, value.len) < 0)
        return -ENOMEM;
    return headers_set(&request->headers, arena, header_name_of(id), joined);
}

int rules_add_forwarded(struct request *request, struct arena *arena, const struct conf_settings *settings,
                        const struct addr *client, const struct addr *local) {
    struct headers *headers = &request->headers;
    char ip[ADDR_IP_MAX];
    if (settings->x_forwarded != X_FORWARDED_OFF) {
        bool append = settings->x_forwarded == X_FORWARDED_APPEND;
        struct slice text = arena_copy(arena, slice_make(ip, addr_print_ip(client, ip)));
        if (!text.at || set_or_append(request, arena, HEADER_x_forwarded_for, text, append) < 0)
            return -ENOMEM;
        // Protocol and host say what this proxy saw; only the first proxy of a chain that is trusted knows
        // better.
        if ((!append || !headers_find(headers, HEADER_x_forwarded_proto)) &&
            headers_set(headers, arena, header_name_of(HEADER_x_forwarded_proto), request->scheme) < 0)
            return -ENOMEM;
        if ((!append || !headers_find(headers, HEADER_x_forwarded_host)) && request->authority.len > 0 &&
            headers_set(headers, arena, header_name_of(HEADER_x_forwarded_host), request->authority) < 0)
            return -ENOMEM;
    }
    if (settings->forwarded) {
        char by[ADDR_IP_MAX];
        addr_print_ip(client, ip);
        addr_print_ip(local, by);
        bool v6 = strchr(ip, ':') != NULL, by_v6 = strchr(by, ':') != NULL;
        // IPv6 addresses stand in brackets and quotes; a unix socket has no address: "unknown" (RFC 7239, 6).
        bool known = addr_family(client) == AF_INET || addr_family(client) == AF_INET6;
        bool by_known = addr_family(local) == AF_INET || addr_family(local) == AF_INET6;
        char *value = arena_printf(arena, "for=%s%s%s;by=%s%s%s;host=\"%.*s\";proto=%.*s", v6 ? "\"[" : "",
                                   known ? ip : "unknown", v6 ? "]\"" : "", by_v6 ? "\"[" : "",
                                   by_known ? by : "unknown", by_v6 ? "]\"" : "",
                                   SLICE_ARG(request->authority), SLICE_ARG(request->scheme));
        if (!value || set_or_append(request, arena, HEADER_forwarded, slice_of(value), true) < 0)
            return -ENOMEM;
    }
    return 0;
}

int rules_add_via(struct headers *headers, struct arena *arena, unsigned major, unsigned minor,
                  const char *name) {
    if (!name)
        return 0;
    char *value = arena_printf(arena, "%u.%u %s", major, minor, name);
    return value ? headers_add(headers, arena, header_name_of(HEADER_via), slice_of(value)) : -ENOMEM;
}

// The same for a whole second; made without strftime(3), whose names of days depend on the locale.
static struct slice date_now(void) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static char text[32];
    static uint64_t second;
    uint64_t now = clock_cached.wall_us / 1000000;
    if (now != second) {
        struct tm tm;
        time_t t = (time_t)now;
        gmtime_r(&t, &tm);
        snprintf(text, sizeof text, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday,
                 (unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000,
                 (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
        second = now;
    }
    return slice_of(text);
}

int rules_add_date(struct headers *headers, struct arena *arena) {
    if (headers_find(headers, HEADER_date))
        return 0;
    struct slice date = arena_copy(arena, date_now());
    return date.at ? headers_add(headers, arena, header_name_of(HEADER_date), date) : -ENOMEM;
}

int rules_body_changed(struct headers *headers, struct arena *arena) {
    static const struct slice wrong[] = {
        SLICE_LIT("content-md5"), SLICE_LIT("content-digest"), SLICE_LIT("digest"),
        SLICE_LIT("repr-digest"), SLICE_LIT("accept-ranges"),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        headers_remove(headers, wrong[i]);
    uint32_t position = 0;
    const struct header *etag = headers_next(headers, SLICE_LIT("etag"), &position);
    if (!etag || slice_starts(etag->value, SLICE_LIT("W/")))
        return 0;
    char *weak = arena_printf(arena, "W/%.*s", SLICE_ARG(etag->value));
    return weak ? headers_set(headers, arena, SLICE_LIT("etag"), slice_of(weak)) : -ENOMEM;
}

int rules_max_forwards(struct request *request, struct arena *arena) {
    struct slice name = SLICE_LIT("max-forwards");
    uint64_t left;
    uint32_t position = 0;
    if (!slice_eq(request->method, SLICE_LIT("OPTIONS")) && !slice_eq(request->method, SLICE_LIT("TRACE")))
        return 0;
    const struct header *header = headers_next(&request->headers, name, &position);
    if (!header || slice_to_u64(header->value, &left) < 0)
        return 0;
    if (left == 0)
        return 1;
    char *value = arena_printf(arena, "%llu", (unsigned long long)left - 1);
    return value ? headers_set(&request->headers, arena, name, slice_of(value)) : -ENOMEM;
}
