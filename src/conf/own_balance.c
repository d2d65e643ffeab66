// SPDX-License-Identifier: BSD-2-Clause
// What an upstream says of the choice among its servers: `balance` and `sticky`.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>
#include <stdio.h>

static const char *const balances[] = {
    [BALANCE_ROUND_ROBIN] = "round_robin",
    [BALANCE_LEAST_CONN] = "least_conn",
    [BALANCE_RANDOM2] = "random2",
    [BALANCE_HASH] = "hash",
};
enum { BALANCES = sizeof balances / sizeof *balances };

static const char *const hashes[] = {
    [HASH_CLIENT] = "client", [HASH_HEADER] = "header", [HASH_COOKIE] = "cookie",
    [HASH_PATH] = "path",     [HASH_URI] = "uri",       [HASH_KEY] = "key",
};
enum { HASHES = sizeof hashes / sizeof *hashes };

// Which of the texts the word is, `count` when it is none.
static unsigned find(const struct token *word, const char *const *texts, unsigned count) {
    unsigned i = 0;
    while (i < count && !own_word_is(word, texts[i]))
        i++;
    return i;
}

// Names of header fields and of cookies are made of the same characters (RFC 9110, 5.1; RFC 6265, 4.1.1).
static int check_token(struct parser *parser, const struct token *word, const char *what) {
    bool good = word->text.len > 0;
    for (size_t i = 0; i < word->text.len && good; i++) {
        unsigned char c = (unsigned char)word->text.at[i];
        good = c > 0x20 && c < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", c);
    }
    return good ? 0
                : parser_fail(parser, word->place, "bad name \"%.64s\" of a %s, expected letters, digits and some "
                              "of !#$%%&'*+-.^_`|~",
                              word->text.at, what);
}

static int parse_load(struct parser *parser, const struct statement *statement, const struct token *word,
                      uint64_t *ret_load) {
    static const struct slice option = SLICE_LIT("load=");
    const struct directive *row = statement->directive;
    struct token number = *word;
    if (number.text.at[number.text.len - 1] != '%')
        return parser_fail(parser, word->place, "bad value \"%.64s\", expected a percentage such as load=125%%",
                           word->text.at);
    number.text.at = arena_copy(&parser->scratch, word->text).at;
    if (!number.text.at)
        return parser_no_memory(parser);
    number.text.len--;
    number.after.column--;
    ((char *)(uintptr_t)number.text.at)[number.text.len] = 0;
    return parser_value(parser, row, &number, option.len, KIND_NUMBER, row->low, row->high, false, ret_load);
}

int own_parse_balance(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct token *words = statement->words;
    int err = own_count_words(parser, statement, 1, 4);
    if (err)
        return err;
    unsigned balance = find(&words[0], balances, BALANCES), at = 1;
    if (balance == BALANCES)
        return parser_fail(parser, words[0].place,
                           "bad value \"%.64s\" for \"balance\", expected round_robin, least_conn, random2 or hash",
                           words[0].text.at);
    upstream->balance = balance;
    if (balance == BALANCE_HASH) {
        unsigned hash = statement->count > 1 ? find(&words[1], hashes, HASHES) : HASHES;
        if (hash == HASHES)
            return parser_fail(parser, statement->count > 1 ? words[1].place : words[0].place,
                               "\"balance hash\" of nothing known, expected client, header NAME, cookie NAME, path, "
                               "uri or key");
        upstream->hash = hash;
        at = 2;
        if (hash == HASH_HEADER || hash == HASH_COOKIE) {
            if (statement->count < 3)
                return parser_fail(parser, words[1].place, "\"balance hash %s\" without a name, expected: %s NAME",
                                   hashes[hash], hashes[hash]);
            err = check_token(parser, &words[2], hashes[hash]);
            upstream->hash_name = words[2].text.at;
            at = 3;
        }
        if (!err && statement->count > at && slice_starts(words[at].text, SLICE_LIT("load="))) {
            err = parse_load(parser, statement, &words[at], &upstream->hash_load);
            at++;
        }
    }
    if (!err && statement->count > at)
        err = own_too_many(parser, statement, at);
    return err;
}

void own_print_balance(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    fprintf(out, "%*sbalance %s", indent, "", balances[upstream->balance]);
    if (upstream->balance == BALANCE_HASH) {
        fprintf(out, " %s", hashes[upstream->hash]);
        if (upstream->hash_name) {
            fputc(' ', out);
            value_print_word(out, upstream->hash_name);
        }
        if (upstream->hash_load > 0)
            fprintf(out, " load=%llu%%", (unsigned long long)upstream->hash_load);
    }
    fputs(";\n", out);
}

