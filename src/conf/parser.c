// SPDX-License-Identifier: BSD-2-Clause
// The grammar: statements, blocks, includes, and the values of every kind but OWN. Each statement is checked
// against its row of the table before anything reads its arguments. Called by conf_load().
#include "conf/parser.h"

#include "conf/value.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

// ---- errors and memory ------------------------------------------------------------------------------------

int parser_fail(struct parser *parser, struct conf_place place, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const struct conf_file *file = parser->conf->files;
    while (file && file->name != place.file)
        file = file->next;
    conf_file_error(file, place, parser->error, -EINVAL, format, args);
    va_end(args);
    return -EINVAL;
}

int parser_no_memory(struct parser *parser) {
    return error_set(parser->error, -ENOMEM, "out of memory");
}

void *parser_new(struct parser *parser, size_t size) {
    void *at = arena_zalloc(&parser->conf->arena, size);
    if (!at)
        parser_no_memory(parser);
    return at;
}

struct block *parser_block(struct parser *parser, struct block *parent, enum directive_id id,
                           unsigned scope) {
    struct block *block = arena_zalloc(&parser->scratch, sizeof *block);
    if (!block) {
        parser_no_memory(parser);
        return NULL;
    }
    block->parent = parent;
    block->id = id;
    block->scope = scope;
    *parser->blocks_end = block;
    parser->blocks_end = &block->next;
    return block;
}

int parser_refer(struct parser *parser, const struct token *word, struct conf_route *route,
                 struct conf_access_log *access_log) {
    struct reference *reference = arena_zalloc(&parser->scratch, sizeof *reference);
    if (!reference)
        return parser_no_memory(parser);
    *reference = (struct reference){
        .place = word->place,
        .name = word->text.at,
        .route = route,
        .access_log = access_log,
    };
    *parser->references_end = reference;
    parser->references_end = &reference->next;
    return 0;
}

// ---- values -----------------------------------------------------------------------------------------------

// Where a byte of a word stands; exact for words without quotes and expansions, the word's begin for the
// others.
static struct conf_place place_within(const struct token *word, size_t skip) {
    struct conf_place place = word->place;
    if (!word->quoted && word->after.line == place.line &&
        (size_t)(word->after.column - place.column) == word->text.len)
        place.column += (int)skip;
    return place;
}

int parser_value(struct parser *parser, const struct directive *directive, const struct token *word,
                 size_t skip, enum directive_kind kind, uint64_t low, uint64_t high, bool zero,
                 uint64_t *ret_value) {
    enum value_unit unit = directive_unit(kind);
    struct slice text = slice_from(word->text, skip);
    uint64_t value;
    int err = value_parse(text, unit, &value);
    if (!err && ((value >= low && value <= high) || (zero && value == 0))) {
        *ret_value = value;
        return 0;
    }
    char expected[128];
    bounds_text(kind, low, high, zero, expected, sizeof expected);
    const char *such = "";
    if (err == -EINVAL && kind == KIND_SIZE)
        such = ", such as 16m (units k, m, g)";
    else if (err == -EINVAL && kind == KIND_TIME)
        such = ", such as 10s (units ms, s, m, h, d)";
    return parser_fail(parser, place_within(word, skip), "%s \"%.*s\" for \"%s\", expected %s%s",
                       err == -EINVAL ? "bad value" : "value out of bounds:",
                       (int)(text.len < 64 ? text.len : 64), text.at, directive->name, expected, such);
}

const char *parser_path(struct parser *parser, const struct statement *statement, const struct token *word) {
    struct slice text = word->text;
    if (text.len == 0) {
        parser_fail(parser, word->place, "empty path for \"%s\", expected a path",
                    statement->directive->name);
        return NULL;
    }
    char *path;
    if (text.at[0] == '/') {
        path = arena_strdup(&parser->conf->arena, text.at);
    } else {
        while (slice_starts(text, SLICE_LIT("./")))
            text = slice_from(text, 2);
        const char *folder = statement->file->folder;
        path = arena_printf(&parser->conf->arena, "%s%s%s", folder, strcmp(folder, "/") == 0 ? "" : "/",
                            text.at);
    }
    if (!path)
        parser_no_memory(parser);
    else if (strlen(path) >= PATH_MAX) {
        parser_fail(parser, word->place, "path too long for \"%s\", expected less than %d bytes",
                    statement->directive->name, PATH_MAX);
        return NULL;
    }
    return path;
}

