// SPDX-License-Identifier: BSD-2-Clause
// Makes the memory of shared dictionaries (dicts.h). What is in it is base/dict.c's.
#include "proc/dicts.h"

#include "base/dict.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// One that a later configuration does not name stays: it would come back with its contents.
struct dict_file {
    struct list link;
    int fd;
    bool fresh;
    uint64_t size;
    char name[];
};

void dicts_init(struct dicts *dicts) {
    list_init(&dicts->list);
}

static void file_free(struct dict_file *file) {
    list_remove(&file->link);
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

void dicts_release(struct dicts *dicts) {
    list_each(link, &dicts->list) file_free(container_of(link, struct dict_file, link));
}

static int make_file(struct dict_file *file, struct error *error) {
    char label[64];
    snprintf(label, sizeof label, "moongate:%s", file->name);
    file->fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file->fd < 0 || ftruncate(file->fd, (off_t)file->size) < 0)
        return error_set(error, -errno, "cannot get %llu bytes of memory: %s", (unsigned long long)file->size,
                         strerror(errno));
    void *memory = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
    if (memory == MAP_FAILED)
        return error_set(error, -errno, "cannot map %llu bytes of memory: %s", (unsigned long long)file->size,
                         strerror(errno));
    int code = dict_format(memory, file->size, error);
    munmap(memory, file->size);
    return code;
}

static int prepare(struct dicts *dicts, const struct conf_shared *shared, struct error *error) {
    list_each(link, &dicts->list) {
        const struct dict_file *file = container_of(link, struct dict_file, link);
        if (strcmp(file->name, shared->name) != 0)
            continue;
        if (file->size == shared->size)
            return 0;
        return error_set(error, -EINVAL,
                         "the dictionary \"%s\" has %llu bytes; its size changes only with a restart",
                         file->name, (unsigned long long)file->size);
    }
    struct dict_file *file = calloc(1, sizeof *file + strlen(shared->name) + 1);
    if (!file)
        return error_set(error, -ENOMEM, "memory is out");
    strcpy(file->name, shared->name);
    file->size = shared->size;
    file->fresh = true;
    file->fd = -1;
    list_push_back(&dicts->list, &file->link);
    return make_file(file, error);
}

int dicts_prepare(struct dicts *dicts, const struct conf *conf, struct error *error) {
    for (const struct conf_shared *shared = conf->shared; shared; shared = shared->next) {
        int code = prepare(dicts, shared, error);
        if (code < 0) {
            struct error why = *error;
            return conf_error(conf, shared->place, error, "%s", why.text), code;
        }
    }
    return 0;
}

void dicts_commit(struct dicts *dicts) {
    list_each(link, &dicts->list) container_of(link, struct dict_file, link)->fresh = false;
}

void dicts_abort(struct dicts *dicts) {
    list_each(link, &dicts->list) {
        struct dict_file *file = container_of(link, struct dict_file, link);
        if (file->fresh)
            file_free(file);
    }
}

void dicts_offer(const struct dicts *dicts, struct channel *channel, bool fresh_only) {
    list_each(link, &dicts->list) {
        const struct dict_file *file = container_of(link, struct dict_file, link);
        if (file->fresh || !fresh_only)
            (void)channel_send(channel, MESSAGE_DICT, file->size, file->name, file->fd);
    }
}
