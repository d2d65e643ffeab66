// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the configuration: any bytes as a file, read from a memory source, so that nothing on the
// disk is touched. What is accepted must be printed as a configuration that is accepted too and prints the
// same.
#include "conf/conf.h"
#include "conf/print.h"
#include "conf/source.h"
#include "fuzz.h"

#include <unistd.h>

// A source that has the text as /f/c.conf and a script beside it, and never asks the disk.
static struct source *memory_of(struct slice text, struct error *error) {
    struct source *disk = source_new_disk(), *memory = NULL;
    bool good =
        disk && !source_put(disk, "/f/c.conf", text) && !source_put(disk, "/f/a.lua", SLICE_LIT("return {}"));
    int fd = good ? source_export(disk, error) : -1;
    if (fd >= 0 && source_new_memory(fd, &memory, error))
        memory = NULL;
    if (fd >= 0)
        close(fd);
    source_free(disk);
    return memory;
}

static struct conf *load(struct slice text, struct error *error) {
    struct conf *conf = NULL;
    struct source *source = memory_of(text, error);
    if (!source)
        return NULL;
    if (conf_load("/f/c.conf", source, &conf, error)) {
        // Every message names the place.
        if (strncmp(error->text, "/f/c.conf:", 10) != 0)
            abort();
        conf = NULL;
    }
    source_free(source);
    return conf;
}

static char *printed(const struct conf *conf, size_t *ret_len) {
    char *text;
    FILE *out = open_memstream(&text, ret_len);
    conf_print(conf, out);
    fclose(out);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct error error;
    struct conf *conf = load(slice_make((const char *)bytes, len), &error);
    if (!conf)
        return 0;
    size_t first_len, second_len;
    char *first = printed(conf, &first_len);
    conf_free(conf);
    conf = load(slice_make(first, first_len), &error);
    if (!conf) {
        fprintf(stderr, "%s\n%s\n", first, error.text);
        abort();
    }
    char *second = printed(conf, &second_len);
    conf_free(conf);
    if (first_len != second_len || memcmp(first, second, first_len) != 0)
        abort();
    free(first);
    free(second);
    return 0;
}
