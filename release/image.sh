#!/usr/bin/env bash
# Makes the container images of a release from the static binaries in target/release-files/bin, for amd64 and arm64. Needs no
# container engine and no root. release/image.py lists the files that it writes. Settings:
#
#   RELEASE_FILES      the directory of the result, by default target/release-files
#   SOURCE_DATE_EPOCH  the time of all files, by default the time of the newest commit
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
files=${RELEASE_FILES:-target/release-files}
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v python3 >/dev/null || fail 'missing command: python3'
images=()
for pair in x86_64:amd64 aarch64:arm64; do
    binary=target/release-files/bin/${pair%:*}/system-agent
    [[ -e $binary ]] || continue
    images+=("${pair#*:}=$binary")
done
((${#images[@]})) || fail 'there is no binary in target/release-files/bin'
rm -f "$files"/system-agent-*-oci.tar "$files"/system-agent-*-image-*.tar
python3 release/image.py "$version" "$files" "$epoch" "${images[@]}"
