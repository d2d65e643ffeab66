# SPDX-License-Identifier: BSD-2-Clause
"""The table of directives, `moongate --defaults` and moongate.conf(5) name the same directives, and the defaults and
the sample configurations are configurations that moongate accepts."""
import re
import shutil
import subprocess

import pytest

from conftest import MOONGATE, SRCDIR


def run(*arguments):
    done = subprocess.run([MOONGATE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 0, f"moongate {' '.join(map(str, arguments))}: {done.stderr}"
    return done.stdout


def names_of_the_table():
    text = (SRCDIR / "src/conf/directives.h").read_text()
    return set(re.findall(r"^\s*X\((\w+),", text, re.M))


def statements(text):
    """The first word of every statement of a configuration, comments and quotes left aside."""
    text = re.sub(r""""(?:\\.|[^"\\])*"|'[^']*'""", "word", re.sub(r"(?m)^\s*#.*$|\s#.*$", "", text))
    return [words.split()[0] for words in re.split(r"[;{}]", text) if words.split()]


def commented(text):
    """A configuration whose directives may also stand in comments, as `# name ...;` or `# name ... {`."""
    return re.sub(r"(?m)^(\s*)#\s?([a-z0-9_]+\s[^#]*[;{])\s*$", r"\1\2", text)


def acceptable(text):
    """As root the workers' user must exist; the one of the defaults is made by a package, not by a build."""
    return re.sub(r"(?m)^(\s*)user\s+[^;]*;", r"\1user nobody;", text)


def test_defaults_name_every_directive_of_the_table():
    named = set(statements(commented(run("--defaults"))))
    assert names_of_the_table() - named == set()
    assert set(statements(run("--defaults"))) - names_of_the_table() == set()


def test_the_manual_names_the_same_directives():
    page = MOONGATE.parent / "moongate.conf.5"
    section = re.search(r"(?ms)^\.Sh DIRECTIVES$(.*?)^\.Sh ", page.read_text())[1]
    named = set(re.findall(r'(?m)^\.It Ic "?([a-z0-9_]+)', section))
    table = names_of_the_table()
    assert table - named == set(), "directives without an item in the manual"
    # Words of a directive (fail, pass, ...) have items too, so look only for what has none of its own in the table.
    assert named >= table


def test_defaults_are_a_valid_configuration(tmp_path):
    file = tmp_path / "defaults.conf"
    file.write_text(acceptable(run("--defaults")))
    run("-t", "-c", file)


def test_the_sample_of_a_service_is_valid(tmp_path):
    file = tmp_path / "moongate.conf"
    file.write_text(acceptable((SRCDIR / "conf/moongate.conf").read_text()))
    run("-t", "-c", file)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
@pytest.mark.parametrize("page", ["moongate.8", "moongatectl.1", "moongate.conf.5", "moongate-lua.7"])
def test_a_page_has_no_warning(page):
    built = MOONGATE.parent / page
    file = built if built.exists() else SRCDIR / "man" / page
    done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=30)
    assert done.stdout == ""
