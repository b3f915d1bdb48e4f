#!/bin/sh
# check-config and config: mistakes with their places, exit code 78, and where values come from.
. "$(dirname "$0")/lib.sh"

test_every_mistake_is_listed() {
    mkdir "$T/conf.d"
    printf 'max_paylod = 4096;\nmax_attempts = 0;\n' >"$T/e.conf"
    printf '\nturn_lease = "soon";\n' >"$T/conf.d/x.conf"
    code 78 "$BIN" check-config -c "$T/e.conf" >"$T/out" 2>"$T/err"
    cat >"$T/want" <<EOF
$T/e.conf:1: unknown setting max_paylod; did you mean max_payload?
$T/e.conf:2: max_attempts must be in the range 1 to 1000
$T/conf.d/x.conf:2: turn_lease must be a duration such as 10, 500ms, 10s, 5m, 2h or 7d
EOF
    same "$T/want" "$T/err"
    [ ! -s "$T/out" ]
}

test_serve_refuses_a_bad_file() {
    printf 'reactors = 99;\n' >"$T/e.conf"
    code 78 "$BIN" serve -c "$T/e.conf" --data "$T/data" 2>"$T/err"
    has "$T/err" "$T/e.conf:1: reactors must be in the range 0 to 64"
    [ ! -e "$T/data" ] || die 'the data folder was made'
}

test_a_good_file() {
    printf 'agents = ["a"];\nmax_attempts = 2;\n' >"$T/e.conf"
    "$BIN" check-config -c "$T/e.conf" >"$T/out"
    has "$T/out" "configuration ok: $T/e.conf"
}

test_origins() {
    printf 'max_attempts = 2;\nreaders = 3;\nworkers = 5;\n' >"$T/e.conf"
    EBBGATE_READERS=4 EBBGATE_WORKERS=6 "$BIN" config -c "$T/e.conf" --workers 7 >"$T/out"
    grep -q "^max_attempts = 2; *# $T/e.conf:1\$" "$T/out" || die "$(cat "$T/out")"
    grep -q '^readers = 4; *# environment EBBGATE_READERS$' "$T/out" || die "$(cat "$T/out")"
    grep -q '^workers = 7; *# --workers$' "$T/out" || die "$(cat "$T/out")"
    grep -q '^heartbeat_ms = 15000; *# default$' "$T/out" || die "$(cat "$T/out")"
    grep -v '^workers' "$T/out" >"$T/back.conf"
    "$BIN" check-config -c "$T/back.conf" >/dev/null
    "$BIN" config --json >"$T/json"
    has "$T/json" '"turn_lease_ms":{"value":60000,"from":"default","reloadable":true}'
}

test_sizes() {
    printf 'max_payload = "64k";\nretention_bytes = "1G";\nbyte_rate = 4096;\n' >"$T/e.conf"
    EBBGATE_MIN_FREE_BYTES=16m "$BIN" config -c "$T/e.conf" --max-buffered-bytes 4m >"$T/out"
    for line in 'max_payload = 65536;' 'retention_bytes = 1073741824;' 'byte_rate = 4096;' \
        'min_free_bytes = 16777216;' 'max_buffered_bytes = 4194304;'; do
        has "$T/out" "$line"
    done
    cat >"$T/e.conf" <<EOF
max_payload = "64kb";
max_buffered_bytes = "99999999999999999999g";
max_attempts = "2k";
byte_rate = 64k;
turn_lease = 10s;
EOF
    code 78 "$BIN" check-config -c "$T/e.conf" 2>"$T/err"
    cat >"$T/want" <<EOF
$T/e.conf:4: a number with a unit needs quotes: "64k"
$T/e.conf:5: a number with a unit needs quotes: "10s"
$T/e.conf:1: max_payload must be a whole number of bytes, or a size such as 64k, 16m or 1g
$T/e.conf:2: max_buffered_bytes must be in the range 64k to 1g
$T/e.conf:3: max_attempts must be a number without quotes
EOF
    same "$T/want" "$T/err"
    code 78 env EBBGATE_MAX_PAYLOAD=1.5m "$BIN" check-config 2>"$T/err"
    has "$T/err" 'environment EBBGATE_MAX_PAYLOAD: must be a whole number of bytes, or a size'
    code 64 "$BIN" check-config --max-payload 1t 2>"$T/err"
    has "$T/err" '--max-payload: must be a whole number of bytes, or a size'
    "$BIN" serve --help >"$T/out"
    has "$T/out" '--max-payload SIZE'
    has "$T/out" '(default 1m)'
}

# A key that could not be used is told before the gateway is started with it.
test_the_key_file_is_looked_at() {
    code 78 "$BIN" check-config --key-file "$T/none" >"$T/out" 2>"$T/err"
    has "$T/err" "key_file: $T/none: "
    [ ! -s "$T/out" ] || die 'called ok'
    echo junk >"$T/junk"
    chmod 600 "$T/junk"
    code 78 "$BIN" check-config --key-file "$T/junk" 2>"$T/err"
    has "$T/err" "key_file: $T/junk: "
    EBBGATE_LISTEN=127.0.0.1:0 EBBGATE_ADMIN=127.0.0.1:0 gate
    key=$(echo "$T"/data/keys/*.key)
    "$BIN" check-config --key-file "$key" >"$T/out"
    has "$T/out" 'configuration ok'
    chmod 644 "$key"
    code 78 "$BIN" check-config --key-file "$key" 2>"$T/err"
    has "$T/err" "key_file: $key: "
    has "$T/err" '0644'
    # A mistake elsewhere does not hide it, nor is it hidden by one.
    printf 'max_attempts = 0;\nkey_file = "%s/none";\n' "$T" >"$T/e.conf"
    code 78 "$BIN" check-config -c "$T/e.conf" 2>"$T/err"
    has "$T/err" 'max_attempts must be'
    has "$T/err" "key_file: $T/none: "
}

test_environment_mistakes() {
    EBBGATE_LISEN=x "$BIN" check-config >"$T/out" 2>"$T/err"
    has "$T/err" 'environment EBBGATE_LISEN: names no setting; did you mean EBBGATE_LISTEN?'
    code 78 env EBBGATE_READERS=none "$BIN" check-config 2>"$T/err"
    has "$T/err" 'environment EBBGATE_READERS: must be a whole number'
}

# A credential named ebbgate.key is the key, unless the configuration names one.
test_key_as_a_credential() {
    mkdir "$T/cred"
    env CREDENTIALS_DIRECTORY="$T/cred" "$BIN" config --data "$T/d" >"$T/out"
    grep -q '^key_file = ""; .*# default' "$T/out" || die 'a key from an empty folder'
    : >"$T/cred/ebbgate.key"
    env CREDENTIALS_DIRECTORY="$T/cred" "$BIN" config --data "$T/d" >"$T/out"
    grep -q "^key_file = \"$T/cred/ebbgate.key\"; .*# credential ebbgate.key" "$T/out" || die 'the credential is not used'
    env CREDENTIALS_DIRECTORY="$T/cred" "$BIN" config --data "$T/d" --key-file /k >"$T/out"
    grep -q '^key_file = "/k"; ' "$T/out" || die 'the credential won over a setting'
}

run_tests "$@"
