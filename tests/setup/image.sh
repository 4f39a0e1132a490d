#!/usr/bin/env bash
# Makes the image of the test containers, system-agent-test, from a static busybox. Uses no registry.
# Does nothing if the engine (DOCKER_HOST, or the local socket) has the image already.
set -euo pipefail

readonly IMAGE=system-agent-test

docker image inspect "$IMAGE" >/dev/null 2>&1 && exit 0

busybox=$(command -v busybox) || {
    echo "error: missing command: busybox (Debian: apt-get install busybox-static)" >&2
    exit 1
}
# ldd fails for a static program. A dynamic busybox cannot start in a root directory without libraries.
if ldd "$busybox" >/dev/null 2>&1; then
    echo "error: $busybox is not static (Debian: apt-get install busybox-static)" >&2
    exit 1
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,dev,etc,proc,root,sys,tmp}
chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

tar -C "$root" --owner=0 --group=0 -c . |
    docker import --change 'ENV PATH=/bin' --change 'CMD ["sh"]' - "$IMAGE" >/dev/null
echo "made the image $IMAGE"
