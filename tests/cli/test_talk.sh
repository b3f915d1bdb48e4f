#!/bin/sh
# chat and agent: pipes, JSON, failures, aborts, and everything through kill -9 of the gateway.
. "$(dirname "$0")/lib.sh"

test_once_and_pipes() {
    gate
    agent --id echo --exec cat
    [ "$(echo hi | chat --agent echo --once)" = hi ]
    [ "$(chat --agent echo 'on the command line')" = 'on the command line' ]
    printf 'one\ntwo\nthree\n' >"$T/in"
    chat --agent echo <"$T/in" >"$T/out"
    same "$T/in" "$T/out"
    printf 'two\nlines, \303\251\342\202\254' | chat --agent echo --once >"$T/out"
    printf 'two\nlines, \303\251\342\202\254\n' >"$T/want"
    same "$T/want" "$T/out"
}

test_json() {
    gate
    agent --id echo --exec cat
    chat --agent echo --json hello >"$T/out"
    [ "$(wc -l <"$T/out")" -eq 3 ] || die "$(cat "$T/out")"
    sed -n 1p "$T/out" | grep -q '"status":"accepted"'
    sed -n 2p "$T/out" | grep -q '"type":"token_stream".*"data":{"content":"hello"}'
    sed -n 3p "$T/out" | grep -q '"type":"response".*"content":"hello","outcome":{"status":"ok"}'
}

test_refusals() {
    gate
    code 1 chat --agent nobody hello 2>"$T/err"
    has "$T/err" agent_not_found
    code 1 chat --agent x --token nonsense hello 2>"$T/err"
    has "$T/err" auth_unauthorized
    code 1 chat --url ws://127.0.0.1:1/ws hello 2>"$T/err"
    has "$T/err" 'is the gateway running at'
    code 64 chat --url gopher://x hello 2>"$T/err"
    has "$T/err" 'is no URL'
    code 1 timeout 20 "$BIN" agent --id x --token nonsense --exec cat 2>"$T/err"
    has "$T/err" auth_unauthorized
}

test_message_waits_for_an_absent_agent() {
    gate --agents later
    chat --agent later hello >"$T/out" &
    started $!
    talk=$!
    eventually sh -c "\"$BIN\" verify --data $T/data | grep -q '1 events'"
    crash
    gate --agents later
    agent --id later --exec 'tr a-z A-Z'
    wait "$talk"
    [ "$(cat "$T/out")" = HELLO ]
}

test_resume_a_session() {
    gate
    agent --id echo --exec cat
    chat --agent echo --session mine first >/dev/null
    chat --agent echo --session mine --history 10 second >"$T/out" 2>&1
    printf 'first\nsecond\n' >"$T/want"
    same "$T/want" "$T/out"
}

test_environment_of_the_command() {
    gate
    EBBGATE_TOKEN=$("$BIN" token --sub worker --scope agent --agents e --data "$T/data")
    export EBBGATE_TOKEN
    agent --id e --exec 'env | grep ^EBBGATE_ | grep -v URL | sort; cat'
    unset EBBGATE_TOKEN
    chat --agent e --session s1 'the message' >"$T/out"
    user=$(id -un)
    cat >"$T/want" <<EOF
EBBGATE_AGENT=e
EBBGATE_ATTEMPT=1
EBBGATE_SESSION=s1
EBBGATE_SOURCE=client:$user
EBBGATE_TURN=1
the message
EOF
    same "$T/want" "$T/out"
}

test_failure_tells_the_last_words() {
    gate --max-attempts 2 --retry-backoff 10ms
    agent --id bad --exec "echo run >>$T/runs; echo out; echo 'it broke' >&2; exit 3"
    code 1 chat --agent bad hello >"$T/out" 2>"$T/err"
    has "$T/err" 'error: the command exited with status 3: it broke'
    [ "$(wc -l <"$T/runs")" -eq 2 ] || die 'not two attempts'
}

test_answer_of_a_second_attempt() {
    gate --retry-backoff 10ms
    agent --id second --exec 'printf half; [ $EBBGATE_ATTEMPT = 2 ] && echo " and half"'
    chat --agent second hello >"$T/out" 2>"$T/err"
    has "$T/err" 'attempt 1 failed'
    printf 'half\nhalf and half\n' >"$T/want"
    same "$T/want" "$T/out"
}

test_killed_command() {
    gate --max-attempts 1
    agent --id bad --exec 'kill -9 $$'
    code 1 chat --agent bad hello 2>"$T/err"
    has "$T/err" 'ended by signal 9 (SIGKILL)'
}

