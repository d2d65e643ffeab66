// SPDX-License-Identifier: BSD-2-Clause
// The pid file: written and locked for as long as the master lives, so that one left behind by a crash is
// told from one in use.
#ifndef MOONGATE_PROC_PIDFILE_H
#define MOONGATE_PROC_PIDFILE_H

#include "base/error.h"

struct pidfile {
    int fd;      // -1: none
    char *path;
};

// Makes the file's folder when it is missing. -EEXIST when a living process holds it.
int pidfile_take(struct pidfile *pidfile, const char *path, struct error *error)
    __attribute__((warn_unused_result));
// Removes it.
void pidfile_release(struct pidfile *pidfile);

// Makes the folder that a path is in, if it is missing.
int make_folder_of(const char *path, struct error *error) __attribute__((warn_unused_result));

#endif
