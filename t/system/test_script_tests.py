# SPDX-License-Identifier: BSD-2-Clause
"""moongate --test and --check-script: the ready-made scripts pass their tests, and the harness itself says what it
should of tests that fail, files that do not load, endless loops, hooks that raise and fakes that make no sense."""
import json
import os
import re
import subprocess

import pytest

from conftest import MOONGATE, SRCDIR

SCRIPTS = sorted(path for path in (SRCDIR / "lua").glob("*.lua")
                 if path.name not in ("moongate.lua", "test.lua") and not path.name.endswith("_test.lua"))
TEST_FILES = sorted((SRCDIR / "lua").glob("*_test.lua"))


def run(*arguments, cwd=None, timeout=120, **environment):
    return subprocess.run([MOONGATE, *arguments], capture_output=True, text=True, cwd=cwd, timeout=timeout,
                          stdin=subprocess.DEVNULL, env=dict(os.environ, **environment))


class Result:
    """The TAP of one file of tests: tests by name, each (ok, directive, YAML as text)."""

    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.tests = {}
        pattern = r"(?m)^    (ok|not ok) \d+ - (.*?)(?: # (SKIP.*))?$((?:\n      .*|\n$)*)"
        for ok, name, directive, yaml in re.findall(pattern, self.out):
            self.tests[name] = (ok == "ok", directive, yaml)

    def failure(self, name):
        ok, _, yaml = self.tests[name]
        assert not ok, self.out
        return yaml


@pytest.fixture
def tests(tmp_path):
    """tests(text, *options, files={}) runs a file of tests with that text."""
    def run_text(text, *options, files=None, time_limit=20, **environment):
        for name, content in (files or {}).items():
            (tmp_path / name).write_text(content)
        (tmp_path / "some_test.lua").write_text(text)
        return Result(run("--test", "--time-limit", str(time_limit), *options, "some_test.lua", cwd=tmp_path,
                          **environment))
    return run_text


def test_bodies_in_a_made_up_world(tests):
    done = tests('''
        local test = require "moongate.test"
        local function script(text) return test.script(test.file("a.lua", "return { " .. text .. " }")) end
        test("a body that is read, replaced and passed on", function()
          local web = script [[request = function(req) req:set_body(req:read_body(5):upper()) end]]
          local answer = web:request { method = "POST", body = { "ab", "c" }, headers = { expect = "100-continue" } }
          test.equal(answer.forwarded.body, "ABC")
          test.equal(answer.forwarded.headers["content-length"], "3")
        end)
        test("a hook waits for the rest of a body", function()
          local web = script [[request = function(req) req.headers["x-body"] = req:read_body() end]]
          local answer = web:request { method = "POST", body = "a", open = true, headers = { expect = "100-continue" } }
          test.truthy(answer.waits)
          test.equal(answer.forwarded, nil)
          answer:send("b")
          answer:finish()
          test.equal(answer.forwarded.headers["x-body"], "ab")
          test.equal(answer.forwarded.body, "ab")
        end)
        test("a body that is too large is passed on", function()
          local web = script [[request = function(req) req.headers["x-why"] = select(2, req:read_body(2)) end]]
          local answer = web:request { method = "POST", body = { "ab", "c" } }
          test.equal(answer.forwarded.headers["x-why"], "too large")
          test.equal(answer.forwarded.body, "abc")
        end)
        test("a response that is read and replaced", function()
          local web = script [[response = function(req, res) res:set_body("<" .. res:read_body() .. ">") end]]
          test.upstream("origin", { body = { "a", 1, "b" } })
          local answer = web:get("/")
          test.truthy(answer.waits)
          test.advance(2)
          test.equal(answer.body, "<ab>")
          test.equal(answer.headers["content-length"], "4")
        end)
        test("text in front and behind", function()
          local web = script [[response_body = function(req, res) res:prepend("1") res:append("2") end]]
          test.upstream("origin", { body = { "a", "b" } })
          test.equal(web:get("/").body, "1ab2")
        end)
        test("a request is given up", function()
          local web = script [[request_body = function(req) return req:abort(422) end]]
          local answer = web:request { method = "POST", body = "a" }
          test.equal(answer.status, 422)
          test.equal(answer.termination, "script_abort")
        end)
        test("a response is cut off", function()
          local web = script [[response_body = function(req, res)
            for chunk in res:body() do if chunk == "b" then return res:abort(502) end res:write(chunk) end
          end]]
          test.upstream("origin", { body = { "a", 1, "b" } })
          local answer = web:get("/")
          test.advance(2)
          test.truthy(answer.aborted)
          test.equal(answer.body, "a")
        end)
        test("a form", function()
          local web = script [[request_body = function(req)
            for field in req:form():fields() do if field.name == "b" then return req:abort(403) end end
          end]]
          local headers = { ["content-type"] = "application/x-www-form-urlencoded" }
          test.equal(web:request { method = "POST", body = { "a=", "1" }, headers = headers }.forwarded.body, "a=1")
          test.equal(web:request { method = "POST", body = { "a=1&b", "=2" }, headers = headers }.status, 403)
        end)
        test("a list of servers in order", function()
          local web = script [[route = function(req) return { "127.0.0.1:81", "127.0.0.1:82" } end,
            response = function(req, res) res.headers["x-tried"] = table.concat(req.tried) .. req.last_error.kind end]]
          test.upstream("127.0.0.1:81", { fail = "connect" })
          test.upstream("127.0.0.1:82", {})
          test.equal(web:get("/").headers["x-tried"], "127.0.0.1:81upstream_connect")
        end)
    ''')
    assert done.status == 0 and len(done.tests) == 9, done.out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_ready_made_script_has_tests(script):
    assert script.with_name(script.stem + "_test.lua") in TEST_FILES


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda path: path.name)
def test_the_tests_of_a_ready_made_script_pass(file):
    done = run("--test", file)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


# ---- the manual

def test_the_example_of_the_manual_passes(tests):
    page = (SRCDIR / "man/moongate-lua.7.in").read_text().partition(".Sh TESTS")[2]
    example = re.search(r"(?s)^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", page, re.M)[1].replace("\\e", "\\")
    (firewall,) = [path for path in SCRIPTS if path.name == "firewall.lua"]
    result = tests(example, files={"firewall.lua": firewall.read_text()})
    assert result.status == 0 and len(result.tests) == 3, result.out


