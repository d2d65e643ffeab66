// SPDX-License-Identifier: BSD-2-Clause
// The directive resolver: addresses of DNS servers, with or without a port.
#include "conf/own_parts.h"

#include "conf/value.h"

#include <errno.h>

enum { SERVERS_MAX = 16, DNS_PORT = 53 };

// c-ares has no place for it.
static bool has_scope(const struct addr *addr) {
    return addr_family(addr) == AF_INET6 && addr->in6.sin6_scope_id != 0;
}

int own_parse_resolver(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_resolver *resolver = &((struct conf *)block->owners[OWNER_conf])->resolver;
    int err = own_count_words(parser, statement, 1, SERVERS_MAX);
    if (err)
        return err;
    resolver->servers = parser_new(parser, statement->count * sizeof *resolver->servers);
    if (!resolver->servers)
        return -ENOMEM;
    for (unsigned i = 0; i < statement->count; i++) {
        const struct token *word = &statement->words[i];
        struct addr *addr = &resolver->servers[i];
        struct error inner;
        if (addr_parse_ip(word->text, DNS_PORT, addr) < 0 &&
            (addr_parse(word->text, addr, &inner) < 0 || addr_family(addr) == AF_UNIX ||
             addr_port(addr) == 0 || word->text.at[0] == '*' || has_scope(addr)))
            return parser_fail(
                parser, word->place,
                "bad address \"%.64s\" for \"resolver\", expected an IP address, perhaps with a port",
                word->text.at);
    }
    resolver->server_count = statement->count;
    return 0;
}

void own_print_resolver(FILE *out, int indent, const void *owner) {
    const struct conf_resolver *resolver = &((const struct conf *)owner)->resolver;
    char text[ADDR_TEXT_MAX];
    if (resolver->server_count == 0)
        return;
    fprintf(out, "%*sresolver", indent, "");
    for (unsigned i = 0; i < resolver->server_count; i++) {
        addr_print(&resolver->servers[i], text);
        fputc(' ', out);
        value_print_word(out, text);
    }
    fputs(";\n", out);
}
