"""Container images from a folder, with no registry and no daemon."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path


def make_image(name: str, root: Path, target: Path, command: list[str]) -> Path:
    """Write a docker-archive of root as image name, whose containers run command, to target."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in sorted(os.listdir(root)):
            archive.add(root / entry, arcname=entry)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        for path, data in (
            ("manifest.json", json.dumps(manifest).encode()),
            (config_name, config),
            ("layer.tar", layer.getvalue()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target
