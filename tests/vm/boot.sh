#!/usr/bin/env bash
# Starts a virtual machine from an image of image.sh, in QEMU without KVM. Waits for ssh and dockerd.
#
#   boot.sh SUITE PORT [QEMU-OPTION...]     PORT: port of the machine's ssh on the loopback interface
#
# The first start takes 1 to 3 minutes, and saves the running machine as the snapshot "booted" in run.qcow2. Each later start
# loads this snapshot in about 7 s, and discards the changes that were made after the snapshot. With COLD=1 the machine boots from
# its disk with all changes. The text in APPEND is added to the kernel's command line.
#
# * thread=multi gives each emulated processor its own thread.
# * The emulated processor is 20 to 30 times slower than the host's. A container takes 5 to 8 s to start.
# * In the first seconds the kernel sometimes panics at a breakpoint (int3) that it sets while it patches its own code. After
#   such a panic the script starts the machine again, up to three starts in total.
# * mitigations=off and tsc=nowatchdog save work. Without these options the kernel can also reject its clock.
# * After a snapshot is loaded, the machine's clock shows the time of the snapshot, so the script sets the clock.
# * qemu-utils and qemu-system-x86 must have the same version.
# * With PAGES=16k the arm64 machine starts the kernel with pages of 16 KiB. It has a disk and a snapshot of its own.
set -euo pipefail

suite=${1:?SUITE}
port=${2:?PORT}
shift 2
cd "$(dirname "$(realpath "$0")")/../.."
readonly vm=$PWD/target/vm
readonly dir=$vm/$suite
in_guest() { tests/vm/in.sh "$port" "$@"; }

rm -f "$vm/ssh-$port"
pages=${PAGES:+-$PAGES}
disk=$dir/run$pages.qcow2
[[ -e $disk ]] || qemu-img create -q -f qcow2 -F raw -b "$dir/root.ext4" "$disk"
resume=()
[[ ! ${COLD:-} ]] && qemu-img snapshot -l "$disk" | grep -q ' booted ' && resume=(-loadvm booted)

begun=$SECONDS
case $suite in
    *-arm64) emulator=(qemu-system-aarch64 -machine virt) console='ttyAMA0' ;;
    *) emulator=(qemu-system-x86_64) console='ttyS0 tsc=nowatchdog' ;;
esac
start() {
    nice -n "${VM_NICE:-0}" "${emulator[@]}" -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nodefaults -no-user-config \
        -display none -monitor "unix:$dir/monitor,server,nowait" -serial "file:$dir/console.log" -no-reboot \
        -kernel "$dir/vmlinuz$pages" -initrd "$dir/initrd$pages.img" -append "root=/dev/vda rw console=$console mitigations=off \
panic=-1 quiet systemd.show_status=0 ${APPEND:-}" \
        -drive "file=$disk,if=virtio,format=qcow2,cache=unsafe,discard=unmap" \
        -netdev "user,id=n0,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n0 \
        -device virtio-rng-pci -daemonize -pidfile "$dir/qemu.pid" "${resume[@]}" "$@"
}
runs() { kill -0 "$(cat "$dir/qemu.pid" 2>/dev/null)" 2>/dev/null; }

starts=1
start "$@"
until in_guest true 2>/dev/null; do
    if ! runs && grep -q 'Oops: int3' "$dir/console.log" && ((starts < 3)); then
        echo "the kernel of $suite panicked in the emulator at its start: starting again"
        starts=$((starts + 1))
        start "$@"
    elif ! runs || ((SECONDS - begun > 1200)); then
        echo "error: $suite does not start; the end of $dir/console.log:" >&2
        tail "$dir/console.log" >&2
        exit 1
    fi
    sleep 2
done
in_guest "date -s @$(date +%s) >/dev/null; until docker version >/dev/null 2>&1; do sleep 1; done"
if [[ ! ${COLD:-} ]] && ((${#resume[@]} == 0)); then
    # Save the snapshot only after the machine has finished its start.
    in_guest 'systemctl is-system-running --wait >/dev/null; sync' || true
    ssh -O exit -o "ControlPath=$vm/ssh-$port" root@127.0.0.1 2>/dev/null || true
    (echo 'savevm booted'; echo 'info snapshots'; sleep 2) |
        socat -t 300 - "UNIX-CONNECT:$dir/monitor" | tr '\r' '\n' | grep -a -q booted
    in_guest true
fi
echo "$suite runs after $((SECONDS - begun)) s"
