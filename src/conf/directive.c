// SPDX-License-Identifier: BSD-2-Clause
// Unfolds directives.h into rows, and answers questions about a row. Called by the parser and the printers.
#include "conf/directive.h"

#include "conf/own.h"
#include "conf/value.h"

#include <stdlib.h>

// clang-format off
// IF_OWN(kind, x) is x for kind OWN and nothing for the others; IF_WORD likewise.
#define IF_OWN(kind, ...) IF_OWN_##kind(__VA_ARGS__)
#define IF_OWN_FLAG(...)
#define IF_OWN_NUMBER(...)
#define IF_OWN_SIZE(...)
#define IF_OWN_TIME(...)
#define IF_OWN_WORD(...)
#define IF_OWN_PATH(...)
#define IF_OWN_OWN(...) __VA_ARGS__
#define IF_WORD(kind, ...) IF_WORD_##kind(__VA_ARGS__)
#define IF_WORD_FLAG(...)
#define IF_WORD_NUMBER(...)
#define IF_WORD_SIZE(...)
#define IF_WORD_TIME(...)
#define IF_WORD_WORD(...) __VA_ARGS__
#define IF_WORD_PATH(...)
#define IF_WORD_OWN(...)

#define W(text, number, documentation) { .word = text, .value = number, .doc = documentation },
#define X(name, scopes, kind, ...) \
    IF_WORD(kind, static const struct directive_word words_##name[] = { WORDS_##name(W) { 0 } };)
DIRECTIVES(X)
#undef X
#undef W

// A row whose field has another type than its kind reads must not compile.
#define SIZE_FLAG sizeof(bool)
#define SIZE_NUMBER sizeof(uint64_t)
#define SIZE_SIZE sizeof(uint64_t)
#define SIZE_TIME sizeof(uint64_t)
#define SIZE_WORD sizeof(int)
#define SIZE_PATH sizeof(const char *)
#define FIELD_SIZE(owner, field) sizeof(((struct owner *)0)->field)
#define X(name, scopes, kind, owner, field, ...) \
    _Static_assert(KIND_##kind == KIND_OWN || FIELD_SIZE(owner, field) == SIZE_##kind, #name);
#define SIZE_OWN 0
DIRECTIVES(X)
#undef X

#define X(name_, scopes_, kind_, owner_, field_, low_, high_, flags_, syntax_, initial_, example_, doc_) { \
    .name = #name_, .scopes = (scopes_), .flags = (flags_), .kind = KIND_##kind_, .owner = OWNER_##owner_, \
    .offset = offsetof(struct owner_, field_), .size = FIELD_SIZE(owner_, field_), \
    .low = (low_), .high = (high_), .syntax = (syntax_), \
    .initial = (initial_), .example = (example_), .doc = (doc_), \
    IF_WORD(kind_, .words = words_##name_,) \
    IF_OWN(kind_, .parse = own_parse_##name_, .print = own_print_##name_) },
const struct directive directives[DIRECTIVE_COUNT] = { DIRECTIVES(X) };
#undef X
// clang-format on

const char *scope_name(unsigned scope) {
    switch (scope) {
    case SCOPE_TOP:
        return "top level";
    case SCOPE_UPSTREAM:
        return "upstream";
    case SCOPE_FRONTEND:
        return "frontend";
    case SCOPE_TLS:
        return "the tls block of a listen";
    case SCOPE_UPSTREAM_TLS:
        return "the tls block of an upstream";
    default:
        return "route";
    }
}

const struct directive *directive_find(struct slice name) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        if (slice_eq(name, slice_of(directives[i].name)))
            return &directives[i];
    }
    return NULL;
}

enum { SUGGEST_MAX = 32 };

// How many letters must be changed, added, left out or swapped with their neighbour.
static unsigned distance(struct slice a, struct slice b) {
    unsigned rows[3][SUGGEST_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            bool same = a.at[i - 1] == b.at[j - 1];
            unsigned best = last[j - 1] + !same;
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a.at[i - 1] == b.at[j - 2] && a.at[i - 2] == b.at[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[a.len % 3][b.len];
}

const struct directive *directive_suggest(struct slice name, unsigned scope) {
    const struct directive *best = NULL;
    unsigned best_distance = 0;
    if (name.len > SUGGEST_MAX)
        return NULL;
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        struct slice candidate = slice_of(directives[i].name);
        unsigned near = distance(name, candidate);
        if (near > 1 + candidate.len / 4)
            continue;
        // One that may stand here beats one that may not.
        unsigned rank = near * 2 + !(directives[i].scopes & scope);
        if (!best || rank < best_distance) {
            best = &directives[i];
            best_distance = rank;
        }
    }
    return best;
}

static void words_text(const struct directive_word *words, const char *between, const char *last, char *to,
                       size_t room) {
    size_t len = 0;
    for (const struct directive_word *w = words; w->word && len < room; w++) {
        const char *before = w == words ? "" : w[1].word ? between : last;
        len += (size_t)snprintf(to + len, room - len, "%s%s", before, w->word);
    }
}

void directive_syntax(const struct directive *directive, char *to, size_t room) {
    switch (directive->kind) {
    case KIND_FLAG:
        snprintf(to, room, "on | off");
        break;
    case KIND_NUMBER:
        snprintf(to, room, "NUMBER");
        break;
    case KIND_SIZE:
        snprintf(to, room, "SIZE");
        break;
    case KIND_TIME:
        snprintf(to, room, "TIME");
        break;
    case KIND_PATH:
        snprintf(to, room, "PATH");
        break;
    case KIND_WORD:
        words_text(directive->words, " | ", " | ", to, room);
        break;
    case KIND_OWN:
        snprintf(to, room, "%s", directive->syntax);
        break;
    }
}

enum value_unit directive_unit(enum directive_kind kind) {
    return kind == KIND_SIZE ? VALUE_SIZE : kind == KIND_TIME ? VALUE_TIME : VALUE_NUMBER;
}

void bounds_text(enum directive_kind kind, uint64_t low, uint64_t high, bool zero, char *to, size_t room) {
    char low_text[VALUE_TEXT_MAX], high_text[VALUE_TEXT_MAX];
    static const char *const nouns[] = {
        [VALUE_NUMBER] = "number",
        [VALUE_SIZE] = "size",
        [VALUE_TIME] = "time",
    };
    enum value_unit unit = directive_unit(kind);
    snprintf(to, room, "a %s from %s to %s%s", nouns[unit], value_print(low, unit, low_text),
             value_print(high, unit, high_text), zero && low > 0 ? ", or 0" : "");
}

void directive_expected(const struct directive *directive, char *to, size_t room) {
    switch (directive->kind) {
    case KIND_FLAG:
        snprintf(to, room, "on or off");
        break;
    case KIND_NUMBER:
    case KIND_SIZE:
    case KIND_TIME:
        bounds_text(directive->kind, directive->low, directive->high, directive->flags & DIRECTIVE_ZERO, to,
                    room);
        break;
    case KIND_WORD:
        words_text(directive->words, ", ", " or ", to, room);
        break;
    case KIND_PATH:
        snprintf(to, room, "a path");
        break;
    case KIND_OWN:
        snprintf(to, room, "%s", directive->syntax);
        break;
    }
}

static void print_value(const struct directive *directive, FILE *out, const void *at) {
    char text[VALUE_TEXT_MAX];
    int word;
    switch (directive->kind) {
    case KIND_FLAG:
        fputs(*(const bool *)at ? "on" : "off", out);
        break;
    case KIND_NUMBER:
        fputs(value_print(*(const uint64_t *)at, VALUE_NUMBER, text), out);
        break;
    case KIND_SIZE:
        fputs(value_print(*(const uint64_t *)at, VALUE_SIZE, text), out);
        break;
    case KIND_TIME:
        fputs(value_print(*(const uint64_t *)at, VALUE_TIME, text), out);
        break;
    case KIND_WORD:
        memcpy(&word, at, sizeof word);
        for (const struct directive_word *w = directive->words; w->word; w++) {
            if (w->value == word)
                fputs(w->word, out);
        }
        break;
    case KIND_PATH:
        value_print_word(out, *(const char *const *)at);
        break;
    case KIND_OWN:
        break;
    }
}

void directive_print(const struct directive *directive, FILE *out, int indent, const void *owner) {
    if (directive->kind == KIND_OWN) {
        directive->print(out, indent, owner);
        return;
    }
    fprintf(out, "%*s%s ", indent, "", directive->name);
    print_value(directive, out, (const char *)owner + directive->offset);
    fputs(";\n", out);
}
