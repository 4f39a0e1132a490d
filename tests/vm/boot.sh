#!/usr/bin/env bash
# Starts a virtual machine on an image of image.sh, in QEMU without KVM, and waits for ssh and dockerd.
#
#   boot.sh SUITE PORT [QEMU-OPTION...]     PORT: where its ssh is, on the loopback
#
# The first start takes 1 to 3 minutes. It keeps the running machine as the snapshot "booted" in run.qcow2; later starts go on
# from there, in about 7 s, without anything that was done in it since. With COLD=1 it starts from its disk as it was left when
# it was shut down; APPEND= is then added to the kernel's command line.
#
# * thread=multi: without it one thread does the work of both processors.
# * The emulated processor is 20 to 30 times slower than the host's: a container takes 5 to 8 s to start.
# * The emulator sometimes runs into a breakpoint that the kernel sets while it patches its own code (int3, in the first
#   seconds): the kernel panics, and the machine is started again, three times at most.
# * mitigations=off and tsc=nowatchdog spare it work, and keep the kernel from giving up its clock.
# * The clock of a machine that goes on is that of its snapshot: it is set.
# * qemu-utils must be of the same version as qemu-system-x86.
set -euo pipefail

suite=${1:?SUITE}
port=${2:?PORT}
shift 2
cd "$(dirname "$(realpath "$0")")/../.."
readonly vm=$PWD/target/vm
readonly dir=$vm/$suite
in_guest() { tests/vm/in.sh "$port" "$@"; }

rm -f "$vm/ssh-$port"
disk=$dir/run.qcow2
[[ -e $disk ]] || qemu-img create -q -f qcow2 -F raw -b "$dir/root.ext4" "$disk"
resume=()
[[ ! ${COLD:-} ]] && qemu-img snapshot -l "$disk" | grep -q ' booted ' && resume=(-loadvm booted)

begun=$SECONDS
start() {
    nice -n "${VM_NICE:-0}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nodefaults -no-user-config \
        -display none -monitor "unix:$dir/monitor,server,nowait" -serial "file:$dir/console.log" -no-reboot \
        -kernel "$dir/vmlinuz" -initrd "$dir/initrd.img" -append "root=/dev/vda rw console=ttyS0 mitigations=off \
tsc=nowatchdog panic=-1 quiet systemd.show_status=0 ${APPEND:-}" \
        -drive "file=$disk,if=virtio,format=qcow2,cache=unsafe,discard=unmap" \
        -netdev "user,id=n0,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n0 \
        -device virtio-rng-pci -daemonize -pidfile "$dir/qemu.pid" "${resume[@]}" "$@"
}
runs() { kill -0 "$(cat "$dir/qemu.pid" 2>/dev/null)" 2>/dev/null; }

starts=1
start "$@"
until in_guest true 2>/dev/null; do
    if ! runs && grep -q 'Oops: int3' "$dir/console.log" && ((starts < 3)); then
        echo "the emulator has broken the kernel of $suite at its start: once more"
        starts=$((starts + 1))
        start "$@"
    elif ! runs || ((SECONDS - begun > 600)); then
        echo "error: $suite does not start; the end of $dir/console.log:" >&2
        tail "$dir/console.log" >&2
        exit 1
    fi
    sleep 2
done
in_guest "date -s @$(date +%s) >/dev/null; until docker version >/dev/null 2>&1; do sleep 1; done"
if [[ ! ${COLD:-} ]] && ((${#resume[@]} == 0)); then
    # Not while it is busy with its own start.
    in_guest 'systemctl is-system-running --wait >/dev/null; sync' || true
    ssh -O exit -o "ControlPath=$vm/ssh-$port" root@127.0.0.1 2>/dev/null || true
    (echo 'savevm booted'; echo 'info snapshots'; sleep 2) |
        socat -t 300 - "UNIX-CONNECT:$dir/monitor" | tr '\r' '\n' | grep -a -q booted
    in_guest true
fi
echo "$suite runs after $((SECONDS - begun)) s"
