// SPDX-License-Identifier: BSD-2-Clause
// Hooks: that they run, wait, give verdicts and fail closed; that scripts which are wrong are refused with
// file and line.
#include "script_rig.h"

static struct rig rig;

static const char *const fields[] = {
    "Host: Example.org:8080", "User-Agent: test/1", "X-A: one", "x-a: two", "Content-Length: 0", NULL
};

static void check_refused(const char *text, const char *expected) {
    rig_init(&rig);
    rig_script(&rig, "test.lua", text);
    cr_assert_eq(rig_try(&rig), -EINVAL, "accepted: %s", text);
    cr_assert(strstr(rig.error.text, expected), "expected \"%s\", got \"%s\"", expected, rig.error.text);
    rig.host = NULL;
    rig_release(&rig);
}

// Runs the request hook of a body of Lua; what it raised, if anything, was logged.
static struct exchange *run_body(const char *body) {
    static char text[4096];
    snprintf(text, sizeof text,
             "local gate = require 'moongate'\nlocal hooks = {}\nfunction "
             "hooks.request(req)\n%s\nend\nreturn hooks\n",
             body);
    rig_load(&rig, text);
    struct exchange *x = rig_exchange(&rig, "GET", "/a/../b%20c?x=1&y=%41+b&x=2", fields);
    cr_assert(rig_request(&rig, x));
    return x;
}
static void check_body(const char *body) {
    struct exchange *x = run_body(body);
    cr_expect_eq(rig.fails, 0, "failed: %s", body);
    rig_end(&rig, x);
    rig_release(&rig);
}
static void check_raises(const char *body) {
    struct exchange *x = run_body(body);
    cr_expect_eq(rig.fails, 1, "did not fail: %s", body);
    cr_expect_eq(rig.status, 500);
    rig_end(&rig, x);
    rig_release(&rig);
}

// ---- loading ----------------------------------------------------------------------------------------------

Test(script, a_script_that_is_wrong_is_refused_with_its_line) {
    check_refused("local x =\n= 1", "test.lua:2: ");
    check_refused("\nx = 1 return {}", "test.lua:2: write to the global \"x\"");
    check_refused("print = 1 return {}", "test.lua:1: write to the global \"print\"");
    check_refused("return { request = function()\n\nfoo() end }", "test.lua:3: undefined global \"foo\"");
    check_refused("\nerror('why')", "test.lua:2: why");
    check_refused("return 5", "test.lua: the script returned a number, expected a table of hooks");
    check_refused("local x", "test.lua: the script returned nothing");
    check_refused("return { reqest = function() end }",
                  "test.lua:1: unknown hook \"reqest\", did you mean \"request\"?");
    check_refused("return { zzzzzzzzz = function() end }",
                  "expected one of init, worker_init, exit, resolve, connect, tls_hello, tls_done, request, route, "
                  "request_body, response, "
                  "response_body, error, log");
    check_refused("return { request = 5 }", "the hook \"request\" is a number, expected a function");
    check_refused("\x1bLJ", "test.lua:1: this is bytecode");
    check_refused("require 'moongate'.sleep(1)", "test.lua:1: gate.sleep is for hooks");
    check_refused("require 'nothing.here'",
                  "test.lua:1: no module \"nothing.here\" in the folders of scripts");
    check_refused("require '../x'", "no module \"../x\"");
    check_refused("local g = require 'moongate'\ng.cidr { '10.0.0.0/33' }", "test.lua:2: ");
    check_refused("local g = require 'moongate'\nlocal s = ...\ng.cidr_file(s.x)",
                  "test.lua:3: gate.cidr_file: expected a path");
    check_refused("local g = require 'moongate'\ng.shared 'x'", "test.lua:2: no dictionary \"x\"");
    check_refused("local e = load('y = 1') e()", "write to the global \"y\"");
}

Test(script, check_compiles_without_running) {
    rig_init(&rig);
    struct conf_script *script = rig_script(&rig, "test.lua", "error('not run')");
    cr_assert_eq(script_check(&rig.conf, &rig.error), 0, "%s", rig.error.text);
    script->text = slice_of("\n\nlocal = 1");
    cr_assert_eq(script_check(&rig.conf, &rig.error), -EINVAL);
    cr_assert(strstr(rig.error.text, "test.lua:3: "), "%s", rig.error.text);
    script_host_free(NULL);
    source_free(rig.source);
    free(rig.dict_memory);
}

