// SPDX-License-Identifier: BSD-2-Clause
// What a hook costs. Prints nanoseconds; fails only when a call is absurdly dear, because machines differ.
#include "script_rig.h"

#include <time.h>

static struct rig rig;

// Of this thread alone: other load on the machine does not count.
static uint64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double hook_ns(const char *name, const char *text, unsigned count) {
    static const char *const fields[] = {
        "Host: example.org", "User-Agent: curl/8", "Accept: */*", "Accept-Encoding: gzip",
        "Cookie: a=b",       "X-Test: 1",          NULL
    };
    rig_script(&rig, name, text);
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < 5; round++) {
        uint64_t spent = 0;
        for (unsigned done = 0; done < count; done += 64) {
            struct exchange *batch[64];
            for (int i = 0; i < 64; i++)
                batch[i] = rig_exchange(&rig, "GET", "/path?a=1", fields);
            uint64_t from = cpu_ns();
            for (int i = 0; i < 64; i++) {
                rig.hooks->request(rig.chain, batch[i]);
                rig.hooks->ended(rig.chain, batch[i]);
            }
            spent += cpu_ns() - from;
            for (int i = 0; i < 64; i++) {
                arena_release(&batch[i]->arena);
                free(batch[i]);
            }
        }
        if (spent < best)
            best = spent;
    }
    cr_assert_eq(rig.fails, 0);
    rig_release(&rig);
    return (double)best / count;
}

Test(script_cost, hooks_are_cheap) {
    static const struct {
        const char *what, *body;
    } cases[] = {
        { "empty", "" },
        { "two fields read, one set",
          "local a = req.headers['user-agent'] local b = req.headers['x-test'] if a and b then "
          "req.headers['x-new'] = b end" },
        { "address, token bucket, one set",
          "if not limits:take(req.conn.remote_ip, 1e9) then return req:respond(429) end\n"
          "req.headers['x-real-ip'] = req.conn.remote_ip" },
        { "method, path and host looked at",
          "if req.method ~= 'GET' or req.path:sub(1, 7) == '/admin/' or req.host == 'x' then return "
          "req:respond(403) end" },
        { "arguments", "if req.args.b then return req:respond(403) end" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "local gate = require 'moongate' local limits = gate.shared 'limits'\n"
                 "return { request = function(req) %s end }",
                 cases[i].body);
        rig_init(&rig);
        double ns = hook_ns("test.lua", text, 64 * 500);
        printf("%-34s %6.0f ns\n", cases[i].what, ns);
        cr_expect(ns < 100000);
    }
}

Test(script_cost, ready_made_scripts_are_cheap) {
    static const struct {
        const char *name, *settings[9];
    } cases[] = {
        { "firewall.lua",
          { "methods", "GET HEAD POST", "deny_paths", "/admin/ /private/ %.git/", "deny_headers",
            "user-agent: sqlmap; x-bad: ." } },
        { "ratelimit.lua", { "rate", "1000000" } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static char text[65536];
        char path[4096];
        const char *folder = getenv("srcdir");
        snprintf(path, sizeof path, "%s/lua/%s", folder ? folder : ".", cases[i].name);
        FILE *file = fopen(path, "r");
        cr_assert(file, "cannot open %s", path);
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        rig_init(&rig);
        for (unsigned j = 0; cases[i].settings[j]; j += 2)
            rig_setting(&rig, cases[i].settings[j], cases[i].settings[j + 1]);
        double ns = hook_ns(cases[i].name, text, 64 * 500);
        printf("%-34s %6.0f ns\n", cases[i].name, ns);
        cr_expect(ns < 100000);
    }
}
