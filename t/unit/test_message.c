// SPDX-License-Identifier: BSD-2-Clause
// Header fields: known names, look-up, set, add, remove, lists, validity; methods and reasons.
#include "http/message.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct arena arena;
static struct headers headers;

static void set_up(void) {
    arena_init(&arena);
    headers = (struct headers){ 0 };
}

static void tear_down(void) {
    arena_release(&arena);
}

TestSuite(message, .init = set_up, .fini = tear_down);

static void add(const char *name, const char *value) {
    cr_assert_eq(headers_add(&headers, &arena, slice_of(name), slice_of(value)), 0);
}

// All fields that are not deleted, as "name=value;".
static const char *dump(void) {
    static char text[4096];
    size_t n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < headers.count; i++)
        if (headers.at[i].name.len > 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%.*s=%.*s;", SLICE_ARG(headers.at[i].name),
                                  SLICE_ARG(headers.at[i].value));
    return text;
}

Test(message, every_known_name_is_found_in_any_case) {
    for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
        char name[64];
        struct slice known = header_name_of((enum header_id)id);
        cr_assert_lt(known.len, sizeof name);
        for (size_t i = 0; i < known.len; i++)
            name[i] = (char)(known.at[i] >= 'a' && known.at[i] <= 'z' ? known.at[i] - 32 : known.at[i]);
        cr_assert_eq(header_id_of(known), id, "%.*s", SLICE_ARG(known));
        cr_assert_eq(header_id_of(slice_make(name, known.len)), id, "%.*s", SLICE_ARG(known));
        // One character less, more or other is another field.
        cr_assert_neq(header_id_of(slice_make(name, known.len - 1)), id);
        name[known.len] = 'x';
        cr_assert_neq(header_id_of(slice_make(name, known.len + 1)), id);
        name[known.len - 1] = '!';
        cr_assert_neq(header_id_of(slice_make(name, known.len)), id);
    }
}

Test(message, names_that_only_look_alike_are_unknown) {
    cr_assert_eq(header_id_of(SLICE_LIT("")), HEADER_OTHER);
    cr_assert_eq(header_id_of(SLICE_LIT("h\0st")), HEADER_OTHER);
    cr_assert_eq(header_id_of(SLICE_LIT("content_length")), HEADER_OTHER);
    cr_assert_eq(header_id_of(SLICE_LIT("transfer-encodinG ")), HEADER_OTHER);
    cr_assert_eq(header_id_of(SLICE_LIT("a-very-long-name-that-nobody-knows-of")), HEADER_OTHER);
}

Test(message, fields_keep_their_order_and_case) {
    for (int i = 0; i < 100; i++) {
        char name[16], *kept;
        snprintf(name, sizeof name, "X-%d", i);
        kept = arena_strdup(&arena, name);
        add(kept, kept + 2);
    }
    cr_assert_eq(headers.count, 100);
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "X-%d", i);
        cr_assert(slice_eq(headers.at[i].name, slice_of(name)));
        cr_assert(slice_eq(headers.at[i].value, slice_of(name + 2)));
    }
}

Test(message, set_replaces_the_first_and_deletes_the_others) {
    add("A", "1");
    add("X-B", "2");
    add("a", "3");
    add("x-b", "4");
    cr_assert_eq(headers_set(&headers, &arena, SLICE_LIT("x-B"), SLICE_LIT("new")), 0);
    cr_assert_str_eq(dump(), "A=1;X-B=new;a=3;");
    cr_assert_eq(headers_set(&headers, &arena, SLICE_LIT("c"), SLICE_LIT("5")), 0);
    cr_assert_str_eq(dump(), "A=1;X-B=new;a=3;c=5;");
}

Test(message, remove_deletes_every_field_of_the_name) {
    add("Host", "a");
    add("Via", "1");
    add("HOST", "b");
    cr_assert_eq(headers_remove(&headers, SLICE_LIT("host")), 2);
    cr_assert_eq(headers_remove(&headers, SLICE_LIT("host")), 0);
    cr_assert_null(headers_find(&headers, HEADER_host));
    cr_assert_str_eq(dump(), "Via=1;");
    cr_assert_eq(headers_remove_id(&headers, HEADER_via), 1);
    cr_assert_str_eq(dump(), "");
    struct slice value = { 0 };
    cr_assert_not(headers_get(&headers, HEADER_via, &value));
    // A deleted one is not resurrected by set, which adds anew.
    cr_assert_eq(headers_set(&headers, &arena, SLICE_LIT("via"), SLICE_LIT("2")), 0);
    cr_assert(headers_get(&headers, HEADER_via, &value));
    cr_assert(slice_eq(value, SLICE_LIT("2")));
}

