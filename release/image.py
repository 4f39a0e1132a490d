#!/usr/bin/env python3
"""Makes the container images of a release from static binaries, without a container engine.

    image.py VERSION FILES EPOCH ARCH=BINARY...

FILES is the directory of the result. ARCH is amd64 or arm64. The same input gives the same bytes. The result:

    system-agent-VERSION-oci.tar         an OCI image layout with one index for all architectures
    system-agent-VERSION-image-ARCH.tar  one architecture, for `docker load` of every version and for `podman load`
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import time

# The limit on the blobs of one architecture.
LIMIT = 10_000_000
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def encode(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Blobs:
    """The blobs of an image, by digest."""

    def __init__(self):
        self.data = {}

    def add(self, media_type, data):
        digest = hashlib.sha256(data).hexdigest()
        self.data[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_all(self, other):
        self.data.update(other.data)


def entry(name, epoch, mode, kind=tarfile.REGTYPE, owner=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, epoch
    info.uid = info.gid = owner
    return info


def is_static(binary):
    """Whether a 64-bit little-endian ELF program names no loader. One that does cannot start in an image without libraries."""
    if binary[:6] != b"\x7fELF\x02\x01":
        return False
    offset, size, count = (int.from_bytes(binary[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2)))
    headers = (binary[offset + number * size :][:4] for number in range(count))
    interpreter = 3
    return all(int.from_bytes(header, "little") != interpreter for header in headers)


def layer(binary, epoch):
    """The files of the image, as config/Dockerfile has them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("usr", "usr/bin"):
            tar.addfile(entry(name, epoch, 0o755, tarfile.DIRTYPE))
        info = entry("usr/bin/system-agent", epoch, 0o755)
        info.size = len(binary)
        tar.addfile(info, io.BytesIO(binary))
        for name in ("var", "var/lib"):
            tar.addfile(entry(name, epoch, 0o755, tarfile.DIRTYPE))
        # The directory of the page's state, for the user in compose.yml. A new volume at this place gets its owner.
        tar.addfile(entry("var/lib/system-agent-web", epoch, 0o755, tarfile.DIRTYPE, 9180))
    return out.getvalue()


def image(arch, binary, version, epoch):
    """Returns the blobs of one architecture, and the descriptors of its manifest, configuration and layer."""
    blobs = Blobs()
    tar = layer(binary, epoch)
    layer_descriptor = blobs.add(LAYER, gzip.compress(tar, 9, mtime=0))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    config = {
        "architecture": arch,
        "os": "linux",
        "created": created,
        "config": {
            # compose.yml mounts the host's root at this directory.
            "Env": ["HOST_ROOT=/host"],
            "Entrypoint": ["/usr/bin/system-agent"],
            "Cmd": ["run"],
            "ExposedPorts": {"9000/tcp": {}},
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "system-agent",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
        "history": [{"created": created, "created_by": "release/image.py"}],
    }
    config_descriptor = blobs.add(CONFIG, encode(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_descriptor,
        "layers": [layer_descriptor],
    }
    manifest_descriptor = blobs.add(MANIFEST, encode(manifest))
    manifest_descriptor["platform"] = {"architecture": arch, "os": "linux"}
    return blobs, manifest_descriptor, config_descriptor, layer_descriptor


def write_layout(path, blobs, top, version, epoch, extra=()):
    """Writes an OCI image layout as a tar file. `top` is the descriptor of the image or of the index of images."""
    top = dict(top)
    # containerd and Docker read the first name, and Podman the second one.
    top["annotations"] = {
        "io.containerd.image.name": f"docker.io/library/system-agent:{version}",
        "org.opencontainers.image.ref.name": f"system-agent:{version}",
    }
    files = {
        "oci-layout": encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]}),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.data.items()},
        **dict(extra),
    }
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("blobs", "blobs/sha256"):
            tar.addfile(entry(name, epoch, 0o755, tarfile.DIRTYPE))
        for name, data in sorted(files.items()):
            info = entry(name, epoch, 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def main(version, files, epoch, *binaries):
    epoch = int(epoch)
    everything, manifests = Blobs(), []
    for pair in binaries:
        arch, path = pair.split("=", 1)
        with open(path, "rb") as file:
            binary = file.read()
        if not is_static(binary):
            sys.exit(f"error: {path} is not a static program")
        blobs, manifest, config, layer_blob = image(arch, binary, version, epoch)
        size = sum(len(data) for data in blobs.data.values())
        print(f"image for {arch}: {size} bytes of blobs")
        if size > LIMIT:
            sys.exit(f"error: the image for {arch} is larger than {LIMIT} bytes")
        everything.add_all(blobs)
        manifests.append(manifest)
        # Docker up to version 24 reads only this file, which has no place for a second architecture.
        docker = [
            {
                "Config": "blobs/sha256/" + config["digest"].removeprefix("sha256:"),
                "Layers": ["blobs/sha256/" + layer_blob["digest"].removeprefix("sha256:")],
                "RepoTags": [f"system-agent:{version}"],
            }
        ]
        write_layout(
            f"{files}/system-agent-{version}-image-{arch}.tar",
            blobs,
            manifest,
            version,
            epoch,
            {"manifest.json": encode(docker)}.items(),
        )
    index = everything.add(INDEX, encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    write_layout(f"{files}/system-agent-{version}-oci.tar", everything, index, version, epoch)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
