// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for texts that scripts take apart: dates, base64 and hex, query strings and cookies. The first byte chooses.
// What is decoded encodes to the same text again and the other way round, in exactly the room that is asked for; a date that
// is taken prints as one that reads the same; pairs lie in the text and come to an end.
#include "base/date.h"
#include "fuzz.h"
#include "script/api_impl.h"
#include "tls/digest.h"

static void check_base64(struct slice text, bool url) {
    char *out = malloc(base64_decode_room(text.len)), *again = malloc(base64_encode_room(text.len));
    must(out && again);
    int n = base64_decode(text, url, out);
    if (n >= 0) {
        size_t len = base64_encode(slice_make(out, (size_t)n), url, again);
        must(slice_eq(slice_make(again, len), text));
    }
    size_t len = base64_encode(text, url, again);
    char *bytes = malloc(base64_decode_room(len));
    must(bytes && base64_decode(slice_make(again, len), url, bytes) == (int)text.len);
    must(slice_eq(slice_make(bytes, text.len), text));
    free(bytes);
    free(again);
    free(out);
}

static void check_hex(struct slice text) {
    char *out = malloc(hex_decode_room(text.len)), *again = malloc(hex_encode_room(text.len));
    must(out && again);
    int n = hex_decode(text, out);
    if (n >= 0) {
        size_t len = hex_encode(slice_make(out, (size_t)n), again);
        must(slice_ieq(slice_make(again, len), text));
    }
    size_t len = hex_encode(text, again);
    char *bytes = malloc(hex_decode_room(len));
    must(bytes && hex_decode(slice_make(again, len), bytes) == (int)text.len);
    must(slice_eq(slice_make(bytes, text.len), text));
    free(bytes);
    free(again);
    free(out);
}

static void check_dates(struct slice text) {
    char printed[DATE_MAX];
    double time, again;
    if (date_parse_http(text, 1.7e9, &time) == 0) {
        int n = date_print_http(time, printed);
        must(n > 0 && n < DATE_MAX);
        must(date_parse_http(slice_make(printed, (size_t)n), 1.7e9, &again) == 0 && again == time);
    }
    if (date_parse_rfc3339(text, &time) == 0) {
        int n = date_print_rfc3339(time, 9, printed);
        if (n < 0)
            return;  // an offset led beyond the years of four digits
        must(n < DATE_MAX);
        must(date_parse_rfc3339(slice_make(printed, (size_t)n), &again) == 0);
        must(again - time < 1e-5 && time - again < 1e-5);
    }
}

static void check_pairs(struct slice text, bool cookies) {
    struct mg_text name, value;
    uint32_t position = 0, before = 0;
    for (;;) {
        int rc = (cookies ? mg_cookie_next : mg_query_next)(text.at, text.len, &position, &name, &value);
        if (rc != MG_OK)
            break;
        must(position > before && position <= text.len);
        must(name.len >= 0 && value.len >= 0 && (size_t)name.len + (size_t)value.len <= position - before);
        for (int i = 0; cookies && i < value.len; i++)
            must(value.at[i] != ';');
        before = position;
    }
}

static void check_percent(struct slice text) {
    struct mg_text out, again;
    must(mg_text_encode(MG_PERCENT, text.at, text.len, &out) == MG_OK);
    char *copy = fuzz_copy(out.at, (size_t)out.len);
    must(mg_text_decode(MG_PERCENT, copy, (size_t)out.len, &again) == MG_OK);
    must(slice_eq(slice_make(again.at, (size_t)again.len), text));
    free(copy);
    must(mg_text_decode(MG_PERCENT, text.at, text.len, &again) == MG_OK && (size_t)again.len <= text.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0)
        return 0;
    char *copy = fuzz_copy(bytes + 1, len - 1);
    struct slice text = slice_make(copy, len - 1);
    switch (bytes[0] % 7) {
    case 0:
    case 1:
        check_base64(text, bytes[0] % 7);
        break;
    case 2:
        check_hex(text);
        break;
    case 3:
        check_dates(text);
        break;
    case 4:
    case 5:
        check_pairs(text, bytes[0] % 7 == 5);
        break;
    case 6:
        check_percent(text);
        break;
    }
    free(copy);
    return 0;
}
