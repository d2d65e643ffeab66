// SPDX-License-Identifier: BSD-2-Clause
// Inside the configuration layer: what the parser (grammar, blocks, includes), the directives with a grammar
// of their own (own_*.c) and the checks that need the whole configuration (finish.c) share while one is
// loaded.
#ifndef MOONGATE_CONF_PARSER_H
#define MOONGATE_CONF_PARSER_H

#include "conf/conf.h"
#include "conf/directive.h"
#include "conf/lexer.h"
#include "conf/source.h"

enum {
    WORDS_MAX = 1024,  // arguments of one directive
    INCLUDE_DEPTH_MAX = 16,
    INCLUDE_FILES_MAX = 1024,
    NAME_MAX_BYTES = 64,  // of an upstream, a frontend, a dictionary, a format
};

// `name arguments` with its place; the ';' or the block follows.
struct statement {
    const struct directive *directive;
    const struct conf_file *file;
    struct conf_place place;
    struct token *words;  // the arguments
    unsigned count;
    struct block *child;  // set by parse() of a directive with a block: what the block fills
    bool has_block;       // a '{' follows
};

// One block, the top included. All of them stay until the configuration is whole, parents before their
// children.
struct block {
    struct block *next, *parent;
    enum directive_id id;  // of the directive that opened it, for messages
    unsigned scope;
    // What directives in this block write to; NULL where the owner has no place here.
    void *owners[OWNER_COUNT];
    struct conf_place given[DIRECTIVE_COUNT];  // where each stands in this block; .file NULL: it does not
};

// A name that can be resolved only when everything is read.
struct reference {
    struct reference *next;
    struct conf_place place;
    const char *name;
    struct conf_route *route;            // of its upstream
    struct conf_access_log *access_log;  // or of its format
};

struct parser {
    struct conf *conf;
    struct source *source;
    struct error *error;
    struct arena scratch;  // blocks, references, tokens: gone when loading is done
    struct block *blocks, **blocks_end;
    struct reference *references, **references_end;
    struct conf_place begin;  // of the main file
    unsigned files;           // included so far
    int depth;                // of includes now
};

// Reads the main file into parser->conf; what needs the whole is left to parser_finish.
int parser_read(struct parser *parser, const char *path) __attribute__((warn_unused_result));
// Fills in defaults and inherited values, resolves names and scripts, checks what must hold together.
int parser_finish(struct parser *parser) __attribute__((warn_unused_result));

// Runs a directive with the arguments in `text` as if it stood in the block: how default values come in.
int parser_default(struct parser *parser, struct block *block, const struct directive *directive)
    __attribute__((warn_unused_result));
// Parses the files that match a pattern into the block.
int parser_include(struct parser *parser, struct block *block, const struct statement *statement)
    __attribute__((warn_unused_result));

// -EINVAL with the message, the line and the caret.
int parser_fail(struct parser *parser, struct conf_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int parser_no_memory(struct parser *parser);
// Memory of the configuration (cleared); an error is set when there is none.
void *parser_new(struct parser *parser, size_t size);
struct block *parser_block(struct parser *parser, struct block *parent, enum directive_id id, unsigned scope);
int parser_refer(struct parser *parser, const struct token *word, struct conf_route *route,
                 struct conf_access_log *access_log) __attribute__((warn_unused_result));
// A value with its bounds, from `skip` bytes into a word on.
int parser_value(struct parser *parser, const struct directive *directive, const struct token *word,
                 size_t skip, enum directive_kind kind, uint64_t low, uint64_t high, bool zero,
                 uint64_t *ret_value) __attribute__((warn_unused_result));
// An absolute path: relative ones start at the folder of the file that they are written in. NULL: an error is
// set.
const char *parser_path(struct parser *parser, const struct statement *statement, const struct token *word);

#endif
