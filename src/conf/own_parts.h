// SPDX-License-Identifier: BSD-2-Clause
// What directives with a grammar of their own are made of: counting words, names, addresses, options. For the
// own_*.c files alone; which directives they have, own.h says.
#ifndef MOONGATE_CONF_OWN_PARTS_H
#define MOONGATE_CONF_OWN_PARTS_H

#include "conf/own.h"

// Appends to a singly linked list at `*(type **)head`.
#define OWN_APPEND(head, item)          \
    do {                                \
        __typeof__(head) end_ = (head); \
        while (*end_)                   \
            end_ = &(*end_)->next;      \
        *end_ = (item);                 \
    } while (0)

// The item of a list that the word names, NULL when none has that name.
#define OWN_NAMED(list, word)                              \
    ({                                                     \
        __typeof__(list) item_ = (list);                   \
        while (item_ && !own_word_is((word), item_->name)) \
            item_ = item_->next;                           \
        item_;                                             \
    })

static inline bool own_word_is(const struct token *word, const char *text) {
    return slice_eq(word->text, slice_of(text));
}

// All return a negative errno with the parser's error set.

// Refuses fewer words than `low` and more than `high`.
int own_count_words(struct parser *parser, const struct statement *statement, unsigned low, unsigned high);
// The error of a word that the syntax has no place for.
int own_too_many(struct parser *parser, const struct statement *statement, unsigned at);
// own_count_words(), and the first word must be a good name for a thing.
int own_named(struct parser *parser, const struct statement *statement, unsigned low, unsigned high);
// The error of a name that a thing of the same kind has, which stands at `first`.
int own_same_name(struct parser *parser, const struct token *word, const char *what, struct conf_place first);

// The address of a statement's first word, and its canonical text.
int own_address(struct parser *parser, const struct statement *statement, struct addr *ret_addr,
                const char **ret_text);
// The number behind `option` ("weight=") in the statement's second word, when there is one.
int own_option(struct parser *parser, const struct statement *statement, const char *option,
               enum directive_kind kind, uint64_t low, uint64_t high, uint64_t *value);

#endif
