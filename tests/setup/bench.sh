#!/usr/bin/env bash
# Everything behind `make bench`: an engine, the image, then the measurement.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."

if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    exec cargo bench --locked --bench cost
fi

if ((EUID != 0)); then
    echo 'error: missing: root (the benchmark starts containers and reads what the engine costs)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static
cargo bench --locked --bench cost --no-run
"$here/engine.sh" "$here/bench.sh" with-engine
