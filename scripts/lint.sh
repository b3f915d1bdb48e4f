#!/bin/sh
# Checks format, layers and code: lint.sh [STEP...], default all of them.
set -u
failed=
want=${*:-format layers threads analyze tidy cppcheck}
flags="-std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc"
files() { find "$@" \( -name '*.c' -o -name '*.h' \) -print | LC_ALL=C sort; }

for step in $want; do
    printf '== %s\n' "$step"
    case $step in
    format)
        files src include tests | xargs clang-format --dry-run -Werror || failed="$failed format"
        ;;
    layers)
        sh scripts/check-layers.sh src || failed="$failed layers"
        ;;
    threads)
        # What guards what (src/base/annotations.h), and clang's warnings beside gcc's.
        # shellcheck disable=SC2086 # a list of words
        files src | grep '\.c$' | xargs -P 2 -n 12 clang $flags -Wall -Wextra -Wpedantic -Wshadow \
            -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wthread-safety -Werror \
            -fsyntax-only || failed="$failed threads"
        ;;
    analyze)
        sh scripts/analyze.sh || failed="$failed analyze"
        ;;
    tidy)
        # shellcheck disable=SC2016 # expanded by the inner shell
        files src | grep '\.c$' | FLAGS=$flags xargs -P 2 -n 6 sh -c \
            'clang-tidy --quiet "$@" -- $FLAGS 2>/dev/null' tidy ||
            failed="$failed tidy"
        ;;
    cppcheck)
        cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
            --error-exitcode=1 -j 2 -D_GNU_SOURCE -Iinclude -Isrc --library=posix \
            --suppressions-list=scripts/cppcheck.txt src || failed="$failed cppcheck"
        ;;
    *)
        echo "lint.sh: no step named $step" >&2
        exit 64
        ;;
    esac
done
if [ -n "$failed" ]; then
    printf 'lint failed:%s\n' "$failed" >&2
    exit 1
fi
