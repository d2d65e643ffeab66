// SPDX-License-Identifier: BSD-2-Clause
// The lexer of lexer.h, and how an error at a place is shown. Called by the parser, one token at a time.
#include "conf/lexer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SHOWN_MAX = 160,  // characters of a line that an error shows
    ENV_NAME_MAX = 128,
};

// ---- errors -----------------------------------------------------------------------------------------------

static bool is_continuation(char c) {
    return ((unsigned char)c & 0xc0) == 0x80;  // of a UTF-8 character: takes no column of its own
}

// The line `number` of a text, without its end.
static struct slice line_of(struct slice text, int number) {
    const char *at = text.at, *end = text.at + text.len;
    for (int line = 1; line < number && at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        at = newline ? newline + 1 : end;
    }
    const char *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    struct slice line = slice_make(at, (size_t)((newline ? newline : end) - at));
    if (line.len > 0 && line.at[line.len - 1] == '\r')
        line.len--;
    return line;
}

// Writes the line and its caret. Of a long line only the part around the column is shown.
static void show_line(struct slice line, int column, char *to, size_t room) {
    char shown[SHOWN_MAX * 4 + 1], caret[SHOWN_MAX + 2];
    size_t shown_len = 0, caret_len = 0;
    int first = column > SHOWN_MAX * 3 / 4 ? column - SHOWN_MAX / 2 : 1, at = 0;
    for (size_t i = 0; i < line.len; i++) {
        char c = line.at[i];
        at += at == 0 || !is_continuation(c);
        if (at < first)
            continue;
        if (at >= first + SHOWN_MAX || shown_len + 1 >= sizeof shown)
            break;
        bool printable = c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7f);
        shown[shown_len++] = printable ? c : '?';
        if (at < column && !(at > 1 && is_continuation(c)) && caret_len < SHOWN_MAX)
            caret[caret_len++] = c == '\t' ? '\t' : ' ';
    }
    while ((int)caret_len < column - first && caret_len < SHOWN_MAX)
        caret[caret_len++] = ' ';
    caret[caret_len++] = '^';
    snprintf(to, room, "\n%.*s\n%.*s", (int)shown_len, shown, (int)caret_len, caret);
}

int conf_file_error(const struct conf_file *file, struct conf_place place, struct error *error, int code,
                    const char *format, va_list args) {
    char message[1024], shown[SHOWN_MAX * 5 + 8] = "";
    vsnprintf(message, sizeof message, format, args);
    if (file && file->text.len > 0)
        show_line(line_of(file->text, place.line), place.column, shown, sizeof shown);
    return error_set(error, code, "%s:%d:%d: %s%s", place.file, place.line, place.column, message, shown);
}

static int fail(const struct lexer *lexer, struct conf_place place, struct error *error, const char *format,
                ...) __attribute__((format(printf, 4, 5)));

static int fail(const struct lexer *lexer, struct conf_place place, struct error *error, const char *format,
                ...) {
    va_list args;
    va_start(args, format);
    conf_file_error(lexer->file, place, error, -EINVAL, format, args);
    va_end(args);
    return -EINVAL;
}

// ---- characters -------------------------------------------------------------------------------------------

void lexer_init(struct lexer *lexer, const struct conf_file *file, struct arena *arena) {
    lexer->file = file;
    lexer->arena = arena;
    lexer->at = file->text.at;
    lexer->end = file->text.at + file->text.len;
    lexer->line = lexer->column = 1;
    lexer->word_len = 0;
    if (slice_starts(file->text, SLICE_LIT("\xef\xbb\xbf")))
        lexer->at += 3;
}

static struct conf_place here(const struct lexer *lexer) {
    return (struct conf_place){ lexer->file->name, lexer->line, lexer->column };
}

// The character `offset` ahead, or -1 at the end.
static int peek(const struct lexer *lexer, size_t offset) {
    return offset < (size_t)(lexer->end - lexer->at) ? (unsigned char)lexer->at[offset] : -1;
}

static void advance(struct lexer *lexer) {
    char c = *lexer->at++;
    if (c == '\n') {
        lexer->line++;
        lexer->column = 1;
    } else if (lexer->at == lexer->end || !is_continuation(*lexer->at)) {
        lexer->column++;
    }
}

