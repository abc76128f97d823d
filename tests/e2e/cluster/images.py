"""The container images that a cluster without a registry begins with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.e2e.cluster.binaries import cache
from tests.images import make_image

BUSYBOX = Path("/bin/busybox")


def make_images() -> Path:
    """A folder of archives: pause, and busybox for pods of tests."""
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "bin").mkdir()
        (root / "tmp").mkdir(mode=0o777)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
        for applet in set(listed.stdout.split()) - {"busybox"}:
            (root / "bin" / applet).symlink_to("busybox")
        make_image("localhost/busybox:e2e", root, folder / "busybox.tar", ["/bin/sh"])
        make_image("localhost/pause:e2e", root, folder / "pause.tar", ["/bin/sleep", "inf"])
    return folder
