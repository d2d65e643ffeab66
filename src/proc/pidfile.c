// SPDX-License-Identifier: BSD-2-Clause
// Takes and gives up the pid file (pidfile.h). Called by master.c; control.c makes its folder with the same
// function.
#include "proc/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int make_folder_of(const char *path, struct error *error) {
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return 0;
    char *folder = strndup(path, (size_t)(slash - path));
    if (!folder)
        return error_set(error, -ENOMEM, "memory is out");
    int code = 0;
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        code = error_set(error, -errno, "cannot make the folder \"%s\": %s", folder, strerror(errno));
    free(folder);
    return code;
}

// Another process may remove the file between open and lock: then the lock is on nothing.
static bool still_there(int fd, const char *path) {
    struct stat ours, named;
    return fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino;
}

int pidfile_take(struct pidfile *pidfile, const char *path, struct error *error) {
    int code = make_folder_of(path, error);
    if (code < 0)
        return code;
    for (int tries = 0; tries < 10; tries++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
            return error_set(error, -errno, "cannot write the pid file \"%s\": %s", path, strerror(errno));
        char text[32];
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            ssize_t n = read(fd, text, sizeof text - 1);
            text[n > 0 ? n : 0] = 0;
            text[strcspn(text, "\n")] = 0;
            close(fd);
            return error_set(error, -EEXIST, "moongate runs already, as process %s (pid file \"%s\")",
                             *text ? text : "?", path);
        }
        if (!still_there(fd, path)) {
            close(fd);
            continue;
        }
        int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
        pidfile->path = strdup(path);
        if (!pidfile->path || ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len) {
            code = error_set(error, errno ? -errno : -EIO, "cannot write the pid file \"%s\": %s", path,
                             strerror(errno));
            free(pidfile->path);
            close(fd);
            return code;
        }
        pidfile->fd = fd;
        return 0;
    }
    return error_set(error, -EBUSY, "cannot lock the pid file \"%s\": others make and remove it", path);
}

void pidfile_release(struct pidfile *pidfile) {
    if (pidfile->fd < 0)
        return;
    unlink(pidfile->path);  // while it is locked
    close(pidfile->fd);
    free(pidfile->path);
    pidfile->fd = -1;
}
