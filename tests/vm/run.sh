#!/usr/bin/env bash
# `make test-vm`: installs the package in a virtual machine with a current systemd, cgroup v2, Docker and Podman. Compares the
# agent's figures with those of the kernel and the engines. Prints a table and writes it to target/vm/SUITE/report.md.
#
#   run.sh [PART...]       The parts are the functions part_… in tests/vm/guest. Without arguments all parts run.
#
# Settings: SUITE=trixie or forky. VM_PORT=2222 is the port of the machine's ssh on the loopback interface. VM_NICE=0 is the
# niceness of the emulator. VM_KEEP_PACKAGE=1 uses the package and the container image of the last run.
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
trap stop_machine EXIT

# Starts the machine, and copies the files that the parts need to the machine.
start_machine() {
    stop_machine
    tests/vm/boot.sh "$suite" "$port"
    for file in tests/vm/guest/*.py "$vm"/{1.deb,2.deb,image.tar} target/release/system-agent config/agent.env \
        config/system-agent.service config/compose.yml docs/install.md docs/prometheus.md; do
        put "$file"
    done
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
    qemu-img:qemu-utils socat:socat dockerd:docker.io 'docker:docker-cli|docker.io' \
    iptables:iptables python3:python3
mkdir -p "$dir"
rm -f "$rows"
if [[ ! ${VM_KEEP_PACKAGE:-} ]]; then
    for revision in 1 2; do
        tests/setup/deb.sh release "$revision"
        cp target/debian/system-agent_*-"$revision"_*.deb "$vm/$revision.deb"
    done
    tests/setup/engine.sh bash -c "tests/setup/agent-image.sh && docker save --output '$vm/image.tar' system-agent:latest"
fi
nice -n "${VM_NICE:-0}" tests/vm/image.sh "$suite"

parts=("$@")
((${#parts[@]})) || parts=("${ALL[@]}")
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
