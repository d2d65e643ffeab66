// SPDX-License-Identifier: BSD-2-Clause
// What needs the whole configuration: defaults and inheritance, names that are used before they are defined,
// scripts in their folders, and the rules that hold between directives. Runs once, after the last file was
// read.
#include "conf/parser.h"
#include "conf/value.h"

#include <errno.h>
#include <stdlib.h>

// ---- values that were not given ---------------------------------------------------------------------------

static int fill_block(struct parser *parser, struct block *block) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        const struct directive *row = &directives[i];
        void *owner = block->owners[row->owner];
        if (!owner || block->given[i].file)
            continue;
        int err = 0;
        if (row->owner == OWNER_conf_settings && block->parent)
            memcpy((char *)owner + row->offset,
                   (const char *)block->parent->owners[OWNER_conf_settings] + row->offset, row->size);
        else if (row->initial && (row->scopes & block->scope))
            err = parser_default(parser, block, row);
        if (err)
            return err;
    }
    return 0;
}

static int check_buffers(struct parser *parser, const struct block *block) {
    const struct conf_settings *settings = block->owners[OWNER_conf_settings];
    if (!settings || settings->buffer_low < settings->buffer_high)
        return 0;
    // One of the two was given here: had both been inherited, the parent's check would have failed.
    const struct conf_place *low = &block->given[DIRECTIVE_ID_buffer_low];
    const struct conf_place *high = &block->given[DIRECTIVE_ID_buffer_high];
    char low_text[VALUE_TEXT_MAX], high_text[VALUE_TEXT_MAX];
    return parser_fail(parser, low->file ? *low : *high,
                       "buffer_low is %s here and buffer_high %s, expected buffer_low to "
                       "be below buffer_high",
                       value_print(settings->buffer_low, VALUE_SIZE, low_text),
                       value_print(settings->buffer_high, VALUE_SIZE, high_text));
}

static int check_resolver(struct parser *parser) {
    const struct conf_resolver *resolver = &parser->conf->resolver;
    const struct block *top = parser->blocks;
    if (resolver->min_ttl <= resolver->max_ttl)
        return 0;
    const struct conf_place *low = &top->given[DIRECTIVE_ID_resolver_min_ttl];
    const struct conf_place *high = &top->given[DIRECTIVE_ID_resolver_max_ttl];
    char low_text[VALUE_TEXT_MAX], high_text[VALUE_TEXT_MAX];
    return parser_fail(parser, low->file ? *low : *high,
                       "resolver_min_ttl is %s here and resolver_max_ttl %s, expected the first not to "
                       "be longer",
                       value_print(resolver->min_ttl, VALUE_TIME, low_text),
                       value_print(resolver->max_ttl, VALUE_TIME, high_text));
}

// ---- names ------------------------------------------------------------------------------------------------

static int resolve_upstream(struct parser *parser, const struct reference *reference) {
    for (struct conf_upstream *upstream = parser->conf->upstreams; upstream; upstream = upstream->next) {
        if (strcmp(upstream->name, reference->name) == 0) {
            upstream->used = true;
            reference->route->upstream = upstream;
            return 0;
        }
    }
    return parser_fail(parser, reference->place,
                       "unknown upstream \"%.64s\", expected the name of an upstream block", reference->name);
}

static int resolve_format(struct parser *parser, const struct reference *reference) {
    for (struct conf_log_format *format = parser->conf->log_formats; format; format = format->next) {
        if (strcmp(format->name, reference->name) == 0) {
            reference->access_log->format = format;
            return 0;
        }
    }
    return parser_fail(parser, reference->place,
                       "unknown log format \"%.64s\", expected combined, json or the name of a "
                       "log_format",
                       reference->name);
}

// ---- scripts ----------------------------------------------------------------------------------------------

