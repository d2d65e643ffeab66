// SPDX-License-Identifier: BSD-2-Clause
// The set of texts behind source.h: read from the disk and remembered, or mapped from what another process
// gathered. Both answer from the same table; only a miss differs (the disk is asked, or the file does not
// exist). What a path means (folders, search order) is the parser's affair.
#include "conf/source.h"

#include "base/list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUCKETS = 256,
    FILES_MAX = 16384,      // files and patterns of one source
    FILE_MAX = 64 << 20,    // bytes of one file
    TOTAL_MAX = 512 << 20,  // bytes of all
    TREE_DEPTH_MAX = 8,
    TREE_ENTRIES_MAX = 65536,  // directory entries looked at for one tree
};

enum entry_kind { ENTRY_FILE, ENTRY_GLOB };

// One file or one pattern that was asked for.
struct entry {
    struct entry *next;  // in its bucket
    struct list link;    // in the order of asking
    enum entry_kind kind;
    int err;             // 0, or the negative errno that reading ended with: then there is no text
    struct slice text;   // file: its bytes; glob: the paths, each with a NUL behind it
    char *owned;         // the text's memory when it is on the heap
    const char **paths;  // glob: NULL-terminated, pointing into text; made when asked for
    char path[];         // the key
};

struct source {
    bool disk;
    struct entry *buckets[BUCKETS];
    struct list entries;
    size_t count, bytes;
    void *map;  // memory: what source_new_memory mapped
    size_t map_len;
};

// What stands in the memory file: one head, then the records, each padded to eight bytes.
struct export_head {
    char magic[16];
    uint64_t count, bytes;  // of all records
};
struct export_record {
    uint32_t kind;
    uint32_t path_len;  // path and text follow, each with a NUL that is not counted
    uint64_t text_len;
};
static const char export_magic[16] = "moongate-source";

static size_t padded(size_t len) {
    return (len + 7u) & ~(size_t)7u;
}

static struct entry **bucket_of(struct source *source, const char *path) {
    return &source->buckets[slice_hash(slice_of(path), 0) % BUCKETS];
}

static struct entry *entry_find(struct source *source, enum entry_kind kind, const char *path) {
    for (struct entry *entry = *bucket_of(source, path); entry; entry = entry->next) {
        if (entry->kind == kind && strcmp(entry->path, path) == 0)
            return entry;
    }
    return NULL;
}

static void entry_free(struct entry *entry) {
    free(entry->owned);
    free(entry->paths);
    free(entry);
}

// Takes `owned` (which may be NULL), also when it fails.
static int entry_add(struct source *source, enum entry_kind kind, const char *path, int err,
                     struct slice text, char *owned, struct entry **ret_entry) {
    if (source->count >= FILES_MAX || text.len > TOTAL_MAX - source->bytes) {
        free(owned);
        return source->count >= FILES_MAX ? -EMFILE : -EFBIG;
    }
    size_t len = strlen(path);
    struct entry *entry = malloc(sizeof *entry + len + 1);
    if (!entry) {
        free(owned);
        return -ENOMEM;
    }
    *entry = (struct entry){ .kind = kind, .err = err, .text = text, .owned = owned };
    memcpy(entry->path, path, len + 1);
    struct entry **bucket = bucket_of(source, path);
    entry->next = *bucket;
    *bucket = entry;
    list_push_back(&source->entries, &entry->link);
    source->count++;
    source->bytes += text.len;
    *ret_entry = entry;
    return 0;
}

static struct source *source_new(bool disk) {
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    source->disk = disk;
    list_init(&source->entries);
    return source;
}

struct source *source_new_disk(void) {
    return source_new(true);
}

void source_free(struct source *source) {
    if (!source)
        return;
    list_each(link, &source->entries) entry_free(container_of(link, struct entry, link));
    if (source->map)
        munmap(source->map, source->map_len);
    free(source);
}

// ---- the disk ---------------------------------------------------------------------------------------------

