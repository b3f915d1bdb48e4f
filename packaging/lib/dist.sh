#!/bin/bash
# Lays out the sources as a release: dist.sh FOLDER [VERSION [DATE]]
#
# FOLDER becomes a clean copy of the tree, without what git ignores. VERSION other than the tree's
# own is written into the header, the spec, the Debian changelog (DATE: seconds since 1970) and a
# comment of the example configuration: this is how the tests get a higher version to upgrade to,
# whose configuration differs from what is installed. All files get the changelog's time.
set -eu
to=$1
have=$(sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)
version=${2:-$have}
rm -rf "$to"
mkdir -p "$to"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1 && [ -e .git ]; then
    git ls-files -z --cached --others --exclude-standard
else
    find . -name build -prune -o -type f -printf '%P\0'
fi | LC_ALL=C sort -zu | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --null -T - -cf - | tar -xf - -C "$to"
if [ "$version" != "$have" ]; then
    sed -i "s/\(EG_VERSION \)\".*\"/\1\"$version\"/" "$to/include/ebbgate/protocol.h"
    sed -i "s/^Version:\( *\).*/Version:\1$version/" "$to/packaging/rpm/ebbgate.spec"
    sed -i "s/^# Configuration of.*/& (version $version)/" "$to/packaging/common/ebbgate.conf"
    stamp=$(date -u -R -d "@${3:-1795435200}")
    {
        printf 'ebbgate (%s-1) unstable; urgency=medium\n\n  * Version %s.\n\n' "$version" "$version"
        printf ' -- Ebbgate maintainers <maintainers@ebbgate.invalid>  %s\n\n' "$stamp"
        cat packaging/debian/changelog
    } >"$to/packaging/debian/changelog"
fi
epoch=$(date -u +%s -d "$(sed -n 's/^ -- .*>  //p' "$to/packaging/debian/changelog" | head -n 1)")
find "$to" -exec touch -h -d "@$epoch" {} +
find "$to" -type d -exec chmod 755 {} +
find "$to" -type f -perm -100 -exec chmod 755 {} +
find "$to" -type f ! -perm -100 -exec chmod 644 {} +
