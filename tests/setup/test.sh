#!/usr/bin/env bash
# `make test`: installs the programs that the tests need, starts an engine, makes the test image, then runs all tests.
#
# With SKIP_DOCKER=1 the script skips the tests that need a Docker engine, and prints the names of these tests.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
# More test threads than cores, because most tests wait most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3 / 2))}

# Prints the tests of a module of the integration crate. The tests in the module docker need an engine.
tests_of() {
    cargo test --quiet --locked --test integration -- --list --format terse |
        sed -n "s/^\\($1::.*\\): test\$/\\1/p"
}

run_without_docker() {
    "$here/packages.sh" openssl:openssl zstd:zstd dbus-daemon:dbus-daemon tmux:tmux python3:python3 systemd-detect-virt:systemd \
        node:nodejs jq:jq prometheus:prometheus prometheus-node-exporter:prometheus-node-exporter nats-server:nats-server go:golang-go
    cargo test --locked --no-run

    local names=() skips=() name status=0
    mapfile -t names < <(tests_of docker)
    if ((${#names[@]} == 0)); then
        echo 'error: SKIP_DOCKER=1, but there is no test under docker::; has the module been renamed?' >&2
        return 1
    fi
    for name in "${names[@]}"; do
        skips+=(--skip "$name")
    done
    cargo test --locked --doc || status=$?
    # --exact skips only the tests that are counted below.
    cargo test --locked --tests --no-fail-fast -- --exact "${skips[@]}" || status=$?
    printf 'SKIPPED %d tests (SKIP_DOCKER=1):' "${#names[@]}"
    printf ' %s' "${names[@]}"
    echo
    return "$status"
}

run_all() {
    local unmet=
    "$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables \
        busybox:busybox-static openssl:openssl zstd:zstd dbus-daemon:dbus-daemon haproxy:haproxy tmux:tmux \
        docker-compose:docker-compose podman:podman newuidmap:uidmap \
        slirp4netns:slirp4netns python3:python3 journalctl:systemd systemd-detect-virt:systemd node:nodejs jq:jq \
        prometheus:prometheus prometheus-node-exporter:prometheus-node-exporter nats-server:nats-server go:golang-go || unmet=1
    if ((EUID != 0)); then
        echo 'error: missing: root (some Docker tests start their own engine)' >&2
        unmet=1
    fi
    if [[ $unmet ]]; then
        echo 'with SKIP_DOCKER=1 only the tests that need no Docker run' >&2
        return 1
    fi
    cargo test --locked --no-run
    "$here/engine.sh" "$here/test.sh" with-engine
}

# engine.sh runs this function. All tests run in one command at the end, so that the summary is at the end of the output.
run_with_engine() {
    local status=0
    "$here/image.sh"
    cargo test --locked --doc || status=$?
    cargo test --locked --tests --no-fail-fast || status=$?
    return "$status"
}

if [[ ${SKIP_DOCKER:-0} == 1 ]]; then
    run_without_docker
elif [[ ${1:-} == with-engine ]]; then
    run_with_engine
else
    run_all
fi