// Reads a regular file whole. A FIFO or a device would block or never end, so they are refused.
static int file_read(const char *path, char **ret_owned, size_t *ret_len) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    struct stat st;
    int err = 0;
    char *text = NULL;
    if (fstat(fd, &st) < 0)
        err = -errno;
    else if (S_ISDIR(st.st_mode))
        err = -EISDIR;
    else if (!S_ISREG(st.st_mode))
        err = -EINVAL;
    else if (st.st_size > FILE_MAX)
        err = -EFBIG;
    size_t room = err ? 0 : (size_t)st.st_size + 1, len = 0;
    while (!err) {
        char *grown = len == room || !text ? realloc(text, room = len == room ? room * 2 : room) : text;
        if (!grown) {
            err = -ENOMEM;
            break;
        }
        text = grown;
        ssize_t n = read(fd, text + len, room - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = -errno;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (len > FILE_MAX)  // it grew while it was read, or says it is empty and is not
            err = -EFBIG;
    }
    close(fd);
    if (err) {
        free(text);
        return err;
    }
    *ret_owned = text;
    *ret_len = len;
    return 0;
}

// The entry of a file, read now when it is new. NULL with a memory source: it was not gathered.
static int file_entry(struct source *source, const char *path, struct entry **ret_entry) {
    *ret_entry = entry_find(source, ENTRY_FILE, path);
    if (*ret_entry || !source->disk)
        return 0;
    char *owned = NULL;
    size_t len = 0;
    int err = file_read(path, &owned, &len);
    if (err == -ENOMEM || err == -EMFILE || err == -ENFILE)
        return err;  // not the file's fault: the next try may go well
    return entry_add(source, ENTRY_FILE, path, err, slice_make(owned, len), owned, ret_entry);
}

static const char *reason(int err) {
    if (err == -EINVAL)
        return "not a regular file";
    if (err == -EFBIG)
        return "too large";
    return strerror(-err);
}

int source_read(struct source *source, const char *path, struct slice *ret_text, struct error *error) {
    struct entry *entry;
    int err = file_entry(source, path, &entry);
    if (!err)
        err = entry ? entry->err : -ENOENT;
    if (err)
        return error_set(error, err, "cannot read \"%s\": %s", path, reason(err));
    *ret_text = entry->text;
    return 0;
}

bool source_has(struct source *source, const char *path) {
    struct entry *entry;
    if (file_entry(source, path, &entry) || !entry)
        return false;
    // A file that exists and cannot be read is there: source_read tells the reason.
    return entry->err != -ENOENT && entry->err != -ENOTDIR && entry->err != -EISDIR;
}

int source_put(struct source *source, const char *path, struct slice text) {
    if (entry_find(source, ENTRY_FILE, path))
        return -EEXIST;
    char *owned = malloc(text.len + 1);
    if (!owned)
        return -ENOMEM;
    if (text.len > 0)
        memcpy(owned, text.at, text.len);
    struct entry *entry;
    return entry_add(source, ENTRY_FILE, path, 0, slice_make(owned, text.len), owned, &entry);
}

// ---- patterns ---------------------------------------------------------------------------------------------

// A folder that does not exist matches nothing; one that may not be read is an error, for files would be
// missed.
static int glob_failed(const char *path, int err) {
    (void)path;
    return err != ENOENT && err != ENOTDIR;
}

static int glob_joined(const char *pattern, char **ret_joined, size_t *ret_len) {
    glob_t found = { 0 };
    int rc = glob(pattern, 0, glob_failed, &found);
    if (rc == GLOB_NOSPACE || rc == GLOB_ABORTED) {
        globfree(&found);
        return rc == GLOB_NOSPACE ? -ENOMEM : -EACCES;
    }
    size_t len = 0;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc; i++)
        len += strlen(found.gl_pathv[i]) + 1;
    char *joined = malloc(len + 1), *at = joined;
    for (size_t i = 0; joined && rc == 0 && i < found.gl_pathc; i++)
        at = stpcpy(at, found.gl_pathv[i]) + 1;
    globfree(&found);
    if (!joined)
        return -ENOMEM;
    *ret_joined = joined;
    *ret_len = len;
    return 0;
}

