#!/usr/bin/env bash
# Everything behind `make test`: what the tests need, an engine, the image, then all tests.
#
# SKIP_DOCKER=1 leaves out the tests that need a Docker engine, and says how many and which.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
# Most of them wait, most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3 / 2))}

# The tests of a module of the integration crate: docker are those that need an engine.
tests_of() {
    cargo test --quiet --locked --test integration -- --list --format terse |
        sed -n "s/^\\($1::.*\\): test\$/\\1/p"
}

run_without_docker() {
    "$here/packages.sh" openssl:openssl zstd:zstd dbus-daemon:dbus-daemon tmux:tmux python3:python3 \
        node:nodejs jq:jq prometheus:prometheus nats-server:nats-server go:golang-go
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
    # --exact: nothing is skipped but what is counted below.
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
        slirp4netns:slirp4netns python3:python3 node:nodejs jq:jq prometheus:prometheus nats-server:nats-server \
        go:golang-go || unmet=1
    if ((EUID != 0)); then
        echo 'error: missing: root (some Docker tests start an engine of their own)' >&2
        unmet=1
    fi
    if [[ $unmet ]]; then
        echo 'SKIP_DOCKER=1 runs the tests that need no Docker' >&2
        return 1
    fi
    cargo test --locked --no-run
    "$here/engine.sh" "$here/test.sh" with-engine
}

# Inside engine.sh. The tests are one command at the end, so that what is printed last is their summary.
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
