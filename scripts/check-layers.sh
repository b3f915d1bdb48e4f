#!/bin/sh
# Holds the layers of docs/architecture.md by the #include lines: a file includes only files of its
# own folder or of folders above it, and each outside library is named only where it belongs.
# Usage: check-layers.sh [FOLDER], default src. Prints each offence; exit 1 when there is one.
set -eu
top=${1:-src}

find "$top" -name '*.[ch]' | LC_ALL=C sort | xargs awk -v top="$top" '
BEGIN {
    n = split("base wire store core edge http app", order, " ")
    for (i = 1; i <= n; i++) rank[order[i]] = i
    # header -> where it may be named: folders end with /
    only["civetweb.h"] = "edge/listener.c edge/upgrade.c edge/adopt.c http/router.c http/transport.c"
    only["wslay/wslay.h"] = "edge/ws.c"
    only["sqlite3.h"] = "store/"
    only["cjson/cJSON.h"] = "wire/ http/"
    only["sodium.h"] = "base/ wire/ edge/ http/"
    only["libconfig.h"] = "app/"
    only["curl/curl.h"] = "app/"
}
function offence(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}
/crypto_sign/ && FILENAME !~ /\/wire\// {
    offence("signing and verifying belong in wire/")
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
    here = substr(FILENAME, length(top) + 2)
    folder = here
    sub(/\/.*/, "", folder)
    quoted = ($0 ~ /include[ \t]*"/)
    name = $0
    sub(/^[^<"]*[<"]/, "", name)
    sub(/[>"].*/, "", name)
    if (!(folder in rank)) {
        offence("folder " folder " is no layer")
        next
    }
    if (quoted) {
        target = name
        sub(/\/.*/, "", target)
        if (target == "ebbgate") next
        if (!(target in rank))
            offence("\"" name "\" should name its folder: base/ wire/ store/ core/ edge/ http/ app/")
        else if (rank[target] > rank[folder])
            offence(folder "/ may not include " name ": " target "/ is below it")
    } else if (name in only) {
        allowed = 0
        m = split(only[name], where, " ")
        for (i = 1; i <= m; i++)
            if (where[i] == here || (where[i] ~ /\/$/ && index(here, where[i]) == 1)) allowed = 1
        if (!allowed) offence("<" name "> belongs in " only[name])
    }
}
END { exit bad }
'
