#!/bin/bash
# Makes the manual pages: make.sh PROGRAM SETTINGS-PROGRAM FOLDER
#
# ebbgate-COMMAND.1 is made from `PROGRAM COMMAND --help` and COMMAND.mdoc here (examples, see also);
# the other pages are NAME.in here with @VERSION@, @DATE@, @COMMANDS@ and @SETTINGS@ filled in.
set -eu
program=$1
settings=$2
to=$3
here=$(dirname "$0")
root=$here/../..
version=$("$program" --version | sed 's/^ebbgate //')
date=$(sed -n 's/^ -- .*>  //p' "$root/packaging/debian/changelog" | head -n 1)
date=$(LC_ALL=C TZ=UTC date -u -d "$date" '+%B %-d, %Y')
unset EBBGATE_CONFIG
rm -rf "$to.new"
mkdir -p "$to.new"

commands=$("$program" --help | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p')
for command in $commands; do
    [ -f "$here/$command.mdoc" ] || {
        echo "make.sh: $here/$command.mdoc is missing" >&2
        exit 1
    }
    {
        printf '.\\" Made from ebbgate %s --help and %s.mdoc.\n' "$command" "$command"
        printf '.Dd %s\n.Dt EBBGATE-%s 1\n.Os "ebbgate %s"\n' "$date" "${command^^}" "$version"
        "$program" "$command" --help | awk -v command="$command" -f "$here/page.awk"
        cat "$here/$command.mdoc"
    } >"$to.new/ebbgate-$command.1"
done

# The list of commands under their headings, as in --help.
"$program" --help | awk '
    /^[A-Z].*:$/ && !/^Usage/ { sub(/:$/, ""); if (open) print ".El"; open = 0; print ".Ss " $0 }
    /^  [a-z]/ {
        if (!open) { print ".Bl -tag -width check-config"; open = 1 }
        name = $1; $1 = ""; sub(/^ /, "")
        print ".It Xr ebbgate-" name " 1\n" $0 "."
    }
    END { if (open) print ".El" }' >"$to.new/commands"
"$settings" >"$to.new/settings"
for page in "$here"/*.in; do
    name=$(basename "$page" .in)
    sed -e "s/@VERSION@/$version/" -e "s/@DATE@/$date/" \
        -e "/@COMMANDS@/{r $to.new/commands" -e 'd}' \
        -e "/@SETTINGS@/{r $to.new/settings" -e 'd}' "$page" >"$to.new/$name"
done
rm -f "$to.new/commands" "$to.new/settings"
rm -rf "$to"
mv "$to.new" "$to"
