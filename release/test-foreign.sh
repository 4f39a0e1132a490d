#!/usr/bin/env bash
# Tests the binary for aarch64 on a machine of another kind, by the emulator qemu-aarch64: its commands, the unit tests compiled for
# aarch64, and the integration tests of the protocol, with the binary of the release. Only the processes are emulated; the kernel is that
# of this machine. Needs target/release-files/bin/aarch64/system-agent, which release/build.sh makes.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
readonly machine=aarch64
readonly target=aarch64-unknown-linux-musl
readonly emulator=qemu-$machine
binary=$PWD/target/release-files/bin/$machine/system-agent

# The modules of the integration tests that need neither an engine nor a file of /proc that the emulator changes.
readonly MODULES=(commands:: configuration:: credentials:: expiry:: guessing:: hellos:: history:: options:: protocol:: self_signed::
    shutdown:: streaming:: supervisor:: tls:: whitelist::)
# Tests that cannot pass under the emulator, each with the reason.
readonly SKIPPED=()

# shellcheck source=release/tools.sh
. release/tools.sh

fail() {
    echo "error: $1" >&2
    exit 1
}

[[ -x $binary ]] || fail "there is no $binary; release/build.sh $target makes it"
tests/setup/packages.sh "$emulator:qemu-user" jq:jq openssl:openssl

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
said=$("$emulator" "$binary" --version)
[[ $said == "system-agent $version" ]] || fail "--version: $said"

echo '--- check'
# A key that no host has.
export API_KEY=0f2c7d19b4e86a53c1d7
DOCKER_ENABLED=false "$emulator" "$binary" check || fail 'check failed; its output is above'
echo '--- snapshot'
# Without `disks`: the emulator of QEMU 7.2 leaves the number of the mount in the answer of statx empty, so the agent takes each file
# system for another one and leaves it out.
snapshot=$(DOCKER_ENABLED=false "$emulator" "$binary" snapshot)
unset API_KEY
jq --raw-output --exit-status '
    select(.status == "ok" and .system.memory_total > 0 and (.system.cpu_cores | length) > 0 and (.system.network | length) > 0)
    | "\(.system.cpu_cores | length) cores, \(.system.memory_total) MiB of memory, \(.system.disk_total) GiB of disk"
' <<<"$snapshot" || fail "the snapshot lacks figures: $snapshot"

install_targets "$target"
install_zigbuild
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=$emulator
skips=()
for name in "${SKIPPED[@]}"; do
    skips+=(--skip "$name")
done

# Prints the output of the tests, and fails if one fails or if none ran.
run_tests() {
    cargo-zigbuild test --quiet --locked --target "$target" "$@" "${skips[@]}"
}

echo '--- unit tests'
run_tests --lib -- --test-threads 4
echo '--- integration tests of the protocol, with the binary of the release'
# The agents start through the emulator, because the kernel does not run a program for another machine.
TEST_BINARY=$binary TEST_LAUNCHER=$emulator run_tests --test integration -- --test-threads 4 "${MODULES[@]}"