static int add_ready_made(struct parser *parser) {
    struct conf_path **end = &parser->conf->scripts;
    for (; *end; end = &(*end)->next) {
        if (strcmp((*end)->path, MOONGATE_DATADIR "/lua") == 0)
            return 0;
    }
    struct conf_path *folder = parser_new(parser, sizeof *folder);
    if (!folder)
        return -ENOMEM;
    folder->path = MOONGATE_DATADIR "/lua";
    *end = folder;
    return 0;
}

// Sets script->path, or tells all the places where it is not.
static int find_script(struct parser *parser, struct conf_script *script) {
    struct arena *arena = &parser->conf->arena;
    if (script->name[0] == '/') {
        script->path = script->name;
        if (source_has(parser->source, script->path))
            return 0;
        return parser_fail(parser, script->place, "no script \"%s\", expected a file", script->name);
    }
    char looked[768] = "";
    for (const struct conf_path *folder = parser->conf->scripts; folder; folder = folder->next) {
        const char *path = arena_printf(arena, "%s/%s", folder->path, script->name);
        if (!path)
            return parser_no_memory(parser);
        if (source_has(parser->source, path)) {
            script->path = path;
            return 0;
        }
        size_t len = strlen(looked);
        snprintf(looked + len, sizeof looked - len, "%s%s", len ? ", " : "", folder->path);
    }
    return parser_fail(parser, script->place,
                       "no script \"%.64s\", expected a file in one of the folders of \"scripts\": %s",
                       script->name, looked);
}

// A setting that names a file (`denied=denied.txt`) is likely to be read by the script when it loads: the
// file is gathered too, so that a worker forked later loads what was committed. Whether it is a file at all
// is the script's affair.
static void gather_settings(struct parser *parser, const struct conf_script *script) {
    const char *file = parser->conf->file, *slash = strrchr(file, '/');
    for (const struct conf_script_setting *setting = script->settings; setting; setting = setting->next) {
        const char *path = setting->value;
        if (path[0] != '/')
            path = arena_printf(&parser->conf->arena, "%.*s/%s", (int)(slash - file), file, path);
        if (path)
            (void)source_has(parser->source, path);
    }
}

static int read_script(struct parser *parser, struct conf_script *script) {
    int err = find_script(parser, script);
    if (err)
        return err;
    struct error inner;
    struct slice text;
    if (source_read(parser->source, script->path, &text, &inner))
        return parser_fail(parser, script->place, "%s", inner.text);
    script->text = arena_copy(&parser->conf->arena, text);
    gather_settings(parser, script);
    return script->text.at ? 0 : parser_no_memory(parser);
}

// For require: what a script may name later must be among the texts now.
static int gather_folders(struct parser *parser) {
    const struct conf_place *given = &parser->blocks->given[DIRECTIVE_ID_scripts];
    for (const struct conf_path *folder = parser->conf->scripts; folder; folder = folder->next) {
        struct error inner;
        int err = source_add_tree(parser->source, folder->path, ".lua", &inner);
        if (err && given->file)
            return parser_fail(parser, *given, "%s", inner.text);
        if (err)
            return error_set(parser->error, err, "%s", inner.text);
    }
    return 0;
}

// ---- certificates ------------------------------------------------------------------------------------------

static int read_pem(struct parser *parser, const char *path, struct conf_place place,
                    struct slice *ret_text) {
    struct error inner;
    struct slice text;
    if (source_read(parser->source, path, &text, &inner))
        return parser_fail(parser, place, "%s", inner.text);
    *ret_text = arena_copy(&parser->conf->arena, text);
    return ret_text->at ? 0 : parser_no_memory(parser);
}

static int read_certificates(struct parser *parser, const struct conf_tls *tls) {
    for (struct conf_certificate *c = tls->certificates; c; c = c->next) {
        int err = read_pem(parser, c->path, c->place, &c->text);
        if (!err && c->key_path)
            err = read_pem(parser, c->key_path, c->key_place, &c->key);
        if (!err && c->staple_path)
            err = read_pem(parser, c->staple_path, c->staple_place, &c->staple);
        if (err)
            return err;
        if (!c->key_path)
            c->key = c->text;
    }
    return 0;
}

