// SPDX-License-Identifier: BSD-2-Clause
// The key and its answer of websocket.h.
#include "proxy/websocket.h"

#include "tls/digest.h"

#include <errno.h>

enum { KEY_BYTES = 16, KEY_TEXT = 24, SHA1_BYTES = 20, ANSWER_ROOM = 2 * SHA1_BYTES };
static const struct slice key_name = SLICE_LIT("sec-websocket-key");
static const struct slice accept_name = SLICE_LIT("sec-websocket-accept");

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

// What answers the request's key (RFC 6455, 4.2.2). Nothing when there is none.
static struct slice answer(const struct exchange *x, char *to) {
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char joined[KEY_TEXT + sizeof magic];
    unsigned char digest[DIGEST_MAX];
    uint32_t at = 0;
    const struct header *key = headers_next(&x->req.headers, key_name, &at);
    if (!key || key->value.len != KEY_TEXT)
        return slice_make(NULL, 0);
    memcpy(joined, key->value.at, KEY_TEXT);
    memcpy(joined + KEY_TEXT, magic, sizeof magic - 1);
    if (digest_of(DIGEST_sha1, slice_make(joined, KEY_TEXT + sizeof magic - 1), digest) != SHA1_BYTES)
        return slice_make(NULL, 0);
    return slice_make(to, base64_encode(slice_make((char *)digest, SHA1_BYTES), false, to));
}

bool websocket_accepted(const struct exchange *x) {
    char text[ANSWER_ROOM];
    uint32_t at = 0;
    struct slice expected = answer(x, text);
    const struct header *accept = headers_next(&x->res.headers, accept_name, &at);
    return accept && expected.len > 0 && slice_eq(accept->value, expected);
}

int websocket_accept(struct exchange *x) {
    char text[ANSWER_ROOM];
    struct slice value = answer(x, text);
    if (value.len == 0)
        return -EINVAL;
    value = arena_copy(&x->arena, value);
    return value.at ? headers_set(&x->res.headers, &x->arena, accept_name, value) : -ENOMEM;
}