def examples():
    for file in [SRCDIR / "lua/test.lua", *sorted((SRCDIR / "lua/test").glob("*.lua"))]:
        for block in re.findall(r"(?m)^--- @example\n((?:---   .*\n)+)", file.read_text()):
            yield pytest.param(re.sub(r"(?m)^---   ", "", block), id=f"{file.stem}:{block.split(chr(10))[0][6:40]}")


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_the_calls_run(tests, example):
    files = {path.name: path.read_text() for path in SCRIPTS}
    files["bad.lua"] = "local h = {}\nfunction h.request(req)\n  return req.a.b\nend\nreturn h\n"
    if "bad.lua" in example:
        example = 'test.script("bad.lua"):get("/")\n' + example.replace("attempt to index", "a request has no field")
    if "403" in example:
        example = 'answer = test.script("firewall.lua", { deny_paths = "/" }):get("/")\n' + example
    if not example.startswith("test("):
        example = f"""test("example", function()
            local client = test.script("redirect_https.lua", {{ except = "/" }}):connect()
            local answer = client:get("/", {{ ["x-request-id"] = "17" }})
            {example}
        end)"""
    result = tests(example, files=files)
    assert result.status == 0 and result.tests, result.out


# ---- what is printed

def test_the_output_is_tap_with_a_subtest_for_each_file(tmp_path):
    (tmp_path / "a_test.lua").write_text('test("one", function() end)\ntest("two # \\\\", function() end)\n')
    (tmp_path / "b_test.lua").write_text('test("three", function() end)\n')
    done = run("--test", "a_test.lua", "b_test.lua", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == """\
TAP version 14
1..2
# Subtest: a_test.lua
    1..2
    ok 1 - one
    ok 2 - two \\# \\\\
ok 1 - a_test.lua
# Subtest: b_test.lua
    1..1
    ok 1 - three
ok 2 - b_test.lua
# 3 tests: 3 passed, 0 failed
"""


def test_a_failing_test_fails_the_file_and_the_run(tests):
    result = tests('test("good", function() end)\n'
                   'test("bad", function()\n  test.equal(1 + 1, 3, "the sum")\nend)\n')
    assert result.status == 1
    assert result.tests["good"][0]
    yaml = result.failure("bad")
    assert 'message: "the sum: the values differ"' in yaml
    assert 'file: "some_test.lua"\n        line: 3' in yaml
    assert 'expected: "3"' in yaml and 'got: "2"' in yaml
    assert "some_test.lua:3:" in yaml.split("traceback:")[1]
    assert re.search(r"(?m)^not ok 1 - some_test.lua$", result.out)
    assert "# 2 tests: 1 passed, 1 failed" in result.out


@pytest.mark.parametrize("call, message", [
    ("test.same({ a = { 1, { x = 'y' } } }, { a = { 1, { x = 'z' } } })", ".a[2].x"),
    ("test.same({ 1, 2 }, { 1 })", "[2]"),
    ("test.same('a', 'b')", "the values differ"),
    ("test.matches('some text', 'other')", 'got: "some text"'),
    ("test.matches(nil, 'other')", 'got: "nil"'),
    ("test.truthy(nil, 'the thing')", "the thing: the value is nil"),
    ("test.falsy(0)", "there is a value"),
    ("test.error(function() end)", "no error was raised"),
    ("test.error(function() error('one') end, 'two')", "the error is another one"),
    ("test.fail('for this reason')", "for this reason"),
    ("error('an error of its own')", "some_test.lua:1: an error of its own"),
    ("local x = nil; x.y = 1", "attempt to index"),
    ("error({})", "table: "),
    ("test.equal(('x\\n'):rep(50) .. 'y', ('x\\n'):rep(50) .. 'z')", "line 51, column 1"),
])
def test_each_assertion_fails_when_it_should(tests, call, message):
    result = tests(f'test("t", function() {call} end)\n')
    assert result.status == 1
    assert message in result.failure("t")
    assert "line: 1" in result.failure("t") or "table: " in message


def test_assertions_hold_when_they_should(tests):
    result = tests("""test("t", function()
        test.equal(1, 1) test.same({ { 1 }, x = { y = 0 / 0 } }, { { 1 }, x = { y = 0 / 0 } })
        test.matches("a+b", "a+b") test.matches("aaab", "^a+b$") test.truthy(0) test.falsy(nil) test.falsy(false)
        test.matches(test.error(function() error("some [text") end, "some [text"), "some")
        local t = {}; t.t = t; local u = {}; u.t = u; test.same(t, u)
    end)""")
    assert result.status == 0, result.out


def test_control_characters_do_not_reach_the_terminal(tests):
    result = tests('test("t", function() test.equal("a\\27[31m\\0b", "c") end)\n')
    assert "x1b[31m" in result.failure("t") and "\x1b" not in result.out


def test_tests_are_picked_by_name(tests):
    text = 'test("one apple", function() end)\ntest("two Pears", function() error("x") end)\n'
    result = tests(text, "--only", "APPLE")
    assert result.status == 0 and list(result.tests) == ["one apple"]
    assert list(tests(text, "--only", "two*").tests) == ["two Pears"]
    nothing = tests(text, "--only", "plum")
    assert nothing.status == 1 and 'no test has a name like "plum"' in nothing.err


def test_a_skipped_test_is_no_failure(tests):
    result = tests('test("t", function() test.skip("no moon tonight") end)\n')
    assert result.status == 0
    assert result.tests["t"][:2] == (True, "SKIP no moon tonight")
    assert "1 skipped" in result.out


def test_logs_are_shown_when_it_fails_or_when_asked(tests):
    script = 'local gate = require "moongate"\ngate.log.info("a word from the script")\nreturn {}\n'
    text = 'test("t", function() test.script("s.lua") end)\n' \
           'test("f", function() test.script("s.lua") test.fail() end)\n'
    result = tests(text, files={"s.lua": script})
    assert "a word" not in result.tests["t"][2] and "a word from the script" in result.failure("f")
    assert "info s.lua: a word from the script" in tests(text, "-v").tests["t"][2]


def test_what_tests_print_is_a_comment(tests):
    result = tests('test("t", function() print("one\\ntwo", 3) end)\n')
    assert "    # one\n    # two 3\n    ok 1 - t\n" in result.out


def test_no_colours_but_on_a_terminal(tests):
    assert "\x1b" not in tests('test("t", function() end)').out


def on_a_terminal(folder, **environment):
    import pty
    master, slave = pty.openpty()
    process = subprocess.Popen([MOONGATE, "--test", "some_test.lua"], cwd=folder, stdout=slave, stdin=slave,
                               env=dict(os.environ, **environment))
    os.close(slave)
    out = b""
    try:
        while chunk := os.read(master, 65536):
            out += chunk
    except OSError:
        pass
    os.close(master)
    process.wait(30)
    return out


def test_colours_on_a_terminal_unless_NO_COLOR_is_set(tmp_path):
    (tmp_path / "some_test.lua").write_text('test("t", function() end)')
    assert b"\x1b[32mok" in on_a_terminal(tmp_path, NO_COLOR="")
    assert b"\x1b" not in on_a_terminal(tmp_path, NO_COLOR="1")


# ---- files and tests that are broken

@pytest.mark.parametrize("text, why", [
    ("local x = = 1", "some_test.lua:1: unexpected symbol"),
    ("\n\nerror('at the top')", "some_test.lua:3: at the top"),
    ("local test = require 'moongate.test'\ntest.equal(1, 2)", "some_test.lua:2: the values differ"),
    ("error('\\27[31mred')", "some_test.lua:1: ?[31mred"),
    ("test('no function')", "test takes a name and a function"),
    ("require 'no.such.module'", "module 'no.such.module' not found"),
])
def test_a_file_that_does_not_load_bails_out(tests, text, why):
    result = tests(text)
    assert result.status == 1
    assert re.search(r"(?m)^Bail out! .*" + re.escape(why), result.out), result.out


def test_a_file_that_is_not_there_bails_out(tmp_path):
    done = run("--test", "nowhere_test.lua", cwd=tmp_path)
    assert done.returncode == 1 and "Bail out! cannot open nowhere_test.lua" in done.stdout


def test_a_file_without_tests_is_a_failure(tests):
    result = tests("local x = 1")
    assert result.status == 1 and "have no tests" in result.err


def test_no_file_is_an_error():
    done = run("--test")
    assert done.returncode == 1 and "--test needs files" in done.stderr


@pytest.mark.parametrize("where, place", [
    ("function h.request(req)\n  while true do end\nend", "s.lua:3"),
    ("function h.request(req)\n  while true do pcall(error) end\nend", "s.lua:3"),
    ("function h.connect(conn)\n  repeat until false\nend", "s.lua:3"),
    ("function h.response(req, res)\n  for i = 1, math.huge do end\nend", "s.lua:3"),
    ("local co = coroutine.wrap(function()\n  while true do end\nend)\nfunction h.request() co() end", "s.lua:3"),
    ("for i = 1, math.huge do end", "s.lua:2"),
])
def test_an_endless_script_fails_its_test_with_the_line(tests, where, place):
    result = tests('test("endless", function() test.script("s.lua"):get("/") end)\ntest("next", function() end)\n',
                   files={"s.lua": f"local h = {{}}\n{where}\nreturn h\n"}, time_limit=1)
    assert result.status == 1
    yaml = result.failure("endless")
    assert f"did not end within 1 s; it was at {place}" in yaml.replace(str(SRCDIR), ""), yaml
    assert result.tests["next"][0]


def test_a_script_that_wants_too_much_memory_fails_and_the_time_limit_still_holds(tests, tmp_path):
    (tmp_path / "greedy.lua").write_text("""local h = {}
        function h.request(req)
            if req.path == "/loop" then while true do end end
            local t = {}
            while true do t[#t + 1] = ("x"):rep(100000) .. #t end
        end
        return h""")
    (tmp_path / "some.conf").write_text(f"scripts {tmp_path};\nscript_memory_limit 16m;\n"
                                        "frontend web { listen 127.0.0.1:80; script greedy.lua; }\n")
    result = tests("""test("memory", function()
            local web = test.frontend("web")
            test.equal(web:get("/").status, 500)
            test.equal(#test.errors(), 1)
            web:get("/loop")
        end)""", "-c", "some.conf", time_limit=2)
    assert "it was at" in result.failure("memory") and "greedy.lua:3" in result.failure("memory"), result.out


@pytest.mark.parametrize("text", ["while true do end", "while true do pcall(error) end",
                                  "coroutine.wrap(function() while true do end end)()"])
def test_an_endless_test_fails_with_the_line(tests, text):
    result = tests(f'test("endless", function()\n  {text}\nend)\ntest("next", function() end)\n', time_limit=1)
    assert "it was at some_test.lua:2" in result.failure("endless")
    assert result.tests["next"][0]


def test_an_endless_call_of_a_library_fails_its_test(tests):
    result = tests('test("endless", function() return ("a"):rep(100000):find((".-"):rep(10) .. "b") end)\n'
                   'test("next", function() end)\n', time_limit=1)
    assert "did not end within 1 s, and what held it up was no Lua code" in result.failure("endless")
    assert result.tests["next"][0]


def test_an_endless_file_bails_out(tests):
    result = tests("\nwhile true do end", time_limit=1)
    assert result.status == 1 and "Bail out!" in result.out


def test_a_test_that_ends_its_process_fails(tests):
    result = tests('test("exit", function() os.exit(0) end)\ntest("next", function() end)\n')
    assert "called os.exit" in result.failure("exit")
    assert result.tests["next"][0]


def test_a_test_that_crashes_fails(tests):
    result = tests('test("crash", function() require("ffi").cast("int *", 8)[0] = 1 end)\n'
                   'test("next", function() end)\n')
    assert "message:" in result.failure("crash")
    assert result.tests["next"][0]


def test_nothing_of_one_test_is_left_for_the_next(tests):
    script = 'local gate = require "moongate"\nlocal h, n = {}, 0\nfunction h.request(req)\n  n = n + 1\n' \
             '  return req:respond(200, {}, n .. " " .. gate.shared("d"):incr("k", 1, 0))\nend\nreturn h\n'
    text = """
        leaked = leaked or 0
        leaked = leaked + 1
        for i = 1, 2 do
            test("run " .. i, function()
                test.equal(leaked, 1)
                local web = test.script("s.lua")
                test.equal(web:get("/").body, "1 1")
                test.equal(web:get("/").body, "2 2")
                test.equal(test.script("s.lua"):get("/").body, "1 3", "a state of its own, the dictionary shared")
                test.file("left.txt", "x")
                test.advance(1)
                test.equal(test.now(), 1767225601)
            end)
        end"""
    result = tests(text, files={"s.lua": script})
    assert result.status == 0, result.out


def test_folders_of_tests_are_removed(tests, tmp_path):
    (tmp_path / "tmp").mkdir()
    tests('test("t", function() test.file("a/b/c.txt", "x") end)\ntest("u", function() while true do end end)',
          time_limit=1, TMPDIR=str(tmp_path / "tmp"))
    assert list((tmp_path / "tmp").iterdir()) == []


# ---- scripts that fail

RAISES = 'local h = {}\nfunction h.%s(a, b)\n  local x = nil\n  return x.y\nend\nreturn h\n'


def test_an_error_of_a_hook_fails_the_test_that_did_not_expect_it(tests):
    result = tests('test("t", function() test.equal(test.script("s.lua"):get("/").status, 500) end)\n',
                   files={"s.lua": RAISES % "request"})
    yaml = result.failure("t")
    assert "a script failed" in yaml and "s.lua:4: attempt to index local 'x'" in yaml


@pytest.mark.parametrize("hook, status", [("request", 500), ("route", 500), ("response", 502)])
def test_an_error_of_a_hook_can_be_expected(tests, hook, status):
    text = f"""test("t", function()
        local answer = test.script("s.lua"):get("/")
        test.equal(answer.status, {status})
        local errors = test.errors()
        test.equal(#errors, 1)
        test.matches(errors[1], '"s.lua", {hook} hook')
        test.matches(errors[1], "s.lua:4: attempt to index")
        test.equal(#test.errors(), 0)
        test.equal(answer.termination, "script_error")
    end)"""
    result = tests(text, files={"s.lua": RAISES % hook})
    assert result.status == 0, result.out


def test_a_script_that_does_not_load_says_why(tests):
    result = tests("""test("t", function()
        test.error(function() test.script("none.lua") end, 'no script "none.lua"')
        test.error(function() test.script("syntax.lua") end, "syntax.lua:2")
        test.error(function() test.script("global.lua") end, 'write to the global "x"')
        test.error(function() test.script("hook.lua") end, 'did you mean "request"')
        test.error(function() test.script("s.lua", {}, { directives = "max_bodi 1k;" }) end, "max_bodi")
        test.error(function() test.script("s.lua", { ["a"] = {} }) end, "expected a string")
        test.error(function() test.script("s.lua", {}, { route = {} }) end, "no field \\"route\\"")
    end)""", files={"syntax.lua": "local h\nlocal = 1\n", "global.lua": "x = 1\nreturn {}\n",
                    "hook.lua": "return { reqest = function() end }\n", "s.lua": "return {}\n"})
    assert result.status == 0, result.out


def test_settings_arrive_as_a_configuration_would_give_them(tests):
    script = """local settings = ...
        local h = {}
        function h.request(req) return req:respond(200, {}, type(settings[req.query]) .. " " .. settings[req.query]) end
        return h"""
    text = r"""test("t", function()
        local odd = 'quo"te back\\slash ${HOME} $x # ; { } \200'
        local web = test.script("s.lua", { n = 1.5, yes = true, no = false, odd = odd, empty = "" })
        for name, value in pairs { n = "1.5", yes = "on", no = "off", odd = odd, empty = "" } do
            test.equal(web:get("/?" .. name).body, "string " .. value)
        end
    end)"""
    result = tests(text, files={"s.lua": script})
    assert result.status == 0, result.out


@pytest.mark.parametrize("call, why", [
    ("test.upstream('a', { statis = 200 })", 'no field "statis"'),
    ("test.upstream('a', { fail = 'often' })", "expected one of close, connect, reset, timeout, unreachable"),
    ("test.upstream('a', { status = 99 })", "expected 100 to 999"),
    ("test.upstream('a', 'answer')", "an answer is a table"),
    ("test.upstream('a', { body = { {} } })", "piece 1 is a table"),
    ("test.upstream('two words', 200)", "takes a name"),
    ("web:request { metod = 'GET' }", 'no field "metod"'),
    ("web:request 'GET'", 'bad request "GET"'),
    ("web:request { headers = { 'no colon' } }", 'expected "Name: value"'),
    ("web:request { headers = { a = 'x\\r\\nb: y' } }", "line break"),
    ("web:request { target = '/\\n' }", "line break"),
    ("web:request { headers = { a = {{}} } }", "expected a string"),
    ("web:connect('nobody')", 'bad address "nobody"'),
    ("web:connect { form = '::1' }", 'no field "form"'),
    ("local c = web:connect(); c:close(); c:get('/')", "the connection was closed"),
    ("web:get('/').stauts()", 'no field "stauts"'),
    ("web:get('/'):send('x')", "open = true"),
    ("test.advance(-1)", "takes seconds"),
    ("test.file('../x', '')", "without .."),
    ("test.frontend('web')", "no configuration was given"),
    ("test.eqal(1, 1)", 'has no "eqal"'),
])
def test_a_fake_that_makes_no_sense_is_told_at_its_line(tests, call, why):
    result = tests(f'test("t", function()\n  local web = test.script("s.lua")\n  {call}\nend)\n',
                   files={"s.lua": "return {}\n"})
    yaml = result.failure("t")
    assert why in yaml.replace('\\"', '"'), yaml
    assert "line: 3" in yaml


# ---- the made-up world

def test_made_up_traffic(tests):
    files = {
        "pass.lua": "return {}\n",
        "upper.lua": """local h = {}
            function h.request_body(req) for piece in req:body() do req:write(piece:upper()) end end
            function h.response_body(req, res) for piece in res:body() do res:write(piece:lower()) end end
            return h""",
        "slow.lua": """local gate = require "moongate"
            local h = {}
            function h.connect(conn) gate.sleep(1) if conn.remote_ip == "192.0.2.9" then return conn:reject() end end
            function h.response(req, res) gate.sleep(0.5) res.headers["x-port"] = req.conn.local_port end
            return h""",
        "slowbody.lua": """local gate = require "moongate"
            local h = {}
            function h.request_body(req) for piece in req:body() do gate.sleep(0.1) req:write(piece) end end
            return h""",
        "dict.lua": """local gate = require "moongate"
            local h, d = {}, require("moongate").shared "d"
            function h.request(req)
                local had = d:get("k")
                if not had then d:set("k", "v", 10) end
                return req:respond(200, {}, tostring(had))
            end
            return h""",
    }
    text = r"""
    test("bodies in pieces both ways", function()
        local up = test.upstream("origin", { body = { "ONE ", "TWO" } })
        local answer = test.script("upper.lua"):request { method = "POST", body = { "ab", "cd" } }
        test.equal(answer.body, "one two")
        test.equal(up.requests[1].body, "ABCD")
        test.equal(up.requests[1].complete, true)
        test.equal(answer.forwarded.headers["transfer-encoding"], "chunked")
    end)
    test("a body that is sent bit by bit", function()
        local web = test.script("pass.lua")
        local answer = web:request { method = "PUT", target = "/x", open = true }
        test.falsy(answer.ended)
        answer:send("a")
        answer:send("b")
        test.equal(answer.forwarded.body, "ab")
        test.equal(answer.forwarded.complete, false)
        answer:finish()
        test.equal(answer.status, 200)
        test.equal(answer.forwarded.complete, true)
    end)
    test("a large body is held back and comes whole", function()
        local pieces = {}
        for i = 1, 200 do pieces[i] = ("x"):rep(10000) end
        test.upstream("origin", { body = pieces })
        local answer = test.script("upper.lua"):request { method = "POST", body = pieces }
        test.equal(#answer.body, 2000000)
        test.equal(#answer.forwarded.body, 2000000)
    end)
    test("a script that is slow holds its client back", function()
        local pieces = {}
        for i = 1, 100 do pieces[i] = ("x"):rep(10000) end
        local web = test.script("slowbody.lua", {}, { directives = "buffer_high 64k; buffer_low 16k;" })
        local answer = web:request { method = "POST", body = pieces }
        test.truthy(answer.paused)
        test.advance(0.5)
        test.truthy(#answer.forwarded.body < 1000000)
        test.advance(60)
        test.equal(#answer.forwarded.body, 1000000)
        test.equal(answer.status, 200)
    end)
    test("servers that fail", function()
        local cases = { { { fail = "connect" }, 502, "upstream_connect" },
            { { fail = "close" }, 502, "upstream_closed" },
            { { fail = "reset" }, 502, "upstream_reset" }, { { fail = "unreachable" }, 504, "upstream_timeout" },
            { { fail = "timeout" }, 504, "upstream_timeout" },
            { { raw = "nonsense\r\n\r\n" }, 502, "upstream_protocol" } }
        for i, case in ipairs(cases) do
            test.upstream("origin", case[1])
            local answer = test.script("pass.lua"):get("/")
            test.advance(1000)
            test.equal(answer.status, case[2], i)
            test.equal(answer.termination, case[3], i)
        end
    end)
    test("a server that breaks off", function()
        test.upstream("origin", { body = { "half" }, close = true })
        local answer = test.script("pass.lua"):get("/")
        test.equal(answer.body, "half")
        test.truthy(answer.aborted)
        test.upstream("origin", { headers = { ["content-length"] = 10 }, body = "short" })
        answer = test.script("pass.lua"):get("/")
        test.truthy(answer.aborted)
        test.upstream("origin", { body = { "a", 5, "b" } })
        answer = test.script("pass.lua"):get("/")
        test.equal(answer.body, "a")
        test.advance(4.9)
        test.equal(answer.body, "a")
        test.advance(0.1)
        test.equal(answer.body, "ab")
        test.truthy(answer.ended)
    end)
    test("a server that decides, and one that answers early", function()
        local up = test.upstream("origin", function(request)
            return { status = request.headers["x-bad"] and 400 or 201, body = request.method .. " " .. request.body }
        end)
        local web = test.script("pass.lua")
        test.equal(web:request { method = "POST", body = "x" }.body, "POST x")
        test.equal(web:get("/", { ["x-bad"] = 1 }).status, 400)
        test.equal(#up.requests, 2)
        test.upstream("origin", { status = 413, early = true })
        local answer = web:request { method = "POST", open = true }
        test.equal(answer.status, 413)
    end)
    test("answers in turn", function()
        test.upstream("origin", 500, { status = 200, delay = 2 })
        local web = test.script("pass.lua")
        test.equal(web:get("/").status, 500)
        local answer = web:get("/")
        test.equal(answer.status, nil)
        test.advance(2)
        test.equal(answer.status, 200)
        test.equal(web:get("/").ended, false)
    end)
    test("hooks that wait, clients that go", function()
        local web = test.script("slow.lua")
        local good, bad, gone = web:connect("192.0.2.1"), web:connect("192.0.2.9"), web:connect("192.0.2.2")
        test.truthy(good.waits)
        test.error(function() good:get("/") end, "waits for its connect hook")
        gone:close()
        test.advance(1)
        test.falsy(good.waits or good.rejected)
        test.truthy(bad.rejected)
        local answer = good:get("/")
        test.truthy(answer.waits)
        local left = good:get("/left")
        left:leave()
        test.advance(0.5)
        test.equal(answer.headers["X-Port"], "80")
        test.equal(left.termination, "client_closed")
    end)
    test("dictionaries expire", function()
        local web = test.script("dict.lua")
        test.equal(web:get("/").body, "nil")
        test.equal(web:get("/").body, "v")
        test.advance(10)
        test.equal(web:get("/").body, "nil")
    end)
    test("routes and directives are the frontend's", function()
        local web = test.script("pass.lua", {}, { routes = { ["/a/"] = "one", ["/b/"] = "two" },
            directives = "max_body 10; x_forwarded replace;" })
        test.equal(web:get("/a/").upstream, "one")
        test.equal(web:get("/b/x").upstream, "two")
        test.equal(web:get("/").status, 404)
        test.equal(web:request { method = "POST", target = "/a/", body = "12345678901" }.status, 413)
        local answer = web:request { from = "198.51.100.7", target = "/a/" }
        test.equal(answer.forwarded.headers["x-forwarded-for"], "198.51.100.7")
    end)
    test("a chain of scripts", function()
        test.file("tag.lua", "local s, h = ..., {}\n" ..
            "function h.request(req) req.headers:add('x-tag', s.tag) end\nreturn h")
        local web = test.scripts { { "tag.lua", { tag = "a" } }, "pass.lua", { "tag.lua", { tag = "b" } } }
        test.equal(web:get("/").forwarded.headers["x-tag"], "a, b")
    end)
    test("heads are what the wire has", function()
        test.upstream("origin", { status = 204, headers = { "Set-Cookie: a=1", "Set-Cookie: b=2" } })
        local web = test.script("pass.lua")
        local answer = web:request { method = "HEAD", headers = { connection = "x-hop", ["x-hop"] = "1" } }
        test.equal(answer.status, 204)
        test.equal(answer.headers["set-cookie"], "a=1, b=2")
        test.equal(answer.forwarded.headers["x-hop"], nil)
        test.equal(web:request { raw = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" }.status, 400)
        test.upstream("origin", { raw = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" })
    end)
    test("timers, tasks and hooks of the process", function()
        local web = test.script("life.lua")
        test.equal(web:get("/").body, "init worker_init")
        test.advance(2.5)
        test.equal(web:get("/").body, "init worker_init timer timer")
        local answer = web:get("/spawn")
        test.truthy(answer.waits)
        test.advance(1)
        test.equal(answer.body, "spawned")
        test.falsy(test.logged("log hook /spawn"), "it sleeps before it writes")
        test.advance(0.1)
        test.truthy(test.logged("log hook /spawn 200"))
        test.equal(web:get("/nowhere").status, 418)
        test.matches(test.errors()[1], "teapot")
    end)
    test("a script that asks another server itself", function()
        local auth = test.upstream("auth", { status = 204, delay = 1 }, 403, { fail = "timeout" })
        local web = test.script("asks.lua")
        local answer = web:get("/x")
        test.truthy(answer.waits)
        test.equal(auth.requests[1].target, "/check?/x")
        test.advance(1)
        test.equal(answer.status, 200)
        test.equal(answer.upstream, "origin")
        test.equal(web:get("/y").status, 403)
        answer = web:get("/z")
        test.advance(10)
        test.equal(answer.status, 503)
        web:get("/gone"):leave()
    end)
    test("what scripts count", function()
        local web = test.script("counts.lua")
        for _, target in ipairs { "/a", "/a", "/b" } do web:get(target) end
        test.equal(test.metric("seen_total", { path = "/a" }), 2)
        test.equal(test.metric("seen_total", { path = "/b" }), 1)
        test.equal(test.metric("seen_total", { path = "/c" }), nil)
        test.equal(test.metric("level"), 3)
        test.same({ test.metric("sizes") }, { 3, 30 })
    end)
    test("an init hook that fails refuses the script", function()
        test.error(function() test.script("badinit.lua") end, "badinit.lua:2: not today")
        test.error(function() test.script("slowinit.lua") end, "reload_timeout")
    end)
    """
    files["life.lua"] = """local gate = require "moongate"
        local h, did = {}, {}
        function h.init() gate.sleep(0.2) did[#did + 1] = "init" end
        function h.worker_init() did[#did + 1] = "worker_init" end
        gate.every(1, function() did[#did + 1] = "timer" end)
        function h.request(req)
            if req.path == "/nowhere" then error("teapot") end
            if req.path == "/spawn" then
                gate.wait({ gate.spawn(function() gate.sleep(1) end) })
                return req:respond(200, {}, "spawned")
            end
            return req:respond(200, {}, table.concat(did, " "))
        end
        function h.error(req, res) return req:respond(418, {}, "") end
        function h.log(req, res) gate.sleep(0.1) gate.log.info("log hook", req.path, res.status) end
        return h"""
    files["asks.lua"] = """local gate = require "moongate"
        local h = {}
        function h.request(req)
            local answer = gate.fetch("http://auth.example/check?" .. req.path, { upstream = "auth", timeout = 5 })
            if not answer then return req:respond(503) end
            if answer.status >= 300 then return req:respond(answer.status) end
        end
        return h"""
    files["counts.lua"] = """local gate = require "moongate"
        local seen = gate.counter("seen_total", "requests", { "path" })
        local level, sizes = gate.gauge("level"), gate.histogram("sizes", nil, nil, { 1, 100 })
        local h, n = {}, 0
        function h.request(req)
            n = n + 1
            seen:inc(1, req.path)
            level:set(n)
            sizes:observe(10)
            return req:respond(200, {}, "")
        end
        return h"""
    files["badinit.lua"] = "local h = {}\nfunction h.init() error('not today') end\nreturn h\n"
    files["slowinit.lua"] = "local g = require 'moongate'\nlocal h = {}\nfunction h.init() g.sleep(1e5) end\nreturn h\n"
    result = tests(text, files=files)
    assert result.status == 0, result.out
    assert len(result.tests) == 17


SOCKETS = """local gate = require "moongate"
local h = {}
function h.request(req)
  local sock, why = gate.tcp.connect("127.0.0.1:6379", { timeout = 1 })
  if not sock then return req:respond(503, nil, why) end
  sock:send("GET " .. req.path .. "\\r\\n")
  local line, why = sock:receive_line()
  if line then sock:keepalive(5) end
  return req:respond(200, nil, line or why)
end
function h.log(req)
  local udp = gate.udp.connect("127.0.0.1:8125")
  udp:send("c:1")
  udp.read_timeout = 1
  gate.log.notice("got", udp:receive())
end
return h"""

DATAGRAMS = """local gate = require "moongate"
return { request = function(req)
  local udp = gate.udp.connect("127.0.0.1:53", { timeout = 1 })
  udp:send(req.path .. "\\0")
  local parts = {}
  for i = 1, 3 do
    local data, why = udp:receive(100)
    parts[i] = data or why
    if why == "timeout" or why == "refused" then return req:respond(200, nil, why) end
  end
  return req:respond(200, nil, table.concat(parts, "|"))
end }"""


def test_made_up_peers_of_sockets(tests):
    result = tests("""test("a conversation over a pooled connection, and datagrams", function()
  local redis = test.peer("127.0.0.1:6379", { expect = "GET /a\\r\\n", send = { "val", 0.5, "ue\\r\\n" } },
    { expect = "GET /b\\r\\n", send = "b\\r\\n" }, { expect = "GET /c\\r\\n", close = true })
  local statsd = test.peer("udp:127.0.0.1:8125", function(data) return data == "c:1" and "pong" end)
  local web = test.script("s.lua")
  local answer = web:get("/a")
  test.falsy(answer.ended)
  test.advance(0.6)
  test.equal(answer.body, "value")
  test.equal(web:get("/b").body, "b")
  test.equal(redis.connections, 1)
  test.equal(redis.open, 1)
  test.equal(web:get("/c").body, "closed")
  test.equal(redis.open, 0)
  test.same(redis.received, { "GET /a\\r\\nGET /b\\r\\nGET /c\\r\\n" })
  test.same(statsd.received, { "c:1", "c:1", "c:1" })
  answer = web:get("/a")
  test.advance(1)
  test.equal(answer.body, "value")
  test.advance(6)
  test.equal(redis.open, 0)
end)
test("a script that says something else", function()
  test.peer("127.0.0.1:6379", { expect = "PUT" })
  test.error(function() test.script("s.lua"):get("/x") end, "sends something else")
end)
test("datagrams that fail, are lost, or are not what was expected", function()
  local web = test.script("udp.lua")
  local answer = web:get("/lost")
  test.advance(1.1)
  test.equal(answer.body, "timeout")
  test.peer("udp:127.0.0.1:53", { fail = "refused" })
  test.equal(web:get("/x").body, "refused")
  test.peer("udp:127.0.0.1:53", { expect = "/y\\0", send = { "", ("z"):rep(200), "last" } })
  test.equal(web:get("/y").body, "|too large|last")
  test.error(function() web:get("/other") end, "from byte 2 on")
end)
test("what fails", function()
  local web = test.script("s.lua")
  test.equal(web:get("/").body, "refused")
  test.peer("127.0.0.1:6379", { fail = "unreachable" })
  test.equal(web:get("/").body, "unreachable")
  test.peer("127.0.0.1:6379", { fail = "timeout" })
  local answer = web:get("/")
  test.advance(1.1)
  test.equal(answer.body, "timeout")
  test.peer("127.0.0.1:6379", { close = "reset" })
  test.equal(web:get("/").body, "reset")
  test.peer("127.0.0.1:6379", { fail = "tired" })
  test.error(function() web:get("/") end, "tired")
end)
""", files={"s.lua": SOCKETS, "udp.lua": DATAGRAMS})
    assert result.status == 0 and len(result.tests) == 4, result.out


def test_a_frontend_of_a_configuration(tmp_path):
    (tmp_path / "site.lua").write_text("""local gate = require "moongate"
        local h, d = {}, gate.shared "counts"
        function h.request(req) req.headers["x-count"] = d:incr("n", 1, 0) end
        return h""")
    (tmp_path / "bad.lua").write_text('require("moongate").shared "none"\nreturn {}\n')
    (tmp_path / "site.conf").write_text(f"""scripts {tmp_path};
        shared counts 1m;
        upstream app {{ server 192.0.2.80:80; response_timeout 3s; }}
        frontend web {{ listen 127.0.0.1:8080; script site.lua; route /app/ app; access_log /nowhere/log; }}""")
    (tmp_path / "site_test.lua").write_text("""test("t", function()
        local app = test.upstream("app", 200, { fail = "timeout" })
        local web = test.frontend("web")
        test.equal(web:get("/app/").status, 200)
        test.equal(app.requests[1].headers["x-count"], "1")
        local answer = web:get("/app/")
        test.advance(2.9)
        test.falsy(answer.ended)
        test.advance(0.2)
        test.equal(answer.status, 504)
        test.equal(web:get("/").status, 404)
        test.error(function() test.frontend("other") end, 'no frontend "other"')
    end)""")
    done = run("--test", "-c", "site.conf", "site_test.lua", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    config = (tmp_path / "site.conf").read_text()
    (tmp_path / "site.conf").write_text(config.replace("script site.lua", "script bad.lua"))
    done = run("--test", "-c", "site.conf", "site_test.lua", cwd=tmp_path)
    assert done.returncode == 1 and 'no dictionary \\"none\\"' in done.stdout, done.stdout


def test_scripts_are_found_in_a_folder_beside_that_of_the_tests(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "lua").mkdir()
    (tmp_path / "lua/s.lua").write_text('local part = require "part"\nreturn {}\n')
    (tmp_path / "lua/part.lua").write_text("return 1\n")
    (tmp_path / "tests/s_test.lua").write_text('test("t", function() test.script("s.lua") end)\n')
    for folder, file in ((tmp_path, "tests/s_test.lua"), (tmp_path / "tests", "s_test.lua"),
                         ("/", tmp_path / "tests/s_test.lua")):
        done = run("--test", file, cwd=folder)
        assert done.returncode == 0, done.stdout


# ---- --check-script

def check(*arguments, **more):
    return run("--check-script", *arguments, **more)


def test_a_script_is_described():
    done = check(SRCDIR / "lua/firewall.lua", "deny=192.0.2.0/24", "methods=GET")
    assert done.returncode == 0, done.stdout + done.stderr
    for pattern in (r"firewall.lua: fine", r"hooks +connect \(line \d+\), request \(line \d+\)",
                    r"deny \(list\) = 192.0.2.0/24", r"modules +moongate", r"globals +.*ipairs"):
        assert re.search(pattern, done.stdout), done.stdout


def test_a_script_is_described_as_json(tmp_path):
    (tmp_path / "part.lua").write_text("return { 1 }\n")
    (tmp_path / "s.lua").write_text("""local settings = ...
        local gate, part = require "moongate", require "part"
        local h, d = {}, gate.shared "things"
        local quote = settings.quote
        function h.request(req) end
        function h.response(req, res) print(1) end
        return h""")
    done = check("-j", tmp_path / "s.lua", 'other="a\n"')
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["ok"]
    assert told["hooks"] == [{"name": "request", "line": 5}, {"name": "response", "line": 6}]
    assert told["modules"] == ["moongate", "part"] and told["dictionaries"] == ["things"]
    assert told["settings"] == [{"name": "other", "given": '"a\n"'}, {"name": "quote"}]
    assert told["globals"] == ["print", "require"]


def test_every_wrong_global_is_told(tmp_path):
    (tmp_path / "s.lua").write_text("local h = {}\nx = 1\nfunction h.request(r)\n  return undefined_thing\n"
                                    "end\nreturn h\n")
    done = check(tmp_path / "s.lua")
    assert done.returncode == 1
    assert 's.lua:2: the global "x" is written: declare it local' in done.stdout
    assert 's.lua:4: the global "undefined_thing" is undefined' in done.stdout
    told = json.loads(check("-j", tmp_path / "s.lua").stdout)
    assert not told["ok"] and [error["line"] for error in told["errors"]] == [2, 4]


@pytest.mark.parametrize("text, why", [
    ("local h = {\n", "s.lua:2: "),
    ("return 1\n", "expected a table of hooks"),
    ("return { reqest = function() end }\n", 'did you mean "request"'),
    ("error('not today')\n", "s.lua:1: not today"),
    ("local io = require 'io'\n", "io"),
])
def test_a_script_that_does_not_load_is_told(tmp_path, text, why):
    (tmp_path / "s.lua").write_text(text)
    done = check(tmp_path / "s.lua")
    assert done.returncode == 1 and why in done.stdout, done.stdout + done.stderr


def test_a_script_that_needs_settings_says_which():
    done = check(SRCDIR / "lua/ratelimit.lua")
    assert done.returncode == 1
    assert "the setting rate=NUMBER" in done.stdout
    assert "loaded without settings" in done.stdout and "ratelimit.lua rate=VALUE" in done.stdout
    assert check(SRCDIR / "lua/ratelimit.lua", "rate=5").returncode == 0


def test_an_endless_script_is_told(tmp_path):
    (tmp_path / "s.lua").write_text("local x\nwhile true do end\n")
    done = check("--time-limit", "1", tmp_path / "s.lua")
    assert done.returncode == 1 and "s.lua:2: the script did not load within 1 s" in done.stderr


@pytest.mark.parametrize("arguments, why", [
    ((), "needs a file"), (("/nowhere.lua",), "cannot read"), (("-v", "x.lua"), ""),
    (("/nowhere.lua", "setting"), "expected KEY=VALUE"), (("/nowhere.lua", "=x"), "expected KEY=VALUE"),
])
def test_wrong_uses_of_check_script(arguments, why):
    done = check(*arguments)
    assert done.returncode == 1 and why in done.stderr


def test_options_of_one_are_refused_elsewhere():
    assert "are for --test" in run("-t", "--only", "x").stderr
    assert "is for --check-script" in run("-t", "-j").stderr
    assert "expected seconds" in run("--test", "--time-limit", "0", "x").stderr


def test_names_resolve_to_what_a_test_says(tests):
    done = tests("""
        local test = require "moongate.test"
        local function web()
          test.file("a.lua", [[
            local gate = require "moongate"
            return { request = function(req)
              local found, why = gate.resolve(req.path:sub(2), { timeout = tonumber(req.headers["x-timeout"]) })
              if not found then return req:respond(404, nil, why) end
              return req:respond(200, nil, table.concat(found, " ") .. " " .. found.ttl)
            end }]])
          return test.script("a.lua")
        end
        test("found, in both families, and once more when its time is over", function()
          test.name("db.example", { "192.0.2.1", "2001:db8::1", ttl = 30 })
          local web = web()
          test.equal(web:get("/DB.example").body, "192.0.2.1 2001:db8::1 30")
          test.name("db.example", "192.0.2.2")
          test.advance(29)
          test.equal(web:get("/db.example").body, "192.0.2.1 2001:db8::1 1")
          test.advance(1)
          test.equal(web:get("/db.example").body, "192.0.2.2 60")
        end)
        test("slow, failing and unknown", function()
          test.name("slow.example", { "192.0.2.1", delay = 2 })
          test.name("dead.example", { fail = "timeout", delay = 5 })
          local web = web()
          local slow = web:get("/slow.example")
          test.equal(slow.status, nil)
          test.advance(2)
          test.equal(slow.body, "192.0.2.1 60")
          local dead, hasty = web:get("/dead.example"), web:get("/dead.example", { ["x-timeout"] = 1 })
          test.advance(1)
          test.equal(hasty.body, "timeout")
          test.advance(4)
          test.equal(dead.body, "no resolver answered in time")
          test.equal(web:get("/none.example").body, "no such name")
        end)
        test("misused", function() test.name("a.example", "nonsense") end)
        test("misused in another way", function() test.name("a.example", { fail = "badly" }) end)
    """)
    assert [done.tests[name][0] for name in done.tests] == [True, True, False, False], done.out
    assert "IP addresses" in done.failure("misused")
    assert 'badly' in done.failure("misused in another way") and "expected one of no address, no name," in done.failure("misused in another way")


def test_servers_by_name_are_those_that_a_test_makes_up(tests):
    done = tests("""
        local test = require "moongate.test"
        test("by a route hook and by gate.fetch", function()
          test.file("a.lua", [[
            local gate = require "moongate"
            return {
              request = function(req)
                if req.path ~= "/asked" then return end
                return req:respond(200, nil, assert(gate.fetch("http://API.example/x")).body)
              end,
              route = function(req) return "db.example:8080" end,
            }]])
          local api = test.upstream("api.example:80", { body = "api" })
          local db = test.upstream("db.example:8080", { fail = "connect" }, { body = "db" })
          local web = test.script("a.lua")
          test.equal(web:get("/").body, "db")
          test.equal(#db.requests, 1)
          test.equal(web:get("/asked").body, "api")
          test.equal(api.requests[1].target, "/x")
        end)
    """)
    assert done.status == 0, done.out


RESOLVE_SCRIPT = """
    local gate = require "moongate"
    return { resolve = function(name, options)
      if name == "slow.test" then gate.sleep(2) return "192.0.2.2" end
      if name == "bad.test" then return false, "not here" end
      if name == "broken.test" then error("broken") end
      local found = gate.resolve(name, options)
      if found then found[#found + 1], found.ttl = "2001:db8::9", 5 end
      return found
    end,
    request = function(req)
      local found, why = gate.resolve(req.path:sub(2))
      return req:respond(200, nil, found and table.concat(found, " ") or why)
    end }"""


def test_resolve_hooks(tests):
    done = tests("""
        local test = require "moongate.test"
        test("names", function()
          test.name("app.test", { "192.0.2.1", ttl = 60 })
          local web = test.script("a.lua")
          local found = web:resolve("app.test")
          test.same({ found[1], found[2], found[3] or "none", found.ttl, found.waits, found.why or "" },
            { "192.0.2.1", "2001:db8::9", "none", 5, false, "" })
          test.equal(web:resolve("app.test", 6)[1] or "none", "none")
          test.equal(web:get("/app.test").body, "192.0.2.1 2001:db8::9")
          test.equal(web:get("/none.test").body, "no such name")
          test.equal(web:resolve("bad.test").why, "a script refuses it")
          test.truthy(test.logged('"bad.test" is refused: not here'))
        end)
        test("waits", function()
          local web = test.script("a.lua")
          local found, answer = web:resolve("slow.test"), web:get("/slow.test")
          test.same({ found.waits, found[1] or "none", answer.status or 0 }, { true, "none", 0 })
          test.advance(2)
          test.same({ found.waits, found[1], answer.body }, { false, "192.0.2.2", "192.0.2.2" })
        end)
        test("fails", function()
          local web = test.script("a.lua")
          test.equal(web:resolve("broken.test").why, "a script that was asked for it failed")
          test.equal(#test.errors(), 1)
        end)
        test("is left alone", function()
          test.script("a.lua"):resolve("slow.test")
        end)
    """, files={"a.lua": RESOLVE_SCRIPT})
    assert done.status == 0, done.out


TLS_SCRIPT = """
    local gate = require "moongate"
    local hooks, seen = {}, {}
    local function shown(t) return t and table.concat(t, "+") or "-" end
    function hooks.connect(conn) conn.ctx.early = tostring(conn.tls) end
    function hooks.tls_hello(conn)
      local tls = conn.tls
      if tls.server_name == "slow.test" then gate.sleep(1) end
      if tls.server_name == "bad.test" then return conn:reject() end
      if tls.server_name == "else.test" then return conn:tunnel("192.0.2.7:443") end
      if tls.server_name == "old.test" then return conn:certificate("new.test") end
      conn.ctx.hello = ("%s %s %s %s %s"):format(tls.server_name, shown(tls.offered_alpn), shown(tls.offered_versions),
        tls.version, tls.client)
    end
    function hooks.tls_done(conn)
      if not (conn.tls.client and conn.tls.client.subject) then return conn:reject() end
    end
    function hooks.request(req)
      local tls = req.conn.tls
      local client = tls.client
      return req:respond(200, nil, ("%s|%s|%s %s %s %s %s|%s %s %d %s"):format(req.conn.ctx.early, req.conn.ctx.hello,
        req.scheme, tls.version, tls.server_name, tls.resumed, shown(tls.offered_alpn), client.subject,
        shown(client.names), client.not_after, client.fingerprint:sub(1, 4)))
    end
    return hooks"""


def test_connections_with_tls(tests):
    """What conn.tls says, and the hooks of the handshake with their verdicts."""
    done = tests('''
        local test = require "moongate.test"
        local me = { subject = "CN=me", names = { "a.test", "b.test" }, not_after = 2000000000 }
        test("facts", function()
          local web = test.script("a.lua")
          local client = web:connect { tls = { server_name = "www.test", offered_alpn = { "h2", "http/1.1" }, resumed = true,
            offered_versions = { "TLSv1.3" }, client = me } }
          test.equal(client:get("/").body, "nil|www.test h2+http/1.1 TLSv1.3 nil nil|https TLSv1.3 www.test true -|"
            .. "CN=me a.test+b.test 2000000000 0000")
          test.equal(web:request { target = "/", tls = { client = me } }.status, 200)
        end)
        test("verdicts", function()
          local web = test.script("a.lua")
          local function to(name) return web:connect { tls = { server_name = name, client = me } } end
          test.truthy(to("bad.test").rejected)
          test.falsy(to("www.test").rejected)
          test.truthy(web:connect { tls = true }.rejected)
          test.equal(to("old.test").certificate, "new.test")
          test.equal(to("www.test").certificate, nil)
          local away = to("else.test")
          test.equal(away.tunnel, "192.0.2.7:443")
          test.error(function() away:get("/") end, "was tunnelled")
          local slow = to("slow.test")
          test.truthy(slow.waits)
          test.advance(1)
          test.falsy(slow.waits or slow.rejected)
          local gone = to("slow.test")
          gone:close()
          test.advance(1)
        end)
        test("plain", function()
          local web = test.script(test.file("b.lua", [[
            return { request = function(req) return req:respond(200, nil, req.scheme .. tostring(req.conn.tls)) end,
                     tls_done = function(conn) return conn:reject() end }]]))
          test.equal(web:get("/").body, "httpnil")
        end)
        test("what is no fact", function()
          local web = test.script("a.lua")
          local function try(tls, why) test.error(function() web:connect { tls = tls } end, why) end
          try(5, "tls is true or a table, not a number")
          try({ colour = 1 }, "colour")
          try({ version = 1.3 }, "version is a string, not a number")
          try({ client = true }, "client of tls is a table")
          try({ client = { names = "a" } }, "names is a list of strings")
          try({ offered_alpn = { "a b" } }, "has a space in it")
        end)
        ''', files={"a.lua": TLS_SCRIPT})
    assert done.status == 0 and len(done.tests) == 4, done.out
