#!/usr/bin/env bash
# `make test-vm`: installs the package in a virtual machine with a current systemd, cgroup v2, Docker and Podman. Compares the
# agent's figures with those of the kernel and the engines. Prints a table and writes it to target/vm/SUITE/report.md.
#
#   run.sh [PART...]       The parts are the functions part_… in tests/vm/guest. Without arguments all parts run.
#
# Settings: SUITE=trixie, forky or trixie-arm64. VM_PORT=2222 is the port of the machine's ssh on the loopback interface. VM_NICE=0 is the
# niceness of the emulator. VM_KEEP_PACKAGE=1 uses the package and the container image of the last run.
# The part install, and all parts of an arm64 machine, need the signed files of `make release` and RELEASE_PUBLIC_KEY. The parts of an arm64 machine are fewer.
# PAGES=16k starts the arm64 machine with pages of 16 KiB.
# The machine's image is made once (2 to 14 minutes). The parts take about 40 minutes without KVM.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
suite=${SUITE:-trixie}
port=${VM_PORT:-2222}
readonly vm=$PWD/target/vm
readonly dir=$vm/$suite
readonly rows=$dir/rows.json
# Parts that need a restart of the machine come last. The script restarts the machine for after_reboot and no_memory_controller.
readonly ALL=(package failed_units systemd_units figures logs events host guest file_systems processes watchdog proxy minimum containerd live_restore
    userns data_root drivers compose podman rootless cost by_hand pages web upgrade after_reboot no_memory_controller purge)

# The parts of an arm64 machine, which is slower.
readonly ARM64=(package figures logs events host systemd_units install)
readonly release=$PWD/target/release-files
server=

fail() {
    echo "error: $1" >&2
    exit 1
}
in_guest() { tests/vm/in.sh "$port" "$@"; }
put() { tar -C "$(dirname "$1")" -c "$(basename "$1")" | in_guest tar -C /root -x --no-same-owner; }
stop_machine() {
    ssh -O exit -o "ControlPath=$vm/ssh-$port" root@127.0.0.1 2>/dev/null || true
    local pid
    pid=$(cat "$dir/qemu.pid" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
}
trap 'stop_machine; [[ ! $server ]] || kill "$server"' EXIT

# Starts the machine, and copies the files that the parts need to the machine.
start_machine() {
    stop_machine
    tests/vm/boot.sh "$suite" "$port"
    local files=(tests/vm/guest/*.py "$vm"/{release-url,public-key} config/agent.env config/system-agent.service
        config/compose.yml docs/install.md docs/prometheus.md)
    case $suite in
        *-arm64) files+=("$vm"/arm64/{1.deb,2.deb}) ;;
        *) files+=("$vm"/{1.deb,2.deb,image.tar} target/release/system-agent) ;;
    esac
    for file in "${files[@]}"; do put "$file"; done
}

# Serves the files of a release to the machine, which sees the host as 10.0.2.2.
serve_release() {
    : >"$vm/release-url"
    : >"$vm/public-key"
    [[ -e $release/SHA256SUMS.minisig ]] || return 0
    local port=$((port + 1))
    python3 -m http.server --bind 127.0.0.1 --directory "$release" "$port" >"$vm/server.log" 2>&1 &
    server=$!
    echo "http://10.0.2.2:$port" >"$vm/release-url"
    echo "${RELEASE_PUBLIC_KEY:?the public key of the signature is needed}" >"$vm/public-key"
}

# Shuts the machine down and starts it again from its disk. The arguments are added to the kernel's command line.
restart_machine() {
    in_guest 'systemctl poweroff' || true
    ssh -O exit -o "ControlPath=$vm/ssh-$port" root@127.0.0.1 2>/dev/null || true
    local begun=$SECONDS
    while [[ -e $dir/qemu.pid ]] && kill -0 "$(cat "$dir/qemu.pid")" 2>/dev/null; do
        ((SECONDS - begun < 300)) || fail 'the machine does not shut down'
        sleep 1
    done
    COLD=1 APPEND="$*" tests/vm/boot.sh "$suite" "$port"
}

((EUID == 0)) || fail 'missing: root (needed to make the image of the machine)'
tests/setup/packages.sh mmdebstrap:mmdebstrap mke2fs:e2fsprogs ssh-keygen:openssh-client qemu-system-x86_64:qemu-system-x86 \
    qemu-img:qemu-utils qemu-system-aarch64:qemu-system-arm qemu-aarch64-static:qemu-user-static socat:socat dockerd:docker.io 'docker:docker-cli|docker.io' \
    iptables:iptables python3:python3
mkdir -p "$dir"
rm -f "$rows"
if [[ $suite == *-arm64 ]]; then
    mkdir -p "$vm/arm64"
    debs=("$release"/system-agent_*_arm64.deb)
    [[ -e ${debs[0]} ]] || fail 'there is no package for arm64: run make release first'
    # There is one version, so the upgrade is not tried.
    cp "${debs[0]}" "$vm/arm64/1.deb"
    cp "${debs[0]}" "$vm/arm64/2.deb"
elif [[ ! ${VM_KEEP_PACKAGE:-} ]]; then
    for revision in 1 2; do
        tests/setup/deb.sh release "$revision"
        cp target/debian/system-agent_*-"$revision"_*.deb "$vm/$revision.deb"
    done
    tests/setup/engine.sh bash -c "tests/setup/agent-image.sh && docker save --output '$vm/image.tar' system-agent:latest"
fi
nice -n "${VM_NICE:-0}" tests/vm/image.sh "$suite"

parts=("$@")
if ((!${#parts[@]})); then
    case $suite in
        *-arm64) parts=("${ARM64[@]}") ;;
        *) parts=("${ALL[@]}") ;;
    esac
fi
serve_release
start_machine
# All parts except package need an installed service.
[[ ${parts[0]} == package ]] || in_guest 'cd /root && python3 main.py package' >/dev/null
for part in "${parts[@]}"; do
    case $part in
        after_reboot) restart_machine ;;
        no_memory_controller) restart_machine cgroup_disable=memory ;;
    esac
    in_guest "cd /root && python3 main.py $part" | tee -a "$rows"
done

tests/vm/report.py "$suite" "$(cat "$dir/versions")" <"$rows" | tee "$dir/report.md"
! grep -q '"passed": false' "$rows"
