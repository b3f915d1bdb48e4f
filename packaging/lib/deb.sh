#!/bin/bash
# Builds the Debian package: deb.sh FOLDER [VERSION]; the results are in FOLDER.
set -eu
out=$1
if ! missing=$(dpkg-checkbuilddeps packaging/debian/control 2>&1); then
    printf '%s\n%s\n' "$missing" "Install them: sudo apt-get build-dep ./packaging" >&2
    exit 1
fi
version=${2:-$(sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)}
tree=$out/ebbgate-$version
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
tree=$out/ebbgate-$version
bash packaging/lib/dist.sh "$tree" "$version"
cp -a "$tree/packaging/debian" "$tree/debian"
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS BUILD VARIANT
(cd "$tree" && LC_ALL=C.UTF-8 TZ=UTC dpkg-buildpackage -us -uc -b -j"${JOBS:-2}") >"$out/build.log" 2>&1 || {
    tail -n 40 "$out/build.log" >&2
    exit 1
}
rm -rf "$tree"
ls "$out"/*.deb
