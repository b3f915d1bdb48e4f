#!/bin/bash
# Fast checks of everything in packaging/: run.sh [CHECK...]. EBBGATE_BIN is the program, BUILD the
# folder with man/ and completion/. What a missing tool prevents is said, not hidden.
set -u
bin=$(realpath "${EBBGATE_BIN:-build/ebbgate}")
build=$(realpath "${BUILD:-build}")
here=packaging/tests
version=$(sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset EBBGATE_CONFIG EBBGATE_BIN BUILD MAKEFLAGS MFLAGS MAKELEVEL

die() {
    echo "FAILED: $*" >&2
    exit 1
}
is() { [ "$1" = "$2" ] || die "$3: \"$1\", not \"$2\""; }
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || {
            echo "   skipped: $tool is not installed"
            exit 0
        }
    done
}
commands() { "$bin" --help | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p'; }
# Long options of a command, read from its help without the parser that the pages are made with.
options() { "$bin" "$1" --help | sed 's/^  -.,/     /' | grep -oE '^ {6}--[a-z][a-z0-9-]*' | tr -d ' ' | LC_ALL=C sort -u; }
settings() { "$bin" config --data /nowhere | sed -n 's/^\([a-z_]*\) = .*/\1/p'; }

check_versions() {
    is "$("$bin" --version)" "ebbgate $version" "the program"
    is "$(sed -n '1s/^ebbgate (\(.*\)-[0-9]*) .*/\1/p' packaging/debian/changelog)" "$version" "debian/changelog"
    is "$(sed -n 's/^Version: *//p' packaging/rpm/ebbgate.spec)" "$version" "the spec"
    is "$(sed -n '/^%changelog/,$p' packaging/rpm/ebbgate.spec | sed -n '2s/.* - \(.*\)-[0-9]*$/\1/p')" "$version" "the spec's changelog"
    is "$(sed -n 's/^## \([0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)" "$version" "CHANGELOG.md"
    local page
    for page in "$build"/man/*; do
        grep -q "^\.Os \"ebbgate $version\"$" "$page" || die "${page##*/} is of another version"
    done
    is "$(date -u -d "$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" '+%a %b %d %Y')" \
        "$(sed -n 's/^\* \(.*\) Ebbgate.*/\1/p' packaging/rpm/ebbgate.spec | head -n 1)" "the changelogs' dates"
}

