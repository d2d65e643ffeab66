// SPDX-License-Identifier: BSD-2-Clause
// health: how the servers of an upstream are checked.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

enum { TIMEOUT_MS = 2000 };

static const struct {
    const char *word;
    enum conf_health_kind kind;
} kinds[] = {
    { "tcp", HEALTH_TCP },
    { "tls", HEALTH_TLS },
    { "h2", HEALTH_H2 },
    { "http", HEALTH_HTTP },
    { "script", HEALTH_SCRIPT },
};

static const char *kind_word(enum conf_health_kind kind) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].kind == kind)
            return kinds[i].word;
    return "";
}

// "200-299,301": three digits each.
static int status_of(struct slice text, uint16_t *ret_status) {
    uint64_t value;
    if (slice_to_u64(text, &value) < 0 || value < 100 || value > 999)
        return -EINVAL;
    *ret_status = (uint16_t)value;
    return 0;
}

static int parse_status(struct parser *parser, const struct token *word, struct slice rest,
                        struct conf_health *health) {
    struct slice one;
    while (slice_next_element(&rest, &one)) {
        struct conf_status_range *range = &health->status[health->status_count];
        const char *dash = memchr(one.at, '-', one.len);
        struct slice low = dash ? slice_make(one.at, (size_t)(dash - one.at)) : one;
        struct slice high = dash ? slice_from(one, low.len + 1) : one;
        if (health->status_count++ == CONF_STATUS_RANGES || status_of(low, &range->low) < 0 ||
            status_of(high, &range->high) < 0 || range->high < range->low)
            return parser_fail(parser, word->place,
                               "bad \"%.64s\", expected at most %d of 200 or 200-299, separated by commas",
                               word->text.at, CONF_STATUS_RANGES);
    }
    return 0;
}

static int parse_start(struct parser *parser, const struct token *word, struct slice value,
                       struct conf_health *health) {
    health->start_down = slice_eq(value, SLICE_LIT("down"));
    if (health->start_down || slice_eq(value, SLICE_LIT("up")))
        return 0;
    return parser_fail(parser, word->place, "bad \"%.64s\", expected start=up or start=down", word->text.at);
}

static int parse_text(struct parser *parser, const struct token *word, struct slice value, const char **field) {
    bool good = value.len > 0 && value.len <= CONF_HEALTH_TEXT_MAX;
    for (size_t i = 0; i < value.len; i++)
        good = good && ((unsigned char)value.at[i] >= ' ' || value.at[i] == '\t') && value.at[i] != 0x7f;
    if (!good)
        return parser_fail(parser, word->place, "bad \"%.64s\", expected at most %d characters without controls",
                           word->text.at, CONF_HEALTH_TEXT_MAX);
    *field = value.at;
    return 0;
}

