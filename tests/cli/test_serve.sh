#!/bin/sh
# The gateway as a process: ready line, exit codes, refusals that touch nothing, drain, reload.
. "$(dirname "$0")/lib.sh"

test_ready_line_and_clean_end() {
    gate
    eventually grep -q key.made "$T/log"
    [ "$(stat -c %a "$T/data")" = 700 ] || die 'the data folder is open to others'
    [ "$(stat -c %a "$T/data"/keys/*.key)" = 600 ] || die 'the key is open to others'
    curl -sf "http://$PUBLIC/ready" >"$T/out"
    curl -sf "http://$ADMIN/live" >/dev/null
    kill -TERM "$GATE"
    gate_ends 0
    [ "$(wc -l <"$T/ready")" -eq 1 ] || die "not one line on stdout"
    grep -qx 'ebbgate ready public=127\.0\.0\.1:[0-9]* admin=127\.0\.0\.1:[0-9]*' "$T/ready" ||
        die "$(cat "$T/ready")"
}

test_data_folder_in_use() {
    gate
    code 75 "$BIN" serve --data "$T/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 \
        >"$T/out" 2>"$T/err"
    [ ! -s "$T/out" ]
    [ "$(wc -l <"$T/err")" -eq 1 ] || die "$(cat "$T/err")"
    has "$T/err" 'data folder:'
    curl -sf "http://$PUBLIC/ready" >/dev/null
}

test_address_in_use() {
    gate
    code 75 "$BIN" serve --data "$T/other" --listen "$PUBLIC" --admin 127.0.0.1:0 2>"$T/err"
    has "$T/err" 'public listener:'
}

# refused_untouched CODE TEXT: serve must refuse $T/data and leave the database as it is.
refused_untouched() {
    before=$(cksum <"$T/data/ebbgate.db")
    ls -A "$T/data" >"$T/files"
    code "$1" "$BIN" serve --data "$T/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 \
        >"$T/out" 2>"$T/err"
    has "$T/err" "$2"
    [ ! -s "$T/out" ]
    [ "$before" = "$(cksum <"$T/data/ebbgate.db")" ] || die 'the database was changed'
    ls -A "$T/data" | grep -vx lock >"$T/files2" || true
    grep -vx lock "$T/files" >"$T/files1" || true
    same "$T/files1" "$T/files2"
}

test_newer_schema() {
    gate
    kill "$GATE"
    gate_ends 0
    # user_version is the big-endian number at byte 60 of the file.
    printf '\000\000\003\347' | dd of="$T/data/ebbgate.db" bs=1 seek=60 conv=notrunc 2>/dev/null
    refused_untouched 78 'ebbgate.db'
    has "$T/err" 'newer'
}

test_no_database() {
    mkdir -m 700 "$T/data"
    echo 'This is a letter to a friend and no database at all.' >"$T/data/ebbgate.db"
    refused_untouched 78 'ebbgate.db'
}