# A page for each command with each option; each setting in ebbgate.conf(5) with its default.
check_manual() {
    local command option page name
    for command in $(commands); do
        page=$build/man/ebbgate-$command.1
        [ -s "$page" ] || die "no page for $command"
        grep -q "^\.It Xr ebbgate-$command 1$" "$build/man/ebbgate.1" || die "ebbgate.1 does not name $command"
        for option in $(options "$command"); do
            name=$(printf '%s' "${option#--}" | sed 's/-/\\-/g')
            grep -qF "Fl Fl $name" "$page" || grep -qx "\.It Va $(echo "${option#--}" | tr - _)" "$build/man/ebbgate.conf.5" || die "${page##*/} has no $option"
        done
    done
    [ "$(settings | wc -l)" -gt 30 ] || die "the settings cannot be listed"
    for name in $(settings); do
        is "$(grep -cx "\.It Va $name" "$build/man/ebbgate.conf.5")" 1 "ebbgate.conf(5) on $name"
    done
    is "$(grep -c '^\.It Va ' "$build/man/ebbgate.conf.5")" "$(settings | wc -l)" "settings in ebbgate.conf(5)"
    for page in $(grep -ohE '^\.Xr ebbgate[^ ]* [157]' "$build"/man/* | sort -u | awk '{ print $2 "." $3 }'); do
        [ -s "$build/man/$page" ] || die "a page names $page, which is not there"
    done
    for code in $(grep -oE '\b(10[0-9]{2}|40[0-9]{2})\b' include/ebbgate/codes.h | sort -u); do
        grep -q "^\.It $code Ta" "$build/man/ebbgate-protocol.7" || die "ebbgate-protocol(7) has no close code $code"
    done
    need mandoc
    mandoc -T lint -W warning "$build"/man/* || die "mandoc -T lint"
}

check_completion() {
    local command option got want
    need bash
    cat >"$work/complete.bash" <<'END'
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_ebbgate
printf '%s\n' "${COMPREPLY[@]}"
END
    got=$(bash "$work/complete.bash" "$build/completion/ebbgate.bash" ebbgate '' | grep -v '^-' | LC_ALL=C sort)
    is "$got" "$( (commands; echo help) | LC_ALL=C sort)" "bash: commands"
    for command in $(commands); do
        want=$(options "$command")
        got=$(bash "$work/complete.bash" "$build/completion/ebbgate.bash" ebbgate "$command" -- | LC_ALL=C sort)
        is "$got" "$want" "bash: options of $command"
    done
    is "$(bash "$work/complete.bash" "$build/completion/ebbgate.bash" ebbgate serve --log-level w)" warn "bash: a value"
    is "$(bash "$work/complete.bash" "$build/completion/ebbgate.bash" ebbgate turns --state d)" dead "bash: a state"
    echo "   bash"
    if command -v fish >/dev/null; then
        mkdir -p "$work/fish"
        got=$(HOME=$work/fish fish --no-config -c "source $build/completion/ebbgate.fish; complete -C 'ebbgate '" | cut -f1 | LC_ALL=C sort -u)
        is "$got" "$( (commands; echo help) | LC_ALL=C sort)" "fish: commands"
        for command in $(commands); do
            got=$(HOME=$work/fish fish --no-config -c "source $build/completion/ebbgate.fish; complete -C 'ebbgate $command --'" | cut -f1 | LC_ALL=C sort -u)
            is "$got" "$(options "$command")" "fish: options of $command"
        done
        echo "   fish"
    else
        echo "   skipped: fish is not installed"
    fi
    need zsh
    cat >"$work/complete.zsh" <<'END'
zmodload zsh/zpty
zpty shell "PS1='>' zsh -f -i"
zpty -w shell "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -d $2/dump; LISTMAX=100000; COLUMNS=200; LINES=500; stty columns 200 rows 500; zstyle ':completion:*' list-prompt ''; setopt no_list_beep; bindkey '^D' list-choices; PS1='ready%# '"
zpty -r shell line $'*ready[#%] *' # the prompt: what is typed before it is not for the line editor
zpty -w -n shell "ebbgate $3"
zpty -w -n shell $'\x04'
zpty -w -n shell $'\x15'
zpty -w shell "echo do''ne"
while zpty -r shell line; do
    [[ $line == *done* && $line != *echo* ]] && break
    print -r -- "$line"
done
zpty -d shell
END
    # What _arguments is given, for each command; and once what a real shell makes of it.
    cat >"$work/specs.zsh" <<'END'
_arguments() { print -rl -- "$@" }
_describe() { print -rl -- "${(@)commands%%:*}" }
_values() { }
typeset -a words
words=("${@:2}")
CURRENT=${#words}
source $1
END
    got=$(zsh -f "$work/specs.zsh" "$build/completion/_ebbgate" ebbgate '' | LC_ALL=C sort)
    is "$got" "$( (commands; echo help) | LC_ALL=C sort)" "zsh: commands"
    for command in $(commands); do
        got=$(zsh -f "$work/specs.zsh" "$build/completion/_ebbgate" ebbgate "$command" -- | sed -n 's/^\(--[a-z0-9-]*\)\[.*/\1/p' | LC_ALL=C sort)
        is "$got" "$(options "$command")" "zsh: options of $command"
    done
    timeout 30 zsh -f "$work/complete.zsh" "$build/completion" "$work" "serve --" >"$work/zsh.out" || die "zsh: no completion"
    got=$(sed 's/\x1b\[[0-9;?]*[A-Za-z]//g' "$work/zsh.out" | grep -oE '^ *--[a-z][a-z0-9-]*( |$|\s)' | tr -d ' \r' | LC_ALL=C sort -u)
    is "$got" "$(options serve)" "zsh: what the shell offers for serve"
    echo "   zsh"
}

check_unit() {
    local unit=packaging/common/ebbgate.service files need_files score line
    files=$(sed -n 's/^LimitNOFILE=//p' "$unit")
    need_files=$("$bin" config --data /nowhere | awk '/^max_connections =/ { c = $3 + 0 } /^workers =/ { w = $3 + 0 } END { print c + 2 * w + 768 }')
    [ "$files" -ge "$need_files" ] || die "LimitNOFILE=$files, the default configuration needs $need_files"
    for line in Type=notify RestartPreventExitStatus=78 Restart=on-failure User=ebbgate StateDirectoryMode=0700; do
        grep -qx "$line" "$unit" || die "the unit has no $line"
    done
    grep -q '^WatchdogSec=' "$unit" || die "the unit has no watchdog"
    need systemd-analyze
    mkdir -p "$work/unit"
    sed "s,/usr/bin/ebbgate,$bin," "$unit" >"$work/unit/ebbgate.service"
    systemd-analyze verify --man=no "$work/unit/ebbgate.service" 2>"$work/unit/log" || die "systemd-analyze verify: $(cat "$work/unit/log")"
    ! grep -F ebbgate.service "$work/unit/log" || die "systemd-analyze verify has remarks"
    score=$(systemd-analyze security --offline=true --threshold=15 "$unit") || die "exposure above 1.5: $(tail -n 1 <<<"$score")"
    echo "   $(tail -n 1 <<<"$score")"
}

# The example is accepted, and what it says about defaults is true.
check_example() {
    local conf=packaging/common/ebbgate.conf
    "$bin" check-config -c "$conf" >/dev/null || die "the example is refused"
    mkdir -p "$work/example"
    sed -n 's/^#\([a-z_]* = .*;\)$/\1/p' "$conf" | grep -v '^trusted_proxies' >"$work/example/ebbgate.conf"
    [ "$(wc -l <"$work/example/ebbgate.conf")" -gt 5 ] || die "the example shows no defaults"
    is "$("$bin" config --data /x -c "$work/example/ebbgate.conf" | sed 's/ *#.*//')" "$("$bin" config --data /x | sed 's/ *#.*//')" "the example's defaults"
}

check_install() {
    local to=$work/to
    make -s install DESTDIR="$to" PREFIX=/usr UNITDIR=/lib/systemd/system >/dev/null || die "make install"
    for file in usr/bin/ebbgate lib/systemd/system/ebbgate.service usr/lib/sysusers.d/ebbgate.conf \
        usr/lib/tmpfiles.d/ebbgate.conf etc/ebbgate/ebbgate.conf usr/share/man/man5/ebbgate.conf.5 \
        usr/share/bash-completion/completions/ebbgate usr/share/zsh/site-functions/_ebbgate \
        usr/share/fish/vendor_completions.d/ebbgate.fish usr/share/doc/ebbgate/examples/proxy/nginx.conf; do
        [ -s "$to/$file" ] || die "make install did not install $file"
    done
    is "$(stat -c %a "$to/etc/ebbgate/ebbgate.conf")" 640 "the configuration's mode"
    echo "# mine" >>"$to/etc/ebbgate/ebbgate.conf"
    make -s install DESTDIR="$to" PREFIX=/usr UNITDIR=/lib/systemd/system >/dev/null || die "make install, again"
    grep -qx "# mine" "$to/etc/ebbgate/ebbgate.conf" || die "make install overwrote the configuration"
    make -s uninstall DESTDIR="$to" PREFIX=/usr UNITDIR=/lib/systemd/system >/dev/null || die "make uninstall"
    is "$(cd "$to" && find . -type f)" ./etc/ebbgate/ebbgate.conf "what uninstall leaves"
    make -s install DESTDIR="$to" PREFIX=/opt/gate >/dev/null || die "make install into a folder of its own"
    grep -q '^ExecStart=/opt/gate/bin/ebbgate serve -c /opt/gate/etc/ebbgate/ebbgate.conf' "$to/opt/gate/lib/systemd/system/ebbgate.service" || die "the unit names another program"
    is "$(find "$to" -path "$to/opt" -prune -o -type f -print)" "$to/etc/ebbgate/ebbgate.conf" "files outside of PREFIX"
}

# What docs/operations.md names must be there: metrics, settings, close codes, exit codes.
check_docs() {
    local doc=docs/operations.md name
    for name in $(grep -oE '\bebbgate_[a-z_]+' "$doc" | sort -u); do
        name=${name#ebbgate_}
        grep -qE "[CG]\(${name}," src/base/metrics.h || grep -rqE "ebbgate_$name|\"${name%_bucket}\"" src/base/metrics.c src/http ||
            die "$doc names the metric ebbgate_$name, which is not there"
    done
    for name in $(grep -oE '= [0-9]{4},?$' include/ebbgate/codes.h | tr -dc '0-9\n'); do
        grep -q "^| $name |" "$doc" || die "$doc has no close code $name"
    done
    [ "$(grep -cE '^\| (1[0-9]{3}|4[0-9]{3}) \|' "$doc")" -ge 13 ] || die "$doc: close codes"
    for name in 64 70 75 78; do
        grep -q "^| $name |" "$doc" || die "$doc has no exit code $name"
        grep -qE "EG_EXIT_[A-Z]+ = $name" src/app/cli.h || die "$doc has an exit code $name that is not there"
    done
    for name in $(grep -oE '`(max|retention|message|byte|drain|trusted|allowed|key|log|min|handshake)_[a-z_]+`' docs/operations.md docs/security.md | sed 's/.*:`//; s/`//g' | sort -u); do
        case $name in message_id) continue ;; esac
        settings | grep -qx "$name" || die "the docs name a setting $name, which is not there"
    done
    for name in $(grep -oE '`src/[a-z]+/[a-z_]+\.c`' docs/security.md | tr -d '`'); do
        [ -e "$name" ] || die "docs/security.md names $name, which is not there"
    done
}

check_deb() {
    need dpkg-buildpackage dh lintian
    bash packaging/lib/deb.sh "$build/deb" >"$work/deb.log" || die "make deb"
    lintian --fail-on error,warning --allow-root "$build"/deb/*.changes >"$work/lintian" 2>&1 || die "lintian: $(cat "$work/lintian")"
    dpkg-deb --ctrl-tarfile "$build/deb/ebbgate_$version"-*.deb | tar -xO ./postinst | grep -q deb-systemd-invoke || die "postinst does not start the service"
    dpkg-deb --fsys-tarfile "$build/deb/ebbgate_$version"-*.deb | tar -xO ./usr/bin/ebbgate >"$work/program"
    readelf -h "$work/program" | grep -q 'DYN (Position-Independent' || die "the program is not position-independent"
    readelf -d "$work/program" | grep -q 'BIND_NOW' || die "the program binds late"
    need blhc
    blhc --bindnow "$build/deb/build.log" >"$work/blhc" || die "blhc: $(head -n 5 "$work/blhc")"
}

check_rpm() {
    need rpmbuild rpmlint
    bash packaging/lib/rpm.sh -bb "$build/rpm" >/dev/null || die "make rpm"
    bash packaging/lib/rpm.sh -bs "$build/srpm" >/dev/null || die "make srpm"
    rpmlint -c packaging/rpm/rpmlint.toml "$build"/rpm/*.rpm "$build"/srpm/*.rpm packaging/rpm/ebbgate.spec >"$work/rpmlint" 2>&1
    grep -q '0 errors, 0 warnings' "$work/rpmlint" || die "rpmlint: $(cat "$work/rpmlint")"
    is "$(rpm -qp --qf '%{VERSION}' "$build"/srpm/*.src.rpm)" "$version" "the source RPM"
}

check_proxies() {
    need python3 openssl
    EBBGATE_BIN=$bin timeout 180 python3 "$here/proxy.py" | sed 's/^/   /'
    [ "${PIPESTATUS[0]}" -eq 0 ] || die "the proxy examples"
}

failed=
[ $# -gt 0 ] || set -- versions manual completion unit example docs install proxies deb rpm
for check in "$@"; do
    echo "== $check"
    (set -e; "check_$check") || failed="$failed $check"
done
[ -z "$failed" ] || {
    echo "FAILED:$failed" >&2
    exit 1
}
echo "passed: packaging"
