#!/bin/bash
# The packages' lifecycle in a booted container without network: install, start, talk, reload,
# upgrade under load, crash, watchdog, credential, backup and restore, reboot, remove, purge; then
# the RPM, in a scratch root and in the container. Everything runs the packages' own program.
#
# Needs root and mmdebstrap, systemd-nspawn, dpkg-buildpackage, rpm; says which is missing and does
# nothing then (exit 0). BUILD: where packages and the base system are kept. KEEP=1 keeps the root,
# REUSE=1 takes the packages that were built before.
set -eEu
build=$(mkdir -p "${BUILD:-build}/system" && cd "${BUILD:-build}/system" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
old=$(sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)
new=${old%.*}.$((${old##*.} + 1))
messages=300

skip() {
    echo "skipped: test-system: $*"
    exit 0
}
missing=
for tool in mmdebstrap systemd-nspawn nsenter dpkg-buildpackage dh rpmbuild rpm tar; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || skip "not installed:$missing"
[ "$(id -u)" -eq 0 ] || skip "needs root, to boot a container"

work=$(mktemp -d)
root=$work/root
# shellcheck source=packaging/tests/container.sh
. "$here/container.sh"

die() {
    trap - ERR
    echo "FAILED: $*" >&2
    [ -z "$CONTAINER_PID" ] || inside journalctl -q --no-pager -n 60 -u ebbgate >&2 || true
    exit 1
}
end() {
    container_end
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap end EXIT
trap 'die "lines $LINENO ${BASH_LINENO[*]}"' ERR
trap 'exit 130' INT TERM

step() { printf '== %s\n' "$*"; }
is() { [ "$1" = "$2" ] || die "$3: \"$1\", not \"$2\""; }
property() { inside systemctl show -P "$1" ebbgate; }
active() { [ "$(inside systemctl is-active ebbgate)" = active ] && inside curl -fsS http://127.0.0.1:7071/ready; }
new_pid() { [ "$(property MainPID)" != "$1" ] && active; }
journal_has() { inside journalctl -q --no-pager -u ebbgate -o cat | grep -qF -e "$1"; }
log_since() { inside journalctl -q --no-pager -u ebbgate -o cat --after-cursor="$1"; }
log_mark() { inside journalctl -q --no-pager -n 0 --show-cursor | sed -n 's/^-- cursor: //p'; }
mode_of() { inside stat -c '%a %U:%G' "$1"; }
ask() { inside ebbgate chat --agent echo --once "$1"; }
talks() { is "$(ask "$1")" "$1" "the answer"; }
metric() { inside curl -fsS -H "Authorization: Bearer $(inside ebbgate token --sub test --scope admin:read)" http://127.0.0.1:7071/metrics | sed -n "s/^ebbgate_$1 //p"; }

start_agent() { inside systemd-run -q --unit=echo-agent -p Restart=always -p RestartSec=1 ebbgate agent --quiet --id echo --concurrency 8 --exec cat; }

# A client that sends numbered messages to session $1 while things happen.
start_client() {
    inside systemd-run -q --unit="client-$1" -p Type=exec /bin/sh -c \
        "i=0; while [ \$i -lt $messages ]; do i=\$((i + 1)); echo m\$i; sleep 0.05; done | ebbgate chat --agent echo --session $1 --json >/root/$1.out 2>/root/$1.err"
}
client_done() { [ "$(inside systemctl is-active "client-$1")" = inactive ] || [ "$(inside systemctl is-active "client-$1")" = failed ]; }

# Everything the client sent is in the log once and in order, each was answered once, and the client
# saw each answer once.
check_client() {
    until_true 60 client_done "$1"
    is "$(inside systemctl show -P Result "client-$1")" success "how client $1 ended"
    inside ebbgate export "$1" >"$work/$1.log"
    inside cat "/root/$1.out" >"$work/$1.seen"
    seq -f 'm%.0f' "$messages" >"$work/want"
    sed -n 's/^{"type":"message".*"content":"\(m[0-9]*\)".*/\1/p' "$work/$1.log" | cmp -s - "$work/want" || die "the log of $1 does not hold each message once, in order"
    sed -n 's/^{"type":"response".*"status":"final".*"content":"\(m[0-9]*\).*/\1/p' "$work/$1.log" | cmp -s - "$work/want" || die "the log of $1 does not hold each answer once, in order"
    sed -n 's/^{"type":"response".*"status":"final".*"content":"\(m[0-9]*\).*/\1/p' "$work/$1.seen" | cmp -s - "$work/want" || die "client $1 did not see each answer once, in order"
    sed -n 's/^{.*"cursor":\([0-9]*\),"seq".*/\1/p' "$work/$1.log" | awk '$1 != NR { bad = 1 } END { exit bad || NR == 0 }' || die "the cursors of $1 have holes"
}

step "packages $old and $new"
for version in "$old" "$new"; do
    [ -z "${REUSE:-}" ] || continue
    bash packaging/lib/deb.sh "$build/deb-$version" "$version" >/dev/null
    bash packaging/lib/rpm.sh -bb "$build/rpm-$version" "$version" >/dev/null
done
step "a booted system"
container_base "$build/base.tar" systemd,systemd-sysv,dbus,libnss-systemd,curl,rpm,libcivetweb1,libcjson1,libconfig9,libcurl4,libsodium23,libsqlite3-0,libwslay1
mkdir -p "$root"
tar -xf "$build/base.tar" -C "$root"
cp "$build/deb-$old/ebbgate_$old"-*.deb "$root/root/old.deb"
cp "$build/deb-$new/ebbgate_$new"-*.deb "$root/root/new.deb"
cp "$build/rpm-$old"/ebbgate-*.rpm "$root/root/old.rpm"
cp "$build/rpm-$new"/ebbgate-*.rpm "$root/root/new.rpm"
container_boot "$root"

step "install"
inside apt-get install -y -q /root/old.deb >"$work/apt.log" 2>&1 || { cat "$work/apt.log"; die "apt-get install"; }
until_true 30 active
is "$(inside systemctl is-enabled ebbgate)" enabled "enabled"
is "$(property NRestarts)" 0 "restarts"
is "$(inside ebbgate --version)" "ebbgate $old" "the program's version"
is "$(inside dpkg-query -W -f '${Version}' ebbgate)" "$old-1" "the package's version"
is "$(mode_of /etc/ebbgate)" "750 root:ebbgate" /etc/ebbgate
is "$(mode_of /etc/ebbgate/ebbgate.conf)" "640 root:ebbgate" ebbgate.conf
is "$(mode_of /etc/ebbgate/conf.d)" "750 root:ebbgate" conf.d
is "$(mode_of /var/lib/ebbgate)" "700 ebbgate:ebbgate" "the data folder"
is "$(inside stat -c %U "/proc/$(property MainPID)")" ebbgate "who runs it"
is "$(inside systemctl show -P Environment ebbgate)" "" "the environment"
grep -q deb-systemd-invoke "$root/var/lib/dpkg/info/ebbgate.postinst" || die "postinst does not start the service"
files=$(awk '/^Max open files/ { print $4 }' "/proc/$(container_leader)/limits")
[ "$files" -lt 17600 ] || is "$(metric connections)" 0 "connections"

step "talk"
start_agent
until_true 20 inside ebbgate chat --agent echo --once first
talks "hello, gateway"
token=$(inside ebbgate token --sub visitor)
is "$(inside setpriv --reuid nobody --clear-groups ebbgate chat --agent echo --token "$token" --once "hi")" hi "a user without rights to the configuration"

step "reload"
start_client s1
until_true 20 inside ebbgate sessions show s1
pid=$(property MainPID)
mark=$(log_mark)
open=$(metric connections)
inside sh -c 'echo "max_queued_turns = 5000;" >/etc/ebbgate/conf.d/50-local.conf'
inside systemctl reload ebbgate
until_true 10 journal_has 'name=max_queued_turns'
is "$(property MainPID)" "$pid" "the process after a reload"
is "$(metric connections)" "$open" "connections after a reload"
inside sh -c 'echo "listen = \"127.0.0.1:7999\";" >/etc/ebbgate/conf.d/60-restart.conf'
inside systemctl reload ebbgate
until_true 10 journal_has 'name=listen'
log_since "$mark" | grep -q 'reload.needs_restart' || die "a reload does not say what takes a restart"
inside sh -c 'rm /etc/ebbgate/conf.d/60-restart.conf; echo "max_payloat = 1;" >/etc/ebbgate/conf.d/60-bad.conf'
inside systemctl reload ebbgate 2>/dev/null && die "a reload with a mistake succeeded"
journal_has 'did you mean max_payload' || die "the mistake is not told"
inside systemctl kill -s HUP ebbgate
until_true 10 journal_has 'reload.refused'
is "$(property MainPID)" "$pid" "the process after a refused reload"
inside mv /etc/ebbgate/conf.d/60-bad.conf /root/
check_client s1
inside mv /root/60-bad.conf /etc/ebbgate/conf.d/

step "a mistake at start: exit 78, no restart"
inside systemctl restart ebbgate 2>/dev/null && die "started with a mistake in the configuration"
is "$(property ActiveState)" failed "the state"
is "$(property ExecMainStatus)" 78 "the exit code"
is "$(property NRestarts)" 0 "restarts"
inside rm /etc/ebbgate/conf.d/60-bad.conf
inside systemctl start ebbgate
until_true 20 active

step "upgrade to $new with clients connected"
inside sed -i 's/^#log_level.*/log_level = "debug";/' /etc/ebbgate/ebbgate.conf
for s in u1 u2 u3; do start_client "$s"; done
until_true 20 inside ebbgate sessions show u3
inside apt-get install -y -q -o Dpkg::Options::=--force-confold /root/new.deb >"$work/apt.log" 2>&1 || { cat "$work/apt.log"; die "apt-get install of the upgrade"; }
client_done u1 && die "the upgrade took so long that no client was connected"
until_true 30 active
is "$(inside ebbgate --version)" "ebbgate $new" "the version after the upgrade"
is "$(inside curl -fsS http://127.0.0.1:7071/health | sed -n 's/.*"version":"\([^"]*\)".*/\1/p')" "$new" "the version that runs"
for s in u1 u2 u3; do check_client "$s"; done
inside grep -q '^log_level = "debug";' /etc/ebbgate/ebbgate.conf || die "the changed configuration was lost"
inside test -e /etc/ebbgate/ebbgate.conf.dpkg-dist || die "the new configuration was not put beside it"
is "$(mode_of /etc/ebbgate/ebbgate.conf)" "640 root:ebbgate" "ebbgate.conf after the upgrade"
inside ebbgate verify | grep -q '^intact' || die "verify after the upgrade"
inside sed -i 's/^log_level.*/log_level = "info";/' /etc/ebbgate/ebbgate.conf
inside systemctl reload ebbgate

step "kill -9 under load"
start_client k1
until_true 20 inside ebbgate sessions show k1
pid=$(property MainPID)
inside systemctl kill -s KILL --kill-whom=main ebbgate
until_true 30 new_pid "$pid"
is "$(property NRestarts)" 1 "restarts"
check_client k1

step "watchdog"
inside mkdir -p /run/systemd/system/ebbgate.service.d
inside sh -c 'printf "[Service]\nWatchdogSec=3\n" >/run/systemd/system/ebbgate.service.d/test.conf'
inside systemctl daemon-reload
inside systemctl restart ebbgate
until_true 20 active
pid=$(property MainPID)
inside systemctl kill -s STOP --kill-whom=main ebbgate
until_true 60 new_pid "$pid"
inside journalctl -q --no-pager -u ebbgate | grep -q 'Watchdog timeout' || die "it was not the watchdog"
inside rm -r /run/systemd/system/ebbgate.service.d
inside systemctl daemon-reload

step "a stop waits for open turns, longer than the unit says"
inside mkdir -p /run/systemd/system/ebbgate.service.d
inside sh -c 'printf "[Service]\nTimeoutStopSec=2\n" >/run/systemd/system/ebbgate.service.d/test.conf'
inside systemctl daemon-reload
inside systemd-run -q --unit=slow-agent -p Restart=always ebbgate agent --quiet --id slow --exec "sleep 5; cat"
until_true 20 inside ebbgate agents show slow
inside systemd-run -q --unit=slow-client /bin/sh -c 'ebbgate chat --agent slow --session slow --once patience >/root/slow.out'
turn_runs() { [ "$(metric turns_running)" = 1 ]; }
until_true 20 turn_runs
inside systemctl stop ebbgate
is "$(property Result)" success "how the stop went"
inside ebbgate verify --session slow | grep -q '^intact' || die "verify"
inside systemctl start ebbgate
until_true 20 active
is "$(inside ebbgate export slow | grep -c '"status":"final"')" 1 "answers of the turn that was open"
answered() { [ "$(inside cat /root/slow.out)" = patience ]; }
until_true 30 answered
inside systemctl stop slow-agent
inside rm -r /run/systemd/system/ebbgate.service.d
inside systemctl daemon-reload

step "the key as a credential"
inside sh -c 'mkdir -p -m 700 /etc/credstore && mv /var/lib/ebbgate/keys/*.key /etc/credstore/ebbgate.key && chown root:root /etc/credstore/ebbgate.key'
inside systemctl restart ebbgate
until_true 20 active
is "$(inside find /var/lib/ebbgate/keys -type f)" "" "keys in the data folder"
token=$(inside ebbgate token --key /etc/credstore/ebbgate.key --sub carol)
inside systemctl restart echo-agent || true
inside systemctl stop echo-agent
inside systemd-run -q --unit=echo2 ebbgate agent --quiet --id echo --token "$(inside ebbgate token --key /etc/credstore/ebbgate.key --sub worker --scope agent --agents echo)" --exec cat
is "$(inside ebbgate chat --agent echo --token "$token" --once sealed)" sealed "an answer under the credential"
inside systemctl stop echo2
inside sh -c 'mv /etc/credstore/ebbgate.key /var/lib/ebbgate/keys/restored.key; chown ebbgate:ebbgate /var/lib/ebbgate/keys/restored.key'
inside systemctl restart ebbgate
until_true 20 active

step "backup and restore"
epoch() { inside journalctl -q --no-pager -u ebbgate -o cat | grep -o 'epoch=[0-9a-f-]*' | tail -n 1; }
before=$(epoch)
inside ebbgate backup /root/backup.db >/dev/null
inside systemctl stop ebbgate
inside sh -c 'mkdir /root/before; mv /var/lib/ebbgate/ebbgate.db* /root/before/'
inside ebbgate restore /root/backup.db >/dev/null
inside systemctl start ebbgate
until_true 20 active
inside ebbgate export u1 >"$work/u1.restored"
cmp -s "$work/u1.log" "$work/u1.restored" || die "the restored log differs"
[ "$(epoch)" != "$before" ] || die "the restored log has the old epoch"

step "reboot"
container_reboot "$root"
until_true 30 active
inside ebbgate export k1 | cmp -s - "$work/k1.log" || die "the log after the reboot differs"
start_agent
until_true 20 inside ebbgate chat --agent echo --once first
talks "after the reboot"

step "remove, install again, purge"
inside systemctl stop echo-agent
inside apt-get remove -y -q ebbgate >/dev/null 2>&1
inside test -e /usr/bin/ebbgate && die "remove left the program"
[ "$(inside systemctl is-active ebbgate)" = active ] && die "remove left the service running"
inside test -s /var/lib/ebbgate/ebbgate.db || die "remove deleted the data"
inside grep -q '^log_level' /etc/ebbgate/ebbgate.conf || die "remove deleted the configuration"
inside apt-get install -y -q /root/new.deb >/dev/null 2>&1
until_true 30 active
inside ebbgate export k1 | cmp -s - "$work/k1.log" || die "the log after a new installation differs"
inside apt-get purge -y -q ebbgate >/dev/null 2>&1
for path in /etc/ebbgate /var/lib/ebbgate /usr/share/doc/ebbgate /etc/systemd/system/multi-user.target.wants/ebbgate.service; do
    inside test -e "$path" && die "purge left $path"
done

step "rpm in a scratch root"
mkdir -p "$work/scratch"
rpm --force-debian --root "$work/scratch" --dbpath /var/lib/rpm --nodeps --noscripts -U "$build/rpm-$old"/ebbgate-*.rpm 2>/dev/null
is "$("$work/scratch/usr/bin/ebbgate" --version)" "ebbgate $old" "the rpm's version"
"$work/scratch/usr/bin/ebbgate" check-config -c "$work/scratch/etc/ebbgate/ebbgate.conf" >/dev/null || die "the rpm's configuration"

step "rpm in the container"
inside userdel ebbgate
inside rpm --force-debian --nodeps -U /root/old.rpm
inside systemctl daemon-reload
inside systemctl enable -q --now ebbgate 2>/dev/null
until_true 30 active
is "$(inside stat -c %U "/proc/$(property MainPID)")" ebbgate "who runs it"
is "$(inside rpm -V --nodeps ebbgate)" "" "rpm -V"
start_agent
until_true 20 inside ebbgate chat --agent echo --once first
start_client r1
until_true 20 inside ebbgate sessions show r1
inside sed -i 's/^#log_level.*/log_level = "warn";/' /etc/ebbgate/ebbgate.conf
inside rpm --force-debian --nodeps -U /root/new.rpm 2>/dev/null
until_true 30 active
is "$(inside curl -fsS http://127.0.0.1:7071/health | sed -n 's/.*"version":"\([^"]*\)".*/\1/p')" "$new" "the version that runs after the rpm's upgrade"
inside grep -q '^log_level = "warn";' /etc/ebbgate/ebbgate.conf || die "the rpm's upgrade lost the configuration"
inside test -e /etc/ebbgate/ebbgate.conf.rpmnew || die "no .rpmnew"
is "$(mode_of /etc/ebbgate/ebbgate.conf)" "640 root:ebbgate" "ebbgate.conf after the rpm's upgrade"
check_client r1
inside systemctl stop echo-agent
inside rpm --force-debian -e --nodeps ebbgate 2>/dev/null
[ "$(inside systemctl is-active ebbgate)" = active ] && die "erasing left the service running"
inside test -e /etc/ebbgate/ebbgate.conf.rpmsave || die "no .rpmsave"
inside test -s /var/lib/ebbgate/ebbgate.db || die "erasing deleted the data"

echo "passed: lifecycle of deb and rpm, $old to $new"
