#!/usr/bin/env bash
# Everything behind `make faults` and `make soak`: what they need, an engine, the image, then the trials, and the fuzz tests of
# the parsers. tests/faults/main.rs says what the arguments are.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."

if [[ ${1:-} == with-engine ]]; then
    shift
    "$here/image.sh"
    exec cargo test --locked --release --test faults -- "$@"
fi

if ((EUID != 0)); then
    echo 'error: missing: root (engines are killed, memory is limited, disks are filled)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static openssl:openssl
[[ -e /usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1 ]] ||
    apt-get install -y --no-install-recommends libfaketime >/dev/null
cargo test --locked --release --test faults --no-run
"$here/engine.sh" "$here/faults.sh" with-engine "$@"
if (($# == 0)); then
    # One after the other, each with a core of its own.
    FUZZ_SECONDS=${FUZZ_SECONDS:-30} cargo test --locked --lib -- --nocapture --test-threads=2 fuzz_ |
        grep -E 'inputs in|panic|test result'
fi
