// SPDX-License-Identifier: BSD-2-Clause
// The directives whose arguments are more than one value: each pair own_parse_NAME, own_print_NAME belongs to
// the row NAME of kind OWN in directives.h. What refers to a name that may come later is left to finish.c.
#include "conf/own.h"

#include "conf/value.h"

#include <errno.h>
#include <stdlib.h>

enum { BACKLOG = 4096 };
static const uint64_t keepalive_idle = 60000;

// Appends to a singly linked list at `*(type **)head`.
#define APPEND(head, item)              \
    do {                                \
        __typeof__(head) end_ = (head); \
        while (*end_)                   \
            end_ = &(*end_)->next;      \
        *end_ = (item);                 \
    } while (0)

static int too_many(struct parser *parser, const struct statement *statement, unsigned at) {
    char syntax[128];
    directive_syntax(statement->directive, syntax, sizeof syntax);
    return parser_fail(parser, statement->words[at].place, "unexpected \"%.64s\", expected: %s %s",
                       statement->words[at].text.at, statement->directive->name, syntax);
}

static int count_words(struct parser *parser, const struct statement *statement, unsigned low,
                       unsigned high) {
    char syntax[128];
    if (statement->count > high)
        return too_many(parser, statement, high);
    if (statement->count >= low)
        return 0;
    directive_syntax(statement->directive, syntax, sizeof syntax);
    return parser_fail(parser, statement->place, "\"%s\" with too few arguments, expected: %s %s",
                       statement->directive->name, statement->directive->name, syntax);
}

