// SPDX-License-Identifier: BSD-2-Clause
// Directives of the top with a grammar of their own, and access_log, which frontends and routes have, too.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

int own_parse_include(struct parser *parser, struct block *block, struct statement *statement) {
    int err = own_count_words(parser, statement, 1, 1);
    return err ? err : parser_include(parser, block, statement);
}

void own_print_include(FILE *out, int indent, const void *owner) {
    // The configuration that is printed has the files' text in it.
    (void)out, (void)indent, (void)owner;
}

int own_parse_workers(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    int err = own_count_words(parser, statement, 1, 1);
    if (err)
        return err;
    const struct token *word = &statement->words[0];
    uint64_t number = 0;
    if (!own_word_is(word, "auto")) {
        const struct directive *row = statement->directive;
        if (value_parse(word->text, VALUE_NUMBER, &number) || number < row->low || number > row->high)
            return parser_fail(parser, word->place,
                               "bad value \"%.64s\" for \"workers\", expected auto or a number from "
                               "%d to %d",
                               word->text.at, (int)row->low, (int)row->high);
    }
    conf->workers = number;
    return 0;
}

void own_print_workers(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    char text[VALUE_TEXT_MAX];
    fprintf(out, "%*sworkers %s;\n", indent, "",
            conf->workers ? value_print(conf->workers, VALUE_NUMBER, text) : "auto");
}

int own_parse_user(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    int err = own_count_words(parser, statement, 1, 2);
    if (err)
        return err;
    for (unsigned i = 0; i < statement->count; i++) {
        if (statement->words[i].text.len == 0)
            return parser_fail(parser, statement->words[i].place, "empty name for \"user\", expected a %s",
                               i == 0 ? "user" : "group");
    }
    conf->user = statement->words[0].text.at;
    conf->group = statement->count > 1 ? statement->words[1].text.at : NULL;
    return 0;
}

void own_print_user(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    fprintf(out, "%*suser ", indent, "");
    value_print_word(out, conf->user);
    if (conf->group) {
        fputc(' ', out);
        value_print_word(out, conf->group);
    }
    fputs(";\n", out);
}

int own_parse_error_log(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    int err = own_count_words(parser, statement, 1, 2);
    if (err)
        return err;
    enum log_level level = LOG_LEVEL_notice;
    const struct token *words = statement->words;
    if (statement->count > 1 && log_level_parse(words[1].text.at, &level))
        return parser_fail(parser, words[1].place,
                           "unknown level \"%.64s\" for \"error_log\", expected crit, error, warn, "
                           "notice, info or debug",
                           words[1].text.at);
    if (own_word_is(&words[0], "stderr")) {
        conf->error_log = LOG_TARGET_STDERR;
    } else if (own_word_is(&words[0], "syslog")) {
        conf->error_log = LOG_TARGET_SYSLOG;
    } else {
        conf->error_log = LOG_TARGET_FILE;
        conf->error_log_path = parser_path(parser, statement, &words[0]);
        if (!conf->error_log_path)
            return -EINVAL;
    }
    conf->error_level = level;
    return 0;
}

void own_print_error_log(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    fprintf(out, "%*serror_log ", indent, "");
    if (conf->error_log == LOG_TARGET_FILE)
        value_print_word(out, conf->error_log_path);
    else
        fputs(conf->error_log == LOG_TARGET_STDERR ? "stderr" : "syslog", out);
    fprintf(out, " %s;\n", log_level_name(conf->error_level));
}

int own_parse_scripts(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
    for (unsigned i = 0; !err && i < statement->count; i++) {
        struct conf_path *folder = parser_new(parser, sizeof *folder);
        if (!folder)
            return -ENOMEM;
        folder->path = parser_path(parser, statement, &statement->words[i]);
        if (!folder->path)
            return -EINVAL;
        OWN_APPEND(&conf->scripts, folder);
    }
    return err;
}

void own_print_scripts(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    fprintf(out, "%*sscripts", indent, "");
    for (const struct conf_path *folder = conf->scripts; folder; folder = folder->next) {
        fputc(' ', out);
        value_print_word(out, folder->path);
    }
    fputs(";\n", out);
}

int own_parse_shared(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct directive *row = statement->directive;
    const struct token *words = statement->words;
    int err = own_named(parser, statement, 2, 2);
    if (err)
        return err;
    const struct conf_shared *other = OWN_NAMED(conf->shared, &words[0]);
    if (other)
        return own_same_name(parser, &words[0], "shared dictionary", other->place);
    struct conf_shared *shared = parser_new(parser, sizeof *shared);
    if (!shared)
        return -ENOMEM;
    shared->name = words[0].text.at;
    shared->place = statement->place;
    OWN_APPEND(&conf->shared, shared);
    return parser_value(parser, row, &words[1], 0, KIND_SIZE, row->low, row->high, false, &shared->size);
}

void own_print_shared(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    char text[VALUE_TEXT_MAX];
    for (const struct conf_shared *shared = conf->shared; shared; shared = shared->next)
        fprintf(out, "%*sshared %s %s;\n", indent, "", shared->name,
                value_print(shared->size, VALUE_SIZE, text));
}

