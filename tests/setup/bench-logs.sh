#!/usr/bin/env bash
# `make bench-logs`: starts an engine and makes the test image, then runs the benchmark. benches/logs/main.rs explains the settings.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly own=target/bench-logs

# Installs rsyslog, for comparison, without a start of its service.
install_rsyslog() {
    local policy=/usr/sbin/policy-rc.d own_policy=
    PATH=$PATH:/usr/sbin:/sbin command -v rsyslogd >/dev/null && return
    if [[ ! -e $policy ]]; then
        own_policy=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    "$here/packages.sh" rsyslogd:rsyslog >/dev/null 2>&1 || echo 'NOTE: rsyslog cannot be installed here and is not measured'
    [[ -z $own_policy ]] || rm -f "$own_policy"
    # The service must not start with the machine either.
    if [[ -d /run/systemd/system ]]; then
        systemctl --quiet disable rsyslog.service 2>/dev/null || true
    fi
}

if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    export BENCH_AGENT=$PWD/$own/system-agent
    exec cargo bench --locked --bench logs
fi

if ((EUID != 0)); then
    echo 'error: missing: root (the benchmark starts containers and measures the engine)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static
install_rsyslog
# A copy of the normal release build. `cargo bench` also builds a binary, but with features that only tests need.
mkdir -p "$own"
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench logs --no-run
"$here/engine.sh" "$here/bench-logs.sh" with-engine
