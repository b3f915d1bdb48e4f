#!/bin/sh
# Gets what the console's tests need: Node, Chromium, and playwright-core into FOLDER. setup.sh FOLDER
#
# Exit 0: ready. Exit 1: cannot be had, and stdout says what and why. Packages are installed only by
# root on a system with apt-get.
set -u
folder=$1
version=1.65.1

browser() {
    for name in "${CHROMIUM:-chromium}" chromium chromium-browser google-chrome; do
        command -v "$name" && return 0
    done
    return 1
}

get() {
    command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ] || return 1
    echo "Installing: $*" >&2
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y --no-install-recommends "$@" >&2
}

command -v node >/dev/null 2>&1 || get nodejs || {
    echo "there is no node"
    exit 1
}
browser >/dev/null || get chromium >&2
browser >/dev/null || {
    echo "there is no Chromium: install the package chromium, or name one in CHROMIUM"
    exit 1
}
if [ "$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$folder/node_modules/playwright-core/package.json" 2>/dev/null)" != "$version" ]; then
    command -v npm >/dev/null 2>&1 || get npm || {
        echo "there is no npm to install playwright-core with"
        exit 1
    }
    mkdir -p "$folder"
    timeout 300 npm install --prefix "$folder" --no-save --no-audit --no-fund --ignore-scripts \
        "playwright-core@$version" >"$folder/npm.log" 2>&1 || {
        tail -n 5 "$folder/npm.log" >&2
        echo "playwright-core cannot be installed (see $folder/npm.log)"
        exit 1
    }
fi
