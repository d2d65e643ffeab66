// SPDX-License-Identifier: BSD-2-Clause
// The directives route_allow and proxy_protocol_from: a word, or networks. What matches is proxy/allow.c's.
#include "conf/own_parts.h"

#include "base/cidr.h"
#include "conf/value.h"

#include <errno.h>
#include <stdlib.h>

// Words that say it all are one value each, however often they stand: what is inherited is told from what is
// not by that.
static const struct conf_allow allow_any = { .any = true }, allow_public = { .public = true },
                               allow_none = { 0 };

// "10.0.0.0/8", "2001:db8::/32" or an address; checked as sets of networks are.
static int parse_network(struct parser *parser, const struct statement *statement, const struct token *word,
                         struct conf_network *network) {
    struct error inner;
    struct addr addr;
    const char *slash = memchr(word->text.at, '/', word->text.len);
    struct slice ip = slice_make(word->text.at, slash ? (size_t)(slash - word->text.at) : word->text.len);
    struct cidr *checker = cidr_new(1);
    if (!checker)
        return parser_no_memory(parser);
    int err = cidr_add(checker, word->text, 0, &inner);
    cidr_free(checker);
    if (err == 0 && addr_parse_ip(ip, 0, &addr) < 0)
        err = error_set(&inner, -EINVAL, "expected an address or a network");
    if (err)
        return parser_fail(parser, word->place, "bad value \"%.64s\" for \"%s\": %s", word->text.at,
                           statement->directive->name, inner.text);
    addr_key(&addr, network->key);
    bool four = addr_family(&addr) == AF_INET;
    network->bits = slash ? (unsigned)atoi(slash + 1) + (four ? 96 : 0) : 128;
    return 0;
}

static int parse(struct parser *parser, struct statement *statement, const struct conf_allow **ret_allow) {
    const struct token *words = statement->words;
    int err = own_count_words(parser, statement, 1, WORDS_MAX);
    if (err)
        return err;
    bool alone = statement->count == 1;
    *ret_allow = !alone                    ? NULL
        : own_word_is(&words[0], "any")    ? &allow_any
        : own_word_is(&words[0], "public") ? &allow_public
        : own_word_is(&words[0], "none")   ? &allow_none
                                           : NULL;
    if (*ret_allow)
        return 0;
    struct conf_allow *allow = parser_new(parser, sizeof *allow);
    if (!allow)
        return -ENOMEM;
    allow->networks = parser_new(parser, statement->count * sizeof *allow->networks);
    if (!allow->networks)
        return -ENOMEM;
    *ret_allow = allow;
    for (unsigned i = 0; i < statement->count && !err; i++)
        if (own_word_is(&words[i], "public"))
            allow->public = true;
        else if (own_word_is(&words[i], "any") || own_word_is(&words[i], "none"))
            err = parser_fail(parser, words[i].place, "\"%s\" beside others for \"%s\", expected it alone",
                              words[i].text.at, statement->directive->name);
        else
            err = parse_network(parser, statement, &words[i], &allow->networks[allow->count++]);
    return err;
}

int own_parse_route_allow(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    return parse(parser, statement, &settings->route_allow);
}

int own_parse_proxy_protocol_from(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_frontend *frontend = block->owners[OWNER_conf_frontend];
    return parse(parser, statement, &frontend->proxy_protocol_from);
}

static void print(FILE *out, int indent, const char *name, const struct conf_allow *allow) {
    fprintf(out, "%*s%s", indent, "", name);
    if (allow->any)
        fputs(" any", out);
    if (allow->public)
        fputs(" public", out);
    for (unsigned i = 0; i < allow->count; i++) {
        const struct conf_network *network = &allow->networks[i];
        struct addr addr = { .in6 = { .sin6_family = AF_INET6 }, .len = sizeof addr.in6 };
        char ip[ADDR_IP_MAX];
        memcpy(&addr.in6.sin6_addr, network->key, 16);
        addr_print_ip(&addr, ip);  // an IPv4-mapped one as IPv4
        bool four = IN6_IS_ADDR_V4MAPPED(&addr.in6.sin6_addr) && network->bits >= 96;
        fprintf(out, " %s/%u", ip, network->bits - (four ? 96 : 0));
    }
    fputs(allow->any || allow->public || allow->count > 0 ? ";\n" : " none;\n", out);
}

void own_print_route_allow(FILE *out, int indent, const void *owner) {
    print(out, indent, "route_allow", ((const struct conf_settings *)owner)->route_allow);
}

// Where it matters.
void own_print_proxy_protocol_from(FILE *out, int indent, const void *owner) {
    const struct conf_frontend *frontend = owner;
    const struct conf_listen *listen = frontend->listens;
    while (listen && !listen->proxy_protocol)
        listen = listen->next;
    if (listen)
        print(out, indent, "proxy_protocol_from", frontend->proxy_protocol_from);
}
