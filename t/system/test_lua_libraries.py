# SPDX-License-Identifier: BSD-2-Clause
"""The libraries of scripts in a running moongate: every example of the manual, require, and what outlives a reload or
the death of a worker."""
import re

import pytest

from conftest import SRCDIR

LIBRARIES = sorted((SRCDIR / "lua/moongate").glob("*.lua"))

# An example may need what is made while a script loads; such lines go to the script's beginning.
MADE_WHILE_LOADING = re.compile(r"^local \w+ *= gate\.(shared|counter|gauge|histogram)\b")
# local name = ...    -- value
SAYS_WHAT_COMES = re.compile(r"^local (\w+)\s*=.*\S\s+-- (.+)$")


def examples():
    for file in LIBRARIES:
        block, lines = None, None
        for line in file.read_text().splitlines() + [""]:
            text = re.match(r"^---(?: (.*))?$", line)
            if not text:
                if lines:
                    yield pytest.param("\n".join(lines), id=f"{file.stem}:{block}")
                block = lines = None
                continue
            text = text[1] or ""
            if block is None:
                block = text
            if text.startswith("@"):
                if lines:
                    yield pytest.param("\n".join(lines), id=f"{file.stem}:{block}")
                lines = [] if text == "@example" else None
            elif lines is not None:
                lines.append(re.sub("^  ", "", text))


def test_the_manual_has_examples_of_the_libraries():
    assert len(list(examples())) > 30


def as_script(all_examples):
    """All examples in one script: the one whose number the path names runs."""
    top, functions = [], []
    for number, example in enumerate(all_examples):
        body = []
        for line in example.splitlines():
            if MADE_WHILE_LOADING.match(line):
                if line not in top:
                    top.append(line)
                continue
            body.append(line)
            says = SAYS_WHAT_COMES.match(line)
            if says:
                body.append(f"assert({says[1]} == {says[2]}, {says[1]})")
        functions.append(f'["/{number}"] = function(req, res)\n' + "\n".join(body) + "\nend,")
    return ('local gate = require "moongate"\n' + "\n".join(top) + "\nlocal examples = {\n" + "\n".join(functions)
            + "\n}\nreturn { response = function(req, res) examples[req.path](req, res) end }\n")


def test_every_example_of_the_manual_runs(moongate, origin):
    every = [one.values[0] for one in examples()]
    names = [one.id for one in examples()]
    gate = moongate(f"shared limits 1m; shared jobs 1m; upstream app {{ server {origin.address}; }}",
                    "script a.lua; route / app;", {"a.lua": as_script(every)})
    client = gate.client()
    failed = [names[n] for n in range(len(every)) if client.ask(f"/{n}", {"Cookie": "session=x"}).status != 200]
    assert not failed, gate.log


# ---- require

HOOK = "return { request = function(req) return req:respond(200, {}, %s) end }\n"


def test_modules_of_debian_are_found(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": """
        local lpeg, re, cjson = require "lpeg", require "re", require "cjson.safe"
        local words = lpeg.Ct((lpeg.C(lpeg.R "az" ^ 1) + 1) ^ 0)
    """ + HOOK % "cjson.encode(words:match 'a-moon, b') .. re.match('x', '{.}')"})
    assert gate.get("/").text == '["a","moon","b"]x'


def test_a_module_of_the_scripts_folder_comes_first(moongate):
    gate = moongate("", "script a.lua;",
                    {"lpeg.lua": "return 'ours'", "a.lua": "local lpeg = require 'lpeg' " + HOOK % "lpeg"})
    assert gate.get("/").text == "ours"


@pytest.mark.parametrize("name", ["ffi", "io", "socket", "jit.util", "cjson.util"])
def test_other_modules_are_refused_with_the_cure(moongate, name):
    gate = moongate(start=False, files={"a.lua": f"local x = require '{name}' return {{}}"})
    gate.configure("", "script a.lua;")
    done = gate.run("-t")
    assert done.returncode == 1
    assert f'no module "{name}" in the folders of scripts' in done.stderr and "script_unsafe on" in done.stderr
    assert "a.lua:1: " in done.stderr


def test_a_module_in_the_current_folder_is_not_loaded(moongate, tmp_path, monkeypatch):
    (tmp_path / "re.lua").write_text("error('loaded from the current folder')")
    (tmp_path / "cjson.so").write_bytes(b"no library")
    monkeypatch.chdir(tmp_path)
    gate = moongate("", "script a.lua;",
                    {"a.lua": "local re, json = require 're', require 'cjson' " + HOOK % "json.encode {re.match('a', '.')}"})
    assert gate.get("/").text == "[2]"


def test_a_hook_loads_no_module_of_the_system(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": HOOK % "tostring(require 'lpeg')"})
    assert gate.get("/").status == 500
    gate.wait_log("loaded while a script loads, not in a hook")


def test_script_unsafe_loads_what_is_there(moongate):
    gate = moongate("script_unsafe on;", "script a.lua;",
                    {"a.lua": "local ffi = require 'ffi' " + HOOK % "ffi.os"})
    assert gate.get("/").text == "Linux"
