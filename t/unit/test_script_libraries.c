// SPDX-License-Identifier: BSD-2-Clause
// The libraries of scripts: runs the files in t/unit/lua/, whose main chunks and request hooks assert what
// each call does, and shows that hot calls stay on compiled traces.
#include "script_rig.h"

static struct rig rig;
static char text[1 << 17];

static const char *read_lua(const char *name) {
    char path[4096];
    const char *folder = getenv("srcdir");
    snprintf(path, sizeof path, "%s/t/unit/lua/%s", folder ? folder : ".", name);
    FILE *file = fopen(path, "r");
    cr_assert(file, "cannot open %s", path);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

static const char *const fields[] = { "Host: example.org", "Cookie: a=1; b=\"two\"; =x; lone;c=3=4",
                                      "Cookie: a=second; d=5 ", NULL };

// Loads the file; its request hook runs once.
static void run_file(const char *name, bool unsafe) {
    rig_init(&rig);
    rig.conf.script_unsafe = unsafe;
    rig_script(&rig, name, read_lua(name));
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    if (rig.hooks->has_request)
        cr_assert(rig_request(&rig, x));
    cr_expect_eq(rig.fails, 0, "%s: the hook failed", name);
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script_libraries, bytes_as_text) { run_file("encoding.lua", false); }
Test(script_libraries, digests_and_random_numbers) { run_file("crypto.lua", false); }
Test(script_libraries, dates) { run_file("time.lua", false); }
Test(script_libraries, query_strings_and_cookies) { run_file("http.lua", false); }
Test(script_libraries, forms) { run_file("form.lua", false); }
Test(script_libraries, dictionaries) { run_file("shared.lua", false); }
Test(script_libraries, metrics) { run_file("metrics.lua", false); }
Test(script_libraries, hot_calls_are_compiled) { run_file("traces.lua", true); }
Test(script_libraries, modules_of_the_system) { run_file("modules.lua", false); }