// ---- sticky -----------------------------------------------------------------------------------------------

// Path and domain go into the field as they are (RFC 6265, 4.1.1).
static int check_attribute(struct parser *parser, const struct token *word, struct slice value) {
    bool good = value.len > 0 && value.len <= 255;
    for (size_t i = 0; i < value.len && good; i++) {
        unsigned char c = (unsigned char)value.at[i];
        good = c > 0x20 && c < 0x7f && c != ';' && c != ',';
    }
    return good ? 0
                : parser_fail(parser, word->place,
                              "bad value \"%.64s\", expected at most 255 printable characters without space, "
                              "\",\" and \";\"",
                              word->text.at);
}

static const char *const same_sites[] = { "samesite=strict", "samesite=lax", "samesite=none" };
static const char *const same_site_words[] = { "Strict", "Lax", "None" };
enum { SAME_SITES = sizeof same_sites / sizeof *same_sites };

static int parse_option(struct parser *parser, const struct statement *statement, unsigned at,
                        struct conf_sticky *sticky) {
    static const struct slice ttl = SLICE_LIT("ttl="), path = SLICE_LIT("path="), domain = SLICE_LIT("domain="),
                              key = SLICE_LIT("key=");
    const struct directive *row = statement->directive;
    const struct token *word = &statement->words[at];
    unsigned same_site = find(word, same_sites, SAME_SITES);
    if (own_word_is(word, "secure")) {
        sticky->secure = true;
    } else if (own_word_is(word, "httponly")) {
        sticky->httponly = true;
    } else if (same_site < SAME_SITES) {
        sticky->samesite = same_site_words[same_site];
    } else if (slice_starts(word->text, ttl)) {
        return parser_value(parser, row, word, ttl.len, KIND_TIME, row->low, row->high, false, &sticky->ttl);
    } else if (slice_starts(word->text, path)) {
        sticky->path = word->text.at + path.len;
        return check_attribute(parser, word, slice_from(word->text, path.len));
    } else if (slice_starts(word->text, domain)) {
        sticky->domain = word->text.at + domain.len;
        return check_attribute(parser, word, slice_from(word->text, domain.len));
    } else if (slice_starts(word->text, key)) {
        sticky->key = word->text.at + key.len;
        if (word->text.len < key.len + 16 || word->text.len > key.len + 256)
            return parser_fail(parser, word->place, "bad length of the key, expected from 16 to 256 characters");
    } else {
        return own_too_many(parser, statement, at);
    }
    return 0;
}

int own_parse_sticky(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct token *words = statement->words;
    int err = own_count_words(parser, statement, 2, 9);
    if (err)
        return err;
    if (!own_word_is(&words[0], "cookie"))
        return parser_fail(parser, words[0].place, "bad value \"%.64s\" for \"sticky\", expected: cookie NAME",
                           words[0].text.at);
    struct conf_sticky *sticky = parser_new(parser, sizeof *sticky);
    if (!sticky)
        return -ENOMEM;
    *sticky = (struct conf_sticky){ .name = words[1].text, .path = "/", .place = statement->place };
    upstream->sticky = sticky;
    err = check_token(parser, &words[1], "cookie");
    for (unsigned i = 2; i < statement->count && !err; i++)
        err = parse_option(parser, statement, i, sticky);
    // Browsers drop it then.
    if (!err && sticky->samesite == same_site_words[2] && !sticky->secure)
        err = parser_fail(parser, statement->place, "samesite=none alone, expected secure with it: browsers do not take it otherwise");
    return err;
}

static void print_option(FILE *out, const char *name, const char *value) {
    if (!value)
        return;
    char text[512];
    snprintf(text, sizeof text, "%s=%s", name, value);
    fputc(' ', out);
    value_print_word(out, text);
}

void own_print_sticky(FILE *out, int indent, const void *owner) {
    const struct conf_sticky *sticky = ((const struct conf_upstream *)owner)->sticky;
    char text[VALUE_TEXT_MAX];
    if (!sticky)
        return;
    fprintf(out, "%*ssticky cookie ", indent, "");
    value_print_word(out, sticky->name.at);
    if (sticky->ttl > 0)
        fprintf(out, " ttl=%s", value_print(sticky->ttl, VALUE_TIME, text));
    fprintf(out, "%s%s", sticky->secure ? " secure" : "", sticky->httponly ? " httponly" : "");
    for (unsigned i = 0; i < SAME_SITES; i++)
        if (sticky->samesite == same_site_words[i])
            fprintf(out, " %s", same_sites[i]);
    print_option(out, "path", sticky->path);
    print_option(out, "domain", sticky->domain);
    print_option(out, "key", sticky->key);
    fputs(";\n", out);
}