Test(script, nothing_that_reaches_outside_is_there) {
    static const char *const names[] = { "io",          "ffi",           "jit",          "package",
                                         "dofile",      "loadfile",      "getfenv",      "setfenv",
                                         "newproxy",    "module",        "_G",           "arg",
                                         "os.execute",  "os.getenv",     "os.exit",      "os.remove",
                                         "string.dump", "debug.getinfo", "debug.sethook" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256];
        if (strchr(names[i], '.')) {
            snprintf(text, sizeof text, "assert(%s == nil) return { request = function() end }", names[i]);
            rig_load(&rig, text);
            rig_release(&rig);
        } else {
            snprintf(text, sizeof text, "return %s", names[i]);
            check_refused(text, "undefined global");
        }
    }
    check_refused("require 'ffi'", "no module \"ffi\"");
    check_refused("require 'jit.util'", "no module");
    check_refused("getmetatable('').__index = 1", "attempt to index");
    check_refused("assert(load('\\27LJ'))", "test.lua:1: ");
}

Test(script, scripts_do_not_see_each_others_changes) {
    rig_init(&rig);
    rig_script(&rig, "a.lua",
               "string.leak = 1 table.leak = 1 require 'moongate'.leak = 1 require 'moongate'.log.leak = 1 "
               "return {}");
    rig_script(
        &rig, "b.lua",
        "local g = require 'moongate' assert(string.leak == nil and table.leak == nil and g.leak == nil"
        " and g.log.leak == nil and (''):rep(1) == '') return {}");
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    rig_release(&rig);
}

// ---- hooks ------------------------------------------------------------------------------------------------

Test(script, only_hooks_that_exist_are_called) {
    rig_load(&rig, "return { route = function() end }");
    cr_assert(!rig.hooks->has_request && rig.hooks->has_route && !rig.hooks->has_response);
    cr_assert(!script_chain_has_connect(rig.chain));
    rig_release(&rig);
}

Test(script, a_request_is_read) {
    check_body(
        "assert(req.method == 'GET' and req.path == '/b c' and req.raw_path == '/a/../b%20c', req.path)\n"
        "assert(req.query == 'x=1&y=%41+b&x=2' and req.target == '/a/../b%20c?x=1&y=%41+b&x=2')\n"
        "assert(req.args.x == '1' and req.args.y == 'A b' and req.args.z == nil)\n"
        "local n = '' for k, v in req:args_each() do n = n .. k .. v .. ';' end assert(n == 'x1;yA b;x2;', "
        "n)\n"
        "assert(#req:args_all('x') == 2 and req:args_all('x')[2] == '2')\n"
        "assert(req.host == 'example.org' and req.port == 8080 and req.scheme == 'http' and req.version == "
        "'1.1')\n"
        "assert(req.id == 'test-id' and req.attempt == 1 and type(req.ctx) == 'table' and req.ctx == "
        "req.ctx)\n"
        "assert(req.conn.remote_ip == '192.0.2.7' and req.conn.remote_port == 40000 and req.conn.id == 42)\n"
        "assert(req.conn.local_ip == '127.0.0.1' and req.conn.local_port == 8080)\n"
        "assert(math.abs(req.conn.started - gate.now()) < 5 and req.conn == req.conn)\n"
        "assert(gate.worker == 1 and gate.generation == 3 and type(gate.version) == 'string')");
}

Test(script, header_fields_are_read_and_changed) {
    check_body(
        "local h = req.headers\n"
        "assert(h['user-agent'] == 'test/1' and h['USER-AGENT'] == 'test/1' and h.nothing == nil)\n"
        "assert(h['x-a'] == 'one, two' and #h:all('X-A') == 2 and h:all('x-a')[2] == 'two')\n"
        "h['x-a'] = 'three' assert(h['X-A'] == 'three' and #h:all('x-a') == 1)\n"
        "h:add('x-a', 4) assert(h['x-a'] == 'three, 4')\n"
        "h['x-a'] = nil assert(h['x-a'] == nil)\n"
        "h['x-b'] = { 'a', 'b' } assert(h['x-b'] == 'a, b')\n"
        "h.host = 'other:1' assert(h.host == 'other:1')\n"
        "local names = {} for name, value in h:each() do names[#names + 1] = name .. '=' .. value end\n"
        "assert(table.concat(names, ' ') == 'Host=other:1 User-Agent=test/1 Content-Length=0 x-b=a x-b=b',"
        " table.concat(names, ' '))");
}

