// SPDX-License-Identifier: BSD-2-Clause
// Reads and prints socket addresses for addr.h. Printing is on the path of every request (logs, headers), so
// it is done by hand, without printf and without the C library's IPv4-compatible exception.
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>

#define FORMS "expected IP:PORT such as 127.0.0.1:80, [IPV6]:PORT, *:PORT, unix:/PATH or unix:@NAME"

enum { V4_LEN = sizeof(struct sockaddr_in), V6_LEN = sizeof(struct sockaddr_in6) };

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

// Strict: octal and short forms mean different addresses to different programs.
static bool parse_v4(struct slice text, uint8_t ret_bytes[4]) {
    size_t i = 0;
    for (int part = 0; part < 4; part++) {
        if (part > 0 && (i >= text.len || text.at[i++] != '.'))
            return false;
        unsigned value = 0;
        size_t start = i;
        for (; i < text.len && i - start < 3 && text.at[i] >= '0' && text.at[i] <= '9'; i++)
            value = value * 10 + (unsigned)(text.at[i] - '0');
        if (i == start || value > 255 || (text.at[start] == '0' && i - start > 1))
            return false;
        ret_bytes[part] = (uint8_t)value;
    }
    return i == text.len;
}

static bool parse_v6(struct slice text, uint8_t ret_bytes[16]) {
    char copy[INET6_ADDRSTRLEN];
    if (text.len < 2 || text.len >= sizeof copy || memchr(text.at, 0, text.len))
        return false;
    memcpy(copy, text.at, text.len);
    copy[text.len] = 0;
    return inet_pton(AF_INET6, copy, ret_bytes) == 1;
}

int addr_parse_ip(struct slice text, uint16_t port, struct addr *ret_addr) {
    struct addr addr = { 0 };
    if (parse_v4(text, (uint8_t *)&addr.in4.sin_addr)) {
        addr.in4.sin_family = AF_INET;
        addr.in4.sin_port = htons(port);
        addr.len = V4_LEN;
    } else if (parse_v6(text, addr.in6.sin6_addr.s6_addr)) {
        addr.in6.sin6_family = AF_INET6;
        addr.in6.sin6_port = htons(port);
        addr.len = V6_LEN;
    } else {
        return -EINVAL;
    }
    *ret_addr = addr;
    return 0;
}

static int parse_unix(struct slice text, struct slice path, struct addr *ret_addr, struct error *error) {
    struct addr addr = { .un.sun_family = AF_UNIX };
    if (path.len == 0 || (path.at[0] != '/' && path.at[0] != '@') || (path.len == 1))
        return error_set(error, -EINVAL,
                         "\"%.*s\" is not an address: expected unix:/PATH (absolute) or unix:@NAME",
                         SLICE_ARG(text));
    if (path.len >= sizeof addr.un.sun_path)
        return error_set(error, -EINVAL, "\"%.*s\" is too long for a unix socket: expected at most %zu bytes",
                         SLICE_ARG(text), sizeof addr.un.sun_path - 1);
    if (memchr(path.at, 0, path.len))
        return error_set(error, -EINVAL, "a unix socket's path has a NUL byte in it");
    memcpy(addr.un.sun_path, path.at, path.len);
    addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len);
    if (path.at[0] == '@')
        addr.un.sun_path[0] = 0;  // the abstract name is what follows, counted by len
    else
        addr.len++;
    *ret_addr = addr;
    return 0;
}

// "%eth0" or "%2": link-local addresses mean nothing without it.
static bool parse_scope(struct slice text, uint32_t *ret_scope) {
    uint64_t number;
    if (slice_to_u64(text, &number) == 0) {
        *ret_scope = (uint32_t)number;
        return number > 0 && number <= UINT32_MAX;
    }
    char name[IF_NAMESIZE];
    if (text.len == 0 || text.len >= sizeof name)
        return false;
    memcpy(name, text.at, text.len);
    name[text.len] = 0;
    *ret_scope = if_nametoindex(name);
    return *ret_scope != 0;
}

