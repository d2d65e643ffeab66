// SPDX-License-Identifier: BSD-2-Clause
// moongate --test: runs files of tests of scripts and prints the results as TAP. test_run.c runs the
// processes and prints; test_state.c is one test in one process; test_world.h says what lies below. main.c
// calls.
#ifndef MOONGATE_SCRIPT_TEST_H
#define MOONGATE_SCRIPT_TEST_H

#include <stdbool.h>
#include <stdint.h>

struct lua_State;

struct test_options {
    const char *conf;     // absolute path of the configuration that tests may use, NULL: none
    const char *only;     // pattern of the names of tests that are run, NULL: all
    bool verbose;         // show what scripts log in tests that pass, too
    unsigned time_limit;  // of one test, seconds
    char *const *files;
    unsigned file_count;
};

// The exit status: 0 when every test passed.
int test_run(const struct test_options *options);

// test_state.c, called by test_run.c in a process made for it. Index 0 lists the tests: a line each, "LINE
// NAME". Any other runs that one. What comes of it is written to `fd`: a first line "ok", "not ok", "skip"
// (why stands behind) or "bad" (the file does not load), then lines of YAML, or for "bad" the error. Never
// returns.
_Noreturn void test_process(const struct test_options *options, const char *file, unsigned index,
                            const char *folder, int fd);

// Ends code that runs longer than `seconds`, by a hook of Lua's (so it is not compiled): ended() is called
// with the state that ran and must not return.
void test_time_limit(unsigned seconds, void (*ended)(struct lua_State *lua));
void test_time_limit_watch(struct lua_State *lua);

#endif
