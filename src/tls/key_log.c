// SPDX-License-Identifier: BSD-2-Clause
// The file of key_log.h. Writing may block for a moment: it is for debugging.
#include "tls/key_log.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct key_log {
    int fd;       // -1: not open yet
    bool failed;  // and will not be tried again
    char path[];
};

static int log_index = -1;

struct key_log *key_log_new(const char *path) {
    struct key_log *log = malloc(sizeof *log + strlen(path) + 1);
    if (!log)
        return NULL;
    *log = (struct key_log){ .fd = -1 };
    strcpy(log->path, path);
    return log;
}

void key_log_free(struct key_log *log) {
    if (log && log->fd >= 0)
        close(log->fd);
    free(log);
}

static void on_secret(const SSL *ssl, const char *line) {
    struct key_log *log = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), log_index);
    if (!log || log->failed)
        return;
    if (log->fd < 0)
        log->fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct iovec parts[] = { { (void *)(uintptr_t)line, strlen(line) }, { (void *)(uintptr_t) "\n", 1 } };
    if (log->fd >= 0 && writev(log->fd, parts, 2) >= 0)
        return;
    log->failed = true;
    log_error("cannot write to the key log \"%s\": %s", log->path, strerror(errno));
}

void key_log_use(SSL_CTX *ctx, struct key_log *log) {
    if (!log)
        return;
    if (log_index < 0)
        log_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX_set_ex_data(ctx, log_index, log);
    SSL_CTX_set_keylog_callback(ctx, on_secret);
}
