// SPDX-License-Identifier: BSD-2-Clause
// Reads a client's hello for hello.h. Lists in extensions are a length and then parts with a length each; what
// does not fit its list ends it.
#include "tls/hello.h"

#include "tls/digest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXTENSION_SERVER_NAME = 0, EXTENSION_ALPN = 16 };

static unsigned two(const char *at) {
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

// Values that clients make up so that servers get used to unknown ones (RFC 8701).
static bool is_grease(unsigned value) {
    return (value & 0x0f0f) == 0x0a0a && (value >> 8) == (value & 0xff);
}

// The body of a list that begins with its length in `width` bytes, as much of it as there is.
static struct slice list_body(struct slice from, unsigned width) {
    if (from.len < width)
        return (struct slice){ 0 };
    size_t len = width == 1 ? (unsigned char)from.at[0] : two(from.at);
    struct slice rest = slice_from(from, width);
    return slice_make(rest.at, len < rest.len ? len : rest.len);
}

struct slice hello_server_name(const struct tls_hello *hello) {
    struct slice list = list_body(hello->server_name, 2);
    if (list.len < 3 || list.at[0] != 0)
        return (struct slice){ 0 };
    size_t len = two(list.at + 1);
    return len <= list.len - 3 ? slice_make(list.at + 3, len) : (struct slice){ 0 };
}

static bool next_protocol(struct slice *list, struct slice *ret) {
    if (list->len < 1)
        return false;
    size_t len = (unsigned char)list->at[0];
    if (len == 0 || len > list->len - 1)
        return false;
    *ret = slice_make(list->at + 1, len);
    *list = slice_from(*list, len + 1);
    return true;
}

size_t hello_alpn(const struct tls_hello *hello, char *to, size_t room) {
    struct slice list = list_body(hello->alpn, 2), protocol;
    size_t len = 0;
    while (next_protocol(&list, &protocol)) {
        if (len + (len > 0) + protocol.len + 1 > room)
            break;
        if (len > 0)
            to[len++] = ' ';
        for (size_t i = 0; i < protocol.len; i++)
            to[len++] = protocol.at[i] > ' ' && protocol.at[i] < 127 ? protocol.at[i] : '?';
    }
    to[len] = 0;
    return len;
}

static const char *version_text(unsigned version) {
    switch (version) {
    case 0x0304:
        return "TLSv1.3";
    case 0x0303:
        return "TLSv1.2";
    case 0x0302:
        return "TLSv1.1";
    case 0x0301:
        return "TLSv1";
    case 0x0300:
        return "SSLv3";
    default:
        return NULL;
    }
}

size_t hello_versions(const struct tls_hello *hello, char *to, size_t room) {
    struct slice list = list_body(hello->versions, 1);
    size_t len = 0;
    const char *text = list.len < 2 ? version_text(hello->version) : NULL;
    if (text)
        len = (size_t)snprintf(to, room, "%s", text);
    else
        *to = 0;
    for (; list.len >= 2; list = slice_from(list, 2)) {
        text = version_text(two(list.at));
        if (!text || len + strlen(text) + 2 > room)
            continue;
        len += (size_t)snprintf(to + len, room - len, "%s%s", len > 0 ? " " : "", text);
    }
    return len;
}

// ---- the fingerprint --------------------------------------------------------------------------------------

static unsigned highest_version(const struct tls_hello *hello) {
    struct slice list = list_body(hello->versions, 1);
    unsigned highest = list.len < 2 ? hello->version : 0;
    for (; list.len >= 2; list = slice_from(list, 2))
        if (!is_grease(two(list.at)) && two(list.at) > highest)
            highest = two(list.at);
    return highest;
}

static const char *version_code(unsigned version) {
    static const char *const codes[] = { "s3", "10", "11", "12", "13" };
    return version >= 0x0300 && version <= 0x0304 ? codes[version - 0x0300] : "00";
}

static int by_value(const void *a, const void *b) {
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static const char digits[] = "0123456789abcdef";

static size_t put_list(char *to, const uint16_t *values, unsigned count) {
    size_t len = 0;
    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            to[len++] = ',';
        for (int shift = 12; shift >= 0; shift -= 4)
            to[len++] = digits[values[i] >> shift & 15];
    }
    return len;
}

// The first twelve digits of a text's SHA-256; of no text zeros.
static int put_digest(char *to, const char *text, size_t len) {
    unsigned char digest[DIGEST_MAX];
    strcpy(to, "000000000000");
    if (len == 0)
        return 0;
    if (digest_of(DIGEST_sha256, slice_make(text, len), digest) < 0)
        return -EIO;
    for (int i = 0; i < 12; i++)
        to[i] = digits[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
    return 0;
}

static bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void put_alpn(const struct tls_hello *hello, char to[2]) {
    struct slice list = list_body(hello->alpn, 2), first;
    to[0] = to[1] = '0';
    if (!next_protocol(&list, &first))
        return;
    char begin = first.at[0], end = first.at[first.len - 1];
    bool text = is_alphanumeric(begin) && is_alphanumeric(end);
    to[0] = text ? begin : digits[(unsigned char)begin >> 4];
    to[1] = text ? end : digits[(unsigned char)end & 15];
}

int hello_fingerprint(const struct tls_hello *hello, char to[HELLO_FINGERPRINT + 1]) {
    uint16_t values[HELLO_CIPHERS];
    char text[5 * (HELLO_CIPHERS + HELLO_EXTENSIONS)], alpn[2];
    unsigned ciphers = 0, extensions = 0, shown = 0;
    for (struct slice list = hello->ciphers; list.len >= 2 && ciphers < HELLO_CIPHERS;
         list = slice_from(list, 2))
        if (!is_grease(two(list.at)))
            values[ciphers++] = (uint16_t)two(list.at);
    for (unsigned i = 0; i < hello->extension_count; i++)
        extensions += !is_grease(hello->extensions[i]);
    put_alpn(hello, alpn);
    char *at = to +
        snprintf(to, HELLO_FINGERPRINT + 1, "t%s%c%02u%02u%c%c_", version_code(highest_version(hello)),
                 hello->server_name.at ? 'd' : 'i', ciphers > 99 ? 99 : ciphers,
                 extensions > 99 ? 99 : extensions, alpn[0], alpn[1]);
    qsort(values, ciphers, sizeof *values, by_value);
    if (put_digest(at, text, put_list(text, values, ciphers)) < 0)
        return -EIO;
    at += 12;
    *at++ = '_';
    for (unsigned i = 0; i < hello->extension_count; i++)
        if (!is_grease(hello->extensions[i]) && hello->extensions[i] != EXTENSION_SERVER_NAME &&
            hello->extensions[i] != EXTENSION_ALPN)
            values[shown++] = hello->extensions[i];
    qsort(values, shown, sizeof *values, by_value);
    size_t len = put_list(text, values, shown);
    unsigned algorithms = 0;
    struct slice list = list_body(hello->algorithms, 2);
    for (; list.len >= 2 && algorithms < HELLO_CIPHERS - HELLO_EXTENSIONS; list = slice_from(list, 2))
        if (!is_grease(two(list.at)))
            values[algorithms++] = (uint16_t)two(list.at);
    if (algorithms > 0) {
        text[len++] = '_';
        len += put_list(text + len, values, algorithms);
    }
    return put_digest(at, text, len);
}
