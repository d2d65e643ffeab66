// SPDX-License-Identifier: BSD-2-Clause
// Sources: reading from the disk, remembering, gathering trees, and the way through a memory file.
#include "conf/source.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static struct error error;

static const char *at(const char *name) {
    static char paths[8][160];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text) {
    FILE *out = fopen(at(name), "w");
    cr_assert(out);
    fputs(text, out);
    fclose(out);
}

static void make_folder(void) {
    strcpy(folder, "/tmp/moongate-test-XXXXXX");
    cr_assert(mkdtemp(folder));
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(source, .init = make_folder, .fini = remove_folder);

static void expect_text(struct source *source, const char *name, const char *expected) {
    struct slice text;
    cr_assert(source_read(source, at(name), &text, &error) == 0, "%s", error.text);
    cr_assert(slice_eq(text, slice_of(expected)), "%s: \"%.*s\"", name, SLICE_ARG(text));
}

static struct source *through_memory(struct source *source) {
    int fd = source_export(source, &error);
    cr_assert(fd >= 0, "%s", error.text);
    struct source *memory;
    cr_assert(source_new_memory(fd, &memory, &error) == 0, "%s", error.text);
    close(fd);
    return memory;
}

Test(source, a_file_is_read_once) {
    put("a", "one");
    put("empty", "");
    struct source *source = source_new_disk();
    expect_text(source, "a", "one");
    expect_text(source, "empty", "");
    put("a", "two");
    expect_text(source, "a", "one");
    source_free(source);
}

Test(source, what_is_not_there_stays_so) {
    struct source *source = source_new_disk();
    struct slice text;
    cr_assert_not(source_has(source, at("a")));
    put("a", "late");
    cr_assert_not(source_has(source, at("a")));
    cr_assert_eq(source_read(source, at("a"), &text, &error), -ENOENT);
    cr_assert(strstr(error.text, "No such file"));
    source_free(source);
}

Test(source, only_regular_files_are_read) {
    struct source *source = source_new_disk();
    struct slice text;
    cr_assert_eq(mkfifo(at("fifo"), 0600), 0);
    cr_assert_eq(source_read(source, at("fifo"), &text, &error), -EINVAL);
    cr_assert_eq(source_read(source, folder, &text, &error), -EISDIR);
    cr_assert_eq(source_read(source, "/dev/zero", &text, &error), -EINVAL);
    cr_assert_not(source_has(source, folder));
    source_free(source);
}

Test(source, a_file_without_a_size_is_read_whole) {
    struct source *source = source_new_disk();
    struct slice text;
    cr_assert_eq(source_read(source, "/proc/self/status", &text, &error), 0);
    cr_assert_gt(text.len, 100);
    source_free(source);
}

Test(source, everything_goes_through_a_memory_file) {
    put("a", "one");
    put("b.lua", "return {}");
    put("empty", "");
    struct source *source = source_new_disk();
    const char **paths;
    expect_text(source, "a", "one");
    expect_text(source, "b.lua", "return {}");
    expect_text(source, "empty", "");
    cr_assert_not(source_has(source, at("none")));
    cr_assert_eq(source_glob(source, at("*"), &paths, &error), 0);
    cr_assert_eq(source_glob(source, at("x*"), &paths, &error), 0);
    struct source *memory = through_memory(source);
    source_free(source);
    remove_folder();

    expect_text(memory, "a", "one");
    expect_text(memory, "b.lua", "return {}");
    expect_text(memory, "empty", "");
    struct slice text;
    cr_assert(source_has(memory, at("a")));
    cr_assert_not(source_has(memory, at("none")));
    cr_assert_eq(source_read(memory, at("none"), &text, &error), -ENOENT);
    cr_assert_eq(source_read(memory, "/etc/passwd", &text, &error), -ENOENT);
    cr_assert_eq(source_glob(memory, at("*"), &paths, &error), 0);
    cr_assert_str_eq(paths[0], at("a"));
    cr_assert_str_eq(paths[1], at("b.lua"));
    cr_assert_str_eq(paths[2], at("empty"));
    cr_assert_null(paths[3]);
    cr_assert_eq(source_glob(memory, at("x*"), &paths, &error), 0);
    cr_assert_null(paths[0]);
    cr_assert_eq(source_glob(memory, at("y*"), &paths, &error), -ENOENT);
    // A worker hands on what it was given.
    struct source *again = through_memory(memory);
    source_free(memory);
    expect_text(again, "b.lua", "return {}");
    source_free(again);
    make_folder();
}

Test(source, a_tree_is_gathered_by_suffix) {
    cr_assert_eq(mkdir(at("lib"), 0755), 0);
    put("a.lua", "a");
    put("a.txt", "no");
    put("lib/b.lua", "b");
    put(".hidden.lua", "no");
    cr_assert_eq(symlink("..", at("lib/up")), 0);  // a ring of folders ends at the depth's bound
    struct source *source = source_new_disk();
    cr_assert_eq(source_add_tree(source, folder, ".lua", &error), -ELOOP);
    cr_assert_eq(unlink(at("lib/up")), 0);
    source_free(source);

    source = source_new_disk();
    cr_assert_eq(source_add_tree(source, folder, ".lua", &error), 0);
    cr_assert_eq(source_add_tree(source, at("none"), ".lua", &error), 0);
    struct source *memory = through_memory(source);
    source_free(source);
    cr_assert(source_has(memory, at("a.lua")));
    cr_assert(source_has(memory, at("lib/b.lua")));
    cr_assert_not(source_has(memory, at("a.txt")));
    cr_assert_not(source_has(memory, at(".hidden.lua")));
    cr_assert_eq(source_add_tree(memory, folder, ".lua", &error), 0);
    source_free(memory);
}

Test(source, a_text_can_be_put_in) {
    struct source *source = source_new_disk();
    cr_assert_eq(source_put(source, at("made"), SLICE_LIT("up")), 0);
    cr_assert_eq(source_put(source, at("made"), SLICE_LIT("again")), -EEXIST);
    expect_text(source, "made", "up");
    source_free(source);
}

Test(source, a_memory_file_that_is_not_ours_is_refused) {
    struct source *source;
    int fd = memfd_create("test", MFD_ALLOW_SEALING);
    cr_assert_eq(source_new_memory(fd, &source, &error), -EPERM);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE), 0);
    cr_assert_eq(source_new_memory(fd, &source, &error), -EBADMSG);
    close(fd);
}