int own_parse_log_format(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct token *words = statement->words;
    int err = own_named(parser, statement, 2, WORDS_MAX);
    if (err)
        return err;
    if (own_word_is(&words[0], "combined") || own_word_is(&words[0], "json"))
        return parser_fail(parser, words[0].place, "log format \"%s\" is built in, expected another name",
                           words[0].text.at);
    const struct conf_log_format *other = OWN_NAMED(conf->log_formats, &words[0]);
    if (other)
        return own_same_name(parser, &words[0], "log format", other->place);
    struct conf_log_format *format = parser_new(parser, sizeof *format);
    if (!format)
        return -ENOMEM;
    size_t len = 0;
    for (unsigned i = 1; i < statement->count; i++)
        len += words[i].text.len;
    char *text = parser_new(parser, len + 1), *at = text;
    if (!text)
        return -ENOMEM;
    for (unsigned i = 1; i < statement->count; i++)
        at = stpcpy(at, words[i].text.at);
    // The text's own place, so that an unknown variable in it is shown where it is.
    *format = (struct conf_log_format){ .name = words[0].text.at, .text = text, .place = words[1].place };
    OWN_APPEND(&conf->log_formats, format);
    return 0;
}

void own_print_log_format(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    for (const struct conf_log_format *format = conf->log_formats; format; format = format->next) {
        fprintf(out, "%*slog_format %s", indent, "", format->name);
        // One word has a largest length; the joined text may be longer.
        const char *at = format->text;
        do {
            char piece[WORD_MAX_BYTES / 4 + 1];
            size_t len = strnlen(at, sizeof piece - 1);
            while (len > 1 && at[len] != 0 && (((unsigned char)at[len] & 0xc0) == 0x80 || at[len - 1] == '$'))
                len--;
            memcpy(piece, at, len);
            piece[len] = 0;
            at += len;
            fputc(' ', out);
            value_print_word(out, piece);
        } while (*at);
        fputs(";\n", out);
    }
}

int own_parse_access_log(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    const struct token *words = statement->words;
    int err = own_count_words(parser, statement, 1, 2);
    if (err)
        return err;
    if (own_word_is(&words[0], "off")) {
        settings->access_log = NULL;
        return statement->count > 1 ? own_too_many(parser, statement, 1) : 0;
    }
    struct conf_access_log *log = parser_new(parser, sizeof *log);
    if (!log)
        return -ENOMEM;
    *log = (struct conf_access_log){ .style = LOG_STYLE_COMBINED, .place = statement->place };
    log->path = own_word_is(&words[0], "stderr") ? "stderr" : parser_path(parser, statement, &words[0]);
    if (!log->path)
        return -EINVAL;
    settings->access_log = log;
    if (statement->count == 1 || own_word_is(&words[1], "combined"))
        return 0;
    log->style = LOG_STYLE_JSON;
    if (own_word_is(&words[1], "json"))
        return 0;
    log->style = LOG_STYLE_FORMAT;
    return parser_refer(parser, &words[1], NULL, log);
}

void own_print_access_log(FILE *out, int indent, const void *owner) {
    const struct conf_access_log *log = ((const struct conf_settings *)owner)->access_log;
    fprintf(out, "%*saccess_log ", indent, "");
    if (!log) {
        fputs("off;\n", out);
        return;
    }
    const char *style = log->style == LOG_STYLE_JSON ? "json" : "combined";
    value_print_word(out, log->path);
    fprintf(out, " %s;\n", log->style == LOG_STYLE_FORMAT ? log->format->name : style);
}

// Tokens (RFC 9110, 5.6.2); kept as one text, as it stands in an Allow field.
int own_parse_methods(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "!#$%&'*+-.^_`|~";
    const struct token *words = statement->words;
    size_t room = 1;
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
    if (err)
        return err;
    if (statement->count == 1 && own_word_is(&words[0], "any")) {
        settings->methods = NULL;
        return 0;
    }
    for (unsigned i = 0; i < statement->count; i++) {
        size_t len = words[i].text.len;
        if (len == 0 || len > 64 || strspn(words[i].text.at, token) != len)
            return parser_fail(parser, words[i].place, "\"%s\" is no request method, expected one like GET",
                               words[i].text.at);
        if (own_word_is(&words[i], "CONNECT"))
            return parser_fail(parser, words[i].place, "CONNECT is not offered, expected another method");
        room += len + 2;
    }
    char *text = parser_new(parser, room), *to = text;
    if (!text)
        return -ENOMEM;
    for (unsigned i = 0; i < statement->count; i++)
        to += sprintf(to, "%s%s", i ? ", " : "", words[i].text.at);
    settings->methods = text;
    return 0;
}

void own_print_methods(FILE *out, int indent, const void *owner) {
    const char *at = ((const struct conf_settings *)owner)->methods;
    fprintf(out, "%*smethods ", indent, "");
    for (at = at ? at : "any"; *at; at++)
        if (*at != ',')
            fputc(*at, out);
    fputs(";\n", out);
}

int own_parse_via(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    int err = own_named(parser, statement, 1, 1);
    if (err)
        return err;
    settings->via = own_word_is(&statement->words[0], "off") ? NULL : statement->words[0].text.at;
    return 0;
}

void own_print_via(FILE *out, int indent, const void *owner) {
    const char *via = ((const struct conf_settings *)owner)->via;
    fprintf(out, "%*svia %s;\n", indent, "", via ? via : "off");
}