test_command_that_is_not_there() {
    gate --max-attempts 1
    agent --id bad --exec /no/such/program
    code 1 chat --agent bad hello 2>"$T/err"
    has "$T/err" 'cannot run the command: /no/such/program'
}

test_timeout() {
    gate --max-attempts 1
    agent --id slow --timeout 200ms --exec "sleep 300 & echo \$! >$T/child; wait"
    code 1 chat --agent slow hello 2>"$T/err"
    has "$T/err" 'took longer than 200 ms'
    eventually sh -c "! kill -0 $(cat "$T/child")"
}

test_quiet_command_keeps_its_lease() {
    gate --turn-lease 300ms --max-attempts 1
    agent --id quiet --exec 'sleep 1.5; echo still here'
    [ "$(chat --agent quiet hello)" = 'still here' ]
}

test_output_that_is_no_text() {
    gate
    agent --id raw --exec "printf 'a\\000b\\377c\\303'"
    chat --agent raw hello >"$T/out"
    printf 'a\357\277\275b\357\277\275c\357\277\275\n' >"$T/want"
    same "$T/want" "$T/out"
}

test_much_output() {
    gate --max-payload 65536
    agent --id big --exec 'seq 1 200000'
    chat --agent big --json go >"$T/out"
    tail -n 1 "$T/out" | grep -q '"truncated":true' || die "$(tail -n 1 "$T/out" | cut -c 1-300)"
    grep -c token_stream "$T/out" >"$T/count"
    sed -n 's/.*"type":"token_stream".*"data":{"content":"\(.*\)"}}$/\1/p' "$T/out" |
        tr -d '\n' | sed 's/\\n/\n/g' >"$T/numbers"
    seq 1 200000 >"$T/want"
    same "$T/want" "$T/numbers"
    # The answer holds only the beginning of what was streamed: that is not shown again.
    chat --agent big go >"$T/out"
    same "$T/want" "$T/out"
}

test_concurrency() {
    gate
    agent --id two --concurrency 2 \
        --exec "touch $T/at-\$EBBGATE_SESSION; while [ ! -e $T/go ]; do sleep 0.05; done; echo ok"
    for s in a b c; do
        chat --agent two --session "$s" hello >"$T/out-$s" &
        started $!
    done
    eventually sh -c "[ \$(ls $T/at-* | wc -l) -eq 2 ]"
    touch "$T/go"
    for s in a b c; do
        eventually grep -q ok "$T/out-$s"
    done
}

test_interrupt_aborts() {
    gate
    agent --id slow --exec "trap 'echo stopped; exit 0' TERM; touch $T/began; while :; do sleep 0.05; done"
    "$BIN" chat --data "$T/data" --agent slow hello >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    eventually test -e "$T/began"
    kill -INT "$talk"
    code 1 wait "$talk"
    has "$T/out" stopped
    has "$T/err" aborted
}

test_second_interrupt_leaves() {
    gate
    agent --id slow --exec "trap '' TERM; touch $T/began; while :; do sleep 0.05; done"
    "$BIN" chat --data "$T/data" --agent slow hello >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    eventually test -e "$T/began"
    kill -INT "$talk"
    eventually grep -q aborting "$T/err"
    kill -INT "$talk"
    code 130 wait "$talk"
}

test_abort_kills_the_group() {
    gate --abort-grace 200ms
    agent --id hard --exec \
        "trap '' TERM; sh -c 'trap \"\" TERM; echo \$\$ >$T/child; touch $T/began; while :; do sleep 0.05; done'"
    "$BIN" chat --data "$T/data" --agent hard hello >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    eventually test -e "$T/began"
    kill -INT "$talk"
    code 1 wait "$talk"
    eventually sh -c "! kill -0 $(cat "$T/child")"
}

test_agent_ends_its_commands() {
    gate
    agent --id slow --exec "sleep 300 & echo \$! >$T/child; touch $T/began; wait"
    "$BIN" chat --data "$T/data" --agent slow hello >/dev/null 2>&1 &
    started $!
    eventually test -e "$T/began"
    kill -TERM "$AGENT"
    code 0 wait "$AGENT"
    eventually sh -c "! kill -0 $(cat "$T/child")"
}

