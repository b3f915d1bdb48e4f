# A booted Debian in a folder, without network: to be sourced.
#
#   container_base TAR PACKAGES   makes TAR once (mmdebstrap, from the host's own mirrors)
#   container_boot FOLDER         boots what is there; then `inside COMMAND...` runs in it
#   container_reboot FOLDER       reboots it
#   container_end                 powers it off
# shellcheck shell=bash
CONTAINER_PID=

container_base() {
    [ -s "$1" ] && return
    mmdebstrap --quiet --variant=minbase --include="$2" --aptopt='APT::Install-Recommends "false"' \
        "${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}" "${1%/*}/new-${1##*/}"
    mv "${1%/*}/new-${1##*/}" "$1"
}

# The first process of the container: nspawn's child that is process 1 there.
container_leader() {
    local child
    for child in $(cat "/proc/$CONTAINER_PID/task/$CONTAINER_PID/children" 2>/dev/null); do
        if [ "$(awk '/^NSpid:/ { print $NF }' "/proc/$child/status" 2>/dev/null)" = 1 ]; then
            echo "$child"
            return 0
        fi
    done
    return 1
}

inside() {
    local leader
    leader=$(container_leader) || return 1
    nsenter -t "$leader" -m -u -i -n -p -C -- /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

container_up() {
    case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
    return 1
}

container_boot() {
    systemd-nspawn --quiet -D "$1" --boot --register=no --keep-unit --private-network \
        --link-journal=no --console=pipe >"$1.console" 2>&1 </dev/null &
    CONTAINER_PID=$!
    until_true 60 container_up
}

# Reboots. With --keep-unit nspawn ends then and leaves it to us to start it again.
container_reboot() {
    inside systemctl reboot || true
    for _ in $(seq 300); do
        kill -0 "$CONTAINER_PID" 2>/dev/null || break
        sleep 0.1
    done
    kill -0 "$CONTAINER_PID" 2>/dev/null && die "the container does not go down"
    wait "$CONTAINER_PID" || true
    container_boot "$1"
}

container_end() {
    [ -n "$CONTAINER_PID" ] || return 0
    inside systemctl poweroff >/dev/null 2>&1 || true
    for _ in $(seq 100); do
        kill -0 "$CONTAINER_PID" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$CONTAINER_PID" 2>/dev/null || true
    wait "$CONTAINER_PID" 2>/dev/null || true
    CONTAINER_PID=
}

# until_true SECONDS COMMAND...: it must succeed in that time.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "never true: $*"
        sleep 0.1
    done
}