static int read_files(struct parser *parser, struct conf_file_text *file) {
    int err = 0;
    for (; file && !err; file = file->next)
        err = read_pem(parser, file->path, file->place, &file->text);
    return err;
}

static int check_ticket_keys(struct parser *parser, const struct conf_tls *tls) {
    for (const struct conf_file_text *file = tls->ticket_keys; file; file = file->next)
        if (file->text.len != 80)
            return parser_fail(parser, file->place, "\"%s\" has %zu bytes, expected 80 random ones", file->path,
                               file->text.len);
    return 0;
}

static const char *const system_files[] = {
    "/etc/ssl/certs/ca-certificates.crt",  // Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",    // Fedora
    "/etc/ssl/ca-bundle.pem",              // openSUSE
    "/etc/ssl/cert.pem",
};

// A worker finds the same: what its master gathered.
static int read_system_ca(struct parser *parser, struct conf_place place, struct slice *ret_text) {
    const char *path = getenv("SSL_CERT_FILE");
    for (size_t i = 0; !path && i < sizeof system_files / sizeof *system_files; i++)
        if (source_has(parser->source, system_files[i]))
            path = system_files[i];
    if (!path)
        return parser_fail(parser, place, "the system has no file of authorities, expected a file");
    return read_pem(parser, path, place, ret_text);
}

static int read_authorities(struct parser *parser, const char *path, struct conf_place place,
                            struct slice *ret_text) {
    return path ? read_pem(parser, path, place, ret_text) : read_system_ca(parser, place, ret_text);
}

static int finish_upstream_tls(struct parser *parser, const struct conf_upstream *upstream) {
    struct conf_tls *tls = upstream->tls;
    int err = read_certificates(parser, tls);
    if (!err && tls->certificates && tls->certificates->next)
        return parser_fail(parser, tls->certificates->next->place,
                           "a second certificate for an upstream, expected one");
    for (const struct conf_server *server = upstream->servers; server && !err; server = server->next)
        if (tls->verify && !tls->name && strncmp(server->name, "unix:", 5) == 0)
            return parser_fail(parser, server->place,
                               "server \"%s\" has no name that a certificate could have, expected \"name\" "
                               "in \"tls\"",
                               server->name);
    if (!err && tls->verify)
        err = read_authorities(parser, tls->ca, tls->ca_place, &tls->ca_text);
    if (!err && tls->crl)
        err = read_pem(parser, tls->crl, tls->crl_place, &tls->crl_text);
    return err;
}

// For what scripts fetch. That there are no authorities is told when one of them is wanted.
static int finish_fetch(struct parser *parser, bool any_script) {
    struct conf *conf = parser->conf;
    struct conf_tls *tls = &conf->of_address_tls;
    struct block block = { .scope = SCOPE_UPSTREAM_TLS, .owners = { [OWNER_conf_tls] = tls } };
    int err = fill_block(parser, &block);
    if (err || !any_script)
        return err;
    tls->ca = conf->fetch_ca;
    tls->ca_place = conf->fetch_ca_place;
    if (conf->fetch_ca)
        return read_pem(parser, tls->ca, tls->ca_place, &tls->ca_text);
    err = read_system_ca(parser, tls->ca_place, &tls->ca_text);
    if (err == -ENOMEM)
        return err;
    return 0;
}

static int finish_listen(struct parser *parser, const struct conf_listen *listen) {
    if (!listen->tls)
        return 0;
    if (!listen->tls->certificates)
        return parser_fail(parser, listen->tls->place,
                           "\"tls\" has no certificate, expected: certificate FILE; key FILE;");
    int err = read_certificates(parser, listen->tls);
    if (!err)
        err = read_files(parser, listen->tls->ticket_keys);
    if (!err)
        err = read_files(parser, listen->tls->client_ca);
    if (!err)
        err = read_files(parser, listen->tls->client_crl);
    if (!err && (listen->tls->verify_client != VERIFY_CLIENT_OFF) != (listen->tls->client_ca != NULL))
        err = parser_fail(parser, listen->tls->client_ca ? listen->tls->client_ca->place : listen->tls->place,
                          listen->tls->client_ca ? "\"client_ca\" without verify_client"
                                                 : "\"verify_client\" without client_ca, expected some file");
    return err ? err : check_ticket_keys(parser, listen->tls);
}