# A long-lived command in the shell: answers each turn with its content in capitals.
jsonl() {
    cat >"$T/jsonl.sh" <<'EOF'
echo start >>"$T/starts"
while read -r line; do
    case $line in
    '{"type":"turn"'*crash*) echo 'last words' >&2; exit 4 ;;
    '{"type":"turn"'*)
        text=$(printf %s "$line" | sed 's/.*"content":"\([^"]*\)".*/\1/' | tr a-z A-Z)
        printf '{"type":"emit","event":"token_stream","data":{"content":"%s"}}\n' "$text"
        printf '{"type":"final","content":"%s"}\n' "$text"
        ;;
    esac
done
EOF
    agent --id j --mode jsonl --exec sh "$T/jsonl.sh"
}

test_jsonl() {
    gate --max-attempts 1
    jsonl
    [ "$(chat --agent j one)" = ONE ]
    [ "$(chat --agent j two)" = TWO ]
    [ "$(wc -l <"$T/starts")" -eq 1 ] || die 'not one process for all turns'
    code 1 chat --agent j crash 2>"$T/err"
    has "$T/err" 'exited with status 4: last words'
    [ "$(chat --agent j again)" = AGAIN ]
    [ "$(wc -l <"$T/starts")" -eq 2 ]
}

# What such a command may write besides emit and final, and what it may not.
odd_jsonl() {
    cat >"$T/odd.sh" <<'EOF'
while read -r line; do
    session=$(printf %s "$line" | sed 's/.*"session_id":"\([^"]*\)".*/\1/')
    case $line in
    '{"type":"abort"'*) echo '{"type":"final","content":"as told"}' ;;
    *'"content":"odd"'*)
        echo
        echo 'no JSON'
        echo '{"type":"what"}'
        echo '{"type":"final","session_id":"another","turn":9,"content":1}'
        printf '{"type":"final","session_id":"%s","turn":1,"epoch":"old","content":"of a deleted session"}\n' "$session"
        printf '  {"type":"publish","session_id":"%s","event":"x.note","data":{"n":1}}\r\n' "$session"
        echo '{"type":"extend"}'
        printf '{"type":"emit","event":"status","data":{},"event_id":"own"}\n{"type":"fin'
        echo 'al","content":"all the same"}'
        ;;
    *'"content":"hopeless"'*) echo '{"type":"fail","error":{"why":"no use"},"retry":false}' ;;
    *'"content":"endless"'*) head -c 70000 /dev/zero | tr '\0' x ;;
    *'"content":"patient"'*) : >"$T/began" ;;
    esac
done
EOF
    agent --id odd --mode jsonl --exec sh "$T/odd.sh"
}

test_jsonl_frames() {
    gate --max-attempts 1 --max-payload 65536
    odd_jsonl
    [ "$(chat --agent odd --session s odd)" = 'all the same' ]
    has "$T/agent.log" 'a line that is no JSON object'
    has "$T/agent.log" 'a frame of unknown type'
    has "$T/agent.log" 'a turn that is not open'
    code 1 chat --agent odd hopeless 2>"$T/err"
    has "$T/err" 'no use'
    code 1 chat --agent odd endless 2>"$T/err"
    has "$T/agent.log" 'a line longer than max_payload'
    [ "$(chat --agent odd odd)" = 'all the same' ] || die 'the command is not started again'
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' export s --data $T/data | grep -q '\"type\":\"x.note\".*\"data\":{\"n\":1}'"
}

test_jsonl_abort() {
    gate
    odd_jsonl
    "$BIN" chat --data "$T/data" --agent odd patient >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    eventually test -e "$T/began"
    kill -INT "$talk"
    code 1 wait "$talk"
    has "$T/out" 'as told'
    has "$T/err" aborted
}

# Lines through five deaths of the gateway: each answered once, in order.
test_chat_through_kill() {
    gate
    agent --id echo --exec 'sleep 0.01; cat'
    seq 1 100 | sed 's/^/line /' >"$T/in"
    (while read -r line; do
        echo "$line"
        sleep 0.02
    done <"$T/in") | chat --agent echo --session s >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    for lines in 10 30 50 70 90; do
        eventually sh -c "[ \$(wc -l <$T/out) -ge $lines ]"
        crash
        gate
    done
    wait "$talk"
    same "$T/in" "$T/out"
    "$BIN" verify --data "$T/data" >"$T/verify"
    has "$T/verify" 'intact: 1 sessions, 300 events, 0 faults'
}

