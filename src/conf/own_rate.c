// SPDX-License-Identifier: BSD-2-Clause
// body_min_rate and send_min_rate: bytes a second, and the time over which they are averaged.
#include "conf/own_parts.h"

#include "conf/value.h"

static const uint64_t rate_grace = 30000;

static int parse_rate(struct parser *parser, struct statement *statement, struct conf_rate *rate) {
    const struct directive *row = statement->directive;
    int err = own_count_words(parser, statement, 1, 2);
    if (err)
        return err;
    rate->grace = rate_grace;
    err = parser_value(parser, row, &statement->words[0], 0, KIND_SIZE, row->low, row->high, true,
                       &rate->bytes);
    return err ? err : own_option(parser, statement, "grace=", KIND_TIME, 1, 3600000, &rate->grace);
}

static void print_rate(FILE *out, int indent, const char *name, const struct conf_rate *rate) {
    char bytes[VALUE_TEXT_MAX], grace[VALUE_TEXT_MAX];
    fprintf(out, "%*s%s %s grace=%s;\n", indent, "", name, value_print(rate->bytes, VALUE_SIZE, bytes),
            value_print(rate->grace, VALUE_TIME, grace));
}

int own_parse_body_min_rate(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    return parse_rate(parser, statement, &settings->body_min_rate);
}

void own_print_body_min_rate(FILE *out, int indent, const void *owner) {
    print_rate(out, indent, "body_min_rate", &((const struct conf_settings *)owner)->body_min_rate);
}

int own_parse_send_min_rate(struct parser *parser, struct block *block, struct statement *statement) {
    struct conf_settings *settings = block->owners[OWNER_conf_settings];
    return parse_rate(parser, statement, &settings->send_min_rate);
}

void own_print_send_min_rate(FILE *out, int indent, const void *owner) {
    print_rate(out, indent, "send_min_rate", &((const struct conf_settings *)owner)->send_min_rate);
}
