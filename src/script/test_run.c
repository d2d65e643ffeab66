// SPDX-License-Identifier: BSD-2-Clause
// Runs test files and prints TAP 14 (test.h): one process for each test, so that nothing of one is left for
// the next, and one that crashes or never ends fails alone. A file is a subtest of the whole, a test one of
// the file.
#include "script/test.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 3000 };  // after the time limit: what holds it up is no Lua code, or it cleans up

// What came back from a process.
struct answer {
    char *at;
    size_t len;
    int status;  // as waitpid() says
    bool killed;
};

static bool colours;

static const char *colour(const char *code) {
    return colours ? code : "";
}
#define RED    colour("\033[31m")
#define GREEN  colour("\033[32m")
#define YELLOW colour("\033[33m")
#define PLAIN  colour("\033[0m")

// ---- processes --------------------------------------------------------------------------------------------

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at) {
    (void)stat;
    (void)kind;
    (void)at;
    return remove(path);
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void read_answer(int fd, pid_t pid, uint64_t deadline, struct answer *answer) {
    size_t room = 0;
    for (;;) {
        if (answer->len + 1 >= room) {
            room = room ? room * 2 : 4096;
            char *grown = realloc(answer->at, room);
            if (!grown)
                break;
            answer->at = grown;
        }
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        uint64_t now = now_ms();
        int ready = now >= deadline ? 0 : poll(&poller, 1, (int)(deadline - now));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0) {
            kill(pid, SIGKILL);
            answer->killed = true;
            break;
        }
        ssize_t n = read(fd, answer->at + answer->len, room - answer->len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        answer->len += (size_t)n;
    }
    if (answer->at)
        answer->at[answer->len] = 0;
}

static int ask(const struct test_options *options, const char *file, unsigned index, struct answer *answer) {
    char folder[1000];
    const char *tmp = getenv("TMPDIR");
    int ends[2];
    *answer = (struct answer){ 0 };
    snprintf(folder, sizeof folder, "%s/moongate-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        fprintf(stderr, "moongate --test: cannot make a folder \"%s\": %s\n", folder, strerror(errno));
        return -errno;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        rmdir(folder);
        return -errno;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        test_process(options, file, index, folder, ends[1]);
    }
    close(ends[1]);
    if (pid > 0) {
        read_answer(ends[0], pid, now_ms() + options->time_limit * 1000ull + GRACE_MS, answer);
        while (waitpid(pid, &answer->status, 0) < 0 && errno == EINTR) {}
    } else {
        fprintf(stderr, "moongate --test: cannot fork: %s\n", strerror(errno));
    }
    close(ends[0]);
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return pid < 0 ? -EAGAIN : 0;
}

// ---- printing ---------------------------------------------------------------------------------------------

// Takes the next line off *rest, without its end.
static char *next_line(char **rest) {
    char *line = *rest;
    if (!line || !*line)
        return NULL;
    char *end = strchr(line, '\n');
    *rest = end ? end + 1 : NULL;
    if (end)
        *end = 0;
    return line;
}

// As TAP 14 says: "#" begins a directive, a backslash escapes it.
static void print_name(const char *name) {
    for (; *name; name++) {
        if (*name == '#' || *name == '\\')
            putchar('\\');
        putchar(*name);
    }
}

static void print_yaml(char *rest) {
    char *line = next_line(&rest);
    if (!line)
        return;
    puts("      ---");
    for (; line; line = next_line(&rest))
        printf("%s%s\n", *line ? "      " : "", line);
    puts("      ...");
}

static void print_lost(const struct test_options *options, const struct answer *answer) {
    printf("      ---\n      message: \"");
    if (answer->killed)
        printf("the test did not end within %u s, and what held it up was no Lua code", options->time_limit);
    else if (WIFSIGNALED(answer->status))
        printf("the test crashed: signal %d (%s); this is a defect of moongate", WTERMSIG(answer->status),
               strsignal(WTERMSIG(answer->status)));
    else
        printf("the test's process ended with status %d; this is a defect of moongate, or the test "
               "called os.exit",
               WEXITSTATUS(answer->status));
    printf("\"\n      severity: fail\n      ...\n");
}

struct totals {
    unsigned passed, failed, skipped;
};

