// SPDX-License-Identifier: BSD-2-Clause
// The key and its answer of websocket.h.
#include "proxy/websocket.h"

#include "tls/digest.h"

#include <errno.h>

enum { KEY_BYTES = 16, KEY_TEXT = 24, SHA1_BYTES = 20 };
static const struct slice key_name = SLICE_LIT("sec-websocket-key");

int websocket_offer(struct exchange *x) {
    char bytes[KEY_BYTES];
    char *text = arena_alloc(&x->arena, base64_encode_room(KEY_BYTES));
    if (!text)
        return -ENOMEM;
    int rc = random_bytes(bytes, sizeof bytes);
    if (rc < 0)
        return rc;
    size_t len = base64_encode(slice_make(bytes, sizeof bytes), false, text);
    return headers_set(&x->req.headers, &x->arena, key_name, slice_make(text, len));
}

bool websocket_accepted(const struct exchange *x) {
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char joined[KEY_TEXT + sizeof magic], expected[2 * SHA1_BYTES];
    unsigned char digest[DIGEST_MAX];
    uint32_t at = 0, other = 0;
    const struct header *key = headers_next(&x->req.headers, key_name, &at);
    const struct header *accept = headers_next(&x->res.headers, SLICE_LIT("sec-websocket-accept"), &other);
    if (!key || !accept || key->value.len != KEY_TEXT)
        return false;
    memcpy(joined, key->value.at, KEY_TEXT);
    memcpy(joined + KEY_TEXT, magic, sizeof magic - 1);
    if (digest_of(DIGEST_sha1, slice_make(joined, KEY_TEXT + sizeof magic - 1), digest) != SHA1_BYTES)
        return false;
    size_t len = base64_encode(slice_make((char *)digest, SHA1_BYTES), false, expected);
    return slice_eq(accept->value, slice_make(expected, len));
}
