// SPDX-License-Identifier: BSD-2-Clause
// Loading, freeing and comparing configurations: the functions of conf.h. The grammar is in parser.c, the
// rules between directives in finish.c.
#include "conf/conf.h"

#include "conf/lexer.h"
#include "conf/parser.h"

#include <errno.h>
#include <stdlib.h>

int conf_load(const char *path, struct source *source, struct conf **ret_conf, struct error *error) {
    struct conf *conf = calloc(1, sizeof *conf);
    if (!conf)
        return error_set(error, -ENOMEM, "out of memory");
    arena_init(&conf->arena);
    struct parser parser = { .conf = conf, .source = source, .error = error };
    arena_init(&parser.scratch);
    parser.blocks_end = &parser.blocks;
    parser.references_end = &parser.references;
    int err = parser_read(&parser, path);
    if (!err)
        err = parser_finish(&parser);
    arena_release(&parser.scratch);
    if (err) {
        conf_free(conf);
        return err;
    }
    *ret_conf = conf;
    return 0;
}

void conf_free(struct conf *conf) {
    if (!conf)
        return;
    arena_release(&conf->arena);
    free(conf);
}

uint64_t conf_script_sockets(const struct conf *conf) {
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next)
        if (frontend->scripts)
            return conf->script_sockets;
    return 0;
}

int conf_error(const struct conf *conf, struct conf_place place, struct error *error, const char *format,
               ...) {
    va_list args;
    va_start(args, format);
    if (!place.file) {  // of what stands in no file
        char text[512];
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        return error_set(error, -EINVAL, "%s", text);
    }
    const struct conf_file *file = conf->files;
    while (file && file->name != place.file)
        file = file->next;
    conf_file_error(file, place, error, -EINVAL, format, args);
    va_end(args);
    return -EINVAL;
}

// A row's value as the text that would set it; the caller frees it. NULL when memory is out.
static char *text_of(const struct directive *row, const struct conf *conf) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    directive_print(row, out, 0, conf);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static int compare(const struct directive *row, const struct conf *old, const struct conf *new,
                   struct error *error) {
    char *was = text_of(row, old), *is = text_of(row, new);
    int err = 0;
    if (!was || !is)
        err = error_set(error, -ENOMEM, "out of memory");
    else if (strcmp(was, is) != 0)
        err = error_set(error, -EINVAL,
                        "%s: \"%s\" changes only with a restart or an upgrade, expected as before:\n%s",
                        new->file, row->name, *was ? was : "none");
    free(was);
    free(is);
    if (err == -EINVAL && error->text[strlen(error->text) - 1] == '\n')
        error->text[strlen(error->text) - 1] = 0;
    return err;
}

int conf_check_reloadable(const struct conf *old, const struct conf *new, struct error *error) {
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        if (directives[i].flags & DIRECTIVE_RESTART) {
            int err = compare(&directives[i], old, new, error);
            if (err)
                return err;
        }
    }
    return 0;
}
