// SPDX-License-Identifier: BSD-2-Clause
// The table of directives as the parser and the printers walk it: rows in memory, and how a row's field is
// reached.
#ifndef MOONGATE_CONF_DIRECTIVE_H
#define MOONGATE_CONF_DIRECTIVE_H

#include "conf/conf.h"
#include "conf/directives.h"
#include "conf/value.h"

#include <stdio.h>

enum {
    SCOPE_TOP = 1 << 0,
    SCOPE_UPSTREAM = 1 << 1,
    SCOPE_FRONTEND = 1 << 2,
    SCOPE_ROUTE = 1 << 3,
    SCOPE_TLS = 1 << 4,           // the block of a listen with tls
    SCOPE_UPSTREAM_TLS = 1 << 5,  // that of an upstream
    SCOPE_SETTINGS = SCOPE_TOP | SCOPE_FRONTEND | SCOPE_ROUTE,
    SCOPE_ALL = SCOPE_SETTINGS | SCOPE_UPSTREAM | SCOPE_TLS | SCOPE_UPSTREAM_TLS,
};

enum {
    DIRECTIVE_RESTART = 1 << 0,
    DIRECTIVE_ZERO = 1 << 1,
    DIRECTIVE_MANY = 1 << 2,
    DIRECTIVE_BLOCK = 1 << 3,
    DIRECTIVE_MAYBE_BLOCK = 1 << 4,
};

enum directive_kind { KIND_FLAG, KIND_NUMBER, KIND_SIZE, KIND_TIME, KIND_WORD, KIND_PATH, KIND_OWN };
enum directive_owner {
    OWNER_conf,
    OWNER_conf_settings,
    OWNER_conf_upstream,
    OWNER_conf_frontend,
    OWNER_conf_tls,
    OWNER_COUNT
};

enum directive_id {
#define X(name, ...) DIRECTIVE_ID_##name,
    DIRECTIVES(X)
#undef X
        DIRECTIVE_COUNT
};

struct directive_word {
    const char *word, *doc;
    int value;
};

struct parser;
struct block;
struct statement;

struct directive {
    const char *name;
    unsigned scopes, flags;
    enum directive_kind kind;
    enum directive_owner owner;
    size_t offset, size;  // of the field in its owner
    uint64_t low, high;
    const char *syntax, *initial, *example, *doc;
    const struct directive_word *words;  // WORD: ends with a NULL word
    // OWN: reads the statement into the block's owner; prints whole lines, none when there is nothing to say.
    int (*parse)(struct parser *parser, struct block *block, struct statement *statement);
    void (*print)(FILE *out, int indent, const void *owner);
};

extern const struct directive directives[DIRECTIVE_COUNT];

// "top level", "upstream", ...
const char *scope_name(unsigned scope);

const struct directive *directive_find(struct slice name);
// The name closest to one that does not exist, of those that may stand in `scope` or else of all; NULL when
// none is near.
const struct directive *directive_suggest(struct slice name, unsigned scope);

// What may follow the name: "on | off", "TIME", ...
void directive_syntax(const struct directive *directive, char *to, size_t room);
// The same with bounds, for errors and the manual: "a time from 1s to 1h, or 0".
void directive_expected(const struct directive *directive, char *to, size_t room);
// How a NUMBER, SIZE or TIME is written.
enum value_unit directive_unit(enum directive_kind kind);
// "a number from 1 to 256" for an argument that is only a part of a directive.
void bounds_text(enum directive_kind kind, uint64_t low, uint64_t high, bool zero, char *to, size_t room);

// The directive with the owner's value, as lines of a configuration.
void directive_print(const struct directive *directive, FILE *out, int indent, const void *owner);

#endif
