#!/bin/sh
# The data folder without a gateway: verify, check, backup, restore.
. "$(dirname "$0")/lib.sh"

# A data folder with one session of three events.
filled() {
    gate
    agent --id echo --exec cat
    chat --agent echo --session s 'tell me a story about the sea' >/dev/null
}

test_verify_and_check() {
    filled
    "$BIN" verify --data "$T/data" >"$T/out"
    has "$T/out" 'intact: 1 sessions, 3 events, 0 faults'
    "$BIN" check --data "$T/data" >"$T/out"
    has "$T/out" 'intact: 1 sessions, 3 events, 0 faults'
    kill "$GATE"
    gate_ends 0
    LC_ALL=C sed -i 's/about the sea/about the SEA/' "$T/data/ebbgate.db"
    code 1 "$BIN" verify --data "$T/data" >"$T/out"
    has "$T/out" 'fault: '
    has "$T/out" 'damaged: '
}

# Others are served as if nothing were, the moment after.
test_a_damaged_session_costs_its_own_writes() {
    command -v python3 >/dev/null || return 0
    filled
    chat --agent echo --session other 'who goes there' >/dev/null
    kill "$AGENT" "$GATE"
    gate_ends 0
    python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db: db.execute("UPDATE sessions SET cursor = cursor - 1 WHERE id = ?", ("s",))' "$T/data/ebbgate.db"
    gate
    for round in 1 2 3; do
        code 1 timeout 60 "$BIN" sessions say s more --data "$T/data" --url "http://$ADMIN" 2>"$T/err"
        has "$T/err" 'storage_unavailable'
    done
    has "$T/log" 'write.refused why="session number '
    has_not "$T/log" 'storage.failed'
    timeout 60 "$BIN" sessions say other more --data "$T/data" --url "http://$ADMIN"
    kill "$GATE"
    gate_ends 0
}

test_verify_nothing() {
    code 78 "$BIN" verify --data "$T/nothing" 2>"$T/err"
    [ "$(wc -l <"$T/err")" -eq 1 ]
    [ ! -e "$T/nothing" ]
}

# The folder is well; what was asked for is not there, as where other commands find nothing.
test_verify_no_such_session() {
    filled
    for what in verify check; do
        code 1 "$BIN" "$what" --data "$T/data" --session nope >"$T/out" 2>"$T/err"
        has "$T/err" 'no session nope'
        [ ! -s "$T/out" ]
    done
}

# What only a person can put right is not to be tried again.
test_a_file_where_the_folder_should_be() {
    : >"$T/file"
    for what in verify check "backup $T/copy.db"; do
        # shellcheck disable=SC2086 # words on purpose
        code 78 "$BIN" $what --data "$T/file" 2>"$T/err"
        has "$T/err" 'Not a directory'
    done
    code 78 "$BIN" serve --data "$T/file" --listen 127.0.0.1:0 --admin 127.0.0.1:0 2>"$T/err"
    has "$T/err" 'Not a directory'
}

test_backup_and_restore() {
    filled
    "$BIN" backup --data "$T/data" "$T/copy.db" >"$T/out"
    [ "$(cat "$T/out")" = "$T/copy.db" ]
    code 64 "$BIN" backup --data "$T/data" "$T/copy.db" 2>"$T/err"
    code 64 "$BIN" backup --data "$T/data" 2>"$T/err"
    has "$T/err" 'name the file to write'
    "$BIN" restore --data "$T/new" "$T/copy.db" >/dev/null
    code 64 "$BIN" restore --data "$T/new" "$T/copy.db" 2>"$T/err"
    "$BIN" verify --data "$T/new" >"$T/out"
    has "$T/out" 'intact: 1 sessions, 3 events, 0 faults'
    old=$(sed -n 's/.* ready public=.*epoch=\([^ ]*\).*/\1/p' "$T/log")
    kill "$GATE"
    gate_ends 0
    mv "$T/data" "$T/old"
    mv "$T/new" "$T/data"
    cp -rp "$T/old/keys" "$T/data/keys"
    gate
    new=$(sed -n 's/.* ready public=.*epoch=\([^ ]*\).*/\1/p' "$T/log" | tail -n 1)
    [ -n "$old" ] && [ "$old" != "$new" ] || die "epochs: $old $new"
    agent --id echo --exec cat
    chat --agent echo --session s --history 5 more >"$T/out"
    has "$T/out" 'the sea'
}

run_tests "$@"