# A turn that runs while the gateway dies goes on: one run, no output lost or doubled.
# Nothing is outstanding: the end of input ends a chat, whether the gateway is there or not.
test_end_of_input_without_a_gateway() {
    gate
    agent --id echo --exec cat
    mkfifo "$T/in"
    chat --agent echo --json <"$T/in" >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    exec 8>"$T/in"
    rm "$T/in" # both ends are open
    echo hello >&8
    eventually grep -q '"status":"final"' "$T/out"
    crash
    exec 8>&-
    code 0 wait "$talk"
}

test_turn_through_kill() {
    gate
    agent --id slow --exec \
        "echo run >>$T/runs; for i in 1 2 3 4 5 6; do echo \$i; while [ ! -e $T/go\$i ]; do sleep 0.02; done; done"
    chat --agent slow --session s hello >"$T/out" &
    talk=$!
    started "$talk"
    eventually grep -q 1 "$T/out"
    crash
    touch "$T/go1" "$T/go2"
    gate
    eventually grep -q 3 "$T/out"
    crash
    touch "$T/go3" "$T/go4" "$T/go5" "$T/go6"
    gate
    wait "$talk"
    seq 1 6 >"$T/want"
    same "$T/want" "$T/out"
    [ "$(wc -l <"$T/runs")" -eq 1 ] || die 'the command ran again'
}

# What is done for a message that a restored log no longer has is no answer to another one in its place.
test_turn_of_a_log_that_was_restored() {
    gate
    # shellcheck disable=SC2016
    agent --id slow --exec 'read -r line || true; echo "$line" >>"'"$T"'/seen"; [ "$line" != old ] || exec sleep 600; echo "to $line"'
    "$BIN" backup --data "$T/data" "$T/copy" >/dev/null
    chat --agent slow --session s1 --once old >/dev/null 2>&1 &
    talk=$!
    eventually grep -q '^old$' "$T/seen"
    kill "$talk"
    crash
    rm "$T"/data/ebbgate.db*
    "$BIN" restore --data "$T/data" "$T/copy" >/dev/null
    gate
    code 0 chat --agent slow --session s1 new >"$T/out"
    has "$T/out" 'to new'
}

# Answers "to X"; a message "slow" only once $T/go is there.
patient() {
    # shellcheck disable=SC2016
    agent --id patient --exec 'read -r line || true
        [ "$line" != slow ] || { echo >"'"$T"'/began"; until [ -e "'"$T"'/go" ]; do sleep 0.05; done; }
        echo "to $line"'
}

# waiting OPTION...: a chat of session s1 that waits for its answer, behind an old one.
waiting() {
    chat --agent patient --session s1 old >/dev/null
    "$BIN" chat --data "$T/data" --agent patient --session s1 "$@" >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    eventually test -e "$T/began"
}

# Ends the gateway and starts it on a copy of its log.
restored() {
    crash
    rm "$T"/data/ebbgate.db*
    "$BIN" restore --data "$T/data" "$1" >/dev/null
    gate
}

backup() {
    "$BIN" backup --data "$T/data" "$1" >/dev/null
}

# The chat hears nothing of its answer.
answered_behind_its_back() {
    kill -STOP "$talk"
    crash
    gate
    touch "$T/go"
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' export s1 --data $T/data | grep -q 'final.*to slow'"
}

# The restored log has no such message: neither an end without a word, nor its old answers.
test_answer_lost_by_a_restore() {
    gate
    patient
    chat --agent patient --session s1 old >/dev/null
    backup "$T/copy"
    waiting --once slow
    restored "$T/copy"
    code 1 wait "$talk"
    has "$T/err" 'the answer is lost'
    [ ! -s "$T/out" ] || die "$(cat "$T/out")"
}

# In the restored log another message has its number.
test_answer_lost_to_another_message() {
    gate
    patient
    backup "$T/copy"
    waiting --once slow
    kill -STOP "$talk"
    restored "$T/copy"
    for text in a b c; do
        chat --agent patient --session s1 "$text" >/dev/null
    done
    kill -CONT "$talk"
    code 1 wait "$talk"
    has "$T/err" 'the answer is lost'
    [ ! -s "$T/out" ] || die "$(cat "$T/out")"
}

# The restored log has the answer: that, and nothing from before it.
test_answer_in_a_restored_log() {
    gate
    patient
    waiting --once slow
    answered_behind_its_back
    backup "$T/copy"
    restored "$T/copy"
    kill -CONT "$talk"
    code 0 wait "$talk"
    [ "$(cat "$T/out")" = 'to slow' ] || die "$(cat "$T/out")"
}