static int read_flag(struct parser *parser, const struct directive *directive, const struct token *word,
                     bool *ret_on) {
    bool on = slice_eq(word->text, SLICE_LIT("on"));
    if (!on && !slice_eq(word->text, SLICE_LIT("off")))
        return parser_fail(parser, word->place, "bad value \"%.64s\" for \"%s\", expected on or off",
                           word->text.at, directive->name);
    *ret_on = on;
    return 0;
}

static int read_word(struct parser *parser, const struct directive *directive, const struct token *word,
                     void *ret_word) {
    for (const struct directive_word *w = directive->words; w->word; w++) {
        if (slice_eq(word->text, slice_of(w->word))) {
            memcpy(ret_word, &w->value, sizeof w->value);
            return 0;
        }
    }
    char expected[128];
    directive_expected(directive, expected, sizeof expected);
    return parser_fail(parser, word->place, "bad value \"%.64s\" for \"%s\", expected %s", word->text.at,
                       directive->name, expected);
}

// The arguments of a statement whose place and form were found good.
static int read_arguments(struct parser *parser, struct block *block, struct statement *statement) {
    const struct directive *directive = statement->directive;
    if (directive->kind == KIND_OWN)
        return directive->parse(parser, block, statement);
    if (statement->count == 0) {
        char expected[128];
        directive_expected(directive, expected, sizeof expected);
        return parser_fail(parser, statement->place, "\"%s\" without a value, expected %s", directive->name,
                           expected);
    }
    if (statement->count > 1)
        return parser_fail(parser, statement->words[1].place,
                           "unexpected \"%.64s\", expected \";\" after the value of "
                           "\"%s\"",
                           statement->words[1].text.at, directive->name);
    void *field = (char *)block->owners[directive->owner] + directive->offset;
    const struct token *word = &statement->words[0];
    switch (directive->kind) {
    case KIND_FLAG:
        return read_flag(parser, directive, word, field);
    case KIND_WORD:
        return read_word(parser, directive, word, field);
    case KIND_PATH:
        *(const char **)field = parser_path(parser, statement, word);
        return *(const char **)field ? 0 : -EINVAL;
    default:
        return parser_value(parser, directive, word, 0, directive->kind, directive->low, directive->high,
                            directive->flags & DIRECTIVE_ZERO, field);
    }
}

// ---- statements -------------------------------------------------------------------------------------------

static int unknown_directive(struct parser *parser, const struct block *block, const struct token *name) {
    const struct directive *near = directive_suggest(name->text, block->scope);
    const char *scope = scope_name(block->scope);
    if (!near)
        return parser_fail(parser, name->place,
                           "unknown directive \"%.64s\", expected one that may stand in %s", name->text.at,
                           scope);
    if (near->scopes & block->scope)
        return parser_fail(parser, name->place, "unknown directive \"%.64s\", did you mean \"%s\"?",
                           name->text.at, near->name);
    return parser_fail(parser, name->place,
                       "unknown directive \"%.64s\" in %s, did you mean \"%s\" (which stands in %s)?",
                       name->text.at, scope, near->name, scope_name(near->scopes & -near->scopes));
}

static int misplaced_directive(struct parser *parser, const struct block *block, const struct token *name,
                               const struct directive *directive) {
    char scopes[160] = "";
    for (unsigned scope = SCOPE_TOP, left = directive->scopes; left; left &= ~scope, scope <<= 1) {
        if (left & scope) {
            size_t len = strlen(scopes);
            const char *between = !len ? "" : left == scope ? " or " : ", ";
            snprintf(scopes + len, sizeof scopes - len, "%s%s", between, scope_name(scope));
        }
    }
    bool opens = directive->flags & DIRECTIVE_BLOCK;
    return parser_fail(parser, name->place, "\"%s\" may not stand in %s, expected in %s%s", directive->name,
                       scope_name(block->scope), scopes, opens ? " (is a \"}\" missing before it?)" : "");
}

