// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for what is read of a client's TLS hello behind OpenSSL's back: lists in extensions, and the fingerprint.
// The input: the version, how many extensions there are (two bytes each), then five parts with a length of two
// bytes: ciphers, server name, ALPN, versions, algorithms. Texts end where they say, and nobody writes beyond.
#include "tls/hello.h"

#include "fuzz.h"

static struct slice take(struct slice *rest, size_t len) {
    len = len < rest->len ? len : rest->len;
    struct slice part = slice_make(rest->at, len);
    *rest = slice_from(*rest, len);
    return part;
}

static unsigned number(struct slice *rest) {
    struct slice two = take(rest, 2);
    return two.len < 2 ? 0 : (unsigned)(unsigned char)two.at[0] << 8 | (unsigned char)two.at[1];
}

static struct slice part(struct slice *rest) {
    size_t len = number(rest);
    return take(rest, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct slice rest = slice_make((const char *)bytes, len);
    struct tls_hello hello = { .version = number(&rest) };
    hello.extension_count = number(&rest) % (HELLO_EXTENSIONS + 1);
    for (unsigned i = 0; i < hello.extension_count; i++)
        hello.extensions[i] = (uint16_t)number(&rest);
    hello.ciphers = part(&rest);
    hello.server_name = part(&rest);
    hello.alpn = part(&rest);
    hello.versions = part(&rest);
    hello.algorithms = part(&rest);
    char print[HELLO_FINGERPRINT + 1], text[100];
    must(hello_fingerprint(&hello, print) == 0);
    must(strlen(print) == HELLO_FINGERPRINT);
    must(hello_alpn(&hello, text, sizeof text) == strlen(text));
    must(hello_versions(&hello, text, sizeof text) == strlen(text));
    struct slice name = hello_server_name(&hello);
    must(name.len == 0 || (name.at >= hello.server_name.at && name.len <= hello.server_name.len));
    return 0;
}
