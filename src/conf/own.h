// SPDX-License-Identifier: BSD-2-Clause
// The directives with a grammar of their own (kind OWN): one function that reads, one that prints, for each.
// The table in directive.c takes their addresses; nobody else calls them.
#ifndef MOONGATE_CONF_OWN_H
#define MOONGATE_CONF_OWN_H

#include "conf/parser.h"

#define OWN_DECLARE_FLAG(name)
#define OWN_DECLARE_NUMBER(name)
#define OWN_DECLARE_SIZE(name)
#define OWN_DECLARE_TIME(name)
#define OWN_DECLARE_WORD(name)
#define OWN_DECLARE_PATH(name)
#define OWN_DECLARE_OWN(name) \
    int own_parse_##name(struct parser *parser, struct block *block, struct statement *statement); \
    void own_print_##name(FILE *out, int indent, const void *owner);
#define X(name, scopes, kind, ...) OWN_DECLARE_##kind(name)
DIRECTIVES(X)
#undef X

#endif
