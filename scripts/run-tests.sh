#!/bin/sh
# Runs test programs one after the other: run-tests.sh PROGRAM...
#
# Each gets at most TEST_TIMEOUT seconds (default 120). Sanitizer reports go to files below SAN_DIR,
# and any report fails the run: Criterion itself does not notice leaks. Exit 1 when anything failed,
# or when there was nothing to run.
set -u
if [ $# -eq 0 ]; then
    echo 'FAILED: no test program has this name' >&2
    exit 1
fi
timeout_s=${TEST_TIMEOUT:-120}
san=${SAN_DIR:-build/san}
mkdir -p "$san"
san=$(cd "$san" && pwd)
failed=
for program in "$@"; do
    name=$(basename "$program")
    rm -f "$san/$name".*
    printf '== %s\n' "$name"
    ASAN_OPTIONS="log_path=$san/$name:detect_leaks=1:abort_on_error=0:${ASAN_OPTIONS:-}" \
    TSAN_OPTIONS="log_path=$san/$name:${TSAN_OPTIONS:-}" \
    UBSAN_OPTIONS="log_path=$san/$name:print_stacktrace=1:${UBSAN_OPTIONS:-}" \
        timeout -k 5 "$timeout_s" "$program" || failed="$failed $name"
    for report in "$san/$name".*; do
        [ -e "$report" ] || continue
        cat "$report"
        case "$failed " in *" $name "*) ;; *) failed="$failed $name" ;; esac
    done
done
if [ -n "$failed" ]; then
    printf 'FAILED:%s\n' "$failed"
    exit 1
fi
printf 'passed: %d test programs\n' "$#"
