#!/bin/sh
# Starts a gateway on its default data folder and a demo agent, says where to look, and stops both
# on Ctrl-C. Used by `make run`.
#
#   BUILD       folder of the program (default build)
#   RUN_ARGS    further arguments of `ebbgate serve`
set -u
bin=${BUILD:-build}/ebbgate
work=$(mktemp -d "${TMPDIR:-/tmp}/ebbgate-run.XXXXXX") || exit 1
gate='' agent=''

stop() {
    trap '' INT TERM
    [ -n "$agent" ] && kill "$agent" 2>/dev/null && wait "$agent" 2>/dev/null
    [ -n "$gate" ] && kill "$gate" 2>/dev/null && wait "$gate" 2>/dev/null
    rm -rf "$work"
}
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM

# shellcheck disable=SC2086 # words on purpose
"$bin" serve ${RUN_ARGS:-} >"$work/ready" &
gate=$!
while ! grep -qs '^ebbgate ready ' "$work/ready"; do
    if ! kill -0 "$gate" 2>/dev/null; then
        wait "$gate"
        code=$?
        gate=''
        stop
        exit "$code"
    fi
    sleep 0.1
done
public=$(sed -n 's/^ebbgate ready public=\([^ ]*\) .*/\1/p' "$work/ready")
admin=$(sed -n 's/^ebbgate ready .* admin=\([^ ]*\).*/\1/p' "$work/ready")
url=ws://$public/ws
where=" --url $url"
[ "$public" != 127.0.0.1:7070 ] || where=

"$bin" agent --id echo --url "$url" --exec cat &
agent=$!
token=$("$bin" token --sub operator --scope "admin read write" --ttl 3600) || token=''

cat <<EOF

Ebbgate is running; an agent named "echo" is attached. In a second terminal:

    $bin chat --agent echo$where

Console (this link works for an hour):

    http://$admin/#token=$token

Ctrl-C stops both.
EOF
wait "$gate"
code=$?
gate=''
stop
exit "$code"
