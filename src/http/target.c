// SPDX-License-Identifier: BSD-2-Clause
// Parsing of request targets for target.h. Called by codecs and by the script API when a script changes a
// path.
#include "http/target.h"

#include <errno.h>

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int path_normalise(struct slice raw, struct arena *arena, struct slice *ret_path) {
    bool plain = raw.len > 0 && raw.at[0] == '/';
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.at[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return -EINVAL;
        if (c == '%' || (c == '/' && i + 1 < raw.len && (raw.at[i + 1] == '/' || raw.at[i + 1] == '.')))
            plain = false;
    }
    if (plain) {  // the usual case: nothing to decode, nothing to remove
        *ret_path = raw;
        return 0;
    }
    if (raw.len == 0 || raw.at[0] != '/')
        return -EINVAL;
    char *path = arena_alloc(arena, raw.len + 1);
    if (!path)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.at[i];
        if (c == '%') {
            int high = i + 1 < raw.len ? hex_digit(raw.at[i + 1]) : -1;
            int low = i + 2 < raw.len ? hex_digit(raw.at[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        }
        path[n++] = c;
    }
    // Segment by segment in place: `to` never overtakes `from`.
    size_t from = 0, to = 0;
    while (from < n) {
        while (from < n && path[from] == '/')
            from++;
        size_t end = from;
        while (end < n && path[end] != '/')
            end++;
        size_t len = end - from;
        bool last = end == n;
        if (len == 1 && path[from] == '.') {
            if (last)
                path[to++] = '/';
        } else if (len == 2 && path[from] == '.' && path[from + 1] == '.') {
            while (to > 0 && path[--to] != '/')
                ;
            if (last)
                path[to++] = '/';
        } else {
            path[to++] = '/';
            memmove(path + to, path + from, len);
            to += len;
        }
        from = end;
    }
    if (to == 0)
        path[to++] = '/';
    *ret_path = slice_make(path, to);
    return 0;
}

bool authority_valid(struct slice authority) {
    struct slice host = authority;
    size_t i = 0;
    if (host.len == 0)
        return true;
    if (host.at[0] == '[') {
        for (i = 1; i < host.len && host.at[i] != ']'; i++)
            if (hex_digit(host.at[i]) < 0 && host.at[i] != ':' && host.at[i] != '.')
                return false;
        if (i == host.len || i == 1)
            return false;
        i++;
    } else {
        for (; i < host.len && host.at[i] != ':'; i++) {
            char c = host.at[i];
            bool unreserved = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                c == '-' || c == '.' || c == '_' || c == '~';
            bool sub_delims = c && strchr("!$&'()*+,;=", c) != NULL;
            if (c == '%') {
                if (i + 2 >= host.len || hex_digit(host.at[i + 1]) < 0 || hex_digit(host.at[i + 2]) < 0)
                    return false;
                i += 2;
            } else if (!unreserved && !sub_delims) {
                return false;
            }
        }
        if (i == 0)
            return false;
    }
    if (i == host.len)
        return true;
    uint64_t port;
    if (host.at[i] != ':')
        return false;
    struct slice digits = slice_from(host, i + 1);
    return digits.len == 0 || (slice_to_u64(digits, &port) == 0 && port <= 65535);
}

int target_parse(struct request *request, struct arena *arena, const char **ret_why) {
    struct slice target = request->target;
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char)target.at[i];
        if (c <= 0x20 || c >= 0x7f || c == '#') {
            *ret_why = "the request target holds a character that must be percent-encoded";
            return -EINVAL;
        }
    }
    if (slice_eq(request->method, SLICE_LIT("CONNECT"))) {
        request->authority = request->path = request->raw_path = target;
        if (target.len == 0 || !authority_valid(target)) {
            *ret_why = "CONNECT needs host:port";
            return -EINVAL;
        }
        return 0;
    }
    if (slice_eq(target, SLICE_LIT("*"))) {
        request->path = request->raw_path = target;
        if (!slice_eq(request->method, SLICE_LIT("OPTIONS"))) {
            *ret_why = "the target \"*\" is for OPTIONS alone";
            return -EINVAL;
        }
        return 0;
    }
    struct slice path = target;
    if (target.len == 0 || target.at[0] != '/') {
        struct slice http = SLICE_LIT("http://"), https = SLICE_LIT("https://");
        bool secure = slice_istarts(target, https);
        if (!secure && !slice_istarts(target, http)) {
            *ret_why = "the request target is neither a path nor an absolute URI of http or https";
            return -EINVAL;
        }
        struct slice rest = slice_from(target, secure ? https.len : http.len);
        size_t end = 0;
        while (end < rest.len && rest.at[end] != '/' && rest.at[end] != '?')
            end++;
        request->authority = slice_make(rest.at, end);
        if (end == 0 || !authority_valid(request->authority)) {
            *ret_why = "the authority of the absolute request target is not host[:port]";
            return -EINVAL;
        }
        path = slice_from(rest, end);
    }
    const char *mark = path.len > 0 ? memchr(path.at, '?', path.len) : NULL;
    request->query = slice_make(NULL, 0);
    if (mark) {
        request->query = slice_from(path, (size_t)(mark - path.at) + 1);
        path.len = (size_t)(mark - path.at);
    }
    if (path.len == 0)
        path = SLICE_LIT("/");
    request->raw_path = path;
    int rc = path_normalise(path, arena, &request->path);
    if (rc < 0)
        *ret_why = rc == -ENOMEM ? "memory is out" : "the path holds a bad percent-encoding";
    return rc;
}