// Makes the array of an entry's joined paths.
static int glob_split(struct entry *entry) {
    size_t count = 0;
    for (size_t i = 0; i < entry->text.len; i++)
        count += entry->text.at[i] == 0;
    entry->paths = calloc(count + 1, sizeof *entry->paths);
    if (!entry->paths)
        return -ENOMEM;
    const char *at = entry->text.at;
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1)
        entry->paths[i] = at;
    return 0;
}

int source_glob(struct source *source, const char *pattern, const char ***ret_paths, struct error *error) {
    struct entry *entry = entry_find(source, ENTRY_GLOB, pattern);
    int err = 0;
    if (!entry && source->disk) {
        char *joined = NULL;
        size_t len = 0;
        err = glob_joined(pattern, &joined, &len);
        if (!err)
            err = entry_add(source, ENTRY_GLOB, pattern, 0, slice_make(joined, len), joined, &entry);
    } else if (!entry) {
        err = -ENOENT;
    }
    if (!err && !entry->paths)
        err = glob_split(entry);
    if (err)
        return error_set(error, err, "cannot look for \"%s\": %s", pattern, strerror(-err));
    *ret_paths = entry->paths;
    return 0;
}

// ---- trees ------------------------------------------------------------------------------------------------

struct tree_walk {
    struct source *source;
    const char *suffix;
    struct error *error;
    unsigned entries_left;
};

static int tree_folder(struct tree_walk *walk, const char *folder, int depth);

static int tree_one(struct tree_walk *walk, const char *path, const char *name, int depth) {
    struct stat st;
    if (stat(path, &st) < 0)
        return 0;  // a dangling link, or removed just now
    if (S_ISDIR(st.st_mode))
        return tree_folder(walk, path, depth + 1);
    size_t len = strlen(name), suffix_len = strlen(walk->suffix);
    if (!S_ISREG(st.st_mode) || len < suffix_len || strcmp(name + len - suffix_len, walk->suffix) != 0)
        return 0;
    struct entry *entry;
    int err = file_entry(walk->source, path, &entry);
    // One unreadable file is not this configuration's failure until something asks for it.
    return err ? error_set(walk->error, err, "cannot gather \"%s\": %s", path, reason(err)) : 0;
}

static int tree_folder(struct tree_walk *walk, const char *folder, int depth) {
    if (depth > TREE_DEPTH_MAX)
        return error_set(walk->error, -ELOOP, "cannot gather \"%s\": folders nest deeper than %d", folder,
                         TREE_DEPTH_MAX);
    struct dirent **names;
    int count = scandir(folder, &names, NULL, alphasort);
    if (count < 0)
        return errno == ENOMEM
            ? error_set(walk->error, -ENOMEM, "cannot gather \"%s\": out of memory", folder)
            : 0;
    int err = 0;
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (!err && name[0] != '.') {
            char path[PATH_MAX];
            if (walk->entries_left-- == 0)
                err = error_set(walk->error, -E2BIG, "cannot gather \"%s\": more than %d entries", folder,
                                TREE_ENTRIES_MAX);
            else if (snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path)
                err = tree_one(walk, path, name, depth);
        }
        free(names[i]);
    }
    free(names);
    return err;
}

int source_add_tree(struct source *source, const char *folder, const char *suffix, struct error *error) {
    if (!source->disk)
        return 0;
    struct tree_walk walk = {
        .source = source, .suffix = suffix, .error = error, .entries_left = TREE_ENTRIES_MAX
    };
    return tree_folder(&walk, folder, 0);
}

// ---- from one process to another --------------------------------------------------------------------------

