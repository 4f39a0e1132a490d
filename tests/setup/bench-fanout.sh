#!/usr/bin/env bash
# Everything behind `make bench-fanout`: an engine and the image where they are to be had, then the measurement.
# benches/fanout/main.rs lists its settings.
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

# A copy of what users build: `cargo bench` builds one, too, with features that only tests need.
mkdir -p "$own"
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench fanout --no-run

# Without an engine there are no containers, and the rest is measured all the same.
if "$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static &&
    "$here/engine.sh" true; then
    exec "$here/engine.sh" "$here/bench-fanout.sh" with-engine
fi
echo 'NOTE: there is no Docker engine here: what needs containers is left out'
exec "$here/bench-fanout.sh" measure
