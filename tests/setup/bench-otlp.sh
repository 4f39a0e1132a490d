#!/usr/bin/env bash
# `make bench-otlp`: starts an engine and makes the test image, then runs the benchmark. benches/otlp/main.rs explains the settings.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly own=target/bench-otlp

if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    export BENCH_AGENT=$PWD/$own/system-agent
    exec cargo bench --locked --bench otlp
fi

if ((EUID != 0)); then
    echo 'error: missing: root (the benchmark starts containers)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static
# A copy of the normal release build. `cargo bench` also builds a binary, but with features that only tests need.
mkdir -p "$own"
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench otlp --no-run
"$here/engine.sh" "$here/bench-otlp.sh" with-engine
