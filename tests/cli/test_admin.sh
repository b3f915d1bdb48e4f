#!/bin/sh
# The admin API from a terminal: lists, acts, tail, export, revoke, backup, drain.
. "$(dirname "$0")/lib.sh"

# admin COMMAND ARGUMENT...
admin() {
    EBBGATE_ADMIN_URL=http://$ADMIN timeout 60 "$BIN" "$@" --data "$T/data"
}

# A gateway with an agent and two sessions.
filled() {
    gate
    agent --id echo --exec cat
    chat --agent echo --session one 'hello one' >/dev/null
    chat --agent echo --session two 'hello two' >/dev/null
}

test_lists() {
    filled
    admin sessions >"$T/out"
    [ "$(wc -l <"$T/out")" -eq 3 ] || die "$(cat "$T/out")"
    head -n 1 "$T/out" | grep -q '^SESSION  *AGENT  *OWNER  *STATE'
    grep -q "^one  *echo  *$(id -un)  *open  *3 " "$T/out" || die "$(cat "$T/out")"
    admin sessions --json --limit 1 >"$T/out" 2>"$T/err"
    [ "$(wc -l <"$T/out")" -eq 1 ]
    grep -q '^{"id":"two",' "$T/out" || die "$(cat "$T/out")"
    has "$T/err" 'there are more'
    admin sessions --q wo --agent echo --state open --active 1h --json >"$T/out"
    [ "$(wc -l <"$T/out")" -eq 1 ]
    admin agents >"$T/out"
    grep -q '^echo  *1  *0  *0  *0  *-$' "$T/out" || die "$(cat "$T/out")"
    admin connections >"$T/out"
    grep -q ' agent  *agent-echo  *127.0.0.1  *echo ' "$T/out" || die "$(cat "$T/out")"
    admin turns >"$T/out"
    [ "$(wc -l <"$T/out")" -eq 1 ]
    admin stats >"$T/out"
    grep -q '^sessions\.total  *2$' "$T/out" || die "$(cat "$T/out")"
    grep -q '^started  *20[0-9-]*T[0-9:.]*Z$' "$T/out" || die "$(cat "$T/out")"
}

test_more_than_a_page() {
    gate --agents echo
    token=$("$BIN" token --sub many --data "$T/data")
    i=0
    while [ "$i" -lt 60 ]; do
        i=$((i + 1))
        for k in 1 2 3 4 5 6 7 8 9 10; do
            echo 'url = "http://'"$PUBLIC"'/v1/sessions"'
            echo 'header = "Authorization: Bearer '"$token"'"'
            echo 'header = "Content-Type: application/json"'
            echo 'data = "{\"agent_id\":\"echo\",\"session_id\":\"s-'"$i-$k"'\"}"'
            echo next
        done
    done | sed '$d' >"$T/requests"
    curl -s -K "$T/requests" >/dev/null
    admin sessions --limit 10000 --json >"$T/out"
    [ "$(sort -u "$T/out" | wc -l)" -eq 600 ] || die "$(wc -l "$T/out")"
    admin sessions --limit 501 --json >"$T/out" 2>/dev/null
    [ "$(wc -l <"$T/out")" -eq 501 ]
}

test_acts() {
    filled
    admin sessions show one >"$T/out"
    grep -q '^state  *open$' "$T/out" || die "$(cat "$T/out")"
    admin sessions fork one 2 >"$T/out"
    grep -q '^forked_from  one$' "$T/out" || die "$(cat "$T/out")"
    admin sessions say one 'from "above"' >/dev/null
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' export one --data $T/data |
        grep -q 'operator:.*from ..above'"
    admin sessions close two >/dev/null
    code 1 chat --agent echo --session two more 2>"$T/err"
    has "$T/err" session_closed
    admin sessions delete two >/dev/null
    code 1 "$BIN" sessions --data "$T/data" --url "http://$PUBLIC" 2>"$T/err"
    has "$T/err" 'is the admin listener at'
    code 1 "$BIN" chat --data "$T/data" --url "ws://$ADMIN/ws" hello 2>"$T/err"
    has "$T/err" 'is the public listener at'
    code 1 "$BIN" sessions --data "$T/data" --url "http://$ADMIN" \
        --token "$("$BIN" token --sub low --data "$T/data")" 2>"$T/err"
    has "$T/err" 'the token lacks a scope: admin:read'
    code 1 chat --agent nobody hello 2>"$T/err"
    grep -Eq 'hello.refused conn=[0-9a-f]{16} ' "$T/log" || die "$(cat "$T/log")"
    code 1 admin agents remove echo 2>"$T/err"
    has "$T/err" 'it has workers'
    code 1 admin turns retry one 1 2>"$T/err"
    has "$T/err" 'no such dead turn'
    code 1 admin sessions show two 2>"$T/err"
    has "$T/err" 'session_not_found, status 404'
    admin agents add later >/dev/null
    admin agents show later >/dev/null
    admin agents remove later
    code 64 admin sessions frobnicate one 2>"$T/err"
    has "$T/err" 'unknown verb'
    code 64 admin sessions fork one here 2>"$T/err"
    code 64 admin sessions say one 2>"$T/err"
    has "$T/err" 'say wants: ID TEXT'
}

