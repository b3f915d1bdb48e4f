#!/bin/sh
# scripts/deps.sh asks for exactly what is missing, and says plainly what it needs where it cannot
# install anything. The package manager and the compiler are stand-ins.
. "$(dirname "$0")/lib.sh"
DEPS=$(cd "$(dirname "$0")/../../scripts" && pwd)/deps.sh

# Commands that deps.sh may find, and nothing else; a compiler that knows no wslay.
world() {
    mkdir "$T/bin"
    for c in sh cat id env gcc make xxd; do
        ln -s "$(command -v $c)" "$T/bin/$c"
    done
    cat >"$T/bin/cc" <<'EOF'
#!/bin/sh
read -r line
case $line in *wslay*) exit 1 ;; esac
EOF
    printf '#!/bin/sh\necho "$0 $*" >>"%s/calls"\n' "$T" >"$T/bin/sudo"
    chmod +x "$T/bin/cc" "$T/bin/sudo"
}

run_deps() {
    PATH=$T/bin CC=cc sh "$DEPS" "$@"
}

test_nothing_missing() {
    world
    printf '#!/bin/sh\nread -r line\nexit 0\n' >"$T/bin/cc"
    run_deps build >"$T/out" 2>&1
    [ ! -s "$T/out" ] || die "$(cat "$T/out")"
}

test_debian_installs_what_is_missing() {
    world
    printf '#!/bin/sh\necho "apt-get $*" >>"%s/calls"\n' "$T" >"$T/bin/apt-get"
    printf '#!/bin/sh\necho 0\n' >"$T/id"
    rm "$T/bin/id"
    mv "$T/id" "$T/bin/id"
    chmod +x "$T/bin/id" "$T/bin/apt-get"
    run_deps build 2>"$T/err"
    echo 'apt-get install -y --no-install-recommends libwslay-dev' >"$T/want"
    same "$T/want" "$T/calls"
}

test_debian_with_sudo() {
    world
    printf '#!/bin/sh\nexit 9\n' >"$T/bin/apt-get"
    printf '#!/bin/sh\necho 1000\n' >"$T/id"
    rm "$T/bin/id"
    mv "$T/id" "$T/bin/id"
    chmod +x "$T/bin/id" "$T/bin/apt-get"
    run_deps build 2>"$T/err"
    grep -q '^.*sudo env DEBIAN_FRONTEND=noninteractive apt-get install .*libwslay-dev$' "$T/calls" ||
        die "$(cat "$T/calls")"
    rm "$T/bin/sudo"
    code 1 run_deps build 2>"$T/err"
    has "$T/err" 'Run as root: apt-get install libwslay-dev'
}

test_elsewhere_it_says_what_is_needed() {
    world
    code 1 run_deps build 2>"$T/err"
    has "$T/err" 'Missing: wslay/wslay.h'
    has "$T/err" 'sudo dnf install wslay-devel'
}

run_tests "$@"
