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

static int one_path(struct parser *parser, const struct statement *statement, const char **ret_path,
                    struct conf_place *ret_place) {
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    *ret_place = statement->words[0].place;
    *ret_path = parser_path(parser, statement, &statement->words[0]);
    return *ret_path ? 0 : -EINVAL;
}

static int parse_authorities(struct parser *parser, struct statement *statement, const char **ret_path,
                             struct conf_place *ret_place) {
    *ret_place = statement->place;
    if (statement->count == 1 && own_word_is(&statement->words[0], "system"))
        return 0;  // finish.c finds it
    return one_path(parser, statement, ret_path, ret_place);
}

int own_parse_ca(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    return parse_authorities(parser, statement, &tls->ca, &tls->ca_place);
}

void own_print_ca(FILE *out, int indent, const void *owner) {
    const struct conf_tls *tls = owner;
    print_path(out, indent, "ca", tls->ca ? tls->ca : "system");
}

int own_parse_fetch_ca(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    return parse_authorities(parser, statement, &conf->fetch_ca, &conf->fetch_ca_place);
}

void own_print_fetch_ca(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    print_path(out, indent, "fetch_ca", conf->fetch_ca ? conf->fetch_ca : "system");
}

int own_parse_crl(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    return one_path(parser, statement, &tls->crl, &tls->crl_place);
}

void own_print_crl(FILE *out, int indent, const void *owner) {
    print_path(out, indent, "crl", ((const struct conf_tls *)owner)->crl);
}

int own_parse_name(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    const struct token *word = &statement->words[0];
    for (size_t i = 0; i < word->text.len; i++) {
        char c = word->text.at[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
            c == '.' || c == '_' || c == ':';
        if (!fine || word->text.len > 253)
            return parser_fail(parser, word->place, "bad value \"%.64s\" for \"name\", expected a host name",
                               word->text.at);
    }
    tls->name = word->text.at;
    return 0;
}

void own_print_name(FILE *out, int indent, const void *owner) {
    print_path(out, indent, "name", ((const struct conf_tls *)owner)->name);
}

// The 43 characters of base64 that 32 bytes are, and the '=' behind them.
static bool read_digest(struct slice text, unsigned char *to) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (text.len != 44 || text.at[43] != '=')
        return false;
    uint32_t bits = 0;
    unsigned count = 0, written = 0;
    for (size_t i = 0; i < 43; i++) {
        const char *letter = text.at[i] ? strchr(letters, text.at[i]) : NULL;
        if (!letter)
            return false;
        bits = bits << 6 | (uint32_t)(letter - letters);
        count += 6;
        if (count >= 8) {
            count -= 8;
            to[written++] = (unsigned char)(bits >> count);
        }
    }
    return written == 32;
}

int own_parse_pin(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    struct slice kind = SLICE_LIT("sha256/");
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
    for (unsigned i = 0; !err && i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        struct conf_pin *pin = parser_new(parser, sizeof *pin);
        if (!pin)
            return -ENOMEM;
        if (!slice_starts(word->text, kind) || !read_digest(slice_from(word->text, kind.len), pin->digest))
            return parser_fail(parser, word->place,
                               "bad value \"%.64s\" for \"pin\", expected sha256/ and 32 bytes in base64",
                               word->text.at);
        OWN_APPEND(&tls->pins, pin);
    }
    return err;
}

void own_print_pin(FILE *out, int indent, const void *owner) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const struct conf_tls *tls = owner;
    for (const struct conf_pin *pin = tls->pins; pin; pin = pin->next) {
        fprintf(out, "%*spin sha256/", indent, "");
        for (unsigned i = 0; i < 258; i += 6) {
            unsigned pair = (unsigned)(pin->digest[i / 8] << 8) | (i / 8 < 31 ? pin->digest[i / 8 + 1] : 0);
            fputc(letters[pair >> (10 - i % 8) & 63], out);
        }
        fputs("=;\n", out);
    }
}

int own_parse_stapling_responder(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_tls *tls = block->owners[OWNER_conf_tls];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    const struct token *word = &statement->words[0];
    bool fine = slice_istarts(word->text, SLICE_LIT("http://")) && word->text.len > 7;
    for (size_t i = 0; i < word->text.len; i++)
        fine = fine && word->text.at[i] > ' ' && word->text.at[i] < 0x7f;
    if (!fine)
        return parser_fail(parser, word->place,
                           "bad value \"%.64s\" for \"stapling_responder\", expected a URL of http://",
                           word->text.at);
    tls->stapling_responder = word->text.at;
    return 0;
}

void own_print_stapling_responder(FILE *out, int indent, const void *owner) {
    print_path(out, indent, "stapling_responder", ((const struct conf_tls *)owner)->stapling_responder);
}

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
