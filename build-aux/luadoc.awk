# SPDX-License-Identifier: BSD-2-Clause
# Prints the documentation comments of a Lua file as mdoc, for moongate-lua(7); Makefile.am runs it over lua/moongate.lua.
#
# A block is a run of lines that begin with three dashes. Its first line (or lines) is the signature, then comes prose,
# an empty line parts paragraphs, and these tags, of which each holds for the lines after it too:
#     --- gate.sleep(seconds)
#     --- Waits, while the worker goes on with others.
#     --- @where request, response       hooks in which it may be called; without it: everywhere
#     --- @yields                        the hook stands still meanwhile
#     --- @return what it returns
#     --- @error when it raises or returns nil
#     --- @example
#     ---   gate.sleep(0.5)
# Blocks are grouped by what stands before the first dot, colon or bracket of the signature: known groups in the order
# below, others behind them as they appear.
# A block that does not begin with a signature is no documentation of a function and is left out.

BEGIN {
    known("gate", "The module")
    known("conn", "A connection")
    known("req", "A request")
    known("res", "A response")
    known("headers", "Header fields")
    known("form", "A form")
    known("field", "A field of a form")
    known("set", "A set of networks")
    known("key", "A public key")
    known("dict", "A shared dictionary")
    known("counter", "A counter")
    known("gauge", "A gauge")
    known("histogram", "A histogram")
    known("timer", "A timer")
    known("task", "A task")
    known("sock", "A stream socket")
    known("datagrams", "A datagram socket")
    known("semaphore", "A semaphore")
    known("test", "The module of tests")
    known("frontend", "A frontend under test")
    known("client", "A client")
    known("exchange", "A request and what comes of it")
}

function known(name, words) {
    title[name] = words
    group[group_count++] = name
}

# Text as a roff line: a backslash is text, and so is a dot at the beginning.
function roff(text) {
    gsub(/\\/, "\\e", text)
    if (text ~ /^[.']/)
        text = "\\&" text
    return text
}

# Prose, with each sentence on a line of its own, as mdoc wants it.
function emit_prose(text,   end) {
    while (match(text, /[^ .][.] +[A-Z"(]/)) {
        end = RSTART + 1
        emit(roff(substr(text, 1, end)))
        text = substr(text, end + 1)
        sub(/^ +/, "", text)
    }
    emit(roff(text))
}

# Text as one quoted argument of a macro.
function argument(text) {
    gsub(/\\/, "\\e", text)
    gsub(/"/, "\\(dq", text)
    return "\"" text "\""
}

function is_signature(text) {
    return text ~ /^[a-z_][A-Za-z0-9_]*([.:][A-Za-z_][A-Za-z0-9_]*)*(\[[^]]*\])?(\(.*\)| *".*")?( *(->|=) .*)?$/ &&
        text ~ /[.:(\[]/
}

function emit(text) {
    body = body text "\n"
}

function end_tag() {
    if (tag == "example")
        emit(".Ed")
    tag = ""
}

function flush_block(   name) {
    if (signatures != "") {
        end_tag()
        name = first
        sub(/[.:(\[].*/, "", name)
        if (!(name in title))
            known(name, "More")
        any = 1
        text_of[name] = text_of[name] signatures body
    }
    in_block = in_body = 0
    signatures = first = body = tag = ""
}

function take(line,   word) {
    if (!in_block) {
        in_block = 1
        if (!is_signature(line))
            return
        first = line
    }
    if (first == "")
        return
    if (!in_body && is_signature(line)) {
        signatures = signatures ".It Ic " argument(line) "\n"
        return
    }
    in_body = 1
    if (line ~ /^@/) {
        end_tag()
        word = line
        sub(/^@/, "", word)
        sub(/[ \t].*/, "", word)
        sub(/^@[^ \t]*[ \t]*/, "", line)
        tag = word
        if (word == "where") {
            emit(".br\n.Em In:"); if (line != "") emit_prose(line)
        } else if (word == "yields") {
            emit(".br\n.Em Yields."); if (line != "") emit_prose(line)
        } else if (word == "return") {
            emit(".br\n.Em Returns"); if (line != "") emit_prose(line)
        } else if (word == "error") {
            emit(".br\n.Em Errors:"); if (line != "") emit_prose(line)
        } else if (word == "example") {
            emit(".Bd -literal -offset 2n"); if (line != "") emit(roff(line))
        } else {
            printf "luadoc.awk: %s:%d: unknown tag @%s\n", FILENAME, FNR, word >"/dev/stderr"
            failed = 1
        }
        return
    }
    if (tag == "example") {
        sub(/^  /, "", line)
        emit(line == "" ? "" : roff(line))
    } else if (line ~ /^[ \t]*$/) {
        emit(".Pp")
    } else {
        sub(/^[ \t]+/, "", line)
        emit_prose(line)
    }
}

/^[ \t]*---([^-]|$)/ {
    line = $0
    sub(/^[ \t]*---[ ]?/, "", line)
    sub(/[ \t]+$/, "", line)
    take(line)
    next
}

{ flush_block() }

END {
    flush_block()
    if (!any)
        print "No calls are documented."
    for (i = 0; i < group_count; i++) {
        name = group[i]
        if (name in text_of)
            printf ".Ss %s: %s\n.Bl -tag -width Ds\n%s.El\n", title[name], name, text_of[name]
    }
    exit failed
}