Test(script, header_fields_that_would_break_framing_are_refused) {
    check_raises("req.headers['x'] = 'a\\r\\nb'");
    check_raises("req.headers['x\\n'] = 'a'");
    check_raises("req.headers['x'] = 'a\\0b'");
    check_raises("req.headers['content-length'] = '5'");
    check_raises("req.headers['Transfer-Encoding'] = nil");
    check_raises("req.headers['connection'] = 'close'");
    check_raises("req.headers.host = nil");
    check_raises("req.headers.host = 'a b'");
    check_raises("req.headers:add('host', 'b')");
    check_raises("req.headers.x = {} .. 'x'");
    check_raises("req.headers.x = true");
}

Test(script, a_rewritten_request_is_consistent) {
    struct exchange *x = run_body("req.path = '/new path/%/ä?'");
    cr_assert_eq(rig.fails, 0);
    cr_assert(x->req.rewritten);
    cr_assert(slice_eq(x->req.target, slice_of("/new%20path/%25/%C3%A4%3F?x=1&y=%41+b&x=2")), "%.*s",
              SLICE_ARG(x->req.target));
    rig_end(&rig, x);
    rig_release(&rig);
    check_body("req.path = '/a/../c/./b' assert(req.path == '/c/b' and req.raw_path == '/c/b')");
    check_body("assert(not pcall(function() req.path = '/a/../../b' end))");
    check_body("req.query = nil assert(req.query == nil and req.target == '/b%20c' or req.target == "
               "'/a/../b%20c', req.target)");
    check_body("local old = req.args.x req.query = 'x=3 4' assert(old == '1' and req.args.x == '3 4' and "
               "req.query == 'x=3%204')");
    check_body(
        "req.target = '/t%41?q' assert(req.path == '/tA' and req.query == 'q' and req.target == '/t%41?q')");
    check_body("req.method = 'POST' assert(req.method == 'POST')");
    check_raises("req.path = 'x'");
    check_raises("req.target = '/a b'");
    check_raises("req.target = 'http://x/'");
    check_raises("req.method = 'HEAD'");
    check_raises("req.method = 'A B'");
    check_raises("req.host = 'x'");
    check_raises("return req.nothing");
}

Test(script, a_request_is_answered) {
    struct exchange *x = run_body(
        "return req:respond(429, { ['retry-after'] = 1, ['set-cookie'] = { 'a', 'b' } }, 'slow\\n')");
    cr_assert_eq(rig.fails, 0);
    cr_assert_eq(rig.responds, 1);
    cr_assert_eq(rig.status, 429);
    cr_assert(slice_eq(rig.body, slice_of("slow\n")));
    cr_assert_str_eq(rig_value(&rig, &rig.reply, "retry-after"), "1");
    cr_assert_eq(rig.reply.count, 3);
    rig_end(&rig, x);
    rig_release(&rig);
    x = run_body("return req:redirect('https://' .. req.host .. '/')");
    cr_assert_eq(rig.status, 302);
    cr_assert_str_eq(rig_value(&rig, &rig.reply, "location"), "https://example.org/");
    rig_end(&rig, x);
    rig_release(&rig);
    check_raises("return req:respond(100)");
    check_raises("return req:respond(200.5)");
    check_raises("return req:respond('200')");
    check_raises("return req:respond(204, nil, 'x')");
    check_raises("return req:respond(200, { ['content-length'] = 5 })");
    check_raises("return req:respond(200, { x = 'a\\nb' })");
    check_raises("return req:redirect('x', 200)");
}

Test(script, what_is_no_verdict_is_an_error) {
    check_raises("return 5");
    check_raises("return 'app'");
    check_raises("return true");
    check_raises("return req");
    check_raises("coroutine.yield(1)");
    check_raises("error({})");
    check_raises("error(setmetatable({}, { __tostring = function() return 'text' end }))");
    check_raises("error()");
}

