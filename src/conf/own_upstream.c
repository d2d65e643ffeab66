// SPDX-License-Identifier: BSD-2-Clause
// The upstream block, and the directives in it with a grammar of their own.
#include "conf/own_parts.h"

#include "base/host_name.h"
#include "conf/value.h"

#include <errno.h>
#include <string.h>

static const uint64_t keepalive_idle = 60000;

int own_parse_upstream(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf *conf = block->owners[OWNER_conf];
    const struct token *words = statement->words;
    int err = own_named(parser, statement, 1, 1);
    if (err)
        return err;
    const struct conf_upstream *other = OWN_NAMED(conf->upstreams, &words[0]);
    if (other)
        return own_same_name(parser, &words[0], "upstream", other->place);
    struct conf_upstream *upstream = parser_new(parser, sizeof *upstream);
    statement->child = parser_block(parser, block, DIRECTIVE_ID_upstream, SCOPE_UPSTREAM);
    if (!upstream || !statement->child)
        return -ENOMEM;
    upstream->name = words[0].text.at;
    upstream->place = words[0].place;
    statement->child->owners[OWNER_conf_upstream] = upstream;
    OWN_APPEND(&conf->upstreams, upstream);
    return 0;
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

int own_parse_tls(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    if (statement->count > 0)
        return own_too_many(parser, statement, 0);
    upstream->tls = parser_new(parser, sizeof *upstream->tls);
    // Without a block the defaults are filled in all the same.
    statement->child = parser_block(parser, block, DIRECTIVE_ID_tls, SCOPE_UPSTREAM_TLS);
    if (!upstream->tls || !statement->child)
        return -ENOMEM;
    upstream->tls->place = statement->place;
    statement->child->owners[OWNER_conf_tls] = upstream->tls;
    return 0;
}

void own_print_tls(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    if (!upstream->tls)
        return;
    fprintf(out, "%*stls {\n", indent, "");
    for (int i = 0; i < DIRECTIVE_COUNT; i++)
        if (directives[i].owner == OWNER_conf_tls && (directives[i].scopes & SCOPE_UPSTREAM_TLS))
            directive_print(&directives[i], out, indent + 4, upstream->tls);
    fprintf(out, "%*s}\n", indent, "");
}

// "name.example:80". What is neither that nor an address is refused as one of these.
static bool is_name_and_port(struct slice text, struct conf_server *server) {
    if (!host_name_split(text, &server->host, &server->port))
        return false;
    server->kind = SERVER_NAME;
    return true;
}

// "_http._tcp.name.example service"
static int parse_service(struct parser *parser, struct statement *statement, struct conf_server *server) {
    struct slice text = statement->words[0].text;
    if (!host_name_valid(text))
        return parser_fail(parser, statement->words[0].place,
                           "bad name \"%.64s\" for \"server\", expected one such as _http._tcp.name.example",
                           text.at);
    server->kind = SERVER_SERVICE;
    for (const char *dot; text.at[0] == '_' && (dot = memchr(text.at, '.', text.len));)
        text = slice_from(text, (size_t)(dot + 1 - text.at));
    server->host = text;
    return 0;
}

int own_parse_server(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct directive *row = statement->directive;
    const char *text;
    int err = own_count_words(parser, statement, 1, 3);
    if (err)
        return err;
    struct conf_server *server = parser_new(parser, sizeof *server);
    if (!server)
        return -ENOMEM;
    *server =
        (struct conf_server){ .name = statement->words[0].text.at, .weight = 1, .place = statement->place };
    bool service = statement->count > 1 && own_word_is(&statement->words[1], "service");
    if (service)
        err = parse_service(parser, statement, server);
    else if (!is_name_and_port(statement->words[0].text, server))
        err = own_address(parser, statement, &server->addr, &text);
    for (unsigned i = service ? 2 : 1; i < statement->count && !err; i++) {
        static const struct slice weight = SLICE_LIT("weight=");
        const struct token *word = &statement->words[i];
        if (!service && slice_starts(word->text, weight))
            err = parser_value(parser, row, word, weight.len, KIND_NUMBER, row->low, row->high, false,
                               &server->weight);
        else if (own_word_is(word, "backup"))
            server->backup = true;
        else
            err = own_too_many(parser, statement, i);
    }
    if (err)
        return err;
    OWN_APPEND(&upstream->servers, server);
    upstream->server_count++;
    return 0;
}

void own_print_server(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    char text[VALUE_TEXT_MAX];
    for (const struct conf_server *server = upstream->servers; server; server = server->next) {
        fprintf(out, "%*sserver ", indent, "");
        value_print_word(out, server->name);
        if (server->kind == SERVER_SERVICE)
            fputs(" service", out);
        if (server->weight != 1)
            fprintf(out, " weight=%s", value_print(server->weight, VALUE_NUMBER, text));
        if (server->backup)
            fputs(" backup", out);
        fputs(";\n", out);
    }
}

int own_parse_keepalive(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    const struct directive *row = statement->directive;
    int err = own_count_words(parser, statement, 1, 3);
    if (err)
        return err;
    upstream->keepalive_idle = keepalive_idle;
    upstream->keepalive_warm = 0;
    err = parser_value(parser, row, &statement->words[0], 0, KIND_NUMBER, row->low, row->high, false,
                       &upstream->keepalive);
    for (unsigned i = 1; i < statement->count && !err; i++) {
        static const struct slice idle = SLICE_LIT("idle="), warm = SLICE_LIT("warm=");
        const struct token *word = &statement->words[i];
        if (slice_starts(word->text, idle))
            err = parser_value(parser, row, word, idle.len, KIND_TIME, 1, 86400000, false,
                               &upstream->keepalive_idle);
        else if (slice_starts(word->text, warm))
            err = parser_value(parser, row, word, warm.len, KIND_NUMBER, 0, upstream->keepalive, true,
                               &upstream->keepalive_warm);
        else
            err = own_too_many(parser, statement, i);
    }
    return err;
}

void own_print_keepalive(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    char count[VALUE_TEXT_MAX], idle[VALUE_TEXT_MAX];
    fprintf(out, "%*skeepalive %s idle=%s", indent, "", value_print(upstream->keepalive, VALUE_NUMBER, count),
            value_print(upstream->keepalive_idle, VALUE_TIME, idle));
    if (upstream->keepalive_warm > 0)
        fprintf(out, " warm=%s", value_print(upstream->keepalive_warm, VALUE_NUMBER, count));
    fputs(";\n", out);
}

static const struct {
    const char *word;
    unsigned bit;
} conditions[] = {
    { "connect", RETRY_CONNECT },
    { "stale", RETRY_STALE },
    { "idempotent", RETRY_IDEMPOTENT },
    { "timeout", RETRY_TIMEOUT },
    { "refused", RETRY_REFUSED },
};
enum { CONDITIONS = sizeof conditions / sizeof *conditions };

int own_parse_retry(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    int err = own_count_words(parser, statement, 1, CONDITIONS);
    if (err)
        return err;
    upstream->retry = 0;
    for (unsigned i = 0; i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        unsigned bit = 0;
        for (unsigned c = 0; c < CONDITIONS; c++)
            if (own_word_is(word, conditions[c].word))
                bit = conditions[c].bit;
        if (bit == 0 && !(own_word_is(word, "off") && statement->count == 1))
            return parser_fail(
                parser, word->place,
                "\"%.64s\" is no condition of \"retry\", expected off alone or some of connect, "
                "stale, idempotent, timeout and refused",
                word->text.at);
        upstream->retry |= bit;
    }
    return 0;
}

void own_print_retry(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    fprintf(out, "%*sretry%s", indent, "", upstream->retry ? "" : " off");
    for (unsigned c = 0; c < CONDITIONS; c++)
        if (upstream->retry & conditions[c].bit)
            fprintf(out, " %s", conditions[c].word);
    fputs(";\n", out);
}
