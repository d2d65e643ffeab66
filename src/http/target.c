// SPDX-License-Identifier: BSD-2-Clause
// Parsing of request targets for target.h. Called by codecs and by the script API when a script changes a
// path.
#include "http/target.h"

#include <arpa/inet.h>
#include <errno.h>

// What may stand in a target (RFC 3986, 3.3 and 3.4), and what browsers leave as it is though that does not
// allow it (the URL Standard's percent-encode sets): it divides nothing and so reads in one way. What divides
// for somebody ('\' in a path, '#') and what nobody sends (quotes, angles, controls, non-ASCII) is refused.
enum {
    IN_PATH = 1,
    IN_QUERY = 2,
    ANY = IN_PATH | IN_QUERY,
    DIGIT_OR_LETTER = 4,
    WORD = ANY | DIGIT_OR_LETTER
};
// clang-format off
static const unsigned char chars[256] = {
    ['0' ... '9'] = WORD, ['A' ... 'Z'] = WORD, ['a' ... 'z'] = WORD,
    ['-'] = ANY, ['.'] = ANY, ['_'] = ANY, ['~'] = ANY,                                       // unreserved
    ['!'] = ANY, ['$'] = ANY, ['&'] = ANY, ['\''] = ANY, ['('] = ANY, [')'] = ANY,            // sub-delims
    ['*'] = ANY, ['+'] = ANY, [','] = ANY, [';'] = ANY, ['='] = ANY,
    [':'] = ANY, ['@'] = ANY, ['/'] = ANY, ['%'] = ANY, ['?'] = IN_QUERY,
    ['['] = ANY, [']'] = ANY, ['|'] = ANY, ['^'] = ANY,                                       // browsers
    ['{'] = IN_QUERY, ['}'] = IN_QUERY, ['`'] = IN_QUERY, ['\\'] = IN_QUERY,
};
// clang-format on