test_dead_turn_and_retry() {
    gate --max-attempts 1
    agent --id x --exec "[ -e $T/works ] && echo fine"
    code 1 chat --agent x --session s hello 2>/dev/null
    admin turns --state dead >"$T/out"
    grep -q '^s  *1  *x  *dead  *1 .*exited with status 1' "$T/out" || die "$(cat "$T/out")"
    touch "$T/works"
    admin turns retry s 1 >"$T/out"
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' export s --data $T/data |
        grep -q '\"content\":\"fine'"
}

test_export_and_tail() {
    filled
    admin export one >"$T/out"
    [ "$(wc -l <"$T/out")" -eq 3 ]
    admin tail --since 0 --json one >"$T/tail" &
    follow=$!
    started "$follow"
    eventually sh -c "[ \$(wc -l <$T/tail) -eq 3 ]"
    same "$T/out" "$T/tail"
    admin tail --since 0 one >"$T/text" &
    started $!
    eventually sh -c "[ \$(wc -l <$T/text) -eq 3 ]"
    sed -n 1p "$T/text" | grep -Eq '^ +1  message +client:[^ ]+ +\{"content":' || die "$(cat "$T/text")"
    sed -n 3p "$T/text" | grep -Eq '^ +3  response +agent:echo +"' || die "$(cat "$T/text")"
    crash
    gate
    chat --agent echo --session one again >/dev/null
    eventually sh -c "[ \$(wc -l <$T/tail) -eq 6 ]"
    admin export one >"$T/out"
    same "$T/out" "$T/tail"
    admin sessions close one >/dev/null
    code 0 admin tail one 2>"$T/err"
    has "$T/err" 'the session is closed'
    code 0 timeout 30 sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' tail --since 6 one --data $T/data" \
        >"$T/text" 2>"$T/err"
    has "$T/text" session_end
    code 1 admin tail nowhere 2>"$T/err"
    has "$T/err" session_not_found
}

test_revoke() {
    filled
    token=$("$BIN" token --sub eve --data "$T/data")
    chat --agent echo --token "$token" hello >/dev/null
    admin revoke --sub eve >/dev/null
    code 1 chat --agent echo --token "$token" hello 2>"$T/err"
    has "$T/err" auth_unauthorized
    code 64 admin revoke --sub a --jti b 2>"$T/err"
    has "$T/err" '--sub and --jti do not go together'
    code 64 admin revoke 2>"$T/err"
}

test_rights() {
    filled
    token=$("$BIN" token --sub low --data "$T/data")
    code 1 admin sessions --token "$token" 2>"$T/err"
    has "$T/err" 'status 403'
    code 1 admin sessions --token nonsense 2>"$T/err"
    has "$T/err" 'status 401'
    token=$("$BIN" token --sub eyes --scope admin:read --data "$T/data")
    admin sessions --token "$token" >/dev/null
    code 1 admin sessions close one --token "$token" 2>"$T/err"
    has "$T/err" 'status 403'
}

test_backup_by_the_gateway() {
    filled
    timeout 60 "$BIN" backup --data "$T/data" --url "http://$ADMIN" "$T/copy.db" >"$T/out"
    [ "$(cat "$T/out")" = "$T/copy.db" ]
    code 1 "$BIN" backup --data "$T/data" --url "http://$ADMIN" "$T/copy.db" 2>"$T/err"
    has "$T/err" 'to: '
    "$BIN" restore --data "$T/new" "$T/copy.db" >/dev/null
    "$BIN" verify --data "$T/new" >"$T/out"
    has "$T/out" 'intact: 2 sessions, 6 events'
}

