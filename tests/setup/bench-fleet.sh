#!/usr/bin/env bash
# `make bench-fleet`: installs a NATS server, starts an engine and makes the test image if that is possible, then runs the
# benchmark. benches/fleet/main.rs explains the settings.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly own=target/bench-fleet

if [[ ${1:-} == measure ]]; then
    export BENCH_AGENT=$PWD/$own/system-agent
    exec cargo bench --locked --bench fleet
fi
if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    exec "$here/bench-fleet.sh" measure
fi

"$here/packages.sh" nats-server:nats-server
"$here/packages.sh" tmux:tmux || echo 'NOTE: the terminal view is not measured'

# A copy of the normal release build. `cargo bench` also builds a binary, but with features that only tests need.
mkdir -p "$own"
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench fleet --no-run

# Without an engine, the snapshots have no containers.
if [[ ${BENCH_CONTAINERS:-10} != 0 ]] &&
    "$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static &&
    "$here/engine.sh" true; then
    exec "$here/engine.sh" "$here/bench-fleet.sh" with-engine
fi
echo 'NOTE: snapshots have no containers'
exec "$here/bench-fleet.sh" measure