test_key_open_to_others() {
    gate
    kill "$GATE"
    gate_ends 0
    chmod 644 "$T/data"/keys/*.key
    code 78 "$BIN" serve --data "$T/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 2>"$T/err"
    has "$T/err" 'keys:'
    code 78 "$BIN" token --sub a --data "$T/data" 2>"$T/err"
    [ "$(wc -l <"$T/err")" -eq 1 ]
}

test_token_alone_on_stdout() {
    gate
    "$BIN" token --sub alice --scope 'read write' --agents a,b --sessions s --data "$T/data" >"$T/out"
    grep -qx '[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*' "$T/out" || die "$(cat "$T/out")"
    [ "$(wc -l <"$T/out")" -eq 1 ]
    code 64 "$BIN" token --sub alice --scope everything --data "$T/data" 2>"$T/err"
    has "$T/err" 'scope must be words of'
    "$BIN" token --sub alice --key "$(ls "$T/data"/keys/*.key)" >/dev/null
    code 78 "$BIN" token --sub alice --data "$T/nothing" 2>"$T/err"
    has "$T/err" 'there is no key'
}

ready_code() {
    [ "$(curl -s -o "$T/body" -w '%{http_code}' "http://$PUBLIC/ready")" = "$1" ]
}

test_drain_lets_turns_end() {
    gate --drain-timeout 30
    agent --id slow --exec "touch $T/began; while [ ! -e $T/go ]; do sleep 0.05; done; echo done"
    chat --agent slow hello >"$T/out" 2>"$T/err" &
    started $!
    talk=$!
    eventually test -e "$T/began"
    kill -TERM "$GATE"
    eventually ready_code 503
    has "$T/body" draining
    touch "$T/go"
    eventually grep -q done "$T/out"
    gate_ends 0
    has "$T/log" 'open_turns=0'
    kill "$talk" 2>/dev/null || true
}

test_second_signal_stops_at_once() {
    gate --drain-timeout 600
    agent --id slow --exec "touch $T/began; sleep 600"
    chat --agent slow hello >/dev/null 2>&1 &
    started $!
    eventually test -e "$T/began"
    kill -TERM "$GATE"
    eventually ready_code 503
    kill -TERM "$GATE"
    gate_ends 0
    has "$T/log" 'stop.now open_turns=1'
    "$BIN" verify --data "$T/data" >"$T/out"
    has "$T/out" 'intact: 1 sessions, 1 events, 0 faults'
}

test_reload() {
    printf 'max_attempts = 2;\nreaders = 1;\n' >"$T/e.conf"
    gate -c "$T/e.conf"
    printf 'max_attempts = 7;\nreaders = 3;\n' >"$T/e.conf"
    kill -HUP "$GATE"
    eventually grep -q reload.done "$T/log"
    has "$T/log" 'reload.changed name=max_attempts from=2 to=7'
    has "$T/log" 'reload.needs_restart name=readers from=1 to=3'
    has_not "$T/log" 'name=data'
    printf 'max_attempt = 9;\nturn_lease = 1' >"$T/e.conf"
    kill -HUP "$GATE"
    eventually grep -q reload.refused "$T/log"
    has "$T/log" "$T/e.conf:1: unknown setting max_attempt; did you mean max_attempts?"
    curl -sf "http://$PUBLIC/ready" >/dev/null
    kill "$GATE"
    gate_ends 0
}

test_reload_keys() {
    gate
    token=$("$BIN" token --sub old --data "$T/data")
    cp -p "$T/data"/keys/*.key "$T/old.key"
    mkdir "$T/second"
    "$BIN" serve --data "$T/second" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$T/ready2" 2>/dev/null &
    second=$!
    started "$second"
    eventually grep -q ready "$T/ready2"
    kill "$second"
    wait "$second"
    rm "$T/data"/keys/*.key
    cp -p "$T/second"/keys/*.key "$T/data/keys/"
    kill -HUP "$GATE"
    eventually grep -q reload.done "$T/log"
    has "$T/log" reload.key_added
    has "$T/log" reload.key_withdrawn
    code 1 chat --agent x --token "$token" hello 2>"$T/err"
    has "$T/err" auth_unauthorized
}

test_files_limit() {
    ulimit -n 2000
    gate
    has "$T/log" limit.files
}

test_notify() {
    command -v python3 >/dev/null || return 0
    python3 - "$T/socket" >"$T/notes" <<'EOF' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode().replace("\n", " "), flush=True)
EOF
    started $!
    eventually test -S "$T/socket"
    NOTIFY_SOCKET=$T/socket WATCHDOG_USEC=600000 gate
    eventually grep -q 'READY=1' "$T/notes"
    eventually grep -q 'WATCHDOG=1' "$T/notes"
    kill -HUP "$GATE"
    eventually grep -q 'RELOADING=1 MONOTONIC_USEC=' "$T/notes"
    kill "$GATE"
    gate_ends 0
    has "$T/notes" 'STOPPING=1'
}

run_tests "$@"