test_drain() {
    filled
    admin drain >/dev/null
    gate_ends 0
    code 1 admin sessions 2>"$T/err"
    has "$T/err" 'is the gateway running?'
}

# "From now on" is a place in the log: what comes while the gateway is away is not skipped.
test_tail_from_now_on_through_a_break() {
    filled
    EBBGATE_ADMIN_URL=http://$ADMIN "$BIN" tail --json one --data "$T/data" >"$T/tail" 2>"$T/err" &
    follow=$!
    started "$follow"
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' connections --data $T/data | grep -q sse"
    kill -STOP "$follow"
    crash
    gate
    chat --agent echo --session one again >/dev/null
    kill -CONT "$follow"
    eventually sh -c "[ \$(wc -l <$T/tail) -eq 3 ]"
    admin export one | tail -n 3 >"$T/out"
    same "$T/out" "$T/tail"
}

# A session that is deleted and begun anew under its id while tail is away is another log.
test_tail_into_another_log() {
    filled
    EBBGATE_ADMIN_URL=http://$ADMIN "$BIN" tail --since 0 --json one --data "$T/data" >"$T/tail" 2>"$T/err" &
    follow=$!
    started "$follow"
    eventually sh -c "[ \$(wc -l <$T/tail) -eq 3 ]"
    cp "$T/tail" "$T/want"
    kill -STOP "$follow"
    crash
    gate
    admin sessions delete one >/dev/null
    chat --agent echo --session one again >/dev/null
    chat --agent echo --session one 'and again' >/dev/null
    kill -CONT "$follow"
    eventually sh -c "[ \$(wc -l <$T/tail) -eq 9 ]"
    admin export one >>"$T/want"
    same "$T/want" "$T/tail"
    [ "$(cat "$T/err")" = '(the log is another one now; it follows from its beginning)' ] || die "$(cat "$T/err")"
}

# A gateway that is stopped, or a connection whose other end is gone: the kernel says nothing of it.
# The server here has a part for each connection.
silent_server() {
    cat >"$T/silent.py" <<'EOF'
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
kept = []
for part in sys.argv[1:]:
    peer = server.accept()[0]
    request = peer.recv(65536).decode().split("\r\n")
    print(request[0], *(line for line in request if line.startswith("Authorization")), sep="\n", flush=True)
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    if part == "detail":
        peer.sendall(head.replace("text/event-stream", "application/json").encode() + b'{"cursor":0,"epoch":"one"}')
    elif part == "other":
        resync = 'event: resync\ndata: {"reason":"epoch_changed","oldest_cursor":3,"cursor":8,"epoch":"two"}\n\n'
        peer.sendall((head + resync + 'data: {"cursor":9,"type":"x.a"}\n\n').encode())
    elif part == "gap":
        peer.sendall((head + 'event: resync\ndata: {"reason":"trimmed","oldest_cursor":6,"cursor":8,"epoch":"one"}\n\n').encode())
    elif part == "closed":
        peer.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    elif part.startswith("proxy"):
        peer.sendall(b"HTTP/1.1 %s x\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>" % part[5:].encode())
    elif part == "silent":
        kept.append(peer)
        continue
    else:
        peer.sendall((head + 'data: {"cursor":%s,"type":"x.a"}\n\n' % part.strip("!")).encode())
        if part[0] == "!":  # a reset
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            kept.append(peer)
            continue
    peer.close()
if "silent" in sys.argv:
    server.accept()
EOF
    python3 "$T/silent.py" "$@" >"$T/server" &
    started $!
    eventually test -s "$T/server"
    ADMIN=127.0.0.1:$(head -n 1 "$T/server")
    export EBBGATE_HEARTBEAT_MS=100
}

