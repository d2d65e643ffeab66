// SPDX-License-Identifier: BSD-2-Clause
// Walks over the table for print.h. How one value is printed is said by its kind (directive.c) or by own_*.c.
#include "conf/print.h"

#include "conf/directive.h"

#include <string.h>

enum { WIDTH = 100 };

void conf_print(const struct conf *conf, FILE *out) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        if (directives[i].owner == OWNER_conf)
            directive_print(&directives[i], out, 0, conf);
        else if (directives[i].owner == OWNER_conf_settings)
            directive_print(&directives[i], out, 0, &conf->settings);
    }
}

// ---- --defaults -------------------------------------------------------------------------------------------

// A comment of many words, broken into lines.
static void print_comment(FILE *out, int indent, const char *first, const char *text) {
    int column = fprintf(out, "%*s# %s", indent, "", first);
    for (const char *at = text; *at;) {
        size_t len = strcspn(at, " ");
        if (column + (int)len + 1 > WIDTH)
            column = fprintf(out, "\n%*s# %*s", indent, "", (int)strlen(first), "") - 1;
        if (at > text && column > indent + 2 + (int)strlen(first))
            column += fprintf(out, " ");
        column += fprintf(out, "%.*s", (int)len, at);
        at += len + (at[len] == ' ');
    }
    fputc('\n', out);
}

static void print_documentation(FILE *out, int indent, const struct directive *row) {
    char syntax[192], expected[192];
    directive_syntax(row, syntax, sizeof syntax);
    directive_expected(row, expected, sizeof expected);
    fputc('\n', out);
    print_comment(out, indent, "", row->doc);
    for (const struct directive_word *w = row->words; w && w->word; w++) {
        char first[64];
        snprintf(first, sizeof first, "  %s: ", w->word);
        print_comment(out, indent, first, w->doc);
    }
    bool bounded = row->kind == KIND_NUMBER || row->kind == KIND_SIZE || row->kind == KIND_TIME;
    fprintf(out, "%*s#     %s %s%s", indent, "", row->name, syntax,
            row->flags & (DIRECTIVE_BLOCK | DIRECTIVE_MAYBE_BLOCK) ? "" : ";");
    if (row->flags & DIRECTIVE_BLOCK)
        fputs(" { ... }", out);
    if (bounded)
        fprintf(out, "  %s", expected);
    fputs(row->flags & DIRECTIVE_RESTART ? "  (changed by a restart or an upgrade only)\n" : "\n", out);
}

static void print_default(FILE *out, int indent, const struct directive *row, bool comment) {
    const char *value = row->initial ? row->initial : row->example;
    if (value)
        fprintf(out, "%*s%s%s %s;\n", indent, "", comment ? "#" : "", row->name, value);
}

static void print_settings(FILE *out, int indent, unsigned scope, bool comment) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        if (directives[i].owner == OWNER_conf_settings && (directives[i].scopes & scope))
            print_default(out, indent, &directives[i], comment);
    }
}

// The rows of one owner with their documentation. Without an example of its own a block is not valid, so what
// a block needs stands there as a directive; other examples are comments.
static void print_rows(FILE *out, int indent, enum directive_owner owner) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        const struct directive *row = &directives[i];
        if (row->owner != owner || (row->flags & DIRECTIVE_BLOCK) || i == DIRECTIVE_ID_tls)
            continue;
        bool needed = i == DIRECTIVE_ID_server || i == DIRECTIVE_ID_listen || i == DIRECTIVE_ID_route;
        print_documentation(out, indent, row);
        print_default(out, indent, row, !row->initial && !needed);
    }
}

static void print_tls(FILE *out, unsigned scope) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        if (directives[i].owner == OWNER_conf_tls && (directives[i].scopes & scope)) {
            print_documentation(out, 8, &directives[i]);
            print_default(out, 8, &directives[i], true);
        }
    }
}

