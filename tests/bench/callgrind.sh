#!/bin/sh
# Runs the gateway as EBBGATE_REAL; its `serve` under callgrind, counts to BENCH_CALLGRIND.
case ${1:-} in
serve)
    exec valgrind --quiet --tool=callgrind --callgrind-out-file="$BENCH_CALLGRIND" \
        "$EBBGATE_REAL" "$@"
    ;;
esac
exec "$EBBGATE_REAL" "$@"
