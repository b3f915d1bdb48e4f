#!/bin/sh
# Wrong usage is one clear line and exit code 64; help and version answer on stdout.
. "$(dirname "$0")/lib.sh"

# refused TEXT ARGUMENT...: exit 64, nothing on stdout, one line on stderr that holds TEXT.
refused() {
    text=$1
    shift
    code 64 "$BIN" "$@" >"$T/out" 2>"$T/err"
    [ ! -s "$T/out" ] || die "something on stdout: $*"
    [ "$(wc -l <"$T/err")" -eq 1 ] || die "not one line: $(cat "$T/err")"
    has "$T/err" "$text"
}

test_no_command() {
    refused 'a command is needed'
}

test_unknown_command() {
    refused 'unknown command "sevre"; did you mean serve?' sevre
    refused 'unknown command "sesions"; did you mean sessions?' sesions
    refused 'unknown command "chekc-config"; did you mean check-config?' chekc-config
    refused 'unknown command "xyzzy"' xyzzy
}

test_unknown_option() {
    refused 'unknown option --lisen; did you mean --listen?' serve --lisen 127.0.0.1:0
    refused 'unknown option --colour' serve --colour red
    refused 'unknown option --sesion; did you mean --session?' chat --sesion a
    refused 'unknown option -x' serve -x
    refused 'unknown option --listen' token --sub a --listen 127.0.0.1:0
}

test_values() {
    refused '--listen wants a value' serve --listen
    refused '--sub wants a value' token --sub
    refused '--once takes no value' chat --once=yes
    refused '--concurrency wants a whole number, not "many"' \
        agent --id a --concurrency many --exec cat
    refused '--concurrency wants a number from 1 to 250' agent --id a --concurrency 251 --exec cat
    "$BIN" agent --help >"$T/out"
    has "$T/out" 'at most 250'
    refused '--timeout wants seconds' agent --id a --timeout soon --exec cat
    refused 'unexpected argument "now"' serve now
    refused '--listen: listen must be ADDRESS:PORT' serve --data "$T/data" --listen nowhere
    refused '--max-payload: must be in the range' serve --data "$T/data" --max-payload 1
    [ ! -e "$T/data" ] || die 'the data folder was made'
}

test_token_usage() {
    refused '--sub is needed' token
    refused '--ttl wants seconds' token --sub a --ttl soon
    refused '--ttl is longer than max_token_lifetime' token --sub a --ttl 31d --data "$T/data"
}

test_agent_usage() {
    refused '--id is needed' agent --exec cat
    refused '--exec is needed' agent --id a
    refused '--exec wants a command' agent --id a --exec
    refused '--mode is exec or jsonl' agent --id a --mode xml --exec cat
}

# What no gateway reads as an id is said at once, not offered to it again and again.
test_ids() {
    long=$(head -c 20000 /dev/zero | tr '\0' a)
    bytes=$(printf 'a\377b')
    for id in "$long" "$bytes"; do
        refused '--agent wants an id of 1 to 128 bytes of UTF-8' chat --agent "$id" --token t hello
        refused '--session wants an id of 1 to 128 bytes of UTF-8' chat --session "$id" --token t hello
        refused '--id wants an id of 1 to 128 bytes of UTF-8' agent --id "$id" --token t --exec cat
    done
    refused '--session wants an id' chat --session '' --token t hello
}

# An admin listener speaks HTTP, and no token leaves for anything else.
test_admin_urls() {
    for url in ftp://127.0.0.1:1 file:///etc/passwd ws://127.0.0.1:1; do
        refused "\"$url\" is no URL such as http://127.0.0.1:7071" sessions --token t --url "$url"
        refused "\"$url\" is no URL" backup --token t --url "$url" /tmp/copy.db
        (EBBGATE_ADMIN_URL=$url && export EBBGATE_ADMIN_URL && refused 'is no URL' stats --token t)
    done
    for url in 127.0.0.1:1 ftp.invalid:1 HTTP://127.0.0.1:1; do
        code 1 "$BIN" sessions --token t --url "$url" 2>"$T/err"
        has "$T/err" '(is the gateway running?)'
    done
    has_not "$T/err" 'FTP'
}

test_numbers_of_acts() {
    refused 'fork wants: ID CURSOR, with a number' sessions fork s x --token t
    for turn in x 1.5 '1 ' 99999999999999999; do
        refused 'retry wants: SESSION TURN, with a number' turns retry s "$turn" --token t
    done
}

test_help_for_each_command() {
    "$BIN" --help >"$T/help"
    has "$T/help" 'Usage: ebbgate COMMAND'
    commands=$(sed -n 's/^  \([a-z-]*\)  .*/\1/p' "$T/help")
    [ -n "$commands" ]
    for c in $commands; do
        "$BIN" "$c" --help >"$T/one" 2>"$T/err"
        has "$T/one" "Usage: ebbgate $c"
        [ ! -s "$T/err" ] || die "help of $c wrote to stderr"
        ! grep -n ' $' "$T/one" || die "blanks at the end of a line of the help of $c"
        "$BIN" help "$c" >"$T/two"
        same "$T/one" "$T/two"
    done
    "$BIN" serve --help >"$T/one"
    has "$T/one" '--turn-lease TIME'
}

test_version() {
    "$BIN" --version >"$T/out"
    grep -qx 'ebbgate [0-9]*\.[0-9]*\.[0-9]*' "$T/out" || die "$(cat "$T/out")"
    "$BIN" -V >"$T/short"
    same "$T/out" "$T/short"
}

test_stdout_that_is_full() {
    [ -e /dev/full ] || return 0
    code 1 sh -c '"$0" --version >/dev/full 2>"$1"' "$BIN" "$T/err"
    has "$T/err" 'cannot write to stdout'
    gate
    agent --id echo --exec cat
    code 1 sh -c '"$0" chat --data "$2" --agent echo hi >/dev/full 2>"$1"' "$BIN" "$T/err" "$T/data"
    has "$T/err" 'cannot write to stdout'
    has_not "$T/err" 'temporarily'
}

run_tests "$@"
