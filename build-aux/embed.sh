#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Prints a C source that holds a file's bytes, for Makefile.am: embed.sh text FILE SYMBOL embeds the whole file;
# embed.sh cdef FILE SYMBOL only what stands between the lines "/* cdef begin */" and "/* cdef end */".
# Either way: const char SYMBOL[] (ends with a zero byte) and const size_t SYMBOL_len (without it).
set -eu

mode=$1 file=$2 symbol=$3

case $mode in
text)
    cut='p'
    ;;
cdef)
    cut='\|^/\* cdef begin \*/|,\|^/\* cdef end \*/|{
        \|^/\* cdef begin \*/|d
        \|^/\* cdef end \*/|d
        p
    }'
    for mark in begin end; do
        if [ "$(grep -c "^/\* cdef $mark \*/" "$file")" -eq 0 ]; then
            echo "embed.sh: $file has no line \"/* cdef $mark */\"" >&2
            exit 1
        fi
    done
    ;;
*)
    echo "embed.sh: unknown mode '$mode'" >&2
    exit 1
    ;;
esac

printf '// Made from %s by build-aux/embed.sh; do not edit.\n' "${file##*/}"
printf '#include <stddef.h>\n\n'
printf 'extern const char %s[];\nextern const size_t %s_len;\n\n' "$symbol" "$symbol"
printf 'const char %s[] =\n' "$symbol"
# Octal escapes are three digits at most, so whatever follows one cannot be drawn into it.
sed -n "$cut" "$file" | od -An -v -to1 | sed 's/[[:space:]]*$//; s/[[:space:]][[:space:]]*/\\/g; s/.*/    "&"/'
printf '    "";\n\nconst size_t %s_len = sizeof(%s) - 1;\n' "$symbol" "$symbol"