test_tail_goes_on_behind_a_gap() {
    command -v python3 >/dev/null || return 0
    gate # for its key
    silent_server detail gap closed
    code 0 admin tail --since 3 --json one >"$T/tail" 2>"$T/err"
    [ "$(cat "$T/err")" = '(the log has a gap here)
(the session is closed)' ] || die "$(cat "$T/err")"
    has "$T/server" 'since=3'
    has "$T/server" 'since=8'
}

test_tail_leaves_a_silent_connection() {
    command -v python3 >/dev/null || return 0
    gate # for its key
    silent_server detail '!1' 2 closed
    code 0 admin tail --since 0 --json one >"$T/tail" 2>"$T/err"
    [ "$(cat "$T/tail")" = "{\"cursor\":1,\"type\":\"x.a\"}
{\"cursor\":2,\"type\":\"x.a\"}" ] || die "$(cat "$T/tail")"
    has "$T/server" 'since=1'
    has "$T/server" 'since=2'
    [ "$(grep Authorization "$T/server" | sort -u | wc -l)" -eq 4 ] || die 'one token for all: it expires'
    [ "$(cat "$T/err")" = '(the session is closed)' ] || die "$(cat "$T/err")"
}

# What comes behind the news of another log is not shown before what that log begins with.
test_tail_begins_another_log_at_its_beginning() {
    command -v python3 >/dev/null || return 0
    gate # for its key
    silent_server detail '!5' other '!3' closed
    code 0 admin tail --json one >"$T/tail" 2>"$T/err"
    [ "$(cat "$T/tail")" = "{\"cursor\":5,\"type\":\"x.a\"}
{\"cursor\":3,\"type\":\"x.a\"}" ] || die "$(cat "$T/tail")"
    sed -n 's/^GET .*[?]\(.*\) HTTP.*/\1/p' "$T/server" >"$T/asked"
    printf '%s\n' 'since=0&epoch=one' 'since=5&epoch=one' 'since=2&epoch=two' 'since=3&epoch=two' >"$T/want"
    same "$T/want" "$T/asked"
}

# What a proxy says while the gateway restarts.
test_tail_waits_behind_a_proxy() {
    command -v python3 >/dev/null || return 0
    gate # for its key
    silent_server detail '!1' proxy502 proxy504 proxy200 '!2' closed
    code 0 admin tail --since 0 --json one >"$T/tail" 2>"$T/err"
    [ "$(cat "$T/tail")" = "{\"cursor\":1,\"type\":\"x.a\"}
{\"cursor\":2,\"type\":\"x.a\"}" ] || die "$(cat "$T/tail")"
    [ "$(cat "$T/err")" = '(the session is closed)' ] || die "$(cat "$T/err")"
    : >"$T/server"
    silent_server proxy502
    code 1 admin tail --since 0 --json one 2>"$T/err"
    has "$T/err" 'status 502'
}

test_a_gateway_that_never_answers() {
    command -v python3 >/dev/null || return 0
    silent_server silent
    code 1 admin sessions --token t 2>"$T/err"
    has "$T/err" 'it accepts requests and says nothing'
}

# A login page, a proxy, another server: its 200 is no gateway's, and nothing was done.
test_what_answers_is_no_gateway() {
    command -v python3 >/dev/null || return 0
    gate # for its key
    cat >"$T/page.py" <<'EOF'
from http.server import BaseHTTPRequestHandler, HTTPServer
class Page(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        json = self.path.startswith("/json/")
        body = b'{"ok":true}' if json else b"" if self.path.startswith("/empty/") else b"<html>log in</html>"
        self.send_response(302 if self.path.startswith("/moved/") else 200)
        self.send_header("Content-Type", "text/html" if not body or body[0] == ord("<") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_PUT = do_DELETE = answer
server = HTTPServer(("127.0.0.1", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
EOF
    python3 "$T/page.py" >"$T/server" 2>"$T/err-server" &
    started $!
    eventually test -s "$T/server"
    ADMIN=127.0.0.1:$(head -n 1 "$T/server")
    for what in sessions 'sessions --json' agents stats 'stats --json' drain 'revoke --sub eve' 'tail one' \
        'tail --since 0 one' 'export one' 'sessions show one' 'sessions delete one' 'sessions say one hello' \
        "backup --url http://$ADMIN $T/copy.db"; do
        for place in '' /empty /moved; do
            # shellcheck disable=SC2086 # words on purpose
            code 1 admin $what --url "http://$ADMIN$place" >"$T/out" 2>"$T/err"
            [ ! -s "$T/out" ] || die "$what$place: $(cat "$T/out")"
            has "$T/err" 'is the admin listener'
        done
    done
    code 1 admin sessions --url "http://$ADMIN/json" >"$T/out" 2>"$T/err"
    [ ! -s "$T/out" ]
    has "$T/err" 'no list of sessions'
}

run_tests "$@"
