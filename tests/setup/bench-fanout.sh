#!/usr/bin/env bash
# `make bench-fanout`: starts an engine and makes the test image if that is possible, then runs the benchmark.
# benches/fanout/main.rs explains the settings.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly own=target/bench-fanout

if [[ ${1:-} == measure ]]; then
    export BENCH_AGENT=$PWD/$own/system-agent
    exec cargo bench --locked --bench fanout
fi
if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    exec "$here/bench-fanout.sh" measure
fi

# A copy of the normal release build. `cargo bench` also builds a binary, but with features that only tests need.
mkdir -p "$own"
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench fanout --no-run

# Without an engine, the benchmark leaves out the parts that need containers.
if "$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static &&
    "$here/engine.sh" true; then
    exec "$here/engine.sh" "$here/bench-fanout.sh" with-engine
fi
echo 'NOTE: there is no Docker engine here: the parts that need containers are left out'
exec "$here/bench-fanout.sh" measure