void conf_print_defaults(FILE *out) {
    fputs("# Every directive of moongate with its default. What stands as a comment has no default but an "
          "example.\n"
          "# Times are in ms, s, m, h or d (a bare number: seconds), sizes in k, m or g (a bare number: "
          "bytes).\n",
          out);
    print_rows(out, 0, OWNER_conf);
    fputs("\n# ---- settings: inherited by every frontend, and from there by its routes\n", out);
    print_rows(out, 0, OWNER_conf_settings);

    fputs("\n# ---- an upstream\n", out);
    const struct directive *upstream = &directives[DIRECTIVE_ID_upstream];
    print_documentation(out, 0, upstream);
    fprintf(out, "upstream %s {", upstream->example);
    print_rows(out, 4, OWNER_conf_upstream);
    print_documentation(out, 4, &directives[DIRECTIVE_ID_tls]);
    fputs("    # What has a default is shown with it.\n    #tls {\n", out);
    print_tls(out, SCOPE_UPSTREAM_TLS);
    fputs("    #}\n}\n", out);

    fputs("\n# ---- a frontend\n", out);
    const struct directive *frontend = &directives[DIRECTIVE_ID_frontend];
    print_documentation(out, 0, frontend);
    fprintf(out, "frontend %s {\n    # Settings may stand here too, for this frontend alone:\n",
            frontend->example);
    print_settings(out, 4, SCOPE_FRONTEND, true);
    print_rows(out, 4, OWNER_conf_frontend);
    fprintf(out, "    route /example/ %s {\n        # The settings of a single route:\n", upstream->example);
    print_settings(out, 8, SCOPE_ROUTE, false);
    fputs("    }\n\n    # An encrypted way in. What has a default is shown with it.\n"
          "    #listen 127.0.0.1:8443 tls {\n", out);
    print_tls(out, SCOPE_TLS);
    fputs("    #}\n}\n", out);
}

// ---- moongate.conf(5) -------------------------------------------------------------------------------------

// Text between macros: one sentence a line, nothing at a line's begin that roff would take for a request.
static void print_roff(FILE *out, const char *text) {
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (const char *at = text; *at; at++) {
        if (*at == '\\')
            fputs("\\e", out);
        else if ((*at == '.' || *at == '?') && at[1] == ' ' &&
                 ((at[2] >= 'A' && at[2] <= 'Z') || (at[2] >= '0' && at[2] <= '9')))
            fprintf(out, "%c\n", *at++);
        else
            fputc(*at, out);
    }
    fputc('\n', out);
}

static void print_man_item(FILE *out, const struct directive *row) {
    char text[192];
    directive_syntax(row, text, sizeof text);
    fprintf(out, ".It Ic %s Ar %s%s\n", row->name, text, row->flags & DIRECTIVE_BLOCK ? " { ... }" : "");
    print_roff(out, row->doc);
    if (row->words) {
        fputs(".Bl -tag -width Ds -compact\n", out);
        for (const struct directive_word *w = row->words; w->word; w++) {
            fprintf(out, ".It Cm %s\n", w->word);
            print_roff(out, w->doc);
        }
        fputs(".El\n", out);
    }
    if (row->kind == KIND_NUMBER || row->kind == KIND_SIZE || row->kind == KIND_TIME) {
        directive_expected(row, text, sizeof text);
        fprintf(out, "Takes %s.\n", text);
    }
    if (row->initial) {
        // Quotes are mdoc's too.
        fputs("Default: \\(lq", out);
        for (const char *at = row->initial; *at; at++) {
            if (*at != '"')
                fputc(*at, out);
        }
        fputs("\\(rq.\n", out);
    }
    if (row->flags & DIRECTIVE_MANY)
        fputs("May be repeated.\n", out);
    if (row->owner == OWNER_conf_settings)
        fprintf(out, "Stands at the top level, in frontends%s.\n",
                row->scopes & SCOPE_ROUTE ? " and in routes" : "");
    if (row->owner == OWNER_conf_tls && row->scopes == SCOPE_UPSTREAM_TLS)
        fputs("Of an upstream only.\n", out);
    if (row->owner == OWNER_conf_tls && row->scopes == SCOPE_TLS)
        fputs("Of a listen only.\n", out);
    if (row->flags & DIRECTIVE_RESTART)
        fputs("Changed by a restart or an upgrade only.\n", out);
}

void conf_print_man(FILE *out) {
    static const struct {
        enum directive_owner owner;
        const char *title;
    } groups[] = {
        { OWNER_conf, "Top level" },
        { OWNER_conf_settings, "Settings: top level, frontend, route" },
        { OWNER_conf_upstream, "In an upstream" },
        { OWNER_conf_frontend, "In a frontend" },
        { OWNER_conf_tls, "In the tls block of a listen or an upstream" },
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        fprintf(out, ".Ss %s\n.Bl -tag -width Ds\n", groups[g].title);
        for (int i = 0; i < DIRECTIVE_COUNT; i++) {
            if (directives[i].owner == groups[g].owner)
                print_man_item(out, &directives[i]);
        }
        fputs(".El\n", out);
    }
}
