// SPDX-License-Identifier: BSD-2-Clause
// The directives of a tls block with a grammar of their own. Whether the files, ciphers and groups are good
// is said by tls/ (server.c); that a listener has a certificate, by finish.c.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

int own_parse_certificate(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    struct conf_certificate *certificate = parser_new(parser, sizeof *certificate);
    if (!certificate)
        return -ENOMEM;
    const struct token *word = &statement->words[0];
    certificate->place = certificate->key_place = word->place;
    certificate->path = parser_path(parser, statement, word);
    if (!certificate->path)
        return -EINVAL;
    OWN_APPEND(&tls->certificates, certificate);
    return 0;
}

// Reads a path that belongs to the certificate before it and may be given once for each.
static int of_last(struct parser *parser, struct block *block, const struct statement *statement, size_t path,
                   size_t place) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    struct conf_certificate *last = tls->certificates;
    while (last && last->next)
        last = last->next;
    const char **to = (const char **)((char *)last + path);
    if (!last || *to)
        return parser_fail(parser, statement->place,
                           "\"%s\" without a certificate before it, expected: certificate FILE; %s FILE;",
                           statement->directive->name, statement->directive->name);
    *(struct conf_place *)((char *)last + place) = statement->words[0].place;
    *to = parser_path(parser, statement, &statement->words[0]);
    return *to ? 0 : -EINVAL;
}

int own_parse_key(struct parser *parser, struct block *block, struct statement *statement) {
    return of_last(parser, block, statement, offsetof(struct conf_certificate, key_path),
                   offsetof(struct conf_certificate, key_place));
}

int own_parse_staple(struct parser *parser, struct block *block, struct statement *statement) {
    return of_last(parser, block, statement, offsetof(struct conf_certificate, staple_path),
                   offsetof(struct conf_certificate, staple_place));
}

int own_parse_key_log(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    tls->key_log = parser_path(parser, statement, &statement->words[0]);
    return tls->key_log ? 0 : -EINVAL;
}

static void print_path(FILE *out, int indent, const char *name, const char *path) {
    if (!path)
        return;
    fprintf(out, "%*s%s ", indent, "", name);
    value_print_word(out, path);
    fputs(";\n", out);
}

void own_print_key_log(FILE *out, int indent, const void *owner) {
    print_path(out, indent, "key_log", ((const struct conf_tls *)owner)->key_log);
}

void own_print_certificate(FILE *out, int indent, const void *owner) {
    const struct conf_tls *tls = owner;
    for (const struct conf_certificate *c = tls->certificates; c; c = c->next) {
        print_path(out, indent, "certificate", c->path);
        print_path(out, indent, "key", c->key_path);
        print_path(out, indent, "staple", c->staple_path);
    }
}

// Printed with their certificates.
void own_print_key(FILE *out, int indent, const void *owner) {
    (void)out, (void)indent, (void)owner;
}

void own_print_staple(FILE *out, int indent, const void *owner) {
    (void)out, (void)indent, (void)owner;
}

// A file of which the text is wanted, of several of its kind.
static int add_file(struct parser *parser, const struct statement *statement, struct conf_file_text **list) {
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    struct conf_file_text *file = parser_new(parser, sizeof *file);
    if (!file)
        return -ENOMEM;
    file->place = statement->words[0].place;
    file->path = parser_path(parser, statement, &statement->words[0]);
    if (!file->path)
        return -EINVAL;
    OWN_APPEND(list, file);
    return 0;
}

static void print_files(FILE *out, int indent, const char *name, const struct conf_file_text *file) {
    for (; file; file = file->next) {
        fprintf(out, "%*s%s ", indent, "", name);
        value_print_word(out, file->path);
        fputs(";\n", out);
    }
}

#define FILES(name, field)                                                                          \
    int own_parse_##name(struct parser *parser, struct block *block, struct statement *statement) { \
        struct conf_tls *tls = block->owners[OWNER_conf_tls];                                       \
        return add_file(parser, statement, &tls->field);                                            \
    }                                                                                               \
    void own_print_##name(FILE *out, int indent, const void *owner) {                               \
        const struct conf_tls *tls = owner;                                                         \
        print_files(out, indent, #name, tls->field);                                                \
    }
FILES(ticket_key, ticket_keys)
FILES(client_ca, client_ca)
FILES(client_crl, client_crl)

// All words as one text.
static int join(struct parser *parser, const struct statement *statement, char between, const char **ret_text,
                struct conf_place *ret_place) {
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
    struct slice all = { 0 };
    for (unsigned i = 0; !err && i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        if (word->text.len == 0)
            return parser_fail(parser, word->place, "empty word for \"%s\"", statement->directive->name);
        if ((i > 0 && arena_append(&parser->conf->arena, &all, &between, 1)) ||
            arena_append(&parser->conf->arena, &all, word->text.at, word->text.len))
            err = parser_no_memory(parser);
    }
    if (err)
        return err;
    *ret_place = statement->words[0].place;
    *ret_text = arena_copy(&parser->conf->arena, all).at;
    return *ret_text ? 0 : parser_no_memory(parser);
}

static void print_joined(FILE *out, int indent, const char *name, const char *text, char between) {
    fprintf(out, "%*s%s", indent, "", name);
    while (*text) {
        const char *end = strchrnul(text, between);
        fprintf(out, " %.*s", (int)(end - text), text);
        text = *end ? end + 1 : end;
    }
    fputs(";\n", out);
}

#define JOINED(name, between)                                                                       \
    int own_parse_##name(struct parser *parser, struct block *block, struct statement *statement) { \
        struct conf_tls *tls = block->owners[OWNER_conf_tls];                                       \
        return join(parser, statement, between, &tls->name, &tls->name##_place);                    \
    }                                                                                               \
    void own_print_##name(FILE *out, int indent, const void *owner) {                               \
        const struct conf_tls *tls = owner;                                                         \
        print_joined(out, indent, #name, tls->name, between);                                       \
    }
JOINED(alpn, ' ')
JOINED(ciphers, ':')
JOINED(ciphersuites, ':')
JOINED(groups, ':')

int own_parse_versions(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 2);
    for (unsigned i = 0; !err && i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        unsigned bit = own_word_is(word, "TLSv1.2") ? TLS_VERSION_1_2
            : own_word_is(word, "TLSv1.3")          ? TLS_VERSION_1_3
                                                    : 0;
        if (!bit || (tls->versions & bit))
            err = parser_fail(parser, word->place, "%s \"%.64s\" for \"versions\", expected TLSv1.2, TLSv1.3",
                              bit ? "repeated value" : "bad value", word->text.at);
        tls->versions |= bit;
    }
    return err;
}

void own_print_versions(FILE *out, int indent, const void *owner) {
    const struct conf_tls *tls = owner;
    fprintf(out, "%*sversions%s%s;\n", indent, "", tls->versions & TLS_VERSION_1_2 ? " TLSv1.2" : "",
            tls->versions & TLS_VERSION_1_3 ? " TLSv1.3" : "");
}