int addr_parse(struct slice text, struct addr *ret_addr, struct error *error) {
    if (slice_starts(text, SLICE_LIT("unix:")))
        return parse_unix(text, slice_from(text, 5), ret_addr, error);

    size_t colon = text.len;
    while (colon > 0 && text.at[colon - 1] != ':' && text.at[colon - 1] != ']')
        colon--;
    if (colon == 0 || text.at[colon - 1] == ']') {
        struct addr whole;
        if (colon == 0 && addr_parse_ip(text, 0, &whole) == 0)
            return error_set(error, -EINVAL, "\"%.*s\" has no port: expected \"%.*s:PORT\"", SLICE_ARG(text),
                             SLICE_ARG(text));
        return error_set(error, -EINVAL, "\"%.*s\" is not an address with a port: " FORMS, SLICE_ARG(text));
    }
    struct slice host = slice_make(text.at, colon - 1), digits = slice_from(text, colon);
    struct addr addr;
    if (addr_parse_ip(text, 0, &addr) == 0)
        return error_set(error, -EINVAL, "\"%.*s\" has no port: expected \"[%.*s]:PORT\"", SLICE_ARG(text),
                         SLICE_ARG(text));
    uint64_t port;
    if (slice_to_u64(digits, &port) < 0 || port > 65535 || digits.len > 5)
        return error_set(error, -EINVAL,
                         "\"%.*s\" has a bad port \"%.*s\": expected a number from 0 to 65535",
                         SLICE_ARG(text), SLICE_ARG(digits));

    if (host.len == 1 && host.at[0] == '*')
        return addr_parse_ip(SLICE_LIT("0.0.0.0"), (uint16_t)port, ret_addr);
    bool bracketed = host.len >= 2 && host.at[0] == '[' && host.at[host.len - 1] == ']';
    if (bracketed)
        host = slice_make(host.at + 1, host.len - 2);
    uint32_t scope = 0;
    const char *percent = bracketed ? memchr(host.at, '%', host.len) : NULL;
    if (percent) {
        struct slice name = slice_make(percent + 1, host.len - (size_t)(percent + 1 - host.at));
        if (!parse_scope(name, &scope))
            return error_set(error, -EINVAL,
                             "\"%.*s\" names no network interface: expected one that exists after %%",
                             SLICE_ARG(text));
        host.len = (size_t)(percent - host.at);
    }
    if (addr_parse_ip(host, (uint16_t)port, &addr) < 0)
        return error_set(error, -EINVAL, "\"%.*s\" is not an IP address: " FORMS, SLICE_ARG(host));
    if (bracketed != (addr.sa.sa_family == AF_INET6))
        return error_set(error, -EINVAL, "\"%.*s\" is not an address: " FORMS, SLICE_ARG(text));
    if (scope)
        addr.in6.sin6_scope_id = scope;
    *ret_addr = addr;
    return 0;
}

int addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *ret_addr) {
    struct addr addr = { 0 };
    if (len < sizeof sa->sa_family)
        return -EINVAL;
    switch (sa->sa_family) {
    case AF_INET:
        if (len < V4_LEN)
            return -EINVAL;
        memcpy(&addr.in4, sa, V4_LEN);
        memset(addr.in4.sin_zero, 0, sizeof addr.in4.sin_zero);
        addr.len = V4_LEN;
        break;
    case AF_INET6:
        if (len < V6_LEN)
            return -EINVAL;
        memcpy(&addr.in6, sa, V6_LEN);
        addr.len = V6_LEN;
        break;
    case AF_UNIX:
        if (len > sizeof addr.un)
            return -EINVAL;
        memcpy(&addr.un, sa, len);
        addr.len = len;
        break;
    default:
        return -EAFNOSUPPORT;
    }
    *ret_addr = addr;
    return 0;
}

static char *put_decimal(char *to, uint32_t value) {
    char digits[10];
    int n = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (n > 0)
        *to++ = digits[--n];
    return to;
}

static char *put_v4(char *to, const uint8_t bytes[4]) {
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            *to++ = '.';
        to = put_decimal(to, bytes[i]);
    }
    return to;
}

static char *put_v6(char *to, const uint8_t bytes[16]) {
    uint16_t groups[8];
    for (int i = 0; i < 8; i++)
        groups[i] = (uint16_t)(bytes[2 * i] << 8 | bytes[2 * i + 1]);
    // The longest run of two or more zero groups becomes "::", the first of equals (RFC 5952, 4.2).
    int best = -1, best_len = 1;
    for (int i = 0; i < 8; i++) {
        int len = 0;
        while (i + len < 8 && groups[i + len] == 0)
            len++;
        if (len > best_len)
            best = i, best_len = len;
        i += len;
    }
    for (int i = 0; i < 8; i++) {
        if (i == best) {
            *to++ = ':';
            *to++ = ':';
            i += best_len - 1;
            continue;
        }
        if (i > 0 && to[-1] != ':')
            *to++ = ':';
        bool started = false;
        for (int shift = 12; shift >= 0; shift -= 4) {
            unsigned nibble = groups[i] >> shift & 15u;
            if (nibble || started || shift == 0)
                *to++ = "0123456789abcdef"[nibble], started = true;
        }
    }
    return to;
}

