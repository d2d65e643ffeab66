# SPDX-License-Identifier: BSD-2-Clause
"""The build's own tools: what embed.sh and luadoc.awk make of their input, and that Makefile.am knows every source, so
that a release has all of them."""
import re
import subprocess

from conftest import SRCDIR

AUX = SRCDIR / "build-aux"


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def embedded(source):
    """The bytes of the C string that embed.sh printed."""
    return bytes(int(octal, 8) for octal in re.findall(r"\\([0-7]{3})", source))


def test_embedded_text_is_the_file_byte_for_byte(tmp_path):
    content = bytes(range(1, 256)) + b'"\\\n??/ 1234567\n'
    file = tmp_path / "every.lua"
    file.write_bytes(content)
    status, source, _ = output("sh", AUX / "embed.sh", "text", file, "symbol")
    assert status == 0
    assert embedded(source) == content
    assert "const char symbol[]" in source and "const size_t symbol_len" in source


def test_only_what_is_between_the_marks_becomes_cdef(tmp_path):
    file = tmp_path / "api.h"
    file.write_text("#include <stddef.h>\n/* cdef begin */\nint one(void);\n/* cdef end */\nint two(void);\n")
    status, source, _ = output("sh", AUX / "embed.sh", "cdef", file, "symbol")
    assert status == 0
    assert embedded(source) == b"int one(void);\n"


def test_a_header_without_marks_is_an_error(tmp_path):
    file = tmp_path / "api.h"
    file.write_text("int one(void);\n")
    status, _, said = output("sh", AUX / "embed.sh", "cdef", file, "symbol")
    assert status != 0
    assert "cdef begin" in said


def luadoc(tmp_path, text):
    file = tmp_path / "some.lua"
    file.write_text(text)
    return output("awk", "-f", AUX / "luadoc.awk", file)


def test_comments_of_lua_calls_become_items(tmp_path):
    status, page, _ = luadoc(tmp_path, """\
--- A file's own words are no call.
local M = {}

--- gate.sleep(seconds)
--- Waits.
---
--- .a dot and a \\ are text
--- @where request
--- @yields
--- @return nothing
--- @example
---   if x then
---     gate.sleep(0.5)
---   end
function M.sleep(seconds) end
""")
    assert status == 0
    assert page == """\
.Ss The module: gate
.Bl -tag -width Ds
.It Ic "gate.sleep(seconds)"
Waits.
.Pp
\\&.a dot and a \\e are text
.br
.Em In:
request
.br
.Em Yields.
.br
.Em Returns
nothing
.Bd -literal -offset 2n
if x then
  gate.sleep(0.5)
end
.Ed
.El
"""


def test_an_unknown_tag_of_a_comment_is_an_error(tmp_path):
    status, _, said = luadoc(tmp_path, "--- gate.now()\n--- @retrun seconds\n")
    assert status != 0
    assert "@retrun" in said and "some.lua:2" in said


def test_every_source_is_on_a_list_of_the_makefile():
    makefile = re.sub(r"(?m)^#.*$", "", (SRCDIR / "Makefile.am").read_text())
    listed = set(re.findall(r"[\w./-]+", makefile))
    sources = [path.relative_to(SRCDIR).as_posix() for pattern in ("src/**/*.[ch]", "t/unit/*.[ch]", "lua/*.lua", "man/*.[1-8]*")
               for path in SRCDIR.glob(pattern)]
    assert sources
    missing = sorted(set(sources) - listed)
    assert not missing, f"on no list of Makefile.am: {missing}"
