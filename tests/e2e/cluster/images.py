"""The container images that a cluster without a registry begins with: the agent's own is built as users build it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.breaks import image
from tests.conftest import compile_workload
from tests.e2e.cluster.binaries import cache
from tests.images import make_image

BUSYBOX = Path("/bin/busybox")


AGENT = "localhost/kubectl-gadget:e2e"
BASE = "localhost/debian:e2e"
ROOT = Path(__file__).parents[3]
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"


def make_images() -> Path:
    """A folder of archives: the agent, pause, and for pods of tests busybox, and what fires the default rules."""
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
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as made:
        image(Path(place), compile_workload("breaks", Path(made)))
        make_image("localhost/breaks:e2e", Path(place), folder / "breaks.tar", ["/bin/sleep", "inf"])
    _build_agent(folder / "agent.tar")
    return folder


def _buildah(*arguments: str | Path) -> str:
    """Run buildah, whose layers are kept between runs, with no daemon."""
    store = cache() / "buildah"
    # in a mount namespace of its own: an interrupted build leaves no mounts
    command = [
        "nice",
        "unshare",
        "--mount",
        "buildah",
        f"--root={store}",
        f"--runroot={store}/run",
        "--storage-driver=overlay",
        *arguments,
    ]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _build_agent(archive: Path) -> None:
    """Build the Dockerfile on a base of Debian's own making."""
    if not _buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        _make_base()
    print("building the image", flush=True)
    _buildah(
        "build", "--quiet", "--isolation=chroot", "--layers", "--network=host", "--pull-never",
        f"--build-arg=BASE={BASE}", f"--tag={AGENT}", ROOT,
    )  # fmt: skip
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", AGENT, f"docker-archive:{archive}:{AGENT}")


def _make_base() -> None:
    """The smallest Debian, which trusts whom this machine trusts: it may be behind a proxy of its own."""
    print("making a base image", flush=True)
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        subprocess.run(
            ["nice", "debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", place],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        shutil.copy(f"/{AUTHORITIES}", f"{place}/{AUTHORITIES}")
        for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(f"{place}/{waste}")
            Path(place, waste).mkdir()
        container = _buildah("from", "scratch")
        _buildah("copy", "--quiet", container, place, "/")
        _buildah("commit", "--quiet", "--rm", container, BASE)