static char *put_ip(char *to, const struct addr *addr) {
    if (addr->sa.sa_family == AF_INET)
        return put_v4(to, (const uint8_t *)&addr->in4.sin_addr);
    const uint8_t *bytes = addr->in6.sin6_addr.s6_addr;
    return memcmp(bytes, mapped_prefix, 12) == 0 ? put_v4(to, bytes + 12) : put_v6(to, bytes);
}

size_t addr_print_ip(const struct addr *addr, char text[ADDR_IP_MAX]) {
    char *end = text;
    if (addr->sa.sa_family == AF_INET || addr->sa.sa_family == AF_INET6)
        end = put_ip(text, addr);
    else if (addr->sa.sa_family == AF_UNIX)
        end = stpcpy(text, "unix");
    else
        *end++ = '-';
    *end = 0;
    return (size_t)(end - text);
}

static char *put_unix(char *to, const struct addr *addr) {
    to = stpcpy(to, "unix:");
    size_t base = offsetof(struct sockaddr_un, sun_path);
    size_t len = addr->len > base ? addr->len - base : 0;
    const char *path = addr->un.sun_path;
    if (len == 0)
        return to;
    if (path[0] == 0) {
        *to++ = '@';
        path++, len--;
    } else {
        len = strnlen(path, len);
    }
    memcpy(to, path, len);
    return to + len;
}

size_t addr_print(const struct addr *addr, char text[ADDR_TEXT_MAX]) {
    char *end = text;
    bool brackets = addr->sa.sa_family == AF_INET6 && memcmp(&addr->in6.sin6_addr, mapped_prefix, 12) != 0;
    switch (addr->sa.sa_family) {
    case AF_INET:
    case AF_INET6:
        if (brackets)
            *end++ = '[';
        end = put_ip(end, addr);
        if (brackets && addr->in6.sin6_scope_id) {
            *end++ = '%';
            end = put_decimal(end, addr->in6.sin6_scope_id);
        }
        if (brackets)
            *end++ = ']';
        *end++ = ':';
        end = put_decimal(end, addr_port(addr));
        break;
    case AF_UNIX:
        end = put_unix(end, addr);
        break;
    default:
        *end++ = '-';
    }
    *end = 0;
    return (size_t)(end - text);
}

uint16_t addr_port(const struct addr *addr) {
    if (addr->sa.sa_family == AF_INET)
        return ntohs(addr->in4.sin_port);
    return addr->sa.sa_family == AF_INET6 ? ntohs(addr->in6.sin6_port) : 0;
}

void addr_set_port(struct addr *addr, uint16_t port) {
    if (addr->sa.sa_family == AF_INET)
        addr->in4.sin_port = htons(port);
    else if (addr->sa.sa_family == AF_INET6)
        addr->in6.sin6_port = htons(port);
}

bool addr_eq(const struct addr *a, const struct addr *b) {
    if (a->sa.sa_family != b->sa.sa_family)
        return false;
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr && a->in4.sin_port == b->in4.sin_port;
    case AF_INET6:
        return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0 &&
               a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id;
    case AF_UNIX: {
        // By its text: the kernel's length may or may not count a path's NUL.
        char x[ADDR_TEXT_MAX], y[ADDR_TEXT_MAX];
        size_t len = addr_print(a, x);
        return len == addr_print(b, y) && memcmp(x, y, len) == 0;
    }
    default:
        return true;
    }
}

bool addr_key(const struct addr *addr, uint8_t ret_key[16]) {
    if (addr->sa.sa_family == AF_INET6) {
        memcpy(ret_key, &addr->in6.sin6_addr, 16);
        return true;
    }
    memset(ret_key, 0, 16);
    if (addr->sa.sa_family != AF_INET)
        return false;
    memcpy(ret_key, mapped_prefix, 12);
    memcpy(ret_key + 12, &addr->in4.sin_addr, 4);
    return true;
}