static int write_all(int fd, const void *from, size_t len) {
    const char *at = from;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int export_entry(int fd, const struct entry *entry) {
    static const char zeros[8];
    struct export_record record = {
        .kind = entry->kind,
        .path_len = (uint32_t)strlen(entry->path),
        .text_len = entry->text.len,
    };
    size_t body = (size_t)record.path_len + 1 + entry->text.len + 1;
    int err = write_all(fd, &record, sizeof record);
    if (!err)
        err = write_all(fd, entry->path, (size_t)record.path_len + 1);
    if (!err && entry->text.len > 0)
        err = write_all(fd, entry->text.at, entry->text.len);
    if (!err)
        err = write_all(fd, zeros, 1 + padded(body) - body);
    return err;
}

int source_export(struct source *source, struct error *error) {
    int fd = memfd_create("moongate-source", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set(error, -errno, "cannot create a memory file: %s", strerror(errno));
    struct export_head head = { .count = 0, .bytes = 0 };
    memcpy(head.magic, export_magic, sizeof head.magic);
    list_each(counted, &source->entries) {
        const struct entry *entry = container_of(counted, struct entry, link);
        if (entry->err)
            continue;
        head.count++;
        head.bytes += sizeof(struct export_record) + padded(strlen(entry->path) + 1 + entry->text.len + 1);
    }
    int err = write_all(fd, &head, sizeof head);
    list_each(link, &source->entries) {
        const struct entry *entry = container_of(link, struct entry, link);
        if (!err && !entry->err)
            err = export_entry(fd, entry);
    }
    if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        err = -errno;
    if (err) {
        close(fd);
        return error_set(error, err, "cannot fill the memory file: %s", strerror(-err));
    }
    return fd;
}

// Checks one record at `offset` and enters it; moves *offset behind it. -EBADMSG for anything out of bounds.
static int import_record(struct source *source, size_t *offset) {
    const char *base = source->map;
    size_t left = source->map_len - *offset;
    struct export_record record;
    if (left < sizeof record)
        return -EBADMSG;
    memcpy(&record, base + *offset, sizeof record);
    left -= sizeof record;
    if (record.path_len == 0 || record.path_len > left || record.text_len > left)
        return -EBADMSG;
    size_t body = padded((size_t)record.path_len + 1 + record.text_len + 1);
    if (body > left || record.kind > ENTRY_GLOB)
        return -EBADMSG;
    const char *path = base + *offset + sizeof record, *text = path + record.path_len + 1;
    if (strnlen(path, record.path_len + 1) != record.path_len || text[record.text_len] != 0)
        return -EBADMSG;
    if (record.kind == ENTRY_GLOB && record.text_len > 0 && text[record.text_len - 1] != 0)
        return -EBADMSG;
    if (entry_find(source, record.kind, path))
        return -EBADMSG;
    *offset += sizeof record + body;
    struct entry *entry;
    return entry_add(source, record.kind, path, 0, slice_make(text, record.text_len), NULL, &entry);
}

int source_new_memory(int fd, struct source **ret_source, struct error *error) {
    // Without the seals whoever holds the descriptor could change or cut the texts below us.
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE))
        return error_set(error, -EPERM, "the memory file with the configuration is not sealed");
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(error, -errno, "cannot look at the memory file: %s", strerror(errno));
    struct export_head head;
    if (st.st_size < (off_t)sizeof head)
        return error_set(error, -EBADMSG, "the memory file with the configuration is cut short");
    struct source *source = source_new(false);
    if (!source)
        return error_set(error, -ENOMEM, "out of memory");
    source->map_len = (size_t)st.st_size;
    source->map = mmap(NULL, source->map_len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (source->map == MAP_FAILED) {
        int err = -errno;
        source->map = NULL;
        source_free(source);
        return error_set(error, err, "cannot map the memory file: %s", strerror(-err));
    }
    memcpy(&head, source->map, sizeof head);
    size_t offset = sizeof head;
    int err = memcmp(head.magic, export_magic, sizeof head.magic) == 0 &&
            head.bytes == source->map_len - sizeof head
        ? 0
        : -EBADMSG;
    for (uint64_t i = 0; !err && i < head.count; i++)
        err = import_record(source, &offset);
    if (!err && offset != source->map_len)
        err = -EBADMSG;
    if (err) {
        source_free(source);
        return error_set(error, err, "cannot read the memory file with the configuration: %s",
                         strerror(-err));
    }
    *ret_source = source;
    return 0;
}
