# SPDX-License-Identifier: BSD-2-Clause
"""The direction of every #include: a layer includes itself and what is below it, and a library's header is included
by the one layer that stands before that library. Reads the sources; runs nothing."""
import re

from conftest import SRCDIR

SRC = SRCDIR / "src"

# Highest first.
LAYERS = ["proc", "script", "proxy", "http", "tls", "net", "ring", "conf", "base"]

# http/ must work over any conn, so that TLS stays replaceable.
FORBIDDEN = {("http", "tls")}

# Headers of libraries, and the layers that may include them. (src/main.c stands above all layers and prints versions.)
LIBRARIES = {
    r"liburing(\.h|/.*)|linux/io_uring\.h": {"ring"},
    r"openssl/.*": {"tls"},
    r"lua(jit|lib|xlib)?\.h|lauxlib\.h|lualib\.h": {"script"},
    r"llhttp\.h": {"http"},
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def sources():
    files = sorted(path for path in SRC.rglob("*") if path.suffix in (".c", ".h"))
    assert files, f"no sources below {SRC}"
    return files


def layer_of(path):
    parts = path.relative_to(SRC).parts
    return parts[0] if len(parts) > 1 else "main"


def includes():
    """Yields (file:line, layer of the file, '<' or '"', name) of every #include."""
    for path in sources():
        text = path.read_text()
        for found in INCLUDE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{path.relative_to(SRC.parent)}:{line}", layer_of(path), found[1], found[2]


def test_every_folder_is_a_known_layer():
    unknown = {layer_of(path) for path in sources()} - set(LAYERS) - {"main"}
    assert not unknown, f"give {unknown} a place among the layers"


def test_a_layer_includes_only_itself_and_lower_ones():
    wrong = []
    for where, layer, quote, name in includes():
        target = name.split("/")[0]
        if quote != '"' or "/" not in name or target not in LAYERS or layer == "main":
            continue
        if LAYERS.index(target) < LAYERS.index(layer) or (layer, target) in FORBIDDEN:
            wrong.append(f'{where}: {layer}/ includes "{name}"')
    assert not wrong, "\n".join(wrong)


def test_own_headers_are_named_from_src():
    """"layer/header.h", so that the layer can be read off every #include (and was, by the test above)."""
    wrong = []
    for where, _, quote, name in includes():
        if quote == '"' and name != "config.h" and not (SRC / name).is_file():
            wrong.append(f'{where}: "{name}" is not a path below src/')
    assert not wrong, "\n".join(wrong)


def test_a_library_is_included_by_its_layer_alone():
    wrong = []
    for where, layer, _, name in includes():
        for pattern, layers in LIBRARIES.items():
            if re.fullmatch(pattern, name) and layer not in layers | {"main"}:
                wrong.append(f"{where}: <{name}> belongs in {' or '.join(sorted(layers))}/")
    assert not wrong, "\n".join(wrong)


def test_base_uses_the_c_library_alone():
    """No header of a library of our own choice: what is included is found below the system's include folders of libc."""
    allowed = re.compile(r"[a-z0-9_]+\.h|(sys|arpa|net|netinet|linux|asm|bits)/[a-z0-9_]+\.h")
    wrong = [f"{where}: <{name}>" for where, layer, quote, name in includes()
             if layer == "base" and quote == "<" and
             (not allowed.fullmatch(name) or any(re.fullmatch(pattern, name) for pattern in LIBRARIES))]
    assert not wrong, "\n".join(wrong)
