// SPDX-License-Identifier: BSD-2-Clause
// The C API of scripts for texts and bytes: base64, hex, percent-encoding, digests, random numbers, dates,
// query strings and cookies. What is done is tls/digest.h's and base/date.h's; scripts' side is in
// lua/moongate/.
#include "base/clock.h"
#include "base/date.h"
#include "base/handle.h"
#include "http/cookie.h"
#include "script/api_impl.h"
#include "script/host.h"
#include "tls/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

// One that was large does not stay.
char *mg_scratch(size_t len) {
    enum { KEEP = 64 << 10 };
    static char *at;
    static size_t room;
    if (!at || len > room || room > KEEP) {
        size_t want = len > KEEP ? len : KEEP;
        free(at);
        at = malloc(want);
        room = at ? want : 0;
    }
    return at;
}

static int no_memory(void) {
    return mg_error("memory is out");
}

static int give(struct mg_text *ret_text, const char *at, size_t len) {
    mg_text_set(ret_text, slice_make(at, len));
    return MG_OK;
}

// ---- bytes as text ----------------------------------------------------------------------------------------

static bool unreserved(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
        c == '.' || c == '_' || c == '~';
}

static size_t percent_encode(struct slice text, char *out) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (unreserved((char)c)) {
            out[n++] = (char)c;
        } else {
            memcpy(out + n, (char[]){ '%', digits[c >> 4], digits[c & 15] }, 3);
            n += 3;
        }
    }
    return n;
}

int mg_text_encode(int how, const char *at, size_t len, struct mg_text *ret_text) {
    if (len > MG_TEXT_MAX / 4)
        return mg_error("the text is longer than %d bytes", MG_TEXT_MAX / 4);
    struct slice text = slice_make(at, len);
    char *out = mg_scratch(how == MG_HEX           ? hex_encode_room(len)
                               : how == MG_PERCENT ? len * 3
                                                   : base64_encode_room(len));
    if (!out)
        return no_memory();
    switch (how) {
    case MG_HEX:
        return give(ret_text, out, hex_encode(text, out));
    case MG_PERCENT:
        return give(ret_text, out, percent_encode(text, out));
    }
    return give(ret_text, out, base64_encode(text, how == MG_BASE64URL, out));
}

int mg_text_decode(int how, const char *at, size_t len, struct mg_text *ret_text) {
    if (len > MG_TEXT_MAX)
        return mg_error("the text is longer than %d bytes", MG_TEXT_MAX);
    struct slice text = slice_make(at, len);
    char *out = mg_scratch(how == MG_HEX           ? hex_decode_room(len)
                               : how == MG_PERCENT ? len
                                                   : base64_decode_room(len));
    if (!out)
        return no_memory();
    if (how == MG_PERCENT)
        return give(ret_text, out, mg_arg_decode(text, out));
    int n = how == MG_HEX ? hex_decode(text, out) : base64_decode(text, how == MG_BASE64URL, out);
    return n < 0 ? MG_NONE : give(ret_text, out, (size_t)n);
}

// ---- digests and random numbers ---------------------------------------------------------------------------

int mg_digest_find(const char *name, size_t len) {
    enum digest_kind kind;
    return digest_find(slice_make(name, len), &kind) < 0 ? MG_NONE : (int)kind;
}

static bool digest_known(int kind) {
    return kind >= 0 && kind < DIGEST_COUNT;
}

int mg_digest(int kind, const char *at, size_t len, struct mg_text *ret_text) {
    static unsigned char out[DIGEST_MAX];
    int n = digest_known(kind) ? digest_of((enum digest_kind)kind, slice_make(at, len), out) : -EOPNOTSUPP;
    return n < 0 ? mg_error("libcrypto refuses this digest") : give(ret_text, (char *)out, (size_t)n);
}

int mg_hmac(int kind, const char *key, size_t key_len, const char *at, size_t len, struct mg_text *ret_text) {
    static unsigned char out[DIGEST_MAX];
    int n = digest_known(kind)
        ? digest_hmac((enum digest_kind)kind, slice_make(key, key_len), slice_make(at, len), out)
        : -EOPNOTSUPP;
    return n < 0 ? mg_error("libcrypto refuses this digest") : give(ret_text, (char *)out, (size_t)n);
}

