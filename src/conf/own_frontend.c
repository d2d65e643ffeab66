// SPDX-License-Identifier: BSD-2-Clause
// The frontend block with its routes, and the directives in it with a grammar of their own. What refers to a
// name that may come later is left to finish.c.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

enum { BACKLOG = 4096 };

int own_parse_frontend(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct token *words = statement->words;
    int err = own_named(parser, statement, 1, 1);
    if (err)
        return err;
    const struct conf_frontend *other = OWN_NAMED(conf->frontends, &words[0]);
    if (other)
        return own_same_name(parser, &words[0], "frontend", other->place);
    struct conf_frontend *frontend = parser_new(parser, sizeof *frontend);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_frontend, SCOPE_FRONTEND);
    if (!frontend || !statement->child)
        return -ENOMEM;
    frontend->name = words[0].text.at;
    frontend->place = words[0].place;
    statement->child->owners[OWNER_conf_frontend] = frontend;
    statement->child->owners[OWNER_conf_settings] = &frontend->settings;
    OWN_APPEND(&conf->frontends, frontend);
    return 0;
}

// Takes the word "tls" off the statement's end, with the block behind it.
static int parse_listen_tls(struct parser *parser, struct block *block, struct statement *statement,
                            struct conf_listen *listen) {
    const struct token *last = &statement->words[statement->count - 1];
    bool tls = statement->count > 1 && own_word_is(last, "tls");
    if (tls && !statement->has_block)
        return parser_fail(parser, last->after, "\"tls\" without its block, expected \"{\"");
    if (!tls && statement->has_block)
        return parser_fail(parser, last->after, "\"listen\" with a block, expected \"tls\" before it");
    if (!tls)
        return 0;
    statement->count--;
    listen->tls = parser_new(parser, sizeof *listen->tls);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_listen, SCOPE_TLS);
    if (!listen->tls || !statement->child)
        return -ENOMEM;
    listen->tls->place = last->place;
    statement->child->owners[OWNER_conf_tls] = listen->tls;
    return 0;
}

int own_parse_listen(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    const struct directive *row = statement->directive;
    int err = own_count_words(parser, statement, 1, 4);
    if (err)
        return err;
    struct conf_listen *listen = parser_new(parser, sizeof *listen);
    if (!listen)
        return -ENOMEM;
    *listen = (struct conf_listen){ .backlog = BACKLOG, .place = statement->place };
    err = parse_listen_tls(parser, block, statement, listen);
    for (unsigned i = 1; !err && i < statement->count && !listen->proxy_protocol; i++) {
        listen->proxy_protocol = own_word_is(&statement->words[i], "proxy_protocol");
        if (listen->proxy_protocol) {
            memmove(&statement->words[i], &statement->words[i + 1],
                    (statement->count - i - 1) * sizeof *statement->words);
            statement->count--;
        }
    }
    if (!err && statement->count > 2)
        err = own_too_many(parser, statement, 2);
    if (!err)
        err = own_address(parser, statement, &listen->addr, &listen->name);
    if (!err)
        err = own_option(parser, statement, "backlog=", KIND_NUMBER, row->low, row->high, &listen->backlog);
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
    OWN_APPEND(&frontend->listens, listen);
    return 0;
}

void own_print_listen(FILE *out, int indent, const void *owner) {
    const struct conf_frontend *frontend = owner;
    char text[VALUE_TEXT_MAX];
    for (const struct conf_listen *listen = frontend->listens; listen; listen = listen->next) {
        fprintf(out, "%*slisten ", indent, "");
        value_print_word(out, listen->name);
        fprintf(out, " backlog=%s", value_print(listen->backlog, VALUE_NUMBER, text));
        if (listen->proxy_protocol)
            fputs(" proxy_protocol", out);
        if (!listen->tls) {
            fputs(";\n", out);
            continue;
        }
        fputs(" tls {\n", out);
        for (int i = 0; i < DIRECTIVE_COUNT; i++) {
            if (directives[i].owner == OWNER_conf_tls && (directives[i].scopes & SCOPE_TLS))
                directive_print(&directives[i], out, indent + 4, listen->tls);
        }
        fprintf(out, "%*s}\n", indent, "");
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
    OWN_APPEND(&script->settings, setting);
    return 0;
}

int own_parse_script(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    const struct token *words = statement->words;
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
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
    OWN_APPEND(&frontend->scripts, script);
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
    int err = own_count_words(parser, statement, 2, 2);
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
