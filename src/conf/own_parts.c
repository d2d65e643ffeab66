// SPDX-License-Identifier: BSD-2-Clause
// What the directives of own_*.c have in common, as own_parts.h says.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

int own_too_many(struct parser *parser, const struct statement *statement, unsigned at) {
    char syntax[128];
    directive_syntax(statement->directive, syntax, sizeof syntax);
    return parser_fail(parser, statement->words[at].place, "unexpected \"%.64s\", expected: %s %s",
                       statement->words[at].text.at, statement->directive->name, syntax);
}

int own_count_words(struct parser *parser, const struct statement *statement, unsigned low, unsigned high) {
    char syntax[128];
    if (statement->count > high)
        return own_too_many(parser, statement, high);
    if (statement->count >= low)
        return 0;
    directive_syntax(statement->directive, syntax, sizeof syntax);
    return parser_fail(parser, statement->place, "\"%s\" with too few arguments, expected: %s %s",
                       statement->directive->name, statement->directive->name, syntax);
}

// Names must not look like an address or a number: scripts give either to the same calls.
static int check_name(struct parser *parser, const struct statement *statement, const struct token *word) {
    struct slice name = word->text;
    bool good = name.len > 0 && name.len <= NAME_MAX_BYTES;
    for (size_t i = 0; i < name.len && good; i++) {
        char c = name.at[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        good = letter || (i > 0 && ((c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'));
    }
    if (good)
        return 0;
    return parser_fail(parser, word->place,
                       "bad name \"%.64s\" for \"%s\", expected a letter, then letters, digits, "
                       "\".\", \"-\" or \"_\", at most %d in all",
                       name.at, statement->directive->name, NAME_MAX_BYTES);
}

int own_named(struct parser *parser, const struct statement *statement, unsigned low, unsigned high) {
    int err = own_count_words(parser, statement, low, high);
    return err ? err : check_name(parser, statement, &statement->words[0]);
}

int own_same_name(struct parser *parser, const struct token *word, const char *what,
                  struct conf_place first) {
    return parser_fail(parser, word->place,
                       "%s \"%s\" exists already, expected another name: it stands at %s:%d:%d", what,
                       word->text.at, first.file, first.line, first.column);
}

int own_address(struct parser *parser, const struct statement *statement, struct addr *ret_addr,
                const char **ret_text) {
    const struct token *word = &statement->words[0];
    struct error inner;
    if (addr_parse(word->text, ret_addr, &inner))
        return parser_fail(parser, word->place, "bad address for \"%s\": %s", statement->directive->name,
                           inner.text);
    if (addr_family(ret_addr) != AF_UNIX && addr_port(ret_addr) == 0)
        return parser_fail(parser, word->place,
                           "bad address \"%s\" for \"%s\", expected a port from 1 to 65535", word->text.at,
                           statement->directive->name);
    char text[ADDR_TEXT_MAX];
    addr_print(ret_addr, text);
    *ret_text = arena_strdup(&parser->conf->arena, text);
    return *ret_text ? 0 : parser_no_memory(parser);
}

int own_option(struct parser *parser, const struct statement *statement, const char *option,
               enum directive_kind kind, uint64_t low, uint64_t high, uint64_t *value) {
    if (statement->count < 2)
        return 0;
    const struct token *word = &statement->words[1];
    if (!slice_starts(word->text, slice_of(option)))
        return own_too_many(parser, statement, 1);
    return parser_value(parser, statement->directive, word, strlen(option), kind, low, high, false, value);
}