static void run_test(const struct test_options *options, const char *file, unsigned index, unsigned number,
                     const char *name, struct totals *totals) {
    struct answer answer;
    bool ran = ask(options, file, index, &answer) == 0;
    char *rest = answer.at, *verdict = ran ? next_line(&rest) : NULL;
    bool skipped = verdict && strncmp(verdict, "skip", 4) == 0;
    bool lost = !verdict || answer.killed || !WIFEXITED(answer.status) || WEXITSTATUS(answer.status) != 0;
    bool ok = !lost && (skipped || strcmp(verdict, "ok") == 0);
    printf("    %s%s%s %u - ", !ok ? RED : skipped ? YELLOW : GREEN, ok ? "ok" : "not ok", PLAIN, number);
    print_name(name);
    if (ok && skipped)
        printf(" # SKIP%s", verdict + 4);
    putchar('\n');
    if (lost && (!verdict || strcmp(verdict, "not ok") != 0))
        print_lost(options, &answer);
    else
        print_yaml(rest);
    totals->failed += !ok;
    totals->skipped += ok && skipped;
    totals->passed += ok && !skipped;
    free(answer.at);
}

static bool chosen(const struct test_options *options, const char *name) {
    char pattern[512];
    if (!options->only)
        return true;
    snprintf(pattern, sizeof pattern, "*%s*", options->only);
    return fnmatch(pattern, name, FNM_CASEFOLD) == 0;
}

// -1: the file does not load, and that was printed.
static int run_file(const struct test_options *options, unsigned number, struct totals *all) {
    const char *file = options->files[number - 1];
    struct answer list;
    struct totals totals = { 0 };
    if (ask(options, file, 0, &list) < 0)
        return -1;
    char *rest = list.at, *verdict = next_line(&rest);
    if (!verdict || strcmp(verdict, "ok") != 0 || list.killed || list.status != 0) {
        char *first = next_line(&rest);
        if (verdict && strcmp(verdict, "bad") == 0 && first)
            printf("Bail out! %s\n", first);
        else
            printf("Bail out! %s: the file did not load within %u s, or crashed\n", file,
                   options->time_limit);
        for (char *line; (line = next_line(&rest));)
            printf("# %s\n", line);
        free(list.at);
        return -1;
    }
    unsigned count = 0, index = 0;
    char *names = rest ? strdup(rest) : NULL, *left = names;
    for (char *line; (line = next_line(&left));)
        count += chosen(options, line);
    free(names);
    printf("# Subtest: %s\n    1..%u%s\n", file, count, count ? "" : " # SKIP no test of that name");
    unsigned shown = 0;
    for (char *line; (line = next_line(&rest));) {
        index++;
        if (chosen(options, line))
            run_test(options, file, index, ++shown, line, &totals);
    }
    bool ok = totals.failed == 0;
    printf("%s%s%s %u - ", ok ? GREEN : RED, ok ? "ok" : "not ok", PLAIN, number);
    print_name(file);
    printf("%s\n", count ? "" : " # SKIP no test of that name");
    free(list.at);
    all->passed += totals.passed;
    all->failed += totals.failed;
    all->skipped += totals.skipped;
    return 0;
}

int test_run(const struct test_options *options) {
    struct totals totals = { 0 };
    colours = isatty(STDOUT_FILENO) && !(getenv("NO_COLOR") && *getenv("NO_COLOR"));
    printf("TAP version 14\n1..%u\n", options->file_count);
    for (unsigned number = 1; number <= options->file_count; number++)
        if (run_file(options, number, &totals) < 0)
            return 1;
    unsigned count = totals.passed + totals.failed + totals.skipped;
    printf("# %u test%s: %s%u passed%s, %s%u failed%s", count, count == 1 ? "" : "s", GREEN, totals.passed,
           PLAIN, totals.failed ? RED : "", totals.failed, totals.failed ? PLAIN : "");
    if (totals.skipped)
        printf(", %u skipped", totals.skipped);
    putchar('\n');
    fflush(stdout);
    if (count == 0 && options->only)
        fprintf(stderr, "moongate --test: no test has a name like \"%s\"\n", options->only);
    else if (count == 0)
        fprintf(stderr, "moongate --test: the files have no tests: declare them with test(NAME, FUNCTION)\n");
    return totals.failed > 0 || count == 0;
}
