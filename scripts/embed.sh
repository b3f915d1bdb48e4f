#!/bin/sh
# Prints C source that holds the given files: embed.sh SYMBOL FILE...
# Declared in base/embed.h: an array of {name, data, size}, ended by a NULL name.
set -eu
symbol=$1
shift
printf '#include "base/embed.h"\n'
i=0
for f in "$@"; do
    printf 'static const unsigned char f%d[] = {\n' "$i"
    xxd -i <"$f"
    printf ', 0};\n'
    i=$((i + 1))
done
printf 'const struct eg_embedded %s[] = {\n' "$symbol"
i=0
for f in "$@"; do
    printf '    {"%s", f%d, sizeof(f%d) - 1},\n' "$f" "$i" "$i"
    i=$((i + 1))
done
printf '    {0, 0, 0}};\n'