static int parse_option(struct parser *parser, const struct statement *statement, const struct token *word,
                        struct conf_health *health) {
    const struct {
        const char *word;
        enum directive_kind kind;
        uint64_t low, high;
        uint64_t *field;
        bool zero;
    } numbers[] = {
        { "every=", KIND_TIME, 10, 86400000, &health->every, false },
        { "timeout=", KIND_TIME, 1, 86400000, &health->timeout, false },
        { "jitter=", KIND_TIME, 1, 86400000, &health->jitter, true },
        { "rise=", KIND_NUMBER, 1, 1000, &health->rise, false },
        { "fall=", KIND_NUMBER, 1, 1000, &health->fall, false },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (slice_starts(word->text, slice_of(numbers[i].word)))
            return parser_value(parser, statement->directive, word, strlen(numbers[i].word), numbers[i].kind,
                                numbers[i].low, numbers[i].high, numbers[i].zero, numbers[i].field);
    if (slice_starts(word->text, SLICE_LIT("start=")))
        return parse_start(parser, word, slice_from(word->text, 6), health);
    if (health->kind == HEALTH_HTTP && slice_starts(word->text, SLICE_LIT("status=")))
        return parse_status(parser, word, slice_from(word->text, 7), health);
    if (health->kind == HEALTH_HTTP && slice_starts(word->text, SLICE_LIT("body=")))
        return parse_text(parser, word, slice_from(word->text, 5), &health->body);
    if (health->kind == HEALTH_HTTP && slice_starts(word->text, SLICE_LIT("host=")))
        return parse_text(parser, word, slice_from(word->text, 5), &health->host);
    return own_too_many(parser, statement, (unsigned)(word - statement->words));
}

// [METHOD] PATH; without a path it is "/".
static int parse_request(struct parser *parser, const struct statement *statement, unsigned *at,
                         struct conf_health *health) {
    const struct token *word = &statement->words[*at];
    unsigned left = statement->count - *at;
    health->method = "GET";
    health->path = "/";
    if (left >= 2 && word[0].text.at[0] != '/' && word[1].text.at[0] == '/') {
        health->method = word->text.at;
        for (const char *c = health->method; *c; c++)
            if (*c < 'A' || *c > 'Z')
                return parser_fail(parser, word->place, "bad method \"%.64s\", expected one such as GET or HEAD",
                                   word->text.at);
        word++, ++*at;
    }
    if (*at < statement->count && word->text.at[0] == '/') {
        health->path = word->text.at;
        for (const char *c = health->path; *c; c++)
            if (*c <= ' ' || *c >= 0x7f || *c == '#')
                return parser_fail(parser, word->place,
                                   "bad path \"%.64s\", expected one as it stands in a request", word->text.at);
        ++*at;
    }
    return 0;
}

// NAME; that a script has made a function of it is known when scripts are loaded.
static int parse_function(struct parser *parser, const struct statement *statement, unsigned *at,
                          struct conf_health *health) {
    const struct token *word = &statement->words[*at];
    if (*at == statement->count || word->text.len == 0 || memchr(word->text.at, '=', word->text.len))
        return parser_fail(parser, statement->place,
                           "no function is named, expected \"health script NAME\" (gate.health)");
    health->function = word->text.at;
    health->function_place = word->place;
    ++*at;
    return 0;
}

int own_parse_health(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    int err = own_count_words(parser, statement, 1, 16);
    if (err)
        return err;
    struct conf_health *health = parser_new(parser, sizeof *health);
    if (!health)
        return -ENOMEM;
    *health = (struct conf_health){
        .every = 5000, .rise = 2, .fall = 3, .jitter = UINT64_MAX, .place = statement->place
    };
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !known; i++) {
        known = own_word_is(&statement->words[0], kinds[i].word);
        health->kind = kinds[i].kind;
    }
    if (!known)
        return parser_fail(parser, statement->words[0].place,
                           "\"%.64s\" is no kind of check, expected tcp, tls, h2, http or script",
                           statement->words[0].text.at);
    unsigned at = 1;
    if (health->kind == HEALTH_HTTP)
        err = parse_request(parser, statement, &at, health);
    if (health->kind == HEALTH_SCRIPT)
        err = parse_function(parser, statement, &at, health);
    for (; at < statement->count && !err; at++)
        err = parse_option(parser, statement, &statement->words[at], health);
    if (err)
        return err;
    if (health->timeout == 0)
        health->timeout = health->every < TIMEOUT_MS ? health->every : TIMEOUT_MS;
    if (health->timeout > health->every)
        return parser_fail(parser, statement->place,
                           "timeout is longer than every, expected a check to be over when the next one is due");
    if (health->jitter == UINT64_MAX)
        health->jitter = health->every / 10;
    if (health->status_count == 0)
        health->status[health->status_count++] = (struct conf_status_range){ 200, 399 };
    upstream->health = health;
    return 0;
}

static void print_time(FILE *out, const char *name, uint64_t value) {
    char text[VALUE_TEXT_MAX];
    fprintf(out, " %s=%s", name, value_print(value, VALUE_TIME, text));
}

static void print_text(FILE *out, const char *name, const char *value) {
    char text[CONF_HEALTH_TEXT_MAX + 16];
    if (!value)
        return;
    snprintf(text, sizeof text, "%s=%s", name, value);
    fputc(' ', out);
    value_print_word(out, text);
}

void own_print_health(FILE *out, int indent, const void *owner) {
    const struct conf_health *health = ((const struct conf_upstream *)owner)->health;
    if (!health)
        return;
    fprintf(out, "%*shealth %s", indent, "", kind_word(health->kind));
    if (health->kind == HEALTH_HTTP) {
        fprintf(out, " %s ", health->method);
        value_print_word(out, health->path);
        for (unsigned i = 0; i < health->status_count; i++)
            fprintf(out, "%s%u-%u", i == 0 ? " status=" : ",", health->status[i].low, health->status[i].high);
        print_text(out, "body", health->body);
        print_text(out, "host", health->host);
    }
    if (health->function) {
        fputc(' ', out);
        value_print_word(out, health->function);
    }
    print_time(out, "every", health->every);
    print_time(out, "timeout", health->timeout);
    print_time(out, "jitter", health->jitter);
    fprintf(out, " rise=%llu fall=%llu start=%s;\n", (unsigned long long)health->rise,
            (unsigned long long)health->fall, health->start_down ? "down" : "up");
}
