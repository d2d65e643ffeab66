// SPDX-License-Identifier: BSD-2-Clause
// The lexer: words, quotes, comments, environment, places; and values with their units.
#include "conf/lexer.h"
#include "conf/value.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static struct arena arena;
static struct lexer lexer;
static struct conf_file file;

static void begin(struct slice text) {
    arena_init(&arena);
    file = (struct conf_file){ .name = "t.conf", .folder = "/", .text = text };
    lexer_init(&lexer, &file, &arena);
}

static struct token next(void) {
    struct token token;
    struct error error;
    cr_assert(lexer_next(&lexer, &token, &error) == 0, "%s", error.text);
    return token;
}

static void expect_word(const char *text, int line, int column) {
    struct token token = next();
    cr_assert_eq(token.kind, TOKEN_WORD);
    cr_assert_str_eq(token.text.at, text);
    cr_assert_eq(token.place.line, line, "\"%s\": line %d", text, token.place.line);
    cr_assert_eq(token.place.column, column, "\"%s\": column %d", text, token.place.column);
}

static void expect_error(struct slice text, const char *expected) {
    begin(text);
    struct token token;
    struct error error;
    int err;
    do
        err = lexer_next(&lexer, &token, &error);
    while (!err && token.kind != TOKEN_END);
    cr_assert_eq(err, -EINVAL, "\"%.*s\" was taken", SLICE_ARG(text));
    cr_assert(strncmp(error.text, expected, strlen(expected)) == 0, "got      %s\nexpected %s", error.text,
              expected);
    arena_release(&arena);
}

Test(conf_lexer, words_and_punctuation_have_places) {
    begin(SLICE_LIT("ab  cd;\n  {x}\n"));
    expect_word("ab", 1, 1);
    expect_word("cd", 1, 5);
    struct token token = next();
    cr_assert_eq(token.kind, TOKEN_SEMICOLON);
    cr_assert_eq(token.place.column, 7);
    cr_assert_eq(next().kind, TOKEN_OPEN);
    expect_word("x", 2, 4);
    cr_assert_eq(next().kind, TOKEN_CLOSE);
    token = next();
    cr_assert_eq(token.kind, TOKEN_END);
    cr_assert_eq(token.place.line, 3);
    cr_assert_eq(next().kind, TOKEN_END);
    arena_release(&arena);
}

Test(conf_lexer, columns_count_characters_not_bytes) {
    begin(SLICE_LIT("'\xc3\xa4\xe2\x82\xac' b"));
    expect_word("\xc3\xa4\xe2\x82\xac", 1, 1);
    expect_word("b", 1, 6);
    arena_release(&arena);
}

Test(conf_lexer, byte_order_mark_and_carriage_returns_are_passed_over) {
    begin(SLICE_LIT("\xef\xbb\xbf"
                    "a\r\nb;\r\n"));
    expect_word("a", 1, 1);
    expect_word("b", 2, 1);
    arena_release(&arena);
}

Test(conf_lexer, comments_end_with_the_line_and_begin_only_a_word) {
    begin(SLICE_LIT("# all ; { of it \"\n a#b # c\n#\nd"));
    expect_word("a#b", 2, 2);
    expect_word("d", 4, 1);
    arena_release(&arena);
}

Test(conf_lexer, pieces_that_touch_are_one_word) {
    begin(SLICE_LIT("key=\"a b\"'$c\\'d \"\" ''"));
    expect_word("key=a b$c\\d", 1, 1);
    struct token empty = next();
    cr_assert(empty.kind == TOKEN_WORD && empty.text.len == 0 && empty.quoted);
    expect_word("", 1, 20);
    arena_release(&arena);
}

Test(conf_lexer, escapes_in_double_quotes_only) {
    begin(SLICE_LIT("\"\\\"\\\\\\$\\n\\t\\r\" a\\b '\\n'"));
    expect_word("\"\\$\n\t\r", 1, 1);
    expect_word("a\\b", 1, 16);
    expect_word("\\n", 1, 20);
    arena_release(&arena);
}

Test(conf_lexer, environment_is_expanded_outside_single_quotes) {
    setenv("MOON_TEST", "x y;", 1);
    unsetenv("MOON_NONE");
    begin(SLICE_LIT("a${MOON_TEST}b \"${MOON_TEST}\" '${MOON_TEST}' ${MOON_NONE:-d e} ${MOON_NONE:-} $x"));
    expect_word("ax y;b", 1, 1);
    expect_word("x y;", 1, 16);
    expect_word("${MOON_TEST}", 1, 31);
    expect_word("d e", 1, 46);
    expect_word("", 1, 64);
    expect_word("$x", 1, 79);
    arena_release(&arena);
}

