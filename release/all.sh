#!/usr/bin/env bash
# `make release`: makes all files of a release in target/release-files, with their checksums and the signature of the checksums.
#
#   all.sh [TARGET...]
#
# TARGET is a target of Rust; release/build.sh has the default. The directory is emptied first, so that no file of another version is
# in the release. The settings are those of release/packages.sh, release/repositories.sh and release/sign.sh.
set -euo pipefail

if [[ ${RELEASE_KEY_FILE:-} ]]; then
    RELEASE_KEY_FILE=$(realpath -m "$RELEASE_KEY_FILE")
fi
cd "$(dirname "$(realpath "$0")")/.."
readonly files=target/release-files
export RELEASE_FILES=$files

if [[ ${RELEASE_KEY_FILE:-} && ! -r $RELEASE_KEY_FILE ]]; then
    # Before the build, which takes long.
    echo "error: RELEASE_KEY_FILE: cannot read $RELEASE_KEY_FILE" >&2
    exit 1
fi
if [[ $(git status --porcelain --untracked-files=no) ]]; then
    echo 'warning: there are changes without a commit; nobody can build this release from the commit' >&2
fi

# Missing tools are reported before the build, which takes long.
tests/setup/packages.sh go:golang-go dpkg-deb:dpkg createrepo_c:createrepo-c gpg:gpg minisign:minisign
rm -rf "$files"
release/build.sh "$@"
release/sbom.sh
for step in packages image repositories; do
    echo "release/$step.sh"
    "release/$step.sh"
done

# `system-agent update --check` reads this file.
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
echo "$version" >"$files/latest"

# Without the directories in which the steps work.
(
    cd "$files"
    find . -type f ! -path './stage/*' ! -name 'SHA256SUMS*' -printf '%P\0' |
        LC_ALL=C sort -z | xargs -0 sha256sum >SHA256SUMS
)
release/sign.sh
echo "the release is in $files: $(wc -l <"$files/SHA256SUMS") files"