// Takes the words up to what ends the statement, which comes back in *ret_end.
static int take_words(struct parser *parser, struct lexer *lexer, const struct block *block,
                      struct statement *statement, const struct token *name, struct token *ret_end) {
    const struct token *last = name;
    unsigned room = 0;
    for (;;) {
        int err = lexer_next(lexer, ret_end, parser->error);
        if (err)
            return err;
        // A directive's name at the begin of a line: the ';' before it was forgotten.
        const struct directive *next = NULL;
        if (ret_end->kind == TOKEN_WORD && !ret_end->quoted && ret_end->place.line > last->after.line)
            next = directive_find(ret_end->text);
        bool cut = ret_end->kind == TOKEN_END || ret_end->kind == TOKEN_CLOSE ||
            (next && statement->count > 0 &&
             ((next->scopes & block->scope) || (statement->directive->flags & DIRECTIVE_BLOCK)));
        if (cut)
            return parser_fail(parser, last->after, "\"%s\" not ended, expected \"%s\" here",
                               statement->directive->name,
                               statement->directive->flags & DIRECTIVE_BLOCK ? "{" : ";");
        if (ret_end->kind != TOKEN_WORD)
            return 0;
        if (statement->count == WORDS_MAX)
            return parser_fail(parser, ret_end->place, "too many arguments for \"%s\", expected at most %d",
                               statement->directive->name, WORDS_MAX);
        if (statement->count == room) {
            room = room ? room * 2 : 4;
            struct token *grown = arena_alloc(&parser->scratch, room * sizeof *grown);
            if (!grown)
                return parser_no_memory(parser);
            if (statement->count > 0)
                memcpy(grown, statement->words, statement->count * sizeof *grown);
            statement->words = grown;
        }
        statement->words[statement->count] = *ret_end;
        last = &statement->words[statement->count++];
    }
}

static int parse_block(struct parser *parser, struct lexer *lexer, struct block *block,
                       const struct conf_place *opened, const char *what);

static int parse_statement(struct parser *parser, struct lexer *lexer, struct block *block,
                           const struct token *name) {
    const struct directive *directive = directive_find(name->text);
    if (!directive)
        return unknown_directive(parser, block, name);
    if (!(directive->scopes & block->scope))
        return misplaced_directive(parser, block, name, directive);
    struct statement statement = { .directive = directive, .file = lexer->file, .place = name->place };
    struct token end;
    int err = take_words(parser, lexer, block, &statement, name, &end);
    if (err)
        return err;
    struct conf_place *given = &block->given[directive - directives];
    if (given->file && !(directive->flags & DIRECTIVE_MANY))
        return parser_fail(parser, name->place,
                           "repeated directive \"%s\", expected once in %s: it stands at %s:%d:%d "
                           "already",
                           directive->name, scope_name(block->scope), given->file, given->line,
                           given->column);
    if (!given->file)
        *given = name->place;
    statement.has_block = end.kind == TOKEN_OPEN;
    if (statement.has_block && !(directive->flags & (DIRECTIVE_BLOCK | DIRECTIVE_MAYBE_BLOCK)))
        return parser_fail(parser, end.place, "\"%s\" takes no block, expected \";\"", directive->name);
    if (!statement.has_block && (directive->flags & DIRECTIVE_BLOCK))
        return parser_fail(parser, end.place, "\"%s\" without its block, expected \"{\"", directive->name);
    err = read_arguments(parser, block, &statement);
    if (err || !statement.has_block)
        return err;
    char what[NAME_MAX_BYTES + 32];
    snprintf(what, sizeof what, "%s %.64s", directive->name,
             statement.count > 0 ? statement.words[0].text.at : "");
    return parse_block(parser, lexer, statement.child, &end.place, what);
}

// Until the '}' of the block, or to the end of the file when `opened` is NULL.
static int parse_block(struct parser *parser, struct lexer *lexer, struct block *block,
                       const struct conf_place *opened, const char *what) {
    for (;;) {
        struct token token;
        int err = lexer_next(lexer, &token, parser->error);
        if (err)
            return err;
        switch (token.kind) {
        case TOKEN_END:
            if (opened)
                return parser_fail(parser, *opened,
                                   "block of \"%s\" not closed, expected \"}\" before the end of the file",
                                   what);
            return 0;
        case TOKEN_CLOSE:
            if (!opened)
                return parser_fail(parser, token.place,
                                   "unexpected \"}\", expected a directive: no block of this file is "
                                   "open here");
            return 0;
        case TOKEN_SEMICOLON:
            return parser_fail(parser, token.place, "unexpected \";\", expected a directive");
        case TOKEN_OPEN:
            return parser_fail(parser, token.place, "unexpected \"{\", expected a directive");
        case TOKEN_WORD:
            err = parse_statement(parser, lexer, block, &token);
            if (err)
                return err;
        }
    }
}

// ---- files ------------------------------------------------------------------------------------------------