Test(conf_lexer, errors_say_where_and_what) {
    unsetenv("MOON_NONE");
    setenv("MOON_BELL", "a\ab", 1);
    expect_error(SLICE_LIT("a\n \"b\nc\""),
                 "t.conf:2:2: quote not closed, expected \" before the end of the line");
    expect_error(SLICE_LIT("a 'b"), "t.conf:1:3: quote not closed, expected ' before the end of the line");
    expect_error(SLICE_LIT("a\0b"), "t.conf:1:2: a NUL byte, expected text");
    expect_error(SLICE_LIT("# \0"), "t.conf:1:3: a NUL byte, expected text");
    expect_error(SLICE_LIT("a \033[1m"), "t.conf:1:3: control character 0x1b, expected text");
    expect_error(SLICE_LIT("\"a\177\""), "t.conf:1:3: control character 0x7f, expected text");
    expect_error(SLICE_LIT("\"ab\\q\""), "t.conf:1:4: unknown escape, expected one of ");
    expect_error(SLICE_LIT("x ${MOON_NONE}"),
                 "t.conf:1:3: environment variable \"MOON_NONE\" is not set, expected ");
    expect_error(SLICE_LIT("x${MOON_NONE"),
                 "t.conf:1:2: \"${\" without its end, expected ${NAME} or ${NAME:-text}");
    expect_error(SLICE_LIT("${}"), "t.conf:1:1: \"${\" without its end");
    expect_error(SLICE_LIT("${1A}"), "t.conf:1:1: \"${\" without its end");
    expect_error(SLICE_LIT("${MOON_BELL}"),
                 "t.conf:1:1: environment variable \"MOON_BELL\" holds a control character");
}

Test(conf_lexer, words_are_bounded) {
    static char text[WORD_MAX_BYTES + 1];
    memset(text, 'a', sizeof text);
    begin(slice_make(text, WORD_MAX_BYTES));
    cr_assert_eq(next().text.len, (size_t)WORD_MAX_BYTES);
    arena_release(&arena);
    expect_error(slice_make(text, sizeof text), "t.conf:1:1: word too long, expected at most 8192 bytes");
}

Test(conf_lexer, a_long_line_is_shown_around_the_column) {
    static char text[4000];
    memset(text, ' ', sizeof text);
    memcpy(text + 2000, "\"x", 2);
    begin(slice_make(text, sizeof text));
    struct token token;
    struct error error;
    cr_assert_eq(lexer_next(&lexer, &token, &error), -EINVAL);
    char *line = strchr(error.text, '\n') + 1, *caret = strchr(line, '\n') + 1;
    cr_assert_lt(caret - line, 200);
    cr_assert_eq(line[strcspn(caret, "^")], '"');
    arena_release(&arena);
}

static void check_value(const char *text, enum value_unit unit, uint64_t expected, const char *printed) {
    uint64_t value = 0;
    char out[VALUE_TEXT_MAX];
    cr_assert_eq(value_parse(slice_of(text), unit, &value), 0, "%s", text);
    cr_assert_eq(value, expected, "%s: %llu", text, (unsigned long long)value);
    cr_assert_str_eq(value_print(value, unit, out), printed);
}

Test(conf_value, units) {
    check_value("0", VALUE_NUMBER, 0, "0");
    check_value("65536", VALUE_NUMBER, 65536, "65536");
    check_value("16k", VALUE_SIZE, 16384, "16k");
    check_value("1024K", VALUE_SIZE, 1 << 20, "1m");
    check_value("3g", VALUE_SIZE, 3ull << 30, "3g");
    check_value("1000", VALUE_SIZE, 1000, "1000");
    check_value("10", VALUE_TIME, 10000, "10s");
    check_value("250ms", VALUE_TIME, 250, "250ms");
    check_value("90s", VALUE_TIME, 90000, "90s");
    check_value("60s", VALUE_TIME, 60000, "1m");
    check_value("2h", VALUE_TIME, 7200000, "2h");
    check_value("48h", VALUE_TIME, 172800000, "2d");
    check_value("0", VALUE_TIME, 0, "0");
}

Test(conf_value, what_is_no_value) {
    static const char *const bad[] = { "", "x", "k", "-1", "+1", " 1", "1 ", "1kk", "1.5s", "0x10", "10 s" };
    uint64_t value;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(value_parse(slice_of(bad[i]), VALUE_SIZE, &value), -EINVAL, "size \"%s\"", bad[i]);
        cr_assert_eq(value_parse(slice_of(bad[i]), VALUE_TIME, &value), -EINVAL, "time \"%s\"", bad[i]);
    }
    cr_assert_eq(value_parse(SLICE_LIT("1k"), VALUE_NUMBER, &value), -EINVAL);
    cr_assert_eq(value_parse(SLICE_LIT("18446744073709551616"), VALUE_NUMBER, &value), -ERANGE);
    cr_assert_eq(value_parse(SLICE_LIT("18446744073709551615g"), VALUE_SIZE, &value), -ERANGE);
}

Test(conf_value, a_printed_word_reads_as_the_same_word) {
    static const char *const words[] = { "",  "a",  "/a/b.c",  "a b", "a;b",       "{",        "#",   "\"",
                                         "'", "\\", "${HOME}", "$x",  "a\nb\tc\r", "\xc3\xa4", "a#b", "%-*" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char *text;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        value_print_word(out, words[i]);
        fclose(out);
        begin(slice_make(text, len));
        expect_word(words[i], 1, 1);
        cr_assert_eq(next().kind, TOKEN_END);
        arena_release(&arena);
        free(text);
    }
}