# trimmed N: goes on with the last N events of the session.
trimmed() {
    crash
    gate --retention-events "$1"
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' export s1 --data $T/data | wc -l | grep -qx $1"
}

# The answer came and was trimmed while nobody was there.
test_answer_lost_by_trimming() {
    gate
    patient
    waiting --once slow
    answered_behind_its_back
    chat --agent patient --session s1 later >/dev/null
    trimmed 1
    kill -CONT "$talk"
    code 1 wait "$talk"
    has "$T/err" 'the log has a gap here: trimmed'
    has "$T/err" 'the answer is lost'
    has_not "$T/out" 'to slow'
}

# The message was trimmed, its answer was not.
test_answer_behind_a_trimmed_gap() {
    gate
    patient
    waiting --once slow
    answered_behind_its_back
    trimmed 1
    kill -CONT "$talk"
    code 0 wait "$talk"
    [ "$(cat "$T/out")" = 'to slow' ] || die "$(cat "$T/out")"
}

# A gateway that takes a message, breaks off before it says so, and then has a gap whose snapshot is too full for it.
forgetful() {
    cat >"$T/forgetful.py" <<'EOF'
import base64, hashlib, json, socket, sys

def read(f):
    n = f.read(2)[1] & 127
    n = int.from_bytes(f.read(2), "big") if n == 126 else n
    mask = f.read(4)
    return json.loads(bytes(b ^ mask[i % 4] for i, b in enumerate(f.read(n))))

def say(c, **frame):
    text = json.dumps(frame).encode()
    c.sendall(bytes([0x81, 126]) + len(text).to_bytes(2, "big") + text)

def meet(server):
    c, _ = server.accept()
    f = c.makefile("rb")
    lines = iter(lambda: f.readline().strip(), b"")
    fields = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines)}
    made = hashlib.sha1(fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Protocol: ebbgate.v1\r\n"
              b"Sec-WebSocket-Accept: " + base64.b64encode(made) + b"\r\n\r\n")
    return c, f, read(f)

server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], file=open(sys.argv[1], "w"), flush=True)
c, f, _ = meet(server)
ok = {"type": "hello_ok", "session_id": "s1", "epoch": "e1"}
say(c, **ok, cursor=0, resumed=False, resync_required=False)
sent = read(f)
c.shutdown(socket.SHUT_RDWR)
c, f, _ = meet(server)
say(c, **ok, cursor=9, resumed=True, resync_required=True, resync_reason="trimmed")
state = {"session_id": "s1", "epoch": "e1", "oldest_cursor": 2, "event_cursor": 9, "messages": []}
say(c, type="snapshot", state=state)
assert read(f) == sent
say(c, type="response", status="accepted", session_id="s1", message_id=sent["message_id"], cursor=3, turn=3, duplicate=True)
f.read()
EOF
    python3 "$T/forgetful.py" "$T/port" &
    eventually test -s "$T/port"
}

# Nobody can know its answer: that is said, and is no success.
test_answer_unknown_behind_a_gap() {
    command -v python3 >/dev/null || return 0
    forgetful
    code 1 "$BIN" chat --url "ws://127.0.0.1:$(cat "$T/port")/ws" --token t --once lost >"$T/out" 2>"$T/err"
    has "$T/err" 'the answer is not known'
    [ ! -s "$T/out" ] || die "$(cat "$T/out")"
}

# through_a_restore OPTION: the finals' texts of a chat that says "first" and "slow" before and "new" after it.
through_a_restore() {
    gate
    patient
    chat --agent patient --session s1 old >/dev/null
    backup "$T/copy"
    mkfifo "$T/in"
    # shellcheck disable=SC2086 # none or one
    chat --agent patient --session s1 $1 <"$T/in" >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    exec 8>"$T/in"
    rm "$T/in" # both ends are open
    echo first >&8
    eventually grep -q 'to first' "$T/out"
    echo slow >&8
    eventually test -e "$T/began"
    restored "$T/copy" 8>&-
    eventually grep -q 'the answer is lost' "$T/err"
    echo new >&8
    exec 8>&-
    code 1 wait "$talk"
}

# Lines get their own answers, and not once more what was said before.
test_lines_through_a_restore() {
    through_a_restore ''
    printf 'to first\nto new\n' >"$T/want"
    same "$T/want" "$T/out"
}

