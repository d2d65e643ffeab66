// SPDX-License-Identifier: BSD-2-Clause
// eject, retry_budget and hedge: what follows from servers that fail or are slow, and how much of it.
#include "conf/own_parts.h"

#include "conf/value.h"

static const struct conf_eject defaults = {
    .connect = 2,
    .consecutive = 5,
    .window = 10000,
    .requests = 20,
    .time = 1000,
    .most = 30000,
    .max_ejected = 50,
};

// "20%" or "20", from `skip` bytes into the word on.
static int parse_percent(struct parser *parser, const struct directive *row, const struct token *word, size_t skip,
                         uint64_t *ret_value) {
    struct token copy = *word;
    if (copy.text.len > skip && copy.text.at[copy.text.len - 1] == '%')
        copy.text.len--;
    return parser_value(parser, row, &copy, skip, KIND_NUMBER, 0, 100, false, ret_value);
}

static int parse_eject_option(struct parser *parser, const struct statement *statement, const struct token *word,
                              struct conf_eject *eject) {
    const struct {
        const char *word;
        enum directive_kind kind;
        uint64_t low, high;
        uint64_t *field;
    } options[] = {
        { "connect=", KIND_NUMBER, 0, 1000000, &eject->connect },
        { "consecutive=", KIND_NUMBER, 0, 1000000, &eject->consecutive },
        { "errors=", KIND_NUMBER, 0, 1000000, &eject->errors },
        { "latency=", KIND_NUMBER, 0, 1000, &eject->latency },
        { "window=", KIND_TIME, 100, 3600000, &eject->window },
        { "requests=", KIND_NUMBER, 1, 1000000, &eject->requests },
        { "time=", KIND_TIME, 1, 3600000, &eject->time },
        { "most=", KIND_TIME, 1, 86400000, &eject->most },
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (slice_starts(word->text, slice_of(options[i].word)))
            return parser_value(parser, statement->directive, word, strlen(options[i].word), options[i].kind,
                                options[i].low, options[i].high, false, options[i].field);
    if (slice_starts(word->text, SLICE_LIT("rate=")))
        return parse_percent(parser, statement->directive, word, 5, &eject->rate);
    if (slice_starts(word->text, SLICE_LIT("max_ejected=")))
        return parse_percent(parser, statement->directive, word, 12, &eject->max_ejected);
    return own_too_many(parser, statement, (unsigned)(word - statement->words));
}

int own_parse_eject(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    int err = own_count_words(parser, statement, 1, 10);
    if (err)
        return err;
    upstream->eject = defaults;
    if (statement->count == 1 && own_word_is(&statement->words[0], "off")) {
        upstream->eject.connect = upstream->eject.consecutive = 0;
        return 0;
    }
    for (unsigned i = 0; i < statement->count && !err; i++)
        err = parse_eject_option(parser, statement, &statement->words[i], &upstream->eject);
    if (!err && upstream->eject.time > upstream->eject.most)
        return parser_fail(parser, statement->place, "time is longer than most, expected it not to be");
    return err;
}

void own_print_eject(FILE *out, int indent, const void *owner) {
    const struct conf_eject *eject = &((const struct conf_upstream *)owner)->eject;
    char window[VALUE_TEXT_MAX], time[VALUE_TEXT_MAX], most[VALUE_TEXT_MAX];
    fprintf(out,
            "%*seject connect=%llu consecutive=%llu errors=%llu rate=%llu%% latency=%llu window=%s requests=%llu time=%s most=%s "
            "max_ejected=%llu%%;\n",
            indent, "", (unsigned long long)eject->connect, (unsigned long long)eject->consecutive,
            (unsigned long long)eject->errors, (unsigned long long)eject->rate, (unsigned long long)eject->latency,
            value_print(eject->window, VALUE_TIME, window), (unsigned long long)eject->requests,
            value_print(eject->time, VALUE_TIME, time), value_print(eject->most, VALUE_TIME, most),
            (unsigned long long)eject->max_ejected);
}

int own_parse_retry_budget(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    struct conf_budget *budget = &upstream->retry_budget;
    int err = own_count_words(parser, statement, 1, 2);
    if (err)
        return err;
    *budget = (struct conf_budget){ .on = true, .min = 10 };
    if (own_word_is(&statement->words[0], "off")) {
        budget->on = false;
        return statement->count > 1 ? own_too_many(parser, statement, 1) : 0;
    }
    err = parse_percent(parser, statement->directive, &statement->words[0], 0, &budget->percent);
    return err ? err : own_option(parser, statement, "min=", KIND_NUMBER, 0, 1000000, &budget->min);
}

void own_print_retry_budget(FILE *out, int indent, const void *owner) {
    const struct conf_budget *budget = &((const struct conf_upstream *)owner)->retry_budget;
    fprintf(out, "%*sretry_budget ", indent, "");
    if (budget->on)
        fprintf(out, "%llu%% min=%llu;\n", (unsigned long long)budget->percent, (unsigned long long)budget->min);
    else
        fputs("off;\n", out);
}

int own_parse_hedge(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct token *word = &statement->words[0];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    upstream->hedge = 0;
    if (own_word_is(word, "off"))
        return 0;
    if (!slice_starts(word->text, SLICE_LIT("after=")))
        return own_too_many(parser, statement, 0);
    return parser_value(parser, statement->directive, word, 6, KIND_TIME, 1, 3600000, false, &upstream->hedge);
}

void own_print_hedge(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    char after[VALUE_TEXT_MAX];
    if (upstream->hedge > 0)
        fprintf(out, "%*shedge after=%s;\n", indent, "", value_print(upstream->hedge, VALUE_TIME, after));
    else
        fprintf(out, "%*shedge off;\n", indent, "");
}