Test(script, the_first_verdict_ends_the_chain) {
    rig_init(&rig);
    rig_script(&rig, "a.lua", "return { request = function(req) req.ctx.a = 1 end }");
    rig_script(&rig, "b.lua", "return { request = function(req) return req:respond(200 + req.ctx.a) end }");
    rig_script(&rig, "c.lua", "return { request = function(req) error('not called') end }");
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    cr_assert(rig_request(&rig, x));
    cr_assert_eq(rig.fails, 0);
    cr_assert_eq(rig.status, 201);
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script, route_names_an_upstream) {
    rig_load(&rig,
             "return { route = function(req) if req.headers['x-a'] then return 'can' .. 'ary' end end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    x->step = EXCHANGE_route;
    cr_assert_eq(rig.hooks->route(rig.chain, x), STEP_MORE);
    cr_assert(slice_eq(x->route_choice, slice_of("canary")));
    headers_remove(&x->req.headers, slice_of("x-a"));
    cr_assert_eq(rig.hooks->route(rig.chain, x), STEP_MORE);
    cr_assert_eq(x->route_choice.len, 0);
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script, a_response_is_changed) {
    rig_load(
        &rig,
        "return { request = function(req) req.ctx.seen = true end, response = function(req, res)\n"
        "assert(req.ctx.seen and res.status == 200 and res.reason == 'OK' and res.headers.server == 'x')\n"
        "res.headers.server = nil res.headers['x-new'] = 'y' res.status = 404 assert(res.reason == 'Not "
        "Found')\n"
        "assert(not pcall(function() res.status = 204 end)) assert(not pcall(function() req.path = '/' "
        "end))\n"
        "assert(not pcall(function() res.headers['content-length'] = 1 end)) end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    cr_assert(rig_request(&rig, x));
    x->step = EXCHANGE_response;
    x->res.status = 200;
    x->res.reason = SLICE_LIT("OK");
    cr_assert_eq(headers_add(&x->res.headers, &x->arena, SLICE_LIT("Server"), SLICE_LIT("x")), 0);
    cr_assert_eq(rig.hooks->response(rig.chain, x), STEP_MORE);
    cr_assert_eq(rig.fails, 0);
    cr_assert_eq(x->res.status, 404);
    cr_assert_null(rig_value(&rig, &x->res.headers, "server"));
    cr_assert_str_eq(rig_value(&rig, &x->res.headers, "x-new"), "y");
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script, a_failing_response_hook_gives_502_and_pass_lets_it_through) {
    rig_load(&rig, "return { response = function() error('x') end, connect = function() error('x') end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    bool reject = false;
    x->step = EXCHANGE_response;
    cr_assert_eq(rig.hooks->response(rig.chain, x), STEP_MORE);
    cr_assert_eq(rig.status, 502);
    cr_assert_eq(x->reason, CLOSE_script_error);
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, NULL, NULL), STEP_MORE);
    cr_assert(reject);
    rig.frontend.settings.on_script_error = SCRIPT_ERROR_PASS;
    cr_assert_eq(rig.hooks->response(rig.chain, x), STEP_MORE);
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, NULL, NULL), STEP_MORE);
    cr_assert(!reject);
    cr_assert_eq(rig.fails, 1);
    struct script_stats stats;
    script_host_stats(rig.host, &stats);
    cr_assert_eq(stats.errors, 4);
    cr_assert_eq(stats.calls, 4);
    cr_assert(stats.lua_bytes > 10000);
    rig_end(&rig, x);
    rig_release(&rig);
}

// ---- waiting ----------------------------------------------------------------------------------------------