static bool consists_of(struct slice text, unsigned char kind) {
    for (size_t i = 0; i < text.len; i++)
        if (!(chars[(unsigned char)text.at[i]] & kind))
            return false;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The character at raw.at[i], decoded, and how many bytes it takes there; 0: a bad percent-encoding.
static unsigned decode_at(struct slice raw, size_t i, unsigned char *ret_c) {
    *ret_c = (unsigned char)raw.at[i];
    if (*ret_c != '%')
        return 1;
    int high = i + 1 < raw.len ? hex_digit(raw.at[i + 1]) : -1;
    int low = i + 2 < raw.len ? hex_digit(raw.at[i + 2]) : -1;
    if (high < 0 || low < 0)
        return 0;
    *ret_c = (unsigned char)(high << 4 | low);
    return 3;
}

// A part of a path between two separators of any kind, while it is read.
struct segment {
    size_t len;     // decoded
    unsigned dots;  // at its begin
    bool only_dots;
    bool strange;  // a dot is encoded, or a separator beside it: not every parser sees a dot segment
};

// Whether the path says one thing only, as far as that is possible: -EINVAL with a reason where it does not.
// What can be read in several ways that all have their use is noted in *ret_doubts.
static int check_path(struct slice raw, unsigned *ret_doubts, const char **ret_why) {
    unsigned doubts = 0, depth = 0;  // depth: the least of all readings
    struct segment segment = { .only_dots = true };
    unsigned char last = 0;
    bool content = false;  // since the last '/' as such
    *ret_why = "the path holds a bad percent-encoding";
    for (size_t i = 1; i <= raw.len;) {
        unsigned char c = '/';
        unsigned width = i < raw.len ? decode_at(raw, i, &c) : 1;
        bool encoded = width > 1;
        if (width == 0)
            return -EINVAL;
        if (c < 0x20 || c == 0x7f) {
            *ret_why = "the path holds an encoded control character";
            return -EINVAL;
        }
        // ASCII in more bytes than it needs: no UTF-8, but some decoders take it.
        if (((last & 0xfe) == 0xc0 && (c & 0xc0) == 0x80) || (last == 0xe0 && (c & 0xe0) == 0x80)) {
            *ret_why = "the path holds an overlong UTF-8 sequence";
            return -EINVAL;
        }
        last = c;
        if (c != '/' && !(c == '\\' && encoded)) {
            if (segment.only_dots && c == '.') {
                segment.dots++;
                segment.strange |= encoded;
            } else if (segment.only_dots && c == ';' && (segment.dots == 1 || segment.dots == 2)) {
                goto dots;
            } else {
                segment.only_dots = false;
            }
            segment.len++;
            i += width;
            continue;
        }
        if (encoded) {
            doubts |= c == '/' ? PATH_ENCODED_SLASH : PATH_ENCODED_BACKSLASH;
            segment.strange = true;
        }
        if (segment.only_dots && (segment.dots == 1 || segment.dots == 2)) {
            if (segment.strange)
                goto dots;
            doubts |= PATH_DOT_SEGMENTS;
            if (segment.dots == 2 && depth-- == 0) {
                *ret_why = "the path leads above its root";
                return -EINVAL;
            }
        } else if (segment.len == 0 && !encoded && i < raw.len && raw.at[i - 1] == '/') {
            doubts |= PATH_EMPTY_SEGMENTS;
        }
        content |= segment.len > 0 && !(segment.only_dots && segment.dots <= 2);
        if (!encoded) {
            depth += content;
            content = false;
        }
        segment = (struct segment){ .only_dots = true, .strange = encoded };
        i += width;
    }
    *ret_doubts = doubts;
    return 0;
dots:
    *ret_why = "a dot segment of the path is encoded or has parameters";
    return -EINVAL;
}

enum separators { SLASH, SLASH_AND_ENCODED, SLASH_AND_BACKSLASH };  // SLASH: "%2F" stays as it is
struct reading {
    enum separators separators;
    bool join;  // slashes in a row count as one
    bool dots;  // dot segments are removed
};

// At most raw.len + 1 bytes to `to`. raw has passed check_path().
static size_t read_path(struct slice raw, struct reading reading, char *to) {
    size_t n = 0;
    for (size_t i = 0; i < raw.len;) {
        unsigned char c;
        size_t start = n;
        i += decode_at(raw, i, &c);  // a separator
        to[n++] = '/';
        for (unsigned width; i < raw.len; i += width) {
            width = decode_at(raw, i, &c);
            bool encoded = width > 1;
            if (c == '/' && encoded && reading.separators == SLASH) {
                memcpy(to + n, "%2F", 3);
                n += 3;
                continue;
            }
            if (c == '/' || (c == '\\' && encoded && reading.separators == SLASH_AND_BACKSLASH))
                break;
            to[n++] = (char)c;
        }
        struct slice segment = slice_make(to + start + 1, n - start - 1);
        bool last = i == raw.len, parent = reading.dots && slice_eq(segment, SLICE_LIT(".."));
        if (parent || (reading.dots && slice_eq(segment, SLICE_LIT(".")))) {
            n = start;
            while (parent && n > 0 && to[--n] != '/')
                ;
            if (last)
                to[n++] = '/';
        } else if (reading.join && segment.len == 0 && !last) {
            n = start;
        }
    }
    if (n == 0)
        to[n++] = '/';
    return n;
}

static const struct reading normal = { SLASH_AND_ENCODED, true, true };

static int parse_path(struct slice raw, struct arena *arena, struct slice *ret_path, unsigned *ret_doubts,
                      const char **ret_why) {
    bool plain = raw.len > 0 && raw.at[0] == '/', fine = plain;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.at[i];
        fine &= chars[(unsigned char)c] & IN_PATH;
        if (c == '%' || (c == '/' && i + 1 < raw.len && (raw.at[i + 1] == '/' || raw.at[i + 1] == '.')))
            plain = false;
    }
    if (!fine) {
        *ret_why = "the path holds a character that must be percent-encoded";
        return -EINVAL;
    }
    *ret_doubts = 0;
    if (plain) {  // the usual case: nothing to decode, nothing to remove
        *ret_path = raw;
        return 0;
    }
    if (check_path(raw, ret_doubts, ret_why) < 0)
        return -EINVAL;
    char *path = arena_alloc(arena, raw.len + 1);
    if (!path) {
        *ret_why = "memory is out";
        return -ENOMEM;
    }
    *ret_path = slice_make(path, read_path(raw, normal, path));
    return 0;
}

int path_normalise(struct slice raw, struct arena *arena, struct slice *ret_path) {
    unsigned doubts;
    const char *why;
    return parse_path(raw, arena, ret_path, &doubts, &why);
}

unsigned path_reading_count(unsigned doubts) {
    bool slash = doubts & PATH_ENCODED_SLASH, backslash = doubts & PATH_ENCODED_BACKSLASH;
    unsigned separators = 1 + slash + backslash;
    unsigned joins = slash || backslash || (doubts & PATH_EMPTY_SEGMENTS) ? 2 : 1;
    unsigned dots = doubts & PATH_DOT_SEGMENTS ? 2 : 1;
    return separators * joins * dots;
}

