// SPDX-License-Identifier: BSD-2-Clause
// The file texts that a generation is made of: configuration, included files, scripts. The master reads them
// from the disk (as root, once) and hands all of them to its workers in one memory file, so that every
// worker, also one that is forked a week later, loads the very same generation and needs no right to read the
// files.
#ifndef MOONGATE_CONF_SOURCE_H
#define MOONGATE_CONF_SOURCE_H

#include "base/error.h"
#include "base/slice.h"

struct source;

struct source *source_new_disk(void);
// Maps what source_export() wrote. The descriptor may be closed afterwards.
int source_new_memory(int fd, struct source **ret_source, struct error *error)
    __attribute__((warn_unused_result));
void source_free(struct source *source);

// The text of a file; valid as long as the source. Disk: read and remembered. Memory: -ENOENT when it was not
// gathered.
int source_read(struct source *source, const char *path, struct slice *ret_text, struct error *error)
    __attribute__((warn_unused_result));
// Whether the file exists (is gathered, in a memory source); remembered like a read.
bool source_has(struct source *source, const char *path);
// Sorted paths that match a pattern of glob(7); *ret_paths is a NULL-terminated array owned by the source.
int source_glob(struct source *source, const char *pattern, const char ***ret_paths, struct error *error)
    __attribute__((warn_unused_result));
// Gathers every file below `folder` whose name ends in `suffix` (for require). Bounded in number, depth and
// bytes.
int source_add_tree(struct source *source, const char *folder, const char *suffix, struct error *error)
    __attribute__((warn_unused_result));

// Enters a text that is on no disk, as if it had been read from `path`; copied. -EEXIST when there is one
// already.
int source_put(struct source *source, const char *path, struct slice text)
    __attribute__((warn_unused_result));

// A sealed memfd with everything read so far; the caller closes it. Negative errno.
int source_export(struct source *source, struct error *error) __attribute__((warn_unused_result));

#endif
