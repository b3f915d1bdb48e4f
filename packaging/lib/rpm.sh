#!/bin/bash
# Builds the RPM package or the source RPM: rpm.sh -bb|-bs FOLDER [VERSION]; the results are in
# FOLDER. The source RPM is what is released; an RPM built here on another distribution than Fedora
# is for tests only.
set -eu
what=$1
out=$2
version=${3:-$(sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)}
command -v rpmbuild >/dev/null || {
    echo "rpm.sh: rpmbuild is not installed (Debian: rpm, Fedora: rpm-build)" >&2
    exit 1
}
here=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$out"
mkdir -p "$out/top/SOURCES"
out=$(cd "$out" && pwd)
tree=$out/top/ebbgate-$version
bash packaging/lib/dist.sh "$tree" "$version"
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(stat -c %Y "$tree/Makefile")
tar --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -C "$out/top" -cf - "ebbgate-$version" |
    gzip -n9 >"$out/top/SOURCES/ebbgate-$version.tar.gz"
cp -p "$tree/packaging/rpm/ebbgate.spec" "$out/top/"
rm -rf "$tree"
touch -d "@$SOURCE_DATE_EPOCH" "$out/top/SOURCES/ebbgate-$version.tar.gz"
chmod 644 "$out/top/SOURCES/ebbgate-$version.tar.gz" "$out/top/ebbgate.spec"
host=()
[ -e /etc/fedora-release ] || host=(--nodeps "--load=$here/rpm/macros.debian-host")
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS BUILD VARIANT
LC_ALL=C.UTF-8 TZ=UTC rpmbuild "$what" "${host[@]}" \
    --define "_topdir $out/top" --define "_rpmdir $out" --define "_srcrpmdir $out" \
    --define "_buildhost reproducible" --define "source_date_epoch_from_changelog 0" \
    --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
    --define "_smp_mflags -j${JOBS:-2}" \
    --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
    "$out/top/ebbgate.spec" >"$out/build.log" 2>&1 || {
    tail -n 40 "$out/build.log" >&2
    exit 1
}
rm -rf "$out/top"
ls "$out"/*.rpm