Test(script, a_hook_waits_and_goes_on) {
    rig_load(
        &rig,
        "local gate = require 'moongate' return { request = function(req)\n"
        "local ok = pcall(gate.sleep, 0.003) assert(ok)\n"
        "local co = coroutine.wrap(function() coroutine.yield(1) gate.sleep(0.002) coroutine.yield(2) end)\n"
        "assert(co() == 1 and co() == 2)\n"
        "return req:respond(200) end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    struct exchange *other = rig_exchange(&rig, "GET", "/", fields);
    cr_assert(!rig_request(&rig, x));
    cr_assert(!rig_request(&rig, other));
    cr_assert_eq(rig.runs, 0);
    rig_pass(20);
    cr_assert_eq(rig.runs, 2);
    cr_assert_eq(rig.fails, 0);
    cr_assert_eq(rig.responds, 2);
    cr_assert_eq(rig.probe.script, 0);
    rig_end(&rig, x);
    rig_end(&rig, other);
    rig_release(&rig);
}

Test(script, a_hook_that_waits_is_dropped_with_its_exchange) {
    rig_load(&rig,
             "local gate = require 'moongate' return { request = function() gate.sleep(0.002) "
             "error('resumed') end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    cr_assert(!rig_request(&rig, x));
    rig_end(&rig, x);
    rig_pass(10);
    struct script_stats stats;
    script_host_stats(rig.host, &stats);
    cr_assert_eq(stats.errors, 0);
    cr_assert_eq(rig.runs, 0);
    rig_release(&rig);
}

static int decisions;
static void decided(struct conn *conn, void *owner, bool reject) {
    cr_assert_eq(conn, rig.conn);
    cr_assert_eq(owner, &decisions);
    decisions += reject ? 10 : 1;
}

Test(script, connect_rejects_at_once_or_later_or_never) {
    rig_load(&rig,
             "local gate = require 'moongate' return { connect = function(conn)\n"
             "conn.ctx.n = (conn.ctx.n or 0) + 1\n"
             "if conn.ctx.n > 1 then gate.sleep(0.002) end\n"
             "if conn.remote_ip == '192.0.2.7' then return conn:reject() end end }");
    bool reject = false;
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, decided, &decisions), STEP_MORE);
    cr_assert(reject);
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, decided, &decisions), STEP_WAIT);
    rig_pass(8);
    cr_assert_eq(decisions, 10);
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, decided, &decisions), STEP_WAIT);
    script_connect_cancel(rig.chain, rig.conn);
    rig_pass(8);
    cr_assert_eq(decisions, 10);
    rig_release(&rig);
}

// ---- bodies -----------------------------------------------------------------------------------------------

static void feed(struct queue *queue, const char *text) {
    // A block each, so that pieces stay apart.
    struct block *block = block_new(strlen(text));
    cr_assert(block);
    memcpy(block->base, text, strlen(text));
    cr_assert_eq(queue_put_whole(queue, (struct span){ block, block->base, (uint32_t)strlen(text) }), 0);
}

static const char *drain(struct queue *queue) {
    static char text[8192];
    size_t n = 0;
    struct slice view;
    while (queue_peek(queue, &view)) {
        memcpy(text + n, view.at, view.len);
        n += view.len;
        queue_drop(queue, view.len);
    }
    text[n] = 0;
    return text;
}

Test(script, a_body_goes_through_the_hook_of_the_manual) {
    rig_load(
        &rig,
        "local hooks = {} function hooks.response_body(req, res)\n"
        "  for chunk in res:body() do res:write((chunk:gsub(\"secret\", \"******\"))) end\nend return hooks");
    cr_assert(rig.hooks->has_response_body && !rig.hooks->has_request_body);
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    x->step = EXCHANGE_relay;
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_WAITS);
    feed(&x->res_in, "a secret, ");
    feed(&x->res_in, "b");
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_WAITS);
    cr_assert_str_eq(drain(&x->res_body), "a ******, b");
    feed(&x->res_in, "c");
    x->res_in_ended = true;
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_ENDED);
    cr_assert_str_eq(drain(&x->res_body), "c");
    cr_assert_eq(rig.fails, 0);
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script, bodies_go_from_script_to_script_and_wait_for_slow_receivers) {
    rig_init(&rig);
    rig_script(&rig, "a.lua",
               "return { request_body = function(req) local n = 0 for c in req:body() do n = n + 1"
               " req:write(c:upper()) end req:write(' ' .. n) end }");
    rig_script(&rig, "b.lua", "return { request = function() end }");
    rig_script(&rig, "c.lua",
               "local g = require 'moongate' return { request_body = function(req) local all = {}"
               " for c in req:body() do all[#all + 1] = c end g.sleep(0.002)"
               " for i = 1, 3 do req:write(('x'):rep(600)) end req:write(table.concat(all, '|')) end }");
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    struct exchange *x = rig_exchange(&rig, "POST", "/", fields);
    x->step = EXCHANGE_forward;
    feed(&x->req_in, "ab");
    cr_assert_eq(rig.hooks->request_body(rig.chain, x), FILTER_WAITS);
    feed(&x->req_in, "cd");
    x->req_in_ended = true;
    cr_assert_eq(rig.hooks->request_body(rig.chain, x), FILTER_WAITS);
    cr_assert_eq(x->req_body.bytes, 0);
    rig_pass(6);
    cr_assert_eq(rig.pumps, 1);
    cr_assert_eq(rig.hooks->request_body(rig.chain, x), FILTER_WAITS);
    cr_assert_eq(x->req_body.bytes, 1200);  // above buffer_high: it waits
    cr_assert_eq(rig.hooks->request_body(rig.chain, x), FILTER_WAITS);
    cr_assert_eq(x->req_body.bytes, 1200);
    drain(&x->req_body);
    cr_assert_eq(rig.hooks->request_body(rig.chain, x), FILTER_ENDED);
    const char *text = drain(&x->req_body);
    cr_assert(strncmp(text, "xxx", 3) == 0 && strstr(text, "AB|CD"), "%s", text);
    cr_assert_eq(rig.fails, 0);
    rig_end(&rig, x);
    rig_release(&rig);
}

