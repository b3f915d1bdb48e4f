#!/bin/bash
# Builds each package twice, in different folders, at different times and with another umask, and
# compares them byte by byte: reproducible.sh FOLDER
set -eu
out=$1
failed=
compare() {
    local first
    for first in "$out/a/$1"/*."$2"; do
        if cmp "$first" "$out/b-in-another-folder/$1/${first##*/}"; then
            echo "identical: ${first##*/}"
        else
            failed="$failed ${first##*/}"
        fi
    done
}
rm -rf "$out"
for run in a b-in-another-folder; do
    [ "$run" = a ] || umask 027
    if command -v dpkg-buildpackage >/dev/null; then
        bash packaging/lib/deb.sh "$out/$run/deb" >/dev/null
    fi
    if command -v rpmbuild >/dev/null; then
        bash packaging/lib/rpm.sh -bb "$out/$run/rpm" >/dev/null
        # rpm writes the spec with all paths expanded into a source package: one folder for both.
        bash packaging/lib/rpm.sh -bs "$out/srpm" >/dev/null
        mv "$out/srpm" "$out/$run/srpm"
    fi
done
if command -v dpkg-buildpackage >/dev/null; then
    compare deb deb
else
    echo "skipped: deb: dpkg-buildpackage is not installed"
fi
if command -v rpmbuild >/dev/null; then
    compare rpm rpm
    compare srpm rpm
else
    echo "skipped: rpm: rpmbuild is not installed"
fi
[ -z "$failed" ] || {
    echo "FAILED: differs between two builds:$failed" >&2
    exit 1
}