int mg_siphash(const char *key, size_t key_len, const char *at, size_t len, struct mg_text *ret_text) {
    static unsigned char out[SIPHASH_SIZE];
    if (key_len != SIPHASH_KEY)
        return mg_error("gate.siphash: expected a key of %d bytes, got %zu", SIPHASH_KEY, key_len);
    if (digest_siphash((const unsigned char *)key, slice_make(at, len), out) < 0)
        return mg_error("libcrypto refuses SipHash");
    return give(ret_text, (char *)out, sizeof out);
}

int mg_equal(const char *a, size_t a_len, const char *b, size_t b_len) {
    return equal_in_constant_time(slice_make(a, a_len), slice_make(b, b_len));
}

int mg_random_bytes(size_t len, struct mg_text *ret_text) {
    char *out = len <= MG_RANDOM_MAX ? mg_scratch(len) : NULL;
    if (!out)
        return no_memory();
    return random_bytes(out, len) < 0 ? mg_error("libcrypto has no random bytes") : give(ret_text, out, len);
}

// A whole number from 0 to `limit`, each as likely as the others.
int mg_random_integer(double limit, double *ret_number) {
    uint64_t top = limit >= 0 && limit < 9007199254740992.0 ? (uint64_t)limit : 0, mask = top, number;
    for (unsigned shift = 1; shift < 64; shift *= 2)
        mask |= mask >> shift;
    do {
        if (random_bytes(&number, sizeof number) < 0)
            return mg_error("libcrypto has no random bytes");
        number &= mask;
    } while (number > top);
    *ret_number = (double)number;
    return MG_OK;
}

// ---- dates ------------------------------------------------------------------------------------------------

double mg_monotonic(void) {
    return (double)clock_us_now() / 1e6;
}

static double wall_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int mg_date_print(int how, double time, int digits, struct mg_text *ret_text) {
    static char out[DATE_MAX];
    int n = how == MG_DATE_HTTP ? date_print_http(time, out)
                                : date_print_rfc3339(time, digits < 0 ? 0 : (unsigned)digits, out);
    return n < 0 ? mg_error("that time is not in the years 0000 to 9999") : give(ret_text, out, (size_t)n);
}

int mg_date_parse(int how, const char *at, size_t len, double *ret_number) {
    struct slice text = slice_make(at, len);
    int rc = how == MG_DATE_HTTP ? date_parse_http(text, wall_now(), ret_number)
                                 : date_parse_rfc3339(text, ret_number);
    return rc < 0 ? MG_NONE : MG_OK;
}

// ---- query strings and cookies ----------------------------------------------------------------------------

int mg_query_next(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                  struct mg_text *ret_value) {
    struct slice text = slice_make(at, len), rest = slice_from(text, *position), name, value;
    if (len > MG_TEXT_MAX)
        return mg_error("the text is longer than %d bytes", MG_TEXT_MAX);
    if (!mg_arg_take(&rest, &name, &value))
        return MG_NONE;
    char *out = mg_scratch(name.len + value.len);
    if (!out)
        return no_memory();
    *position = (uint32_t)(len - rest.len);
    size_t n = mg_arg_decode(name, out);
    give(ret_name, out, n);
    return give(ret_value, out + n, mg_arg_decode(value, out + n));
}

int mg_cookie_next(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                   struct mg_text *ret_value) {
    struct slice rest = slice_from(slice_make(at, len), *position), name, value;
    if (len > MG_TEXT_MAX || !cookie_next(&rest, &name, &value))
        return MG_NONE;
    *position = (uint32_t)(len - rest.len);
    mg_text_set(ret_name, name);
    mg_text_set(ret_value, value);
    return MG_OK;
}

int mg_request_cookie(double handle, const char *name_at, size_t len, struct mg_text *ret_value) {
    struct exchange *x = handle_get(HANDLE_EXCHANGE, mg_handle(handle));
    if (!x)
        return MG_STALE;
    struct slice value;
    if (!cookies_find(&x->req.headers, slice_make(name_at, len), &value))
        return MG_NONE;
    mg_text_set(ret_value, value);
    return MG_OK;
}

// cookie-octet and av-octet of RFC 6265, 4.1.1; nothing outside ASCII.
static bool cookie_octet(unsigned char c) {
    return c > 0x20 && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\';
}

int mg_text_check(int what, const char *at, size_t len) {
    struct slice text = slice_make(at, len);
    if (what == MG_IS_TOKEN)
        return header_name_valid(text);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)at[i];
        if (what == MG_IS_COOKIE_VALUE ? !cookie_octet(c) : c < 0x20 || c >= 0x7f || c == ';')
            return 0;
    }
    return 1;
}
