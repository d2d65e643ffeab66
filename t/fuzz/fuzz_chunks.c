// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the chunk decoder, beside a decoder of its own that is written from RFC 9112, 7.1 alone and as strict
// as can be: whatever both take must be the same bytes and end at the same place, and what the parser takes the strict
// one takes, too (but for extensions and trailers, which it does not look into). The first byte says where the input is
// cut.
#include "h1_feed.h"

static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_line_end(struct slice *rest) {
    if (rest->len < 2 || rest->at[0] != '\r' || rest->at[1] != '\n')
        return false;
    *rest = slice_from(*rest, 2);
    return true;
}

// True when the input is a whole chunked body with trailers; the data goes to `body`, *rest is what follows.
static bool decode(struct slice *rest, char *body, size_t *ret_len) {
    size_t n = 0;
    for (;;) {
        uint64_t size = 0;
        unsigned digits = 0;
        for (; rest->len > 0 && digit(rest->at[0]) >= 0; *rest = slice_from(*rest, 1), digits++) {
            if (size >> 60)
                return false;
            size = size << 4 | (uint64_t)digit(rest->at[0]);
        }
        if (digits == 0)
            return false;
        if (rest->len > 0 && (rest->at[0] == ';' || rest->at[0] == ' ' || rest->at[0] == '\t'))
            while (rest->len > 0 && rest->at[0] != '\r' && rest->at[0] != '\n')
                *rest = slice_from(*rest, 1);
        if (!take_line_end(rest))
            return false;
        if (size == 0)
            break;
        if (size > rest->len)
            return false;
        memcpy(body + n, rest->at, size);
        n += size;
        *rest = slice_from(*rest, size);
        if (!take_line_end(rest))
            return false;
    }
    while (!take_line_end(rest)) {
        const char *end = rest->len > 0 ? memmem(rest->at, rest->len, "\r\n", 2) : NULL;
        if (!end)
            return false;
        *rest = slice_from(*rest, (size_t)(end - rest->at) + 2);
    }
    *ret_len = n;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0)
        return 0;
    size_t head_len = sizeof head - 1, total = head_len + len - 1, n = 0, body_len;
    char *text = malloc(total), *body = malloc(len);
    must(text && body);
    memcpy(text, head, head_len);
    memcpy(text + head_len, bytes + 1, len - 1);
    struct feed_input input = { .text = slice_make(text, total) };
    struct feed *feed = feed_all_ways(&input, bytes[0]);
    if (feed->result == H1_DONE) {
        struct slice rest = slice_from(input.text, head_len);
        must(decode(&rest, body, &n));
        must(total - rest.len == feed->used);
        char *parsed = feed_text(&feed->body, &body_len);
        must(body_len == n && memcmp(parsed, body, n) == 0);
        free(parsed);
    }
    feed_free(feed);
    free(body);
    free(text);
    return 0;
}