// Enters a text with the name that errors show; relative paths in it start at the folder of `path`.
static struct conf_file *add_file(struct parser *parser, const char *name, const char *path,
                                  struct slice text) {
    struct arena *arena = &parser->conf->arena;
    struct conf_file *file = arena_zalloc(arena, sizeof *file);
    const char *slash = strrchr(path, '/');
    if (!file)
        return NULL;
    file->name = arena_strdup(arena, name);
    file->folder = arena_copy(arena, slice_make(path, slash > path ? (size_t)(slash - path) : 1)).at;
    file->text = arena_copy(arena, text);
    if (!file->name || !file->folder || !file->text.at)
        return NULL;
    file->next = parser->conf->files;
    parser->conf->files = file;
    return file;
}

static int parse_file(struct parser *parser, struct block *block, const char *name, const char *path,
                      struct slice text) {
    const struct conf_file *file = add_file(parser, name, path, text);
    struct lexer *lexer = arena_alloc(&parser->scratch, sizeof *lexer);
    if (!file || !lexer)
        return parser_no_memory(parser);
    if (!parser->begin.file)
        parser->begin = (struct conf_place){ file->name, 1, 1 };
    lexer_init(lexer, file, &parser->conf->arena);
    return parse_block(parser, lexer, block, NULL, NULL);
}

int parser_read(struct parser *parser, const char *path) {
    struct conf *conf = parser->conf;
    if (path[0] == '/') {
        conf->file = arena_strdup(&conf->arena, path);
    } else {
        char folder[PATH_MAX];
        if (!getcwd(folder, sizeof folder))
            return error_set(parser->error, -errno, "cannot find the current folder: %s", strerror(errno));
        while (path[0] == '.' && path[1] == '/')
            path += 2;
        conf->file = arena_printf(&conf->arena, "%s%s%s", folder, strcmp(folder, "/") == 0 ? "" : "/", path);
    }
    if (!conf->file)
        return parser_no_memory(parser);
    struct slice text;
    int err = source_read(parser->source, conf->file, &text, parser->error);
    if (err)
        return err;
    struct block *top = parser_block(parser, NULL, DIRECTIVE_COUNT, SCOPE_TOP);
    if (!top)
        return -ENOMEM;
    top->owners[OWNER_conf] = conf;
    top->owners[OWNER_conf_settings] = &conf->settings;
    return parse_file(parser, top, path, conf->file, text);
}

int parser_include(struct parser *parser, struct block *block, const struct statement *statement) {
    const struct token *word = &statement->words[0];
    const char *pattern = parser_path(parser, statement, word);
    if (!pattern)
        return -EINVAL;
    if (parser->depth == INCLUDE_DEPTH_MAX)
        return parser_fail(parser, statement->place,
                           "includes nest too deep, expected at most %d: does a file include "
                           "itself?",
                           INCLUDE_DEPTH_MAX);
    const char **paths;
    struct error inner;
    int err = source_glob(parser->source, pattern, &paths, &inner);
    if (err)
        return parser_fail(parser, word->place, "%s", inner.text);
    if (!paths[0] && !strpbrk(pattern, "*?["))
        return parser_fail(parser, word->place, "no file \"%s\", expected one to include", pattern);
    parser->depth++;
    for (; !err && *paths; paths++) {
        struct slice text;
        if (parser->files++ == INCLUDE_FILES_MAX)
            err = parser_fail(parser, statement->place, "too many included files, expected at most %d",
                              INCLUDE_FILES_MAX);
        else if (source_read(parser->source, *paths, &text, &inner))
            err = parser_fail(parser, word->place, "%s", inner.text);
        else
            err = parse_file(parser, block, *paths, *paths, text);
    }
    parser->depth--;
    return err;
}

int parser_default(struct parser *parser, struct block *block, const struct directive *directive) {
    static const struct conf_file built_in = { .name = "built-in", .folder = "/" };
    struct conf_file *file = arena_alloc(&parser->scratch, sizeof *file);
    struct lexer *lexer = arena_alloc(&parser->scratch, sizeof *lexer);
    struct token *words = arena_alloc(&parser->scratch, 8 * sizeof *words);
    if (!file || !lexer || !words)
        return parser_no_memory(parser);
    *file = built_in;
    file->text = slice_of(directive->initial);
    lexer_init(lexer, file, &parser->conf->arena);
    struct statement statement = {
        .directive = directive,
        .file = file,
        .place = { file->name, 1, 1 },
        .words = words,
    };
    for (;;) {
        int err = lexer_next(lexer, &words[statement.count], parser->error);
        if (err)
            return err;
        if (words[statement.count].kind != TOKEN_WORD)
            return read_arguments(parser, block, &statement);
        statement.count++;
    }
}