static bool is_space(int c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_control(int c) {
    return (c >= 0 && c < 0x20 && !is_space(c)) || c == 0x7f;
}

static bool is_name(int c, bool first) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

static int control_error(const struct lexer *lexer, struct error *error) {
    int c = peek(lexer, 0);
    if (c == 0)
        return fail(lexer, here(lexer), error, "a NUL byte, expected text: is this a configuration file?");
    return fail(lexer, here(lexer), error, "control character 0x%02x, expected text", (unsigned)c);
}

// ---- words ------------------------------------------------------------------------------------------------

static int word_put(struct lexer *lexer, struct conf_place start, const char *at, size_t len,
                    struct error *error) {
    if (len > WORD_MAX_BYTES - lexer->word_len)
        return fail(lexer, start, error, "word too long, expected at most %d bytes", WORD_MAX_BYTES);
    memcpy(lexer->word + lexer->word_len, at, len);
    lexer->word_len += len;
    return 0;
}

// ${NAME} or ${NAME:-text}, the lexer standing on the '$'.
static int expand(struct lexer *lexer, struct conf_place start, struct error *error) {
    struct conf_place place = here(lexer);
    char name[ENV_NAME_MAX + 1];
    size_t len = 0;
    advance(lexer);
    advance(lexer);
    for (; is_name(peek(lexer, 0), len == 0); advance(lexer)) {
        if (len == ENV_NAME_MAX)
            return fail(lexer, place, error,
                        "name of an environment variable too long, expected at most %d bytes", ENV_NAME_MAX);
        name[len++] = *lexer->at;
    }
    name[len] = 0;
    bool has_default = peek(lexer, 0) == ':' && peek(lexer, 1) == '-';
    struct slice value = { 0 };
    if (has_default) {
        advance(lexer);
        advance(lexer);
        value.at = lexer->at;
        for (int c; (c = peek(lexer, 0)) != '}' && c != '\n' && c >= 0; advance(lexer)) {
            if (is_control(c))
                return control_error(lexer, error);
        }
        value.len = (size_t)(lexer->at - value.at);
    }
    if (len == 0 || peek(lexer, 0) != '}')
        return fail(lexer, place, error, "\"${\" without its end, expected ${NAME} or ${NAME:-text}");
    advance(lexer);
    const char *set = getenv(name);
    if (!set && !has_default)
        return fail(lexer, place, error,
                    "environment variable \"%s\" is not set, expected it in the environment "
                    "or ${%s:-text}",
                    name, name);
    if (set)
        value = slice_of(set);
    for (size_t i = 0; i < value.len; i++) {
        if (is_control((unsigned char)value.at[i]))
            return fail(lexer, place, error,
                        "environment variable \"%s\" holds a control character, expected text", name);
    }
    return word_put(lexer, start, value.at, value.len, error);
}

// A quoted piece, the lexer standing on the opening quote. It ends on its line, so that a forgotten quote is
// told where it was forgotten.
static int quoted(struct lexer *lexer, struct conf_place start, struct error *error) {
    static const char escapes[] = "\"\\$nrt", values[] = "\"\\$\n\r\t";
    struct conf_place place = here(lexer);
    char quote = *lexer->at;
    int err = 0;
    advance(lexer);
    for (int c; !err && (c = peek(lexer, 0)) != quote;) {
        if (c < 0 || c == '\n')
            return fail(lexer, place, error, "quote not closed, expected %c before the end of the line",
                        quote);
        if (is_control(c))
            return control_error(lexer, error);
        if (quote == '"' && c == '$' && peek(lexer, 1) == '{') {
            err = expand(lexer, start, error);
            continue;
        }
        if (quote == '"' && c == '\\') {
            int escaped = peek(lexer, 1);
            const char *found = escaped > 0 ? strchr(escapes, escaped) : NULL;
            if (!found)
                return fail(lexer, here(lexer), error,
                            "unknown escape, expected one of \\\" \\\\ \\$ \\n \\r \\t "
                            "(or single quotes around text with backslashes)");
            err = word_put(lexer, start, &values[found - escapes], 1, error);
            advance(lexer);
        } else {
            err = word_put(lexer, start, lexer->at, 1, error);
        }
        advance(lexer);
    }
    if (!err)
        advance(lexer);
    return err;
}

static int word(struct lexer *lexer, struct token *token, struct error *error) {
    struct conf_place start = here(lexer);
    lexer->word_len = 0;
    int err = 0;
    while (!err) {
        int c = peek(lexer, 0);
        if (c < 0 || is_space(c) || c == ';' || c == '{' || c == '}')
            break;
        if (is_control(c))
            return control_error(lexer, error);
        if (c == '"' || c == '\'') {
            token->quoted = true;
            err = quoted(lexer, start, error);
        } else if (c == '$' && peek(lexer, 1) == '{') {
            err = expand(lexer, start, error);
        } else {
            err = word_put(lexer, start, lexer->at, 1, error);
            advance(lexer);
        }
    }
    if (err)
        return err;
    token->kind = TOKEN_WORD;
    token->text = arena_copy(lexer->arena, slice_make(lexer->word, lexer->word_len));
    return token->text.at ? 0 : error_set(error, -ENOMEM, "out of memory");
}

int lexer_next(struct lexer *lexer, struct token *ret_token, struct error *error) {
    int c = peek(lexer, 0);
    while (is_space(c) || c == '#') {
        bool comment = c == '#';
        do {
            advance(lexer);
            c = peek(lexer, 0);
            if (is_control(c))
                return control_error(lexer, error);
        } while (comment && c >= 0 && c != '\n');
    }
    *ret_token = (struct token){ .kind = TOKEN_END, .place = here(lexer) };
    int err = 0;
    if (c == ';' || c == '{' || c == '}') {
        ret_token->kind = c == ';' ? TOKEN_SEMICOLON : c == '{' ? TOKEN_OPEN : TOKEN_CLOSE;
        advance(lexer);
    } else if (c >= 0) {
        err = word(lexer, ret_token, error);
    }
    ret_token->after = here(lexer);
    return err;
}