Test(message, next_walks_the_fields_of_one_name) {
    add("x-a", "1");
    add("x-b", "2");
    add("X-A", "3");
    uint32_t position = 0;
    const struct header *header = headers_next(&headers, SLICE_LIT("X-a"), &position);
    cr_assert(header && slice_eq(header->value, SLICE_LIT("1")));
    header = headers_next(&headers, SLICE_LIT("X-a"), &position);
    cr_assert(header && slice_eq(header->value, SLICE_LIT("3")));
    cr_assert_null(headers_next(&headers, SLICE_LIT("X-a"), &position));
}

Test(message, list_elements_over_all_fields) {
    add("Connection", "keep-alive , \t X-One,,");
    add("connection", "UPGRADE");
    add("te", "trailers");
    cr_assert(headers_list_has(&headers, HEADER_connection, SLICE_LIT("upgrade")));
    cr_assert(headers_list_has(&headers, HEADER_connection, SLICE_LIT("x-one")));
    cr_assert(headers_list_has(&headers, HEADER_connection, SLICE_LIT("Keep-Alive")));
    cr_assert_not(headers_list_has(&headers, HEADER_connection, SLICE_LIT("close")));
    cr_assert_not(headers_list_has(&headers, HEADER_connection, SLICE_LIT("keep")));
    cr_assert_not(headers_list_has(&headers, HEADER_connection, SLICE_LIT("trailers")));
    cr_assert_not(headers_list_has(&headers, HEADER_connection, SLICE_LIT("")));
}

Test(message, commas_in_quotes_do_not_separate) {
    add("Connection", "a=\"x, close, y\", b");
    cr_assert_not(headers_list_has(&headers, HEADER_connection, SLICE_LIT("close")));
    cr_assert(headers_list_has(&headers, HEADER_connection, SLICE_LIT("b")));
}

Test(message, names_and_methods_are_tokens) {
    for (int c = 0; c < 256; c++) {
        char name[3] = { 'a', (char)c, 'b' };
        bool token = c &&
            (strchr("!#$%&'*+-.^_`|~", c) || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
             (c >= 'a' && c <= 'z'));
        cr_assert_eq(header_name_valid(slice_make(name, 3)), token, "character %d", c);
        cr_assert_eq(method_valid(slice_make(name, 3)), token, "character %d", c);
    }
    cr_assert_not(header_name_valid(SLICE_LIT("")));
    cr_assert_not(method_valid(SLICE_LIT("")));
}

Test(message, values_hold_no_controls_but_tab) {
    for (int c = 0; c < 256; c++) {
        char value[3] = { 'a', (char)c, 'b' };
        cr_assert_eq(header_value_valid(slice_make(value, 3)), (c >= 0x20 && c != 0x7f) || c == '\t',
                     "character %d", c);
    }
    cr_assert(header_value_valid(SLICE_LIT("")));
}

Test(message, idempotent_methods_are_those_of_the_rfc) {
    const char *yes[] = { "GET", "HEAD", "PUT", "OPTIONS", "TRACE", "DELETE" };
    const char *no[] = { "POST", "PATCH", "CONNECT", "get", "GETS", "", "LOCK" };
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        cr_assert(method_idempotent(slice_of(yes[i])), "%s", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        cr_assert_not(method_idempotent(slice_of(no[i])), "%s", no[i]);
}

Test(message, reasons_of_the_statuses_that_moongate_says) {
    const unsigned own[] = { 400, 404, 408, 411, 413, 414, 431, 500, 501, 502, 503, 504, 505 };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        cr_assert_neq(*status_reason(own[i]), 0, "%u", own[i]);
    cr_assert_str_eq(status_reason(404), "Not Found");
    cr_assert_str_eq(status_reason(299), "");
    cr_assert_str_eq(status_reason(0), "");
}
