#!/bin/sh
# gcc's -fanalyzer over src/: analyze.sh [FILE...]. Prints what it finds but for what
# scripts/analyze.txt explains; exit 1 when something is left, or a file was not got through.
#
# Without optimising: inlined code gives the analyzer four times as much to do.
set -u
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- src/*/*.c

# shellcheck disable=SC2016 # expanded by the inner shell
printf '%s\n' "$@" | OUT=$out xargs -P 2 -n 1 sh -c '
    more=
    # The table macros of uthash have more paths than it gets through in minutes.
    case $1 in
    src/edge/limits.c) more="--param analyzer-max-enodes-per-program-point=2" ;;
    esac
    timeout 120 gcc -std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc -O0 -fanalyzer $more \
        -fdiagnostics-plain-output -fdiagnostics-path-format=none -c -o /dev/null "$1" \
        2>"$OUT/$(printf %s "$1" | tr / _).txt" || {
        echo "$1: not got through"
        cat "$OUT/$(printf %s "$1" | tr / _).txt"
    } >"$OUT/failed.$$"' analyze
cat "$out"/failed.* 2>/dev/null && exit 1

# A finding is known by its file, its function and its kind, so that lines may move.
cat "$out"/*.txt | awk '
FILENAME != "-" {
    kind = $3
    if ($0 !~ /^#/ && NF >= 4 && sub(/:$/, "", kind)) known[$1 " " $2 " " kind] = 1
    next
}
/: In function / {
    where = $0
    sub(/^.*In function ./, "", where)
    sub(/.:$/, "", where)
    gsub(/[^A-Za-z0-9_]/, "", where)
}
/warning:/ {
    kind = $0
    sub(/^.*\[-Wanalyzer-/, "", kind)
    sub(/\]$/, "", kind)
    file = $0
    sub(/:.*/, "", file)
    key = file " " where " " kind
    if (key in known) next
    print $0 "\n    " key
    bad = 1
}
END { exit bad }' scripts/analyze.txt -