// ---- what a block must have -------------------------------------------------------------------------------

static int check_frontend(struct parser *parser, const struct conf_frontend *frontend) {
    if (!frontend->listens)
        return parser_fail(parser, frontend->place, "frontend \"%s\" has no listen, expected at least one",
                           frontend->name);
    if (!frontend->routes && !frontend->scripts)
        return parser_fail(parser, frontend->place,
                           "frontend \"%s\" has no route and no script, expected at least one of "
                           "them",
                           frontend->name);
    return 0;
}

// Whether what is checked is what requests would use.
static int check_health(struct parser *parser, const struct conf_upstream *upstream) {
    const struct conf_health *health = upstream->health;
    bool tls = upstream->tls != NULL;
    if (health && health->kind == HEALTH_TLS && !tls)
        return parser_fail(parser, health->place, "\"health tls\" in an upstream without tls");
    if (health && health->kind == HEALTH_H2 && upstream->protocol != PROTOCOL_H2 &&
        !(tls && upstream->protocol == PROTOCOL_AUTO))
        return parser_fail(parser, health->place,
                           "\"health h2\" in an upstream that does not speak HTTP/2, expected \"protocol h2\"");
    return 0;
}

static int check_upstream(struct parser *parser, const struct conf_upstream *upstream, bool any_script) {
    if (!upstream->servers)
        return parser_fail(parser, upstream->place, "upstream \"%s\" has no server, expected at least one",
                           upstream->name);
    // A route hook may name any upstream at run time.
    if (!upstream->used && !any_script)
        return parser_fail(parser, upstream->place,
                           "upstream \"%s\" is not used, expected a route to it (or a script)",
                           upstream->name);
    int err = check_health(parser, upstream);
    return !err && upstream->tls ? finish_upstream_tls(parser, upstream) : err;
}

int parser_finish(struct parser *parser) {
    struct conf *conf = parser->conf;
    int err = 0;
    for (struct block *block = parser->blocks; block && !err; block = block->next) {
        err = fill_block(parser, block);
        if (!err)
            err = check_buffers(parser, block);
    }
    if (!err)
        err = check_resolver(parser);
    struct block of_address = { .scope = SCOPE_UPSTREAM,
                                .owners = { [OWNER_conf_upstream] = &conf->of_address } };
    if (!err)
        err = fill_block(parser, &of_address);
    for (const struct reference *reference = parser->references; reference && !err;
         reference = reference->next)
        err = reference->route ? resolve_upstream(parser, reference) : resolve_format(parser, reference);
    bool any_script = false;
    for (const struct conf_frontend *frontend = conf->frontends; frontend && !err;
         frontend = frontend->next) {
        err = check_frontend(parser, frontend);
        any_script = any_script || frontend->scripts;
        for (const struct conf_listen *listen = frontend->listens; listen && !err; listen = listen->next)
            err = finish_listen(parser, listen);
    }
    for (const struct conf_upstream *upstream = conf->upstreams; upstream && !err; upstream = upstream->next)
        err = check_upstream(parser, upstream, any_script);
    if (!err && !conf->frontends)
        err =
            parser_fail(parser, parser->begin, "no frontend, expected at least one: nothing would be served");
    if (!err)
        err = finish_fetch(parser, any_script);
    if (!err)
        err = add_ready_made(parser);
    for (struct conf_frontend *frontend = conf->frontends; frontend && !err; frontend = frontend->next) {
        for (struct conf_script *script = frontend->scripts; script && !err; script = script->next)
            err = read_script(parser, script);
    }
    return err ? err : gather_folders(parser);
}
