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
# Tests that fail under the emulator of QEMU 7.2, each group with its reason.
readonly SKIPPED=(
    # It leaves the number of the mount in the answer of statx empty.
    kernel::filesystem::tests::the_root_of_this_host_is_read
    disks::tests::figures_of_the_root_are_the_same_as_in_statvfs
    history::a_client_gets_the_figures_from_before_it_connected
    # It has no netlink sockets for the list of sockets, and not all messages and attributes of those for interfaces.
    kernel::netdev::tests::this_host_counts_as_its_file_does
    kernel::tcpstat::tests::a_connection_of_this_host_is_counted
    links::tests::the_kernel_lists_loopback_and_knows_this_process
    # It has no TCGETS2, with which a program for aarch64 reads the settings of a terminal.
    self_signed::watch_and_nats_trust_self_signed_certificates
    # It keeps a copy of the environment, with the key.
    credentials::a_key_is_in_memory_once_and_a_wrong_key_is_not
    # It is about ten times as slow, and these tests measure time or do their work in a fixed time.
    called_log::tests::a_line_without_end_is_truncated_and_not_requested_again
    files::range::tests::pages_that_are_limited_by_their_text_have_every_line
    files::tests::each_line_is_received_once_or_counted
    kernel::tests::figures_are_read_only_while_somebody_wants_them
    hellos::a_distant_client_logs_in_despite_thousands_of_incomplete_handshakes
    options::options_can_arrive_in_pieces_and_end_with_cr_lf
    redaction::tests::every_text_is_redacted_in_a_short_time
    textfile::reader::tests::a_file_that_is_replaced_while_it_is_read_is_read_whole
)

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
