// SPDX-License-Identifier: BSD-2-Clause
// Cuts a configuration's text into words, ';', '{' and '}', and knows where each of them stands.
//   word     bare; or "quoted" with \" \\ \$ \n \r \t; or 'quoted' without escapes; pieces that
//            touch are one word
//   comment  from a '#' where a word could begin to the end of the line
//   ${NAME}  in bare and double-quoted text: the environment's value; ${NAME:-text} when it may be unset
// What the words mean is the parser's affair.
#ifndef MOONGATE_CONF_LEXER_H
#define MOONGATE_CONF_LEXER_H

#include "conf/conf.h"

#include <stdarg.h>

// One text that configuration was read from.
struct conf_file {
    struct conf_file *next;
    const char *name;    // as errors show it; conf_place.file points here
    const char *folder;  // absolute: relative paths that are written in this file start here
    struct slice text;
};

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_SEMICOLON, TOKEN_OPEN, TOKEN_CLOSE };

struct token {
    enum token_kind kind;
    bool quoted;              // some part of the word was
    struct slice text;        // of a word: in the arena, with a NUL behind it, none inside
    struct conf_place place;  // its first character
    struct conf_place after;  // the one behind its last
};

enum { WORD_MAX_BYTES = 8192 };

struct lexer {
    const struct conf_file *file;
    struct arena *arena;  // for words
    const char *at, *end;
    int line, column;
    size_t word_len;
    char word[WORD_MAX_BYTES + 1];
};

// The file and the arena must outlive the tokens. A byte order mark at the beginning is passed over.
void lexer_init(struct lexer *lexer, const struct conf_file *file, struct arena *arena);

// The next token; TOKEN_END again and again at the end. -EINVAL with a whole message, or -ENOMEM.
int lexer_next(struct lexer *lexer, struct token *ret_token, struct error *error)
    __attribute__((warn_unused_result));

// "file:line:column: message", the line, and a caret below the column. Returns `code`.
int conf_file_error(const struct conf_file *file, struct conf_place place, struct error *error, int code,
                    const char *format, va_list args);

#endif
