#!/bin/sh
# What `make run` starts: a gateway on the default data folder, a demo agent, and where to look.
. "$(dirname "$0")/lib.sh"

test_run_tells_where_to_look_and_stops_both() {
    export HOME="$T/home" EBBGATE_LISTEN=127.0.0.1:0 EBBGATE_ADMIN=127.0.0.1:0
    unset XDG_DATA_HOME
    mkdir "$HOME"
    BUILD=$(dirname "$BIN") sh "$(dirname "$0")/../../scripts/run.sh" >"$T/out" 2>"$T/log" &
    run=$!
    started "$run"
    eventually grep -q 'Ctrl-C stops both' "$T/out"
    eventually grep -q 'echo is attached' "$T/log"
    gateway=$(cat "$HOME/.local/share/ebbgate/lock")
    started "$gateway"
    url=$(sed -n 's/.* chat --agent echo --url \(ws:.*\)$/\1/p' "$T/out")
    [ "$("$BIN" chat --agent echo --url "$url" hello)" = hello ]
    console=$(sed -n 's/^ *\(http:.*\)#token=.*$/\1/p' "$T/out")
    token=$(sed -n 's/^ *http:.*#token=\(.*\)$/\1/p' "$T/out")
    curl -sf -H "Authorization: Bearer $token" "${console}api/v1/stats" >"$T/stats"
    has "$T/stats" '"workers":1'
    kill -TERM "$run"
    code 143 wait "$run"
    ! kill -0 "$gateway" 2>/dev/null || die 'the gateway is still there'
}

run_tests "$@"
