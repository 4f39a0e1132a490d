#!/usr/bin/env bash
# Writes the list of all dependencies of each binary in target/release-files/bin, in the format CycloneDX:
# target/release-files/system-agent-VERSION-linux-MACHINE.cdx.json. The same commit gives the same bytes.
#
# The binary itself contains such a list too; see release/build.sh.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
readonly files=target/release-files

# shellcheck source=release/tools.sh
. release/tools.sh
install_cyclonedx

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# With this variable cargo-cyclonedx takes the time from it, and writes no random serial number.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

for binary in "$files"/bin/*/system-agent; do
    if [[ ! -e $binary ]]; then
        echo "error: there is no binary in $files/bin; release/build.sh makes them" >&2
        exit 1
    fi
    machine=${binary%/system-agent}
    machine=${machine##*/}
    name=system-agent-$version-linux-$machine
    # The file lies in the top directory, because cargo-cyclonedx can write nowhere else.
    cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$(target_of "$machine")" --override-filename "$name.cdx"
    # The directory of the source is not the same on another machine.
    sed "s|file://$PWD#|file:///source#|g" "$name.cdx.json" >"$files/$name.cdx.json"
    rm "$name.cdx.json"
    echo "$files/$name.cdx.json: $(grep -c '"purl"' "$files/$name.cdx.json") packages"
done