# JSON gets what the log has now, from its first event on.
test_json_through_a_restore() {
    through_a_restore --json
    sed -n 's/.*"cursor":\([0-9]*\),.*"status":"final","content":"\(.*\)\\n","outcome.*/\1 \2/p' "$T/out" >"$T/finals"
    printf '6 to first\n3 to old\n6 to new\n' >"$T/want"
    same "$T/want" "$T/finals"
}

# A message that was not sent yet goes to the log as it is now, and its answer is all that is shown.
test_once_through_a_restore() {
    gate
    patient
    chat --agent patient --session s1 old >/dev/null
    backup "$T/copy"
    mkfifo "$T/in"
    chat --agent patient --session s1 --once <"$T/in" >"$T/out" 2>"$T/err" &
    talk=$!
    started "$talk"
    exec 8>"$T/in"
    rm "$T/in" # both ends are open
    eventually sh -c "EBBGATE_ADMIN_URL=http://$ADMIN '$BIN' connections --data $T/data | grep -q client"
    restored "$T/copy" 8>&-
    eventually grep -q 'the log is another one now: epoch_changed' "$T/err"
    echo new >&8
    exec 8>&-
    code 0 wait "$talk"
    [ "$(cat "$T/out")" = 'to new' ] || die "$(cat "$T/out")"
}

# What a command leaves behind, outside of its group, writes without end to what it inherited.
test_output_behind_the_end_of_the_command() {
    command -v python3 >/dev/null || return 0
    gate --max-attempts 1 --agents left,left2
    cat >"$T/left.py" <<'EOF'
import fcntl, os, signal, sys, time
F_SETPIPE_SZ = 1031
os.setsid()
signal.alarm(20)
fd = int(sys.argv[1])
fcntl.fcntl(fd, F_SETPIPE_SZ, 1 << 20)
open(sys.argv[2], "w").close()
while True:
    os.write(fd, b'{"x":1}\n' * 8192)
EOF
    both="for fd in 1 2; do python3 $T/left.py \$fd $T/on\$fd & done
        until [ -e $T/on1 ] && [ -e $T/on2 ]; do sleep 0.05; done"
    "$BIN" agent --data "$T/data" --id left --quiet --exec "$both; exit 0" &
    started $!
    timeout 10 "$BIN" chat --data "$T/data" --agent left hello >/dev/null || die 'the turn does not end'
    rm "$T/on1" "$T/on2"
    "$BIN" agent --data "$T/data" --id left2 --quiet --mode jsonl --exec "read -r line; $both; exit 0" \
        2>/dev/null &
    started $!
    code 1 timeout 10 "$BIN" chat --data "$T/data" --agent left2 hello >/dev/null 2>"$T/err"
    has "$T/err" 'exited with status 0'
}

# Members that are null count as absent; one line may not make two of them.
test_jsonl_null_members() {
    gate --max-attempts 1
    cat >"$T/null.sh" <<'EOF'
while read -r line; do
    echo '{"type":"emit","event":"status","data":{},"session_id":null,"event_id":null,"turn":null}'
    echo '{"session_id":7,"type":"final","content":"of which session?"}'
    echo '{"event_id":7,"type":"final","content":"what id?"}'
    echo '{ "session_id" : null , "event_id":null,"type":"final","content":"done", "turn":null }'
done
EOF
    agent --id null --mode jsonl --exec sh "$T/null.sh"
    [ "$(chat --agent null hello)" = 'done' ]
    has "$T/agent.log" 'whose session_id is no text'
    has "$T/agent.log" 'whose event_id is no text'
}

# With the event_id that is added to them these lines are longer than a frame may be.
test_jsonl_line_as_long_as_a_frame() {
    gate --max-attempts 1 --max-payload 65536
    cat >"$T/long.sh" <<'EOF'
while read -r line; do
    session=$(printf %s "$line" | sed 's/.*"session_id":"\([^"]*\)".*/\1/')
    case $line in
    *'"content":"publish"'*) printf '{"type":"publish","session_id":"%s","event":"x.note","data":"' "$session" ;;
    *'"content":"fail"'*) printf '{"type":"fail","error":"' ;;
    *) printf '{"type":"final","content":"' ;;
    esac
    head -c 65440 /dev/zero | tr '\0' x
    echo '"}'
    echo '{"type":"final","content":"after it"}'
done
EOF
    agent --id long --mode jsonl --exec sh "$T/long.sh"
    [ "$(chat --agent long publish)" = 'after it' ]
    code 1 chat --agent long final 2>"$T/err"
    has "$T/err" 'a frame longer than max_payload'
    code 1 chat --agent long fail 2>"$T/err"
    has "$T/err" 'an error longer than max_payload'
    has_not "$T/agent.log" 'connection lost'
}