struct slice path_reading(struct slice raw, unsigned doubts, unsigned n, char *to) {
    struct reading reading = normal;
    if (doubts & PATH_DOT_SEGMENTS) {
        reading.dots = n % 2 == 0;
        n /= 2;
    }
    if (doubts & (PATH_ENCODED_SLASH | PATH_ENCODED_BACKSLASH | PATH_EMPTY_SEGMENTS)) {
        reading.join = n % 2 == 0;
        n /= 2;
    }
    if (n == 1 && (doubts & PATH_ENCODED_SLASH))
        reading.separators = SLASH;
    else if (n > 0)
        reading.separators = SLASH_AND_BACKSLASH;
    return slice_make(to, read_path(raw, reading, to));
}

// The end of the host: a bracketed IPv6 address, or a name or IPv4 address. 0: it is none.
static size_t host_end(struct slice authority) {
    size_t i = 0;
    if (authority.len > 0 && authority.at[0] == '[') {
        char text[INET6_ADDRSTRLEN];
        struct in6_addr address;
        const char *end = memchr(authority.at, ']', authority.len);
        size_t len = end ? (size_t)(end - authority.at) - 1 : 0;
        if (len == 0 || len >= sizeof text)
            return 0;
        memcpy(text, authority.at + 1, len);
        text[len] = 0;
        return strlen(text) == len && inet_pton(AF_INET6, text, &address) == 1 ? len + 2 : 0;
    }
    for (; i < authority.len && authority.at[i] != ':'; i++) {
        char c = authority.at[i];
        if (!(chars[(unsigned char)c] & DIGIT_OR_LETTER) && c != '-' && c != '.' && c != '_' && c != '~')
            return 0;
    }
    return i;
}

// colon: not without a port.
static bool check_authority(struct slice authority, bool colon) {
    size_t end = host_end(authority);
    if (end == 0 || (end < authority.len && authority.at[end] != ':') || (colon && end + 1 >= authority.len))
        return false;
    struct slice digits = slice_from(authority, end + 1);
    uint64_t port;
    return digits.len == 0 ||
        (digits.len <= 5 && slice_to_u64(digits, &port) == 0 && port > 0 && port <= 65535);
}

bool authority_valid(struct slice authority) {
    return check_authority(authority, false);
}

int target_parse(struct request *request, struct arena *arena, const char **ret_why) {
    struct slice target = request->target;
    bool options = slice_eq(request->method, SLICE_LIT("OPTIONS"));
    request->doubts = 0;
    request->query = slice_make(NULL, 0);
    if (slice_eq(request->method, SLICE_LIT("CONNECT"))) {
        request->authority = request->path = request->raw_path = target;
        if (!check_authority(target, true)) {
            *ret_why = "CONNECT needs host:port";
            return -EINVAL;
        }
        return 0;
    }
    if (slice_eq(target, SLICE_LIT("*"))) {
        request->path = request->raw_path = target;
        if (!options) {
            *ret_why = "the target \"*\" is for OPTIONS alone";
            return -EINVAL;
        }
        return 0;
    }
    struct slice path = target;
    bool absolute = target.len == 0 || target.at[0] != '/';
    if (absolute) {
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
        if (!authority_valid(request->authority)) {
            *ret_why = "the authority of the absolute request target is not host[:port]";
            return -EINVAL;
        }
        path = slice_from(rest, end);
    }
    const char *mark = path.len > 0 ? memchr(path.at, '?', path.len) : NULL;
    if (mark) {
        request->query = slice_from(path, (size_t)(mark - path.at) + 1);
        path.len = (size_t)(mark - path.at);
        if (!consists_of(request->query, IN_QUERY)) {
            *ret_why = "the query holds a character that must be percent-encoded";
            return -EINVAL;
        }
    }
    if (path.len == 0)  // RFC 9112, 3.2.4: OPTIONS of a whole server, by way of a proxy
        path = options && absolute && !mark ? SLICE_LIT("*") : SLICE_LIT("/");
    request->raw_path = request->path = path;
    unsigned doubts = 0;
    if (path.at[0] == '*')
        return 0;
    int rc = parse_path(path, arena, &request->path, &doubts, ret_why);
    request->doubts = (uint8_t)doubts;
    return rc;
}
