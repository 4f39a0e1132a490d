#!/usr/bin/env bash
# `make image`: builds the image of the agent from the binary and its shared libraries. Only cargo uses the network.
#
#   agent-image.sh [NAME [BINARY]]
#
# NAME is system-agent:latest by default. BINARY is a release build by default.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
name=${1:-system-agent:latest}
binary=${2:-}
if [[ ! $binary ]]; then
    cargo build --locked --release
    binary=${CARGO_TARGET_DIR:-target}/release/system-agent
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/state"
install -D -m 0755 "$binary" "$stage/root/usr/bin/system-agent"
# ldd prints `libc.so.6 => /lib/… (0x…)` for a library, and only a path for the loader. Each file keeps its path in the image.
# A static binary has no libraries, and ldd fails.
{ ldd "$binary" || true; } | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) .*/\1/p' | while read -r library; do
    install -D -m 0755 "$(realpath "$library")" "$stage/root$library"
done
cp config/Dockerfile "$stage/"
DOCKER_BUILDKIT=0 docker build --quiet --tag "$name" "$stage" >/dev/null
size=$(docker image inspect --format '{{.Size}}' "$name")
echo "$name: $size bytes"
# The limit applies only to the release build. A given BINARY can be a build for tests, which is larger because of its debug
# information.
if [[ ! ${2:-} ]] && ((size > 21000000)); then
    echo 'error: the image is larger than 21 MB' >&2
    exit 1
fi
