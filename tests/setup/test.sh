#!/usr/bin/env bash
# `make test`: installs the programs that the tests need, starts an engine, makes the test image, then runs all tests.
#
# With SKIP_DOCKER=1 the script skips the tests that need a Docker engine, and prints the names of these tests.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
# More test threads than cores, because tests wait nine tenths of their time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}

# Prints all tests of the integration crate.
integration_tests() {
    cargo test --quiet --locked --test integration -- --list --format terse | sed -n 's/: test$//p'
}

# Prints those of the tests in the input that have the attribute `serial`. They need the host for themselves.
serial_tests() {
    local files
    mapfile -t files < <(find tests/integration -name '*.rs')
    awk -F:: '
        FILENAME == "-" { if ($NF in serial) print; next }
        /^ *#\[serial\]/ { found = 1 }
        found && /^ *fn / { name = $0; gsub(/^ *fn |\(.*/, "", name); serial[name]; found = 0 }
    ' "${files[@]}" -
}

# Runs all tests, except the tests of the integration crate that the arguments name.
#
# The tests that need the host for themselves run first, one by one. Among the others, each of them would keep all threads of the
# test program waiting until it can run.
run_tests() {
    local serial=() skips=() name status=0 serial_status=0
    mapfile -t serial < <(integration_tests | grep -vxFf <(printf '%s\n' "$@") | serial_tests)
    if ((${#serial[@]} == 0)); then
        echo 'error: no test has the attribute serial; has it been renamed?' >&2
        return 1
    fi
    for name in "$@" "${serial[@]}"; do
        skips+=(--skip "$name")
    done
    cargo test --locked --doc || status=$?
    # With --exact, a name does not stand for other tests whose names contain it.
    cargo test --locked --test integration -- --test-threads 1 --exact "${serial[@]}" || serial_status=$?
    # All other tests run in one command at the end, so that their summary is at the end of the output.
    cargo test --locked --tests --no-fail-fast -- --exact "${skips[@]}" || status=$?
    if ((serial_status)); then
        echo 'error: a test that runs alone failed; its output is above that of the other tests' >&2
        status=$serial_status
    fi
    return "$status"
}

run_without_docker() {
    "$here/packages.sh" openssl:openssl zstd:zstd dbus-daemon:dbus-daemon tmux:tmux python3:python3 systemd-detect-virt:systemd \
        node:nodejs jq:jq prometheus:prometheus prometheus-node-exporter:prometheus-node-exporter nats-server:nats-server go:golang-go
    cargo test --locked --no-run

    local names=() status=0
    # The tests in the module docker need an engine.
    mapfile -t names < <(integration_tests | grep '^docker::')
    if ((${#names[@]} == 0)); then
        echo 'error: SKIP_DOCKER=1, but there is no test under docker::; has the module been renamed?' >&2
        return 1
    fi
    run_tests "${names[@]}" || status=$?
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

# engine.sh runs this function.
run_with_engine() {
    "$here/image.sh"
    run_tests
}

if [[ ${SKIP_DOCKER:-0} == 1 ]]; then
    run_without_docker
elif [[ ${1:-} == with-engine ]]; then
    run_with_engine
else
    run_all
fi
