#!/usr/bin/env bash
# Checks that a release can be built again: builds the newest commit in two clones, in directories of different length and with
# different target directories, and compares the bytes of the binaries.
#
#   check-reproducible.sh [TARGET...]
#
# TARGET is a target of Rust; release/build.sh has the default. A build of one target takes several minutes.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
work=$(realpath -m target/reproducible)
rm -rf "$work"
mkdir -p "$work"
# A commit that is made while this runs must not be in the second build.
commit=$(git rev-parse HEAD)
# Both builds use the same tools, whose versions are fixed.
export RELEASE_TOOLS=${RELEASE_TOOLS:-$PWD/target/release-tools}

# build CLONE TARGET_DIRECTORY [TARGET...]
build() {
    local clone=$1 directory=$2
    shift 2
    git clone --quiet --no-hardlinks . "$clone"
    git -C "$clone" checkout --quiet "$commit"
    # All times differ between the two clones: of the files, and of the build.
    (cd "$clone" && CARGO_TARGET_DIR=$directory release/build.sh "$@")
    rm -rf "$directory"
}
build "$work/a" "$work/first-target" "$@"
build "$work/a-longer-path/b" "$work/a-longer-path/b/target/second" "$@"

status=0
while read -r binary; do
    one=$work/a/$binary
    other=$work/a-longer-path/b/$binary
    if cmp "$one" "$other"; then
        echo "same bytes: $binary $(sha256sum "$one" | cut -d ' ' -f 1)"
    else
        echo "error: two builds of $binary differ" >&2
        status=1
    fi
done < <(cd "$work/a" && find target/release-files -type f | LC_ALL=C sort)
((status)) || rm -rf "$work"
exit "$status"