static bool word_is(const struct token *word, const char *text) {
    return slice_eq(word->text, slice_of(text));
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

static int same_name(struct parser *parser, const struct token *word, const char *what,
                     struct conf_place first) {
    return parser_fail(parser, word->place,
                       "%s \"%s\" exists already, expected another name: it stands at %s:%d:%d", what,
                       word->text.at, first.file, first.line, first.column);
}

// ---- top --------------------------------------------------------------------------------------------------

int own_parse_include(struct parser *parser, struct block *block, struct statement *statement) {
    int err = count_words(parser, statement, 1, 1);
    return err ? err : parser_include(parser, block, statement);
}

void own_print_include(FILE *out, int indent, const void *owner) {
    // The configuration that is printed has the files' text in it.
    (void)out, (void)indent, (void)owner;
}

int own_parse_workers(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    int err = count_words(parser, statement, 1, 1);
    if (err)
        return err;
    const struct token *word = &statement->words[0];
    uint64_t number = 0;
    if (!word_is(word, "auto")) {
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
    int err = count_words(parser, statement, 1, 2);
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
    int err = count_words(parser, statement, 1, 2);
    if (err)
        return err;
    enum log_level level = LOG_LEVEL_notice;
    const struct token *words = statement->words;
    if (statement->count > 1 && log_level_parse(words[1].text.at, &level))
        return parser_fail(parser, words[1].place,
                           "unknown level \"%.64s\" for \"error_log\", expected crit, error, warn, "
                           "notice, info or debug",
                           words[1].text.at);
    if (word_is(&words[0], "stderr")) {
        conf->error_log = LOG_TARGET_STDERR;
    } else if (word_is(&words[0], "syslog")) {
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
    int err = count_words(parser, statement, 1, WORDS_MAX);
    for (unsigned i = 0; !err && i < statement->count; i++) {
        struct conf_path *folder = parser_new(parser, sizeof *folder);
        if (!folder)
            return -ENOMEM;
        folder->path = parser_path(parser, statement, &statement->words[i]);
        if (!folder->path)
            return -EINVAL;
        APPEND(&conf->scripts, folder);
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
    int err = count_words(parser, statement, 2, 2);
    if (!err)
        err = check_name(parser, statement, &words[0]);
    if (err)
        return err;
    for (const struct conf_shared *other = conf->shared; other; other = other->next) {
        if (word_is(&words[0], other->name))
            return same_name(parser, &words[0], "shared dictionary", other->place);
    }
    struct conf_shared *shared = parser_new(parser, sizeof *shared);
    if (!shared)
        return -ENOMEM;
    shared->name = words[0].text.at;
    shared->place = statement->place;
    APPEND(&conf->shared, shared);
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
    int err = count_words(parser, statement, 2, WORDS_MAX);
    if (!err)
        err = check_name(parser, statement, &words[0]);
    if (err)
        return err;
    if (word_is(&words[0], "combined") || word_is(&words[0], "json"))
        return parser_fail(parser, words[0].place, "log format \"%s\" is built in, expected another name",
                           words[0].text.at);
    for (const struct conf_log_format *other = conf->log_formats; other; other = other->next) {
        if (word_is(&words[0], other->name))
            return same_name(parser, &words[0], "log format", other->place);
    }
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
    APPEND(&conf->log_formats, format);
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

// ---- settings ---------------------------------------------------------------------------------------------

int own_parse_access_log(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    const struct token *words = statement->words;
    int err = count_words(parser, statement, 1, 2);
    if (err)
        return err;
    if (word_is(&words[0], "off")) {
        settings->access_log = NULL;
        return statement->count > 1 ? too_many(parser, statement, 1) : 0;
    }
    struct conf_access_log *log = parser_new(parser, sizeof *log);
    if (!log)
        return -ENOMEM;
    *log = (struct conf_access_log){ .style = LOG_STYLE_COMBINED, .place = statement->place };
    log->path = word_is(&words[0], "stderr") ? "stderr" : parser_path(parser, statement, &words[0]);
    if (!log->path)
        return -EINVAL;
    settings->access_log = log;
    if (statement->count == 1 || word_is(&words[1], "combined"))
        return 0;
    log->style = LOG_STYLE_JSON;
    if (word_is(&words[1], "json"))
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

// ---- upstream ---------------------------------------------------------------------------------------------

int own_parse_upstream(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct token *words = statement->words;
    int err = count_words(parser, statement, 1, 1);
    if (!err)
        err = check_name(parser, statement, &words[0]);
    if (err)
        return err;
    for (const struct conf_upstream *other = conf->upstreams; other; other = other->next) {
        if (word_is(&words[0], other->name))
            return same_name(parser, &words[0], "upstream", other->place);
    }
    struct conf_upstream *upstream = parser_new(parser, sizeof *upstream);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_upstream, SCOPE_UPSTREAM);
    if (!upstream || !statement->child)
        return -ENOMEM;
    upstream->name = words[0].text.at;
    upstream->place = words[0].place;
    statement->child->owners[OWNER_conf_upstream] = upstream;
    APPEND(&conf->upstreams, upstream);
    return 0;
}

// The address of a statement's first word, and its canonical text.
static int parse_address(struct parser *parser, const struct statement *statement, struct addr *ret_addr,
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

// The number behind `option` ("weight=") in the statement's second word, when there is one.
static int parse_option(struct parser *parser, const struct statement *statement, const char *option,
                        enum directive_kind kind, uint64_t low, uint64_t high, uint64_t *value) {
    if (statement->count < 2)
        return 0;
    const struct token *word = &statement->words[1];
    if (!slice_starts(word->text, slice_of(option)))
        return too_many(parser, statement, 1);
    return parser_value(parser, statement->directive, word, strlen(option), kind, low, high, false, value);
}

int own_parse_server(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct directive *row = statement->directive;
    const char *text;
    int err = count_words(parser, statement, 1, 2);
    if (err)
        return err;
    struct conf_server *server = parser_new(parser, sizeof *server);
    if (!server)
        return -ENOMEM;
    *server =
        (struct conf_server){ .name = statement->words[0].text.at, .weight = 1, .place = statement->place };
    err = parse_address(parser, statement, &server->addr, &text);
    if (!err)
        err = parse_option(parser, statement, "weight=", KIND_NUMBER, row->low, row->high, &server->weight);
    if (err)
        return err;
    APPEND(&upstream->servers, server);
    upstream->server_count++;
    return 0;
}

void own_print_server(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    char text[VALUE_TEXT_MAX];
    for (const struct conf_server *server = upstream->servers; server; server = server->next) {
        fprintf(out, "%*sserver ", indent, "");
        value_print_word(out, server->name);
        if (server->weight != 1)
            fprintf(out, " weight=%s", value_print(server->weight, VALUE_NUMBER, text));
        fputs(";\n", out);
    }
}

int own_parse_keepalive(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct directive *row = statement->directive;
    int err = count_words(parser, statement, 1, 2);
    if (err)
        return err;
    upstream->keepalive_idle = keepalive_idle;
    err = parser_value(parser, row, &statement->words[0], 0, KIND_NUMBER, row->low, row->high, false,
                       &upstream->keepalive);
    return err ? err
               : parse_option(parser, statement, "idle=", KIND_TIME, 1, 86400000, &upstream->keepalive_idle);
}

void own_print_keepalive(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    char count[VALUE_TEXT_MAX], idle[VALUE_TEXT_MAX];
    fprintf(out, "%*skeepalive %s idle=%s;\n", indent, "",
            value_print(upstream->keepalive, VALUE_NUMBER, count),
            value_print(upstream->keepalive_idle, VALUE_TIME, idle));
}

// ---- frontend ---------------------------------------------------------------------------------------------

int own_parse_frontend(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct token *words = statement->words;
    int err = count_words(parser, statement, 1, 1);
    if (!err)
        err = check_name(parser, statement, &words[0]);
    if (err)
        return err;
    for (const struct conf_frontend *other = conf->frontends; other; other = other->next) {
        if (word_is(&words[0], other->name))
            return same_name(parser, &words[0], "frontend", other->place);
    }
    struct conf_frontend *frontend = parser_new(parser, sizeof *frontend);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_frontend, SCOPE_FRONTEND);
    if (!frontend || !statement->child)
        return -ENOMEM;
    frontend->name = words[0].text.at;
    frontend->place = words[0].place;
    statement->child->owners[OWNER_conf_frontend] = frontend;
    statement->child->owners[OWNER_conf_settings] = &frontend->settings;
    APPEND(&conf->frontends, frontend);
    return 0;
}

int own_parse_listen(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    const struct directive *row = statement->directive;
    int err = count_words(parser, statement, 1, 2);
    if (err)
        return err;
    struct conf_listen *listen = parser_new(parser, sizeof *listen);
    if (!listen)
        return -ENOMEM;
    *listen = (struct conf_listen){ .backlog = BACKLOG, .place = statement->place };
    err = parse_address(parser, statement, &listen->addr, &listen->name);
    if (!err)
        err = parse_option(parser, statement, "backlog=", KIND_NUMBER, row->low, row->high, &listen->backlog);
    if (err)
        return err;
    for (const struct conf_frontend *f = parser->conf->frontends; f; f = f->next) {
        for (const struct conf_listen *other = f->listens; other; other = other->next) {
            if (strcmp(other->name, listen->name) == 0)
                return parser_fail(parser, statement->words[0].place,
                                   "address \"%s\" is listened on already, expected "
                                   "another: it stands at %s:%d:%d in frontend \"%s\"",
                                   listen->name, other->place.file, other->place.line, other->place.column,
                                   f->name);
        }
    }
    APPEND(&frontend->listens, listen);
    return 0;
}

void own_print_listen(FILE *out, int indent, const void *owner) {
    const struct conf_frontend *frontend = owner;
    char text[VALUE_TEXT_MAX];
    for (const struct conf_listen *listen = frontend->listens; listen; listen = listen->next) {
        fprintf(out, "%*slisten ", indent, "");
        value_print_word(out, listen->name);
        fprintf(out, " backlog=%s;\n", value_print(listen->backlog, VALUE_NUMBER, text));
    }
}

static int parse_script_setting(struct parser *parser, struct conf_script *script, const struct token *word) {
    const char *equals = memchr(word->text.at, '=', word->text.len);
    if (!equals || equals == word->text.at)
        return parser_fail(parser, word->place, "bad setting \"%.64s\" for \"script\", expected KEY=VALUE",
                           word->text.at);
    struct conf_script_setting *setting = parser_new(parser, sizeof *setting);
    if (!setting)
        return -ENOMEM;
    setting->key =
        arena_copy(&parser->conf->arena, slice_make(word->text.at, (size_t)(equals - word->text.at))).at;
    setting->value = equals + 1;
    if (!setting->key)
        return parser_no_memory(parser);
    for (const struct conf_script_setting *other = script->settings; other; other = other->next) {
        if (strcmp(other->key, setting->key) == 0)
            return parser_fail(parser, word->place, "repeated setting \"%.64s\", expected each key once",
                               setting->key);
    }
    APPEND(&script->settings, setting);
    return 0;
}

int own_parse_script(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    const struct token *words = statement->words;
    int err = count_words(parser, statement, 1, WORDS_MAX);
    if (err)
        return err;
    if (words[0].text.len == 0)
        return parser_fail(parser, words[0].place, "empty name for \"script\", expected a file");
    struct conf_script *script = parser_new(parser, sizeof *script);
    if (!script)
        return -ENOMEM;
    *script = (struct conf_script){ .name = words[0].text.at, .place = words[0].place };
    for (unsigned i = 1; !err && i < statement->count; i++)
        err = parse_script_setting(parser, script, &words[i]);
    APPEND(&frontend->scripts, script);
    return err;
}

void own_print_script(FILE *out, int indent, const void *owner) {
    const struct conf_frontend *frontend = owner;
    for (const struct conf_script *script = frontend->scripts; script; script = script->next) {
        fprintf(out, "%*sscript ", indent, "");
        value_print_word(out, script->name);
        for (const struct conf_script_setting *setting = script->settings; setting; setting = setting->next) {
            fputc(' ', out);
            value_print_word(out, setting->key);
            fputc('=', out);
            if (*setting->value)
                value_print_word(out, setting->value);
        }
        fputs(";\n", out);
    }
}

int own_parse_route(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    const struct token *words = statement->words;
    int err = count_words(parser, statement, 2, 2);
    if (err)
        return err;
    struct slice prefix = words[0].text;
    bool good = prefix.len > 0 && prefix.at[0] == '/';
    for (size_t i = 0; i < prefix.len && good; i++)
        good = (unsigned char)prefix.at[i] > ' ' && prefix.at[i] != '?' && prefix.at[i] != '#';
    if (!good)
        return parser_fail(parser, words[0].place,
                           "bad prefix \"%.64s\" for \"route\", expected the begin of a path: \"/\" "
                           "first, no space, \"?\" or \"#\"",
                           prefix.at);
    struct conf_route *route = parser_new(parser, sizeof *route);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_route, SCOPE_ROUTE);
    if (!route || !statement->child)
        return -ENOMEM;
    *route = (struct conf_route){ .prefix = prefix.at, .place = statement->place };
    statement->child->owners[OWNER_conf_settings] = &route->settings;
    // Longest first: the first that fits is the right one.
    struct conf_route **at = &frontend->routes;
    for (; *at && strlen((*at)->prefix) >= prefix.len; at = &(*at)->next) {
        if (strcmp((*at)->prefix, prefix.at) == 0)
            return parser_fail(parser, words[0].place,
                               "route \"%.64s\" exists already in this frontend, expected another "
                               "prefix: it stands at %s:%d:%d",
                               prefix.at, (*at)->place.file, (*at)->place.line, (*at)->place.column);
    }
    route->next = *at;
    *at = route;
    return parser_refer(parser, &words[1], route, NULL);
}

// Prints those settings of a block that its parent has otherwise.
static int print_changed(FILE *out, int indent, unsigned scope, const struct conf_settings *settings,
                         const struct conf_settings *parent) {
    int count = 0;
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        const struct directive *row = &directives[i];
        if (row->owner != OWNER_conf_settings || !(row->scopes & scope) ||
            memcmp((const char *)settings + row->offset, (const char *)parent + row->offset, row->size) == 0)
            continue;
        count++;
        if (out)
            directive_print(row, out, indent, settings);
    }
    return count;
}

void own_print_route(FILE *out, int indent, const void *owner) {
    const struct conf_frontend *frontend = owner;
    for (const struct conf_route *route = frontend->routes; route; route = route->next) {
        fprintf(out, "%*sroute ", indent, "");
        value_print_word(out, route->prefix);
        fprintf(out, " %s", route->upstream->name);
        if (print_changed(NULL, 0, SCOPE_ROUTE, &route->settings, &frontend->settings) == 0) {
            fputs(";\n", out);
            continue;
        }
        fputs(" {\n", out);
        print_changed(out, indent + 4, SCOPE_ROUTE, &route->settings, &frontend->settings);
        fprintf(out, "%*s}\n", indent, "");
    }
}

// Blocks are printed by a walk over the table.
void own_print_upstream(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    for (const struct conf_upstream *upstream = conf->upstreams; upstream; upstream = upstream->next) {
        fprintf(out, "\n%*supstream %s {\n", indent, "", upstream->name);
        for (int i = 0; i < DIRECTIVE_COUNT; i++) {
            if (directives[i].owner == OWNER_conf_upstream)
                directive_print(&directives[i], out, indent + 4, upstream);
        }
        fprintf(out, "%*s}\n", indent, "");
    }
}

void own_print_frontend(FILE *out, int indent, const void *owner) {
    const struct conf *conf = owner;
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next) {
        fprintf(out, "\n%*sfrontend %s {\n", indent, "", frontend->name);
        // Settings stand between the scripts and the routes.
        for (int i = 0; i < DIRECTIVE_COUNT; i++) {
            if (i == DIRECTIVE_ID_route)
                print_changed(out, indent + 4, SCOPE_FRONTEND, &frontend->settings, &conf->settings);
            if (directives[i].owner == OWNER_conf_frontend)
                directive_print(&directives[i], out, indent + 4, frontend);
        }
        fprintf(out, "%*s}\n", indent, "");
    }
}