Test(script, a_failing_body_hook_ends_the_response_or_passes_the_rest) {
    rig_load(&rig, "return { response_body = function(req, res) for c in res:body() do error('x') end end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    feed(&x->res_in, "a");
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_WAITS);
    cr_assert_eq(rig.fails, 1);
    cr_assert_eq(rig.status, 502);
    rig_end(&rig, x);
    rig.frontend.settings.on_script_error = SCRIPT_ERROR_PASS;
    x = rig_exchange(&rig, "GET", "/", fields);
    feed(&x->res_in, "a");
    feed(&x->res_in, "b");
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_PASSES);
    cr_assert_str_eq(drain(&x->res_body), "b");
    cr_assert_eq(rig.fails, 1);
    rig_end(&rig, x);
    rig_release(&rig);
    check_raises("for c in req:body() do end");
    check_raises("req:write('x')");
}

Test(script, a_body_hook_that_returns_early_drops_the_rest) {
    rig_load(&rig, "return { response_body = function(req, res) res:write('instead') end }");
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    feed(&x->res_in, "a");
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_ENDED);
    cr_assert_str_eq(drain(&x->res_body), "instead");
    rig_end(&rig, x);
    rig_release(&rig);
}

// The bytes stay in the block in which they came, and the hook is not called again.
Test(script, a_body_that_hooks_pass_on_is_not_copied) {
    rig_init(&rig);
    rig_script(&rig, "a.lua", "return { response_body = function(req, res) res:pass() end }");
    rig_script(&rig, "b.lua", "return { response_body = function(req, res) return res:pass() end }");
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    struct block *block = block_new(BLOCK_LARGE);
    cr_assert(block);
    memset(block->base, 'x', BLOCK_LARGE);
    cr_assert_eq(queue_put_whole(&x->res_in, (struct span){ block, block->base, BLOCK_LARGE }), 0);
    cr_assert_eq(rig.hooks->response_body(rig.chain, x), FILTER_PASSES);
    cr_assert_eq(x->res_body.bytes, BLOCK_LARGE);
    cr_assert(x->res_body.head->span.block == block && !x->res_body.head->next && queue_empty(&x->res_in));
    cr_assert(!x->res_changed);
    queue_release(&x->res_body);
    rig_end(&rig, x);
    rig_release(&rig);
}

// ---- handles ----------------------------------------------------------------------------------------------

Test(script, handles_that_are_kept_go_stale) {
    rig_load(&rig,
             "local kept return { request = function(req)\n"
             "if kept then\n"
             "  local ok, why = pcall(function() return kept.path end)\n"
             "  assert(not ok and why:find('^test.lua:3: stale: the request is gone'), why)\n"
             "  assert(not pcall(function() return kept.headers.host end))\n"
             "  assert(not pcall(function() kept.headers.host = 'x' end))\n"
             "  assert(not pcall(kept.respond, kept, 200))\n"
             "end kept = req end }");
    for (int i = 0; i < 3; i++) {
        struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
        cr_assert(rig_request(&rig, x));
        cr_assert_eq(rig.fails, 0);
        rig_end(&rig, x);
    }
    rig_release(&rig);
}

Test(script, a_connection_outlives_its_scripts_and_the_other_way_round) {
    rig_load(&rig,
             "return { request = function(req) req.conn.ctx.n = (req.conn.ctx.n or 0) + 1 "
             "assert(req.conn.ctx.n < 3) end }");
    struct script_host *old = rig.host;
    struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
    cr_assert(rig_request(&rig, x));
    rig_end(&rig, x);
    cr_assert_eq(rig_try(&rig), 0);  // the next generation
    for (int i = 0; i < 2; i++) {
        x = rig_exchange(&rig, "GET", "/", fields);
        cr_assert(rig_request(&rig, x));
        rig_end(&rig, x);
        if (i == 0)
            script_host_free(old);
    }
    cr_assert_eq(rig.fails, 0);
    rig_release(&rig);
}

