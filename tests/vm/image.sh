#!/usr/bin/env bash
# Makes the disk of a virtual machine: a Debian with systemd, cgroup v2, Docker and Podman. Takes 2 to 14 minutes.
#
#   image.sh SUITE     trixie or forky, or with the suffix -arm64, which takes 30 to 60 minutes
#
# Writes root.ext4, vmlinuz, initrd.img and versions to target/vm/SUITE. Does nothing if these files are newer than this script.
# Changes nothing else on the host.
#
# * QEMU itself starts the kernel, so there is no boot loader and no partition table.
# * The initrd has only the modules that this machine needs, because the emulated processor unpacks slowly.
# * mke2fs copies the tree into the image and keeps the owners. It needs no loop device and no mount.
# * The programs of an arm64 Debian run in qemu-aarch64 while the tree is made. The kernel starts it for each program (binfmt_misc).
#   This image has no Podman. It has a second kernel, with pages of 16 KiB: vmlinuz-16k and initrd-16k.img.
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

arch=amd64
[[ $suite == *-arm64 ]] && arch=arm64
release=${suite%-arm64}

[[ -e $out/versions && $out/versions -nt $script ]] && exit 0
mkdir -p "$out"
# Files from an older image do not fit the new image.
rm -rf "$tree" "$out"/{versions,root.ext4} "$out"/run*.qcow2
[[ -e $vm/key ]] || ssh-keygen -q -t ed25519 -N '' -C vm -f "$vm/key"

packages=(
    initramfs-tools zstd
    systemd systemd-sysv dbus dbus-user-session libpam-systemd udev kmod
    openssh-server openssh-client iproute2 iptables nftables procps
    docker.io docker-cli ca-certificates
    busybox-static python3-minimal libpython3-stdlib curl socat
    e2fsprogs util-linux-extra adduser
)
case $arch in
    amd64)
        packages+=(
            linux-image-amd64 docker-compose
            podman catatonit crun uidmap slirp4netns passt fuse-overlayfs netavark aardvark-dns
        )
        ;;
    arm64)
        packages+=(linux-image-arm64 linux-image-arm64-16k)
        # The flag F: the kernel opens the emulator now, and not in the tree.
        binfmt=/proc/sys/fs/binfmt_misc
        [[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc "$binfmt"
        if [[ ! -e $binfmt/qemu-aarch64 ]]; then
            printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:OCF' >"$binfmt/register"
        fi
        ;;
esac
list=$(IFS=,; echo "${packages[*]}")

echo "making the image of $suite: 2 to 14 minutes, arm64 30 to 60"
mmdebstrap --quiet --architectures="$arch" --mode=root --variant=minbase --include="$list" \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/man/*' \
    "$release" "$tree" "$mirror"

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

newest() { find "$tree/boot" -name "$1-*" ! -name '*-16k' | sort -V | tail -1; }
cp "$(newest vmlinuz)" "$out/vmlinuz"
cp "$(newest initrd.img)" "$out/initrd.img"
if [[ $arch == arm64 ]]; then
    cp "$tree"/boot/vmlinuz-*-16k "$out/vmlinuz-16k"
    cp "$tree"/boot/initrd.img-*-16k "$out/initrd-16k.img"
fi
kernel=$(basename "$(newest vmlinuz)")
# shellcheck disable=SC2016 # dpkg-query expands this variable
version() { chroot "$tree" dpkg-query -W -f '${Version}' "$1"; }
versions="kernel ${kernel#vmlinuz-}, systemd $(version systemd), Docker $(version docker.io)"
[[ $arch == arm64 ]] || versions+=", Podman $(version podman)"
truncate -s 10G "$out/root.ext4"
mke2fs -q -t ext4 -d "$tree" -E lazy_itable_init=1 "$out/root.ext4"
rm -rf "$tree"
echo "$versions" >"$out/versions"
echo "made the image of $suite: $versions"
