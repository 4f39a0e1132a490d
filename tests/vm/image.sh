#!/usr/bin/env bash
# Makes the disk of a virtual machine: a Debian with systemd, cgroup v2, Docker and Podman. Takes 2 to 14 minutes.
#
#   image.sh SUITE     trixie or forky
#
# Writes root.ext4, vmlinuz, initrd.img and versions to target/vm/SUITE. Does nothing if these files are newer than this script.
# Changes nothing else on the host.
#
# * QEMU itself starts the kernel, so there is no boot loader and no partition table.
# * The initrd has only the modules that this machine needs, because the emulated processor unpacks slowly.
# * mke2fs copies the tree into the image and keeps the owners. It needs no loop device and no mount.
# * Some mirrors have an expired Release file of a testing suite, so the date is not checked.
set -euo pipefail

suite=${1:?SUITE}
cd "$(dirname "$(realpath "$0")")/../.."
script=$(realpath "$0")
readonly vm=$PWD/target/vm
readonly out=$vm/$suite
readonly tree=$out/tree
# The mirror that this machine's own apt uses.
mirror=${MIRROR:-$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)}
mirror=${mirror:-$(sed -n 's/^deb \([^ ]*\) .*/\1/p' /etc/apt/sources.list | head -1)}

[[ -e $out/versions && $out/versions -nt $script ]] && exit 0
mkdir -p "$out"
# Files from an older image do not fit the new image.
rm -rf "$tree" "$out"/{versions,root.ext4,run.qcow2}
[[ -e $vm/key ]] || ssh-keygen -q -t ed25519 -N '' -C vm -f "$vm/key"

packages=(
    linux-image-amd64 initramfs-tools zstd
    systemd systemd-sysv dbus dbus-user-session libpam-systemd udev kmod
    openssh-server openssh-client iproute2 iptables nftables procps
    docker.io docker-cli ca-certificates
    podman catatonit crun uidmap slirp4netns passt fuse-overlayfs netavark aardvark-dns
    busybox-static python3-minimal libpython3-stdlib curl socat docker-compose
    e2fsprogs util-linux-extra adduser
)
list=$(IFS=,; echo "${packages[*]}")

echo "making the image of $suite: 2 to 14 minutes"
mmdebstrap --quiet --mode=root --variant=minbase --include="$list" \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/man/*' \
    "$suite" "$tree" "$mirror"

printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\ncrc32c_generic\n' >"$tree/etc/initramfs-tools/modules"
sed -i -e 's/^MODULES=.*/MODULES=list/' -e 's/^COMPRESS=.*/COMPRESS=zstd/' "$tree/etc/initramfs-tools/initramfs.conf"
chroot "$tree" update-initramfs -u -k all >/dev/null

echo vm >"$tree/etc/hostname"
printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$tree/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$tree/etc/fstab"
cat >"$tree/etc/systemd/network/20-wired.network" <<'NETWORK'
[Match]
Name=en* eth*
[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=no
NETWORK
# The name server of QEMU's user network.
rm -f "$tree/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$tree/etc/resolv.conf"
install -d -m 0700 "$tree/root/.ssh"
install -m 0600 "$vm/key.pub" "$tree/root/.ssh/authorized_keys"
printf 'UseDNS no\nPermitRootLogin prohibit-password\nMaxSessions 50\n' >"$tree/etc/ssh/sshd_config.d/vm.conf"
chroot "$tree" systemctl enable systemd-networkd ssh docker containerd >/dev/null 2>&1
# Timers and the console login would use processor time during measurements.
chroot "$tree" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer man-db.timer podman-auto-update.timer getty@tty1.service >/dev/null 2>&1 || true
chroot "$tree" systemctl disable podman.socket podman.service podman-restart.service >/dev/null 2>&1 || true
chroot "$tree" useradd -m -s /bin/bash user
grep -q ^user: "$tree/etc/subuid" || chroot "$tree" usermod --add-subuids 100000-165535 --add-subgids 100000-165535 user

newest() { find "$tree/boot" -name "$1-*" | sort -V | tail -1; }
cp "$(newest vmlinuz)" "$out/vmlinuz"
cp "$(newest initrd.img)" "$out/initrd.img"
kernel=$(basename "$(newest vmlinuz)")
# shellcheck disable=SC2016 # dpkg-query expands this variable
version() { chroot "$tree" dpkg-query -W -f '${Version}' "$1"; }
versions="kernel ${kernel#vmlinuz-}, systemd $(version systemd), Docker $(version docker.io), Podman $(version podman)"
truncate -s 10G "$out/root.ext4"
mke2fs -q -t ext4 -d "$tree" -E lazy_itable_init=1 "$out/root.ext4"
rm -rf "$tree"
echo "$versions" >"$out/versions"
echo "made the image of $suite: $versions"
