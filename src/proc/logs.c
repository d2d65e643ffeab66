// SPDX-License-Identifier: BSD-2-Clause
// Opens and reopens log files for all processes (logs.h). Writing is base/log.c's and proxy/access_log.c's.
#include "proc/logs.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct log_file {
    struct list link;
    int fd;
    bool fresh;  // opened for a configuration that is not committed
    bool wanted;
    char path[];
};

void logs_init(struct logs *logs) {
    *logs = (struct logs){ 0 };
    list_init(&logs->list);
}

static int open_path(const char *path) {
    int fd = strcmp(path, "stderr") == 0
        ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
        : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    return fd < 0 ? -errno : fd;
}

static struct log_file *file_open(const char *path, struct error *error) {
    struct log_file *file = calloc(1, sizeof *file + strlen(path) + 1);
    if (!file) {
        error_set(error, -ENOMEM, "memory is out");
        return NULL;
    }
    strcpy(file->path, path);
    list_init(&file->link);
    file->fresh = true;
    file->fd = open_path(path);
    if (file->fd < 0) {
        const char *cure = file->fd == -ENOENT ? ": its folder does not exist" : "";
        error_set(error, file->fd, "cannot open the log \"%s\": %s%s", path, strerror(-file->fd), cure);
        free(file);
        return NULL;
    }
    return file;
}

static void file_free(struct log_file *file) {
    if (!file)
        return;
    list_remove(&file->link);
    close(file->fd);
    free(file);
}

void logs_release(struct logs *logs) {
    log_open(STDERR_FILENO, log_threshold);
    list_each(link, &logs->list) file_free(container_of(link, struct log_file, link));
    file_free(logs->error);
    file_free(logs->error_fresh);
    logs->error = logs->error_fresh = NULL;
}

static struct log_file *find(const struct logs *logs, const char *path) {
    list_each(link, &logs->list) {
        struct log_file *file = container_of(link, struct log_file, link);
        if (strcmp(file->path, path) == 0)
            return file;
    }
    return NULL;
}

static int want(struct logs *logs, const struct conf *conf, const struct conf_settings *settings,
                struct error *error) {
    const struct conf_access_log *log = settings->access_log;
    if (!log)
        return 0;
    struct log_file *file = find(logs, log->path);
    if (!file) {
        file = file_open(log->path, error);
        if (!file) {
            struct error why = *error;
            return conf_error(conf, log->place, error, "%s", why.text);
        }
        list_push_back(&logs->list, &file->link);
    }
    file->wanted = true;
    return 0;
}

int logs_prepare(struct logs *logs, const struct conf *conf, struct error *error) {
    list_each(link, &logs->list) container_of(link, struct log_file, link)->wanted = false;
    int code = want(logs, conf, &conf->settings, error);
    for (const struct conf_frontend *frontend = conf->frontends; code == 0 && frontend;
         frontend = frontend->next) {
        code = want(logs, conf, &frontend->settings, error);
        for (const struct conf_route *route = frontend->routes; code == 0 && route; route = route->next)
            code = want(logs, conf, &route->settings, error);
    }
    if (code == 0 && conf->error_log == LOG_TARGET_FILE &&
        !(logs->error && strcmp(logs->error->path, conf->error_log_path) == 0)) {
        logs->error_fresh = file_open(conf->error_log_path, error);
        if (!logs->error_fresh)
            code = error_prefix(error, -EINVAL, "%s", conf->file);
    }
    return code;
}

int logs_error_fd(const struct logs *logs) {
    return logs->error ? logs->error->fd : -1;
}

static void use_error_log(const struct logs *logs) {
    if (logs->error)
        log_open(logs->error->fd, logs->conf->error_level);
    else
        log_open(logs->conf->error_log == LOG_TARGET_SYSLOG ? -1 : STDERR_FILENO, logs->conf->error_level);
}

void logs_commit(struct logs *logs, const struct conf *conf) {
    list_each(link, &logs->list) {
        struct log_file *file = container_of(link, struct log_file, link);
        file->fresh = false;
        if (!file->wanted)
            file_free(file);
    }
    struct log_file *old = NULL;
    if (logs->error_fresh || conf->error_log != LOG_TARGET_FILE) {
        old = logs->error;
        logs->error = logs->error_fresh;
        logs->error_fresh = NULL;
    }
    logs->conf = conf;
    use_error_log(logs);
    file_free(old);
}

void logs_abort(struct logs *logs) {
    list_each(link, &logs->list) {
        struct log_file *file = container_of(link, struct log_file, link);
        if (file->fresh)
            file_free(file);
    }
    file_free(logs->error_fresh);
    logs->error_fresh = NULL;
}

void logs_offer(const struct logs *logs, struct channel *channel, bool fresh_only) {
    list_each(link, &logs->list) {
        const struct log_file *file = container_of(link, struct log_file, link);
        if (file->fresh || !fresh_only)
            (void)channel_send(channel, MESSAGE_ACCESS_LOG, 0, file->path, file->fd);
    }
}

void logs_offer_error(const struct logs *logs, struct channel *channel) {
    uint64_t number = (uint64_t)logs->conf->error_level;
    if (logs->conf->error_log == LOG_TARGET_SYSLOG)
        number |= MESSAGE_SYSLOG;
    (void)channel_send(channel, MESSAGE_ERROR_LOG, number, NULL, logs_error_fd(logs));
}

static int reopen(struct log_file *file, struct error *error, int code) {
    int fd = open_path(file->path);
    if (fd < 0) {
        if (code == 0)
            error_set(error, fd, "cannot open the log \"%s\" again: %s", file->path, strerror(-fd));
        return code ? code : fd;
    }
    close(file->fd);
    file->fd = fd;
    return code;
}

int logs_reopen(struct logs *logs, struct error *error) {
    int code = 0;
    list_each(link, &logs->list) code = reopen(container_of(link, struct log_file, link), error, code);
    if (logs->error)
        code = reopen(logs->error, error, code);
    use_error_log(logs);
    return code;
}
