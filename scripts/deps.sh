#!/bin/sh
# Installs what is missing to build, test, lint Ebbgate and so on: deps.sh [build] [test] [lint]
# [cover] [bench]
#
# Without arguments: the first three. bench: the servers that `make bench-peers` measures; their
# packages bring system services, which are not started where the init system heeds RUNLEVEL. On
# Debian and Ubuntu the missing packages are installed with apt-get, through sudo unless run by root.
# On other systems it says what is needed, and fails when something is missing.
set -eu

# group  probe  Debian package  Fedora package. Probes: c:COMMAND, h:HEADER,
# f:FILE, p:PYTHON_MODULE, n:NODE_PACKAGE (not needed where Node has a WebSocket of its own),
# z: clang links fuzz targets.
table='
build c:gcc            gcc                      gcc
build c:make           make                     make
build c:xxd            xxd                      vim-common
build h:stdlib.h       libc6-dev                glibc-devel
build h:civetweb.h     libcivetweb-dev          civetweb-devel
build h:cjson/cJSON.h  libcjson-dev             cjson-devel
build h:sodium.h       libsodium-dev            libsodium-devel
build h:sqlite3.h      libsqlite3-dev           sqlite-devel
build h:wslay/wslay.h  libwslay-dev             wslay-devel
build h:libconfig.h    libconfig-dev            libconfig-devel
build h:uthash.h       uthash-dev               uthash-devel
build h:curl/curl.h    libcurl4-openssl-dev     libcurl-devel
test  h:criterion/criterion.h libcriterion-dev  criterion-devel
test  c:curl           curl                     curl
test  c:python3        python3                  python3
test  c:node           nodejs                   nodejs
test  c:npm            npm                      nodejs-npm
test  p:websockets     python3-websockets       python3-websockets
test  n:ws             node-ws                  nodejs
test  f:/usr/sbin/nft  nftables                 nftables
test  c:clang          clang                    clang
test  z:libFuzzer      libclang-rt-dev          compiler-rt
bench c:redis-server   redis-server             redis
bench c:nats-server    nats-server              nats-server
bench f:/usr/sbin/mosquitto mosquitto           mosquitto
bench f:/usr/lib/nginx/modules/ngx_nchan_module.so libnginx-mod-nchan nginx
bench c:node           nodejs                   nodejs
bench c:npm            npm                      nodejs-npm
bench c:valgrind       valgrind                 valgrind
bench c:python3        python3                  python3
cover c:gcovr          gcovr                    gcovr
lint  c:clang-format   clang-format             clang-tools-extra
lint  c:clang-tidy     clang-tidy               clang-tools-extra
lint  c:cppcheck       cppcheck                 cppcheck
'

groups=${*:-build test lint}
compiler=${CC:-cc}

present() {
    case $1 in
    c:*) command -v "${1#c:}" >/dev/null 2>&1 ;;
    f:*) [ -e "${1#f:}" ] ;;
    p:*) "$(command -v /usr/bin/python3 || echo python3)" -c "import ${1#p:}" >/dev/null 2>&1 ;;
    n:*) node --experimental-websocket -e 0 >/dev/null 2>&1 || [ -d "/usr/share/nodejs/${1#n:}" ] ;;
    z:*)
        echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n > 0; }' |
            clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null
        ;;
    h:*) printf '#include <%s>\n' "${1#h:}" | "$compiler" -E -o /dev/null - 2>/dev/null ;;
    esac
}

debian= fedora= names=
while read -r group probe deb rpm; do
    case " $groups " in *" $group "*) ;; *) continue ;; esac
    [ -n "$group" ] || continue
    present "$probe" && continue
    names="$names ${probe#?:}"
    debian="$debian $deb"
    fedora="$fedora $rpm"
done <<EOF
$table
EOF

if [ -z "$names" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    {
        echo "Missing:$names"
        echo "Install them and run this again:"
        echo "  Fedora:  sudo dnf install$fedora"
        echo "  others:  the development packages of civetweb (with WebSocket), cJSON, libsodium,"
        echo "           sqlite3, wslay, libconfig, uthash and libcurl; xxd; Criterion for the tests"
    } >&2
    exit 1
fi

root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "Missing:$names" >&2
        echo "Run as root: apt-get install$debian" >&2
        exit 1
    fi
    root=sudo
fi
quiet=
case " $groups " in *" bench "*) quiet=RUNLEVEL=1 ;; esac
echo "Installing:$debian" >&2
# shellcheck disable=SC2086 # words on purpose
$root env DEBIAN_FRONTEND=noninteractive $quiet apt-get install -y --no-install-recommends $debian >&2 || {
    $root apt-get update >&2
    $root env DEBIAN_FRONTEND=noninteractive $quiet apt-get install -y --no-install-recommends $debian >&2
}