// ---- shared things ----------------------------------------------------------------------------------------

Test(script, networks_are_found) {
    check_refused(
        "local g = require 'moongate' local h = {} function h.request() g.cidr {} end local s = g.cidr { "
        "'10.0.0.0/8',"
        " ['10.1.0.0/16'] = 'x', ['2001:db8::/32'] = 'six' } assert(s:contains('10.2.3.4') and "
        "s:find('10.2.3.4') == true)"
        " assert(s:find('10.1.2.3') == 'x' and s:find('2001:db8::1') == 'six' and not s:contains('11.0.0.1'))"
        " assert(s:contains('unix') == false and s:count() == 3) error('done')",
        ": done");
    check_raises("gate.cidr { '10.0.0.0/8' }");
}

Test(script, a_dictionary_is_shared) {
    check_body("local d = gate.shared 'limits'\n"
               "assert(d:get('a') == nil) d:set('a', 'text') assert(d:get('a') == 'text') d:set('a', 5) "
               "assert(d:get('a') == 5)\n"
               "d:set('a', false) assert(d:get('a') == false) assert(d:add('a', 1) == false and d:add('b', "
               "1) == true)\n"
               "assert(d:incr('n') == 1 and d:incr('n', 2) == 3 and d:incr('m', 1, 10) == 11)\n"
               "assert(d:delete('n') and not d:delete('n')) d:set('a', nil) assert(d:get('a') == nil)\n"
               "local taken = 0 for i = 1, 10 do if d:take('t', 3) then taken = taken + 1 end end "
               "assert(taken == 3)\n"
               "local ok, wait = d:take('t', 3) assert(ok == false and wait > 0 and wait <= 1/3)\n"
               "assert(d:take('u', 0.1) == true and d:take('u', 0.1) == false)\n"
               "assert(d:stats().entries > 0)");
    check_raises("gate.shared('limits'):take('x', nil)");
    check_raises("local d = gate.shared('limits') d[1] = 99 d:get('x')");
    check_raises("req[1] = -1 return req.path");
    check_raises("req[1] = 0/0 return req.path");
    check_raises("gate.shared('limits'):set('x', {})");
    check_raises("gate.shared('limits'):set('', 1)");
}

Test(script, the_script_of_the_manual_runs) {
    char path[] = "/tmp/moongate-denied-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, "# none\n198.51.100.0/24\n", 23) == 23);
    close(fd);
    rig_init(&rig);
    rig_setting(&rig, "denied", path);
    rig_setting(&rig, "rate", "2");
    rig_script(&rig, "firewall.lua",
               "local gate     = require \"moongate\"\n"
               "local settings = ...\n"
               "local denied   = gate.cidr_file(settings.denied)\n"
               "local limits   = gate.shared \"limits\"\n"
               "local hooks    = {}\n"
               "function hooks.connect(conn)\n"
               "  if denied:contains(conn.remote_ip) then return conn:reject() end\n"
               "end\n"
               "function hooks.request(req)\n"
               "  if not limits:take(req.conn.remote_ip, tonumber(settings.rate)) then\n"
               "    return req:respond(429, { [\"retry-after\"] = \"1\" }, \"slow down\\n\")\n"
               "  end\n"
               "  req.headers[\"x-real-ip\"] = req.conn.remote_ip\n"
               "end\n"
               "return hooks\n");
    cr_assert_eq(rig_try(&rig), 0, "%s", rig.error.text);
    unlink(path);
    bool reject = true;
    cr_assert_eq(script_connect(rig.chain, rig.conn, &reject, decided, NULL), STEP_MORE);
    cr_assert(!reject);
    for (int i = 0; i < 3; i++) {
        struct exchange *x = rig_exchange(&rig, "GET", "/", fields);
        cr_assert(rig_request(&rig, x));
        cr_assert_eq(rig.responds, i == 2);
        if (i < 2)
            cr_assert_str_eq(rig_value(&rig, &x->req.headers, "x-real-ip"), "192.0.2.7");
        rig_end(&rig, x);
    }
    cr_assert_eq(rig.status, 429);
    rig_release(&rig);
}
