#!/usr/bin/env bash
# Behind `make image`: the image system-agent:latest, of the binary and the libraries that it is linked with. Nothing is fetched
# but by cargo.
#
#   agent-image.sh [NAME [BINARY]]     NAME system-agent:latest, BINARY that of a release build
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
install -D -m 0755 "$binary" "$stage/root/usr/bin/system-agent"
# `libc.so.6 => /lib/… (0x…)`, or the loader's path alone; each where it is looked for.
# None of a static one, of which ldd says so and fails.
{ ldd "$binary" || true; } | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) .*/\1/p' | while read -r library; do
    install -D -m 0755 "$(realpath "$library")" "$stage/root$library"
done
cp config/Dockerfile "$stage/"
DOCKER_BUILDKIT=0 docker build --quiet --tag "$name" "$stage" >/dev/null
size=$(docker image inspect --format '{{.Size}}' "$name")
echo "$name: $size bytes"
# A build for tests has what a debugger needs, and is larger.
if [[ ! ${2:-} ]] && ((size > 15000000)); then
    echo 'error: the image is larger than 15 MB' >&2
    exit 1
fi
