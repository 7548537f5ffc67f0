"""Writes an image from two static executables: usage: image.py BINARIES NAME:TAG MACHINE OUTPUT

The archive is an OCI image layout (image-layout.md and config.md of the OCI image specification, version 1) with the
manifest.json of `docker save` beside it, which names the same files. Nothing in it depends on when, where or by whom it is
written: no times, no owners, no compression, names in a fixed order.
"""

import hashlib
import io
import json
import os
import re
import stat
import sys
import tarfile

PROGRAMS = ["podnet", "podnetd"]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1970-01-01T00:00:00Z"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def fail(text):
    sys.exit(f"error: {text}")


def add(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def tar(files):
    """An archive of (name, content, mode), with owner and time 0."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in files:
            add(archive, name, content, mode)
    return out.getvalue()


def executable(directory, name):
    path = os.path.join(directory, name)
    try:
        with open(path, "rb") as file:
            content = file.read()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as err:
        fail(f"read {path}: {err.strerror} · try: scripts/image without --binaries, which builds them")
    if not mode & stat.S_IXUSR:
        fail(f"{path} is not executable")
    # A program header of type PT_INTERP (3) names a dynamic loader, and the image has none.
    if content[:5] != b"\x7fELF\x02":
        fail(f"{path} is no 64-bit ELF executable")
    start, size, count = (int.from_bytes(content[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
    if any(content[at : at + 4] == b"\x03\0\0\0" for at in range(start, start + size * count, size)):
        fail(f"{path} is linked dynamically, and the image has no libraries · try: scripts/build-static")
    return (name, content, 0o755)


def blob(media_type, content):
    """A descriptor of the content, and the file with it."""
    digest = hashlib.sha256(content).hexdigest()
    return (
        {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)},
        (f"blobs/sha256/{digest}", content, 0o644),
    )


def document(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def image(binaries, reference, machine):
    match = re.fullmatch(r"([a-z0-9.:/_-]+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})", reference)
    if not match:
        fail(f"{reference!r} is no name of an image with a tag · try: localhost/podnet:0.1.0")
    if machine not in ARCHITECTURES:
        fail(f"no image for {machine}; there are some for {', '.join(ARCHITECTURES)}")
    platform = {"architecture": ARCHITECTURES[machine], "os": "linux"}
    content = tar([executable(binaries, name) for name in PROGRAMS])
    layer, layer_file = blob(LAYER, content)
    config, config_file = blob(CONFIG, document({
        **platform,
        "created": EPOCH,
        "config": {
            "Entrypoint": ["/podnetd"],
            "Env": ["PATH=/"],
            "Labels": {"org.opencontainers.image.title": "podnet", "org.opencontainers.image.licenses": "Apache-2.0"},
            "User": "0",
            "WorkingDir": "/",
        },
        "history": [{"created": EPOCH, "created_by": "scripts/image"}],
        # Not compressed, so the layer's own digest is that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }))
    manifest, manifest_file = blob(MANIFEST, document(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    ))
    manifest["platform"] = platform
    # containerd takes the first as the image's name, podman the second.
    manifest["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference,
    }
    docker = [{"Config": config_file[0], "Layers": [layer_file[0]], "RepoTags": [reference]}]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    # kind looks for manifest.json from the beginning.
    return tar([
        ("manifest.json", document(docker), 0o644),
        ("oci-layout", document({"imageLayoutVersion": "1.0.0"}), 0o644),
        ("index.json", document(index), 0o644),
        manifest_file,
        config_file,
        layer_file,
    ]), manifest["digest"]


def main():
    if len(sys.argv) != 5:
        fail("usage: image.py BINARIES NAME:TAG MACHINE OUTPUT")
    binaries, reference, machine, output = sys.argv[1:]
    content, digest = image(binaries, reference, machine)
    draft = f"{output}.{os.getpid()}"
    try:
        with open(draft, "wb") as file:
            file.write(content)
        os.replace(draft, output)
    except OSError as err:
        fail(f"write {output}: {err.strerror}")
    print(f"{output}: {reference}, {len(content)} bytes, {digest}")


main()