# A message of the command line that is longer than this gateway takes.
test_message_too_long() {
    gate --max-payload 65536
    agent --id echo --exec cat
    code 1 chat --agent echo "$(head -c 70000 /dev/zero | tr '\0' x)" 2>"$T/err"
    has "$T/err" 'too long for this gateway'
}

# What an agent says is not let through to a terminal as it is, whatever stdin is.
test_escapes_on_a_terminal() {
    command -v script >/dev/null || return 0
    gate
    agent --id evil --exec "printf 'a\\033]0;title\\007b\\302\\2332Jc\\n'"
    for option in '' --json; do
        script -qec "'$BIN' chat --data '$T/data' --agent evil $option hello" /dev/null \
            </dev/null >>"$T/tty" 2>&1
    done
    has "$T/tty" 'title'
    if grep -q "$(printf '\033]0')" "$T/tty" || grep -q "$(printf '\302\233')" "$T/tty"; then
        die 'an escape sequence reached the terminal'
    fi
    chat --agent evil hello >"$T/out"
    grep -q "$(printf '\033]0')" "$T/out" || die 'a pipe gets what was said'
}

# Colours where the terminal has them and nobody declined.
test_colours_on_a_terminal() {
    command -v script >/dev/null || return 0
    gate
    agent --id echo --exec cat
    for wish in TERM=xterm TERM=dumb TERM= 'TERM=xterm NO_COLOR=1'; do
        echo hello | timeout 30 script -qec \
            "env $wish '$BIN' chat --data '$T/data' --agent echo" /dev/null >"$T/tty.$wish" 2>&1
        has "$T/tty.$wish" 'echo: '
        sgr=$(grep -c "$(printf '\033')" "$T/tty.$wish" || true)
        case $wish in
        TERM=xterm) [ "$sgr" -gt 0 ] || die 'no colours' ;;
        *) [ "$sgr" -eq 0 ] || die "colours with $wish" ;;
        esac
    done
}

# A proxy in front answers the upgrade: in chunks, in HTTP/1.0, without an end, and holds the line.
test_refused_by_a_proxy() {
    command -v python3 >/dev/null || return 0
    cat >"$T/proxy.py" <<'EOF'
import signal, socket, sys
signal.alarm(60)
DETAIL = br'{"detail":"\u001b[31mno"}'
HTML = b"<html>\x1b[31mno</html>"
LIFE = b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
ANSWERS = {
    "chunked": [LIFE % (b"401 Unauthorized", len(HTML), HTML)],
    "old": [
        b"HTTP/1.0 503 Busy\r\nContent-Length: 24\r\n\r\n" + DETAIL,
        b"HTTP/1.0 403 Forbidden\r\nContent-Length: 24\r\n\r\n" + DETAIL,
    ],
    "later": [
        LIFE % (b"200 OK", len(HTML), HTML),
        LIFE % (b"502 Bad Gateway", len(HTML), HTML),
        LIFE % (b"408 Request Timeout", len(HTML), HTML),
        b"HTTP/1.0 503 Service Unavailable\r\n\r\n" + HTML,
        LIFE % (b"401 Unauthorized", len(HTML), HTML),
    ],
}[sys.argv[1]]
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
kept = []
while True:
    s, _ = server.accept()
    while b"\r\n\r\n" not in s.recv(65536, socket.MSG_PEEK):
        pass
    s.recv(65536)
    answer = ANSWERS[min(len(kept), len(ANSWERS) - 1)]
    s.sendall(answer)
    kept.append(s)
    if answer.endswith(HTML):
        s.shutdown(socket.SHUT_WR)
EOF
    for kind in chunked old later; do
        : >"$T/port"
        python3 "$T/proxy.py" $kind >"$T/port" 2>>"$T/err-proxy" &
        started $!
        eventually grep -q '^[0-9]' "$T/port"
        code 1 timeout 60 "$BIN" agent --url "ws://127.0.0.1:$(cat "$T/port")/ws" --token t --id a \
            --exec cat 2>"$T/err"
        has "$T/err" 'refused: '
        if grep "$(printf '\033')" "$T/err"; then
            die 'an escape sequence on stderr'
        fi
    done
    has "$T/err" 'status 200'
    has "$T/err" 'status 502'
    has "$T/err" 'status 408'
    has "$T/err" 'status 503'
}

