#!/usr/bin/env bash
# `make faults` and `make soak`: installs the programs that the trials need, starts an engine, makes the test image, then runs the
# trials. Without arguments the script also runs the fuzz tests of the parsers. tests/faults/main.rs explains the arguments.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."

if [[ ${1:-} == with-engine ]]; then
    shift
    "$here/image.sh"
    exec cargo test --locked --release --test faults -- "$@"
fi

if ((EUID != 0)); then
    echo 'error: missing: root (the trials kill engines, limit memory and fill disks)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static openssl:openssl
[[ -e /usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1 ]] ||
    apt-get install -y --no-install-recommends libfaketime >/dev/null
cargo test --locked --release --test faults --no-run
"$here/engine.sh" "$here/faults.sh" with-engine "$@"
if (($# == 0)); then
    # Two fuzz tests run at a time, each on its own core.
    FUZZ_SECONDS=${FUZZ_SECONDS:-30} cargo test --locked --lib -- --nocapture --test-threads=2 fuzz_ |
        grep -E 'inputs in|panic|test result'
fi
