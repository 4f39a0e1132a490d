#!/usr/bin/env bash
# Signs the checksums of a release: target/release-files/SHA256SUMS.minisig.
#
# Settings:
#
#   RELEASE_KEY_FILE  the secret key of minisign. Without it the files are not signed
#
# The password of the key comes from standard input: from a terminal, or as one line. It is empty for a key made by `minisign -G -W`.
set -euo pipefail

key=${RELEASE_KEY_FILE:+$(realpath -m "$RELEASE_KEY_FILE")}
cd "$(dirname "$(realpath "$0")")/.."
sums=target/release-files/SHA256SUMS

# A signature of an earlier run may not fit.
rm -f "$sums.minisig"
if [[ ! $key ]]; then
    echo 'the files are not signed: RELEASE_KEY_FILE is not set'
    exit 0
fi
if [[ ! -r $key ]]; then
    echo "error: RELEASE_KEY_FILE: cannot read $key" >&2
    exit 1
fi
if [[ ! -f $sums ]]; then
    echo "error: there is no $sums; release/all.sh writes it" >&2
    exit 1
fi
tests/setup/packages.sh minisign:minisign

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# The trusted comment has no time, so the same key and the same files give the same signature.
if ! minisign -S -s "$key" -m "$sums" -x "$sums.minisig" \
    -c "signature of system-agent $version" -t "system-agent $version" >/dev/null; then
    echo "error: minisign could not sign $sums with $key" >&2
    exit 1
fi
echo "signed: $sums.minisig"