# Whoever starts us may have closed the standard files: nothing else is taken for them.
test_closed_standard_files() {
    "$BIN" serve --data "$T/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 <&- >&- 2>&- &
    GATE=$!
    started "$GATE"
    eventually test -s "$T/data/ebbgate.db"
    for n in 0 1 2; do
        [ "$(readlink "/proc/$GATE/fd/$n")" = /dev/null ] || die "descriptor $n: $(readlink "/proc/$GATE/fd/$n")"
    done
    kill "$GATE"
    wait "$GATE" || die "exit code $?"
    has_not "$T/data/lock" ebbgate
    gate
    agent --id echo --exec cat
    chat --agent echo hello <&- >"$T/out"
    has "$T/out" hello
    chat --agent echo <&- >"$T/out"
    code 1 chat --agent echo hello >&- 2>"$T/err"
    has "$T/err" 'cannot write to stdout'
}

# An agent whose gateway is not there says so, once a reason, and waits for it.
test_agent_before_its_gateway() {
    gate
    crash
    "$BIN" agent --data "$T/data" --id echo --exec cat 2>"$T/err" &
    started $!
    eventually grep -q 'is the gateway running at' "$T/err"
    has "$T/err" 'trying again'
    gate
    eventually grep -q 'is attached' "$T/err"
    [ "$(grep -c 'is the gateway running at' "$T/err")" -eq 1 ] || die "$(cat "$T/err")"
}

# wss:// with a certificate of one's own authority: refused by name, unless SSL_CERT_FILE names it.
test_own_authority() {
    unset SSL_CERT_FILE
    command -v openssl >/dev/null && command -v python3 >/dev/null || return 0
    gate
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout "$T/key.pem" -out "$T/cert.pem" 2>/dev/null
    cat >"$T/tls.py" <<'EOF'
import asyncio, signal, ssl, sys
signal.alarm(120)

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()

def to(port):
    async def serve(reader, writer):
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
    return serve

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    for port in sys.argv[3:]:
        server = await asyncio.start_server(to(int(port)), "127.0.0.1", 0, ssl=context)
        print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
EOF
    python3 "$T/tls.py" "$T/cert.pem" "$T/key.pem" "$PORT" "${ADMIN##*:}" >"$T/ports" 2>/dev/null &
    started $!
    eventually sh -c 'sed -n 2p "$1" | grep -q .' sh "$T/ports"
    wss=wss://localhost:$(sed -n 1p "$T/ports") https=https://localhost:$(sed -n 2p "$T/ports")
    "$BIN" agent --data "$T/data" --id echo --url "$wss" --exec cat 2>"$T/err" &
    started $!
    eventually grep -q 'certificate.*trying again' "$T/err"
    code 1 chat --agent echo --url "$wss" hello 2>"$T/err"
    has "$T/err" certificate
    code 1 "$BIN" agents --data "$T/data" --url "$https" 2>"$T/err"
    has "$T/err" certificate
    SSL_CERT_FILE=$T/cert.pem
    export SSL_CERT_FILE
    agent --id echo --url "$wss" --exec cat
    [ "$(chat --agent echo --url "$wss" hello)" = hello ] || die 'no answer'
    "$BIN" agents --data "$T/data" --url "$https" >"$T/out"
    has "$T/out" echo
    SSL_CERT_FILE=$T/none.pem
    code 1 chat --agent echo --url "$wss" hello 2>"$T/err"
    has "$T/err" none.pem
}

# The key that an agent makes its tokens with gives way to another: it goes on with that one.
test_agent_through_a_change_of_keys() {
    gate
    agent --id echo --exec cat
    EBBGATE_ADMIN_URL=http://$ADMIN
    token=$("$BIN" token --sub op --scope admin --data "$T/data")
    old=$(ls "$T/data/keys")
    rotate() {
        curl -fsS -X "$1" -H "Authorization: Bearer $token" "$EBBGATE_ADMIN_URL/api/v1/keys$2" >/dev/null
    }
    rotate POST /rotate
    eventually sh -c "[ \$(ls $T/data/keys | wc -l) -gt 1 ]"
    kid=${old#*-}
    rotate DELETE "/${kid%.key}"
    eventually grep -q 'connection lost' "$T/agent.log"
    [ "$(chat --agent echo hello)" = hello ]
    kill -0 "$AGENT" || die 'the agent gave up'
}

run_tests "$@"
