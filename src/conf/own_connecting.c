// SPDX-License-Identifier: BSD-2-Clause
// How connections to the servers of an upstream are made: from, tcp_keepalive, proxy_protocol.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <net/if.h>

// ---- from -------------------------------------------------------------------------------------------------

static bool is_interface(struct slice text) {
    bool good = text.len > 0 && text.len < IF_NAMESIZE && memchr(text.at, '/', text.len) == NULL;
    for (size_t i = 0; i < text.len && good; i++)
        good = text.at[i] > ' ' && text.at[i] != ':';
    // What begins like an address and is none is a slip.
    return good && !(text.at[0] >= '0' && text.at[0] <= '9');
}

int own_parse_from(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_connecting *connecting =
        &((struct conf_upstream *)block->owners[OWNER_conf_upstream])->connecting;
    int err = own_count_words(parser, statement, 1, 3);
    if (err)
        return err;
    for (unsigned i = 0; i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        struct addr addr;
        bool second;
        if (addr_parse_ip(word->text, 0, &addr) == 0) {
            struct addr *to = addr_family(&addr) == AF_INET ? &connecting->from4 : &connecting->from6;
            second = to->len > 0;
            *to = addr;
        } else if (is_interface(word->text)) {
            second = connecting->from_interface != NULL;
            connecting->from_interface = word->text.at;
        } else {
            return parser_fail(parser, word->place,
                               "\"%.64s\" is neither an IP address without a port nor an interface's name",
                               word->text.at);
        }
        if (second)
            return parser_fail(parser, word->place,
                               "\"%.64s\" is one too many, expected an IPv4 address, an IPv6 address and an "
                               "interface at most",
                               word->text.at);
    }
    return 0;
}

void own_print_from(FILE *out, int indent, const void *owner) {
    const struct conf_connecting *connecting = &((const struct conf_upstream *)owner)->connecting;
    const struct addr *addrs[] = { &connecting->from4, &connecting->from6 };
    char ip[ADDR_IP_MAX];
    if (connecting->from4.len == 0 && connecting->from6.len == 0 && !connecting->from_interface)
        return;
    fprintf(out, "%*sfrom", indent, "");
    for (unsigned i = 0; i < 2; i++)
        if (addrs[i]->len > 0) {
            addr_print_ip(addrs[i], ip);
            fprintf(out, " %s", ip);
        }
    if (connecting->from_interface) {
        fputc(' ', out);
        value_print_word(out, connecting->from_interface);
    }
    fputs(";\n", out);
}

// ---- tcp_keepalive ----------------------------------------------------------------------------------------

enum { SECONDS_MAX = 32767, QUESTIONS_MAX = 127 };

int own_parse_tcp_keepalive(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_connecting *connecting =
        &((struct conf_upstream *)block->owners[OWNER_conf_upstream])->connecting;
    const struct {
        const char *option;
        enum directive_kind kind;
        uint64_t low, high, *value;
    } options[] = {
        { "idle=", KIND_TIME, 1000, SECONDS_MAX * 1000ull, &connecting->tcp_keepalive_idle },
        { "interval=", KIND_TIME, 1000, SECONDS_MAX * 1000ull, &connecting->tcp_keepalive_interval },
        { "count=", KIND_NUMBER, 1, QUESTIONS_MAX, &connecting->tcp_keepalive_count },
    };
    int err = own_count_words(parser, statement, 1, 3);
    bool alone = statement->count == 1;
    if (err)
        return err;
    connecting->tcp_keepalive = !(alone && own_word_is(&statement->words[0], "off"));
    if (!connecting->tcp_keepalive || (alone && own_word_is(&statement->words[0], "on")))
        return 0;
    for (unsigned i = 0; i < statement->count && !err; i++) {
        const struct token *word = &statement->words[i];
        unsigned o = 0;
        while (o < 3 && !slice_starts(word->text, slice_of(options[o].option)))
            o++;
        if (o == 3 || *options[o].value > 0)
            return parser_fail(
                parser, word->place,
                "\"%.64s\" does not belong to \"tcp_keepalive\", expected off, on, or idle=, interval= "
                "and count= once each",
                word->text.at);
        err = parser_value(parser, statement->directive, word, strlen(options[o].option), options[o].kind,
                           options[o].low, options[o].high, false, options[o].value);
    }
    return err;
}

void own_print_tcp_keepalive(FILE *out, int indent, const void *owner) {
    const struct conf_connecting *connecting = &((const struct conf_upstream *)owner)->connecting;
    char text[VALUE_TEXT_MAX];
    uint64_t idle = connecting->tcp_keepalive_idle, interval = connecting->tcp_keepalive_interval;
    uint64_t count = connecting->tcp_keepalive_count;
    fprintf(out, "%*stcp_keepalive", indent, "");
    if (idle == 0 && interval == 0 && count == 0)
        fputs(connecting->tcp_keepalive ? " on" : " off", out);
    if (idle > 0)
        fprintf(out, " idle=%s", value_print(idle, VALUE_TIME, text));
    if (interval > 0)
        fprintf(out, " interval=%s", value_print(interval, VALUE_TIME, text));
    if (count > 0)
        fprintf(out, " count=%s", value_print(count, VALUE_NUMBER, text));
    fputs(";\n", out);
}

// ---- proxy_protocol ---------------------------------------------------------------------------------------

static const struct {
    const char *word;
    unsigned bit;
} says[] = {
    { "authority", PROXY_SAYS_AUTHORITY }, { "alpn", PROXY_SAYS_ALPN },         { "tls", PROXY_SAYS_TLS },
    { "unique_id", PROXY_SAYS_UNIQUE_ID }, { "checksum", PROXY_SAYS_CHECKSUM },
};
enum { SAYS = sizeof says / sizeof *says };

static const char *const versions[] = { "off", "v1", "v2" };

int own_parse_proxy_protocol(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_upstream *upstream = block->owners[OWNER_conf_upstream];
    int err = own_count_words(parser, statement, 1, 1 + SAYS);
    if (err)
        return err;
    const struct token *word = &statement->words[0];
    unsigned version = 0;
    while (version <= PROXY_VERSION_2 && !own_word_is(word, versions[version]))
        version++;
    if (version > PROXY_VERSION_2)
        return parser_fail(parser, word->place,
                           "bad version \"%.64s\" for \"proxy_protocol\", expected off, v1 or v2",
                           word->text.at);
    upstream->proxy_protocol = (enum conf_proxy_version)version;
    upstream->proxy_says = 0;
    for (unsigned i = 1; i < statement->count; i++) {
        word = &statement->words[i];
        unsigned s = 0;
        while (s < SAYS && !own_word_is(word, says[s].word))
            s++;
        if (s == SAYS || version != PROXY_VERSION_2 || (upstream->proxy_says & says[s].bit))
            return parser_fail(
                parser, word->place,
                "\"%.64s\" does not belong to \"proxy_protocol\", expected authority, alpn, tls, unique_id "
                "and checksum, once each and behind v2 alone",
                word->text.at);
        upstream->proxy_says |= says[s].bit;
    }
    return 0;
}

void own_print_proxy_protocol(FILE *out, int indent, const void *owner) {
    const struct conf_upstream *upstream = owner;
    fprintf(out, "%*sproxy_protocol %s", indent, "", versions[upstream->proxy_protocol]);
    for (unsigned s = 0; s < SAYS; s++)
        if (upstream->proxy_says & says[s].bit)
            fprintf(out, " %s", says[s].word);
    fputs(";\n", out);
}
