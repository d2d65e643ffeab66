// SPDX-License-Identifier: BSD-2-Clause
// base64 and hex of RFC 4648 for digest.h: libcrypto's, made strict. Its decoders pass over white space, and
// its base64 takes bits behind the end that no encoder writes, so that one value had several texts.
#include "tls/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

enum { PIECE = 3 << 20 };  // libcrypto's lengths are ints; a multiple of three, so that pieces join

size_t base64_encode_room(size_t len) {
    return len / 3 * 4 + 4 + 1;
}

size_t base64_encode(struct slice bytes, bool url, char *out) {
    size_t n = 0;
    out[0] = 0;
    while (bytes.len > 0) {
        int piece = bytes.len < PIECE ? (int)bytes.len : PIECE;
        n += (size_t)EVP_EncodeBlock((unsigned char *)out + n, (const unsigned char *)bytes.at, piece);
        bytes = slice_from(bytes, (size_t)piece);
    }
    if (!url)
        return n;
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    while (n > 0 && out[n - 1] == '=')
        n--;
    return n;
}

size_t base64_decode_room(size_t len) {
    return len / 4 * 3 + 3 + 4;  // the last group is decoded on its own
}

static bool in_alphabet(char c, bool url) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
        (url ? c == '-' || c == '_' : c == '+' || c == '/');
}

static unsigned char to_standard(char c) {
    return (unsigned char)(c == '-' ? '+' : c == '_' ? '/' : c);
}

// The last group of four, padded with '='; `text` characters of it are the sender's.
static int decode_group(const unsigned char group[4], unsigned text, char *out) {
    unsigned char bytes[4], again[5];
    if (EVP_DecodeBlock(bytes, group, 4) != 3)
        return -EINVAL;
    // The bits behind the end must be those that an encoder writes: zero.
    EVP_EncodeBlock(again, bytes, (int)text - 1);
    if (memcmp(again, group, 4) != 0)
        return -EINVAL;
    memcpy(out, bytes, text - 1);
    return (int)text - 1;
}

int base64_decode(struct slice text, bool url, char *out) {
    size_t n = 0, characters = text.len;
    if (!url) {
        if (text.len % 4 != 0)
            return -EINVAL;
        while (characters > 0 && text.len - characters < 2 && text.at[characters - 1] == '=')
            characters--;
    }
    if (characters % 4 == 1 || text.len > INT32_MAX)
        return -EINVAL;
    for (size_t i = 0; i < characters; i++)
        if (!in_alphabet(text.at[i], url))
            return -EINVAL;
    size_t last = characters % 4 ? characters % 4 : characters > 0 ? 4 : 0;
    for (size_t i = 0; i < characters - last;) {
        unsigned char piece[4096];
        size_t count = characters - last - i < sizeof piece ? characters - last - i : sizeof piece;
        for (size_t j = 0; j < count; j++)
            piece[j] = to_standard(text.at[i + j]);
        if (EVP_DecodeBlock((unsigned char *)out + n, piece, (int)count) != (int)(count / 4 * 3))
            return -EINVAL;
        i += count;
        n += count / 4 * 3;
    }
    if (last > 0) {
        unsigned char group[4] = { '=', '=', '=', '=' };
        for (size_t j = 0; j < last; j++)
            group[j] = to_standard(text.at[characters - last + j]);
        int got = decode_group(group, (unsigned)last, out + n);
        if (got < 0)
            return got;
        n += (size_t)got;
    }
    return (int)n;
}

size_t hex_encode_room(size_t len) {
    return len * 2 + 1;
}

size_t hex_encode(struct slice bytes, char *out) {
    size_t n = 0;
    if (bytes.len == 0 ||
        !OPENSSL_buf2hexstr_ex(out, bytes.len * 2 + 1, &n, (const unsigned char *)bytes.at, bytes.len, '\0'))
        return 0;
    n = bytes.len * 2;
    for (size_t i = 0; i < n; i++)
        out[i] |= 0x20;  // of capital letters small ones; digits have the bit
    return n;
}

size_t hex_decode_room(size_t len) {
    return len / 2 + 1;
}

int hex_decode(struct slice text, char *out) {
    if (text.len % 2 != 0 || text.len > INT32_MAX)
        return -EINVAL;
    for (size_t i = 0; i < text.len; i++) {
        int high = OPENSSL_hexchar2int((unsigned char)text.at[i]);
        if (high < 0)
            return -EINVAL;
        if (i % 2 == 0)
            out[i / 2] = (char)(high << 4);
        else
            out[i / 2] |= (char)high;
    }
    return (int)(text.len / 2);
}
