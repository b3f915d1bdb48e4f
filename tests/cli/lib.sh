# What the tests of the command line share. To be sourced; then define functions named test_* and
# call `run_tests "$@"`. Each runs in a shell of its own with a fresh folder $T, and whatever it
# started is ended with it. EBBGATE_BIN is the program; ONLY a pattern of tests to run.
# shellcheck shell=sh
set -u
BIN=${EBBGATE_BIN:-build/ebbgate}
BIN=$(cd "$(dirname "$BIN")" && pwd)/$(basename "$BIN")
unset EBBGATE_BIN EBBGATE_URL EBBGATE_TOKEN EBBGATE_CONFIG EBBGATE_AGENT
PIDS=''

die() {
    echo "FAILED: $*" >&2
    exit 1
}

# code N COMMAND...: the command must end with exit code N.
code() {
    want=$1
    shift
    got=0
    "$@" || got=$?
    [ "$got" -eq "$want" ] || die "exit code $got, not $want: $*"
}

# has FILE TEXT: the file must hold the text.
has() {
    grep -qF -e "$2" "$1" || {
        cat "$1" >&2
        die "no \"$2\" in $1"
    }
}

has_not() {
    if grep -qF -e "$2" "$1"; then
        cat "$1" >&2
        die "\"$2\" in $1"
    fi
}

same() {
    diff "$1" "$2" >&2 || die "$1 and $2 differ"
}

# eventually COMMAND...: it must succeed within 30 seconds.
eventually() {
    tries=600
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "never true: $*"
        sleep 0.05
    done
}

# Remembers a process to end.
started() {
    PIDS="$PIDS $1"
}

# gate [ARGUMENT...]: starts a gateway on $T/data, on the same ports as before if there was one.
gate() {
    : >"$T/ready"
    "$BIN" serve --data "$T/data" --listen "127.0.0.1:${PORT:-0}" --admin "${ADMIN:-127.0.0.1:0}" "$@" \
        >"$T/ready" 2>>"$T/log" &
    GATE=$!
    started "$GATE"
    eventually grep -q '^ebbgate ready ' "$T/ready"
    PUBLIC=$(sed -n 's/^ebbgate ready public=\([^ ]*\) .*/\1/p' "$T/ready")
    ADMIN=$(sed -n 's/^ebbgate ready .* admin=\([^ ]*\)$/\1/p' "$T/ready")
    PORT=${PUBLIC##*:}
    EBBGATE_URL=ws://$PUBLIC/ws
    export EBBGATE_URL ADMIN
}

# Pulls the plug on the gateway.
crash() {
    kill -9 "$GATE"
    wait "$GATE" 2>/dev/null || true
}

# gate_ends N: the gateway must end by itself with exit code N.
gate_ends() {
    got=0
    wait "$GATE" || got=$?
    [ "$got" -eq "$1" ] || {
        cat "$T/log" >&2
        die "the gateway ended with $got, not $1"
    }
}

# agent ARGUMENT...: starts an agent and waits until it is attached.
agent() {
    "$BIN" agent --data "$T/data" "$@" 2>>"$T/agent.log" &
    AGENT=$!
    started "$AGENT"
    eventually grep -q 'is attached' "$T/agent.log"
}

chat() {
    timeout 60 "$BIN" chat --data "$T/data" "$@"
}

# What else was started for this test, behind a subshell or by a command: whoever names its folder.
of_this_test() {
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        if [ "$pid" -ne $$ ] && tr '\0' ' ' 2>/dev/null <"$entry/cmdline" | grep -qF -e "$T"; then
            echo "$pid"
        fi
    done
}

# Asks what was started to end (twice: a drain does not wait for turns then), so that a build that
# looks at itself at the end gets to do it. What does not is killed.
ask_to_end() {
    all="$PIDS $(of_this_test)"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        alive=
        for pid in $all; do
            grep -qs '^State:.*Z' "/proc/$pid/status" || { kill -TERM "$pid" 2>/dev/null && alive=1; }
        done
        [ -n "$alive" ] || return
        sleep 0.05
    done
}

# Ends what was started; a sanitizer's report in any file of the test fails it.
finish() {
    code=$?
    set +e
    ask_to_end
    for pid in $PIDS $(of_this_test); do
        kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    if grep -l -e 'runtime error:' -e 'Sanitizer:' "$T"/* 2>/dev/null >"$T.reports"; then
        xargs cat <"$T.reports" >&2
        code=1
    fi
    rm -rf "$T" "$T.reports"
    exit "$code"
}

# One test in this shell: any command that fails ends it.
one_test() {
    T=$(mktemp -d "${TMPDIR:-/tmp}/ebbgate-cli.XXXXXX")
    export T
    trap finish EXIT
    set -e
    "$1"
    exit 0
}

run_tests() {
    [ $# -eq 0 ] || one_test "$1"
    tested=0 failed=0
    for name in $(sed -n 's/^\(test_[a-z0-9_]*\)() *{.*/\1/p' "$0"); do
        # shellcheck disable=SC2254 # a pattern on purpose
        case $name in ${ONLY:-*}) ;; *) continue ;; esac
        tested=$((tested + 1))
        out=$(mktemp)
        if EBBGATE_BIN=$BIN timeout -k 5 "${EACH_TIMEOUT:-120}" sh "$0" "$name" >"$out" 2>&1; then
            echo "ok   $name"
        else
            failed=$((failed + 1))
            echo "FAIL $name"
            sed 's/^/     /' "$out" | tail -n 60
        fi
        rm -f "$out"
    done
    echo "[====] Synthesis: Tested: $tested | Passing: $((tested - failed)) | Failing: $failed | Crashing: 0"
    [ "$failed" -eq 0 ]
}
