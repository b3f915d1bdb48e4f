#!/bin/bash
# The README's test command, and the package, on another Debian release than this machine's.
#
#   release.sh [RELEASE]     trixie unless named; COMMAND in place of `make test`
#
# Makes a root of that release, in which nothing is installed but what building a package takes for
# granted, copies the committed tree into it and runs there what a newcomer would: `make test`, then
# `make deb`, installing the result and asking it for its version. Needs root, mmdebstrap and a Debian
# mirror (MIRROR, else the first that apt knows); says so and does nothing without (exit 0).
# The log is in $BUILD/release/RELEASE.log; KEEP=1 keeps the root.
set -eu
release=${1:-trixie}
log=$(mkdir -p "${BUILD:-build}/release" && cd "${BUILD:-build}/release" && pwd)/$release.log

skip() {
    echo "skipped: test-release: $*"
    exit 0
}
command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
[ "$(id -u)" -eq 0 ] || skip "needs root, to make a root folder of $release"
# shellcheck disable=SC2016 # a format of apt's
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | head -n 1)}
[ -n "$mirror" ] || skip "no mirror known: set MIRROR"

work=$(mktemp -d)
root=$work/root
end() { [ -n "${KEEP:-}" ] || rm -rf "$work"; }
trap end EXIT
trap 'exit 130' INT TERM

echo "== a root of $release"
mmdebstrap --quiet --variant=buildd --include=ca-certificates,git,make "$release" "$root" "$mirror" >"$log" 2>&1 ||
    skip "no $release to be had (see $log)"
git clone -q . "$root/ebbgate"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
# Where downloads pass a proxy with a certificate of its own, it has to be known inside, too.
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
    cp "$NODE_EXTRA_CA_CERTS" "$root/etc/ssl/certs/ca-certificates.crt"
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
fi

# What the make that runs this has exported says nothing about the root.
unset BUILD MAKEFLAGS MFLAGS MAKELEVEL

# The mounts are this namespace's: they are gone when its last process is.
inside() {
    echo "== $*"
    # shellcheck disable=SC2016 # read inside
    unshare --mount sh -c 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" /bin/sh -c "$1"' \
        "$root" "cd /ebbgate && export HOME=/root DEBIAN_FRONTEND=noninteractive && $*" >>"$log" 2>&1 </dev/null || {
        tail -n 40 "$log" >&2
        echo "FAILED on $release: $* (all of it in $log)" >&2
        exit 1
    }
}
inside apt-get update
inside "${COMMAND:-make test}"
inside apt-get build-dep -y ./packaging
inside make deb
inside 'apt-get install -y ./build/deb/ebbgate_*.deb && ebbgate --version'
grep -h "^SKIPPED\|^skipped" "$log" || true
echo "passed: $release"