// Every byte of a good file changed, and the file cut at every length: refused or read, never out of bounds.
Test(source, a_damaged_memory_file_does_no_harm) {
    struct source *source = source_new_disk();
    const char **paths;
    cr_assert_eq(source_put(source, "/a", SLICE_LIT("text")), 0);
    cr_assert_eq(source_glob(source, "/et[c]", &paths, &error), 0);
    int fd = source_export(source, &error);
    source_free(source);
    char good[512], bad[512];
    ssize_t len = pread(fd, good, sizeof good, 0);
    cr_assert(len > 0 && len < (ssize_t)sizeof good);
    close(fd);
    for (ssize_t i = 0; i < 2 * len; i++) {
        memcpy(bad, good, (size_t)len);
        ssize_t bad_len = i < len ? len : i - len;
        if (i < len)
            bad[i] ^= 0x41;
        fd = memfd_create("test", MFD_ALLOW_SEALING);
        cr_assert_eq(write(fd, bad, (size_t)bad_len), bad_len);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
        int err = source_new_memory(fd, &source, &error);
        close(fd);
        if (err)
            continue;
        struct slice text;
        (void)!source_read(source, "/a", &text, &error);
        (void)!source_glob(source, "/et[c]", &paths, &error);
        source_free(source);
    }
}
