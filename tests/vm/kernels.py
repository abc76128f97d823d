"""Debian's kernels of several lines, unpacked and never installed: downloaded once, and newer ones once a week."""

from __future__ import annotations

import fcntl
import lzma
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster.binaries import cache
from tests.vm.archive import NotHad, apt_options, call

#: What the tests promise to run on, amd64's if not said otherwise. Of the oldest a gadget may say which feature it lacks.
LINES = ("5.10", "6.1", "6.12", "6.18", "7.3", "6.12-arm64")
LOOK_SECONDS = 7 * 24 * 3600.0
#: What a guest needs to reach its files, and a protocol and disks that are tested. The rest of its drivers is built in.
MODULES = ("virtio_pci", "virtiofs", "overlay", "sctp", "loop")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    line: str
    folder: Path

    @property
    def release(self) -> str:
        """As uname says it."""
        return self.folder.name

    @property
    def arch(self) -> str:
        """As Debian says it."""
        return self.release.rpartition("-")[2]

    @property
    def modules(self) -> Path:
        """Where its modules are."""
        return next(
            path for lib in ("lib", "usr/lib") if (path := self.folder / lib / "modules" / self.release).is_dir()
        )

    @property
    def image(self) -> Path:
        """What boots."""
        # from 7.2 on it lies beside the modules
        return next(
            path for path in (self.folder / f"boot/vmlinuz-{self.release}", self.modules / "vmlinuz") if path.exists()
        )

    def needed_modules(self) -> list[tuple[str, bytes]]:
        """The modules that the root file system takes, each after those that it depends on, with what they hold."""
        depends = dict(line.split(":", 1) for line in (self.modules / "modules.dep").read_text().splitlines())
        files = {_module_name(path): path for path in depends}
        built_in = {_module_name(path) for path in (self.modules / "modules.builtin").read_text().split()}
        paths: dict[str, None] = {}  # in order
        for name in MODULES:
            # the file of virtiofs is named virtiofs or virtio_fs
            found = files.get(name) or files.get(name.replace("iofs", "io_fs"))
            if found:
                paths |= dict.fromkeys([*reversed(depends[found].split()), found])
            elif name not in built_in:
                raise NotHad(f"{self.release} has no module {name}")
        return [(f"{_module_name(path)}.ko", _decompressed(self.modules / path)) for path in paths]


def _module_name(path: str) -> str:
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def _decompressed(path: Path) -> bytes:
    if path.suffix == ".ko":
        return path.read_bytes()
    if path.suffix != ".xz":
        raise NotHad(f"{path}: cannot be read here")
    return lzma.decompress(path.read_bytes())


def find_kernels(lines: tuple[str, ...] = LINES) -> list[Kernel]:
    """The newest kernel of each line. NotHad, naming those that there are instead, if one is missing."""
    home = cache() / "kernels"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _find(home, lines)


def _find(home: Path, lines: tuple[str, ...]) -> list[Kernel]:
    looked = home / "looked"
    fresh = looked.exists() and time.time() - looked.stat().st_mtime < LOOK_SECONDS
    complete = all(_newest(line, _unpacked(home)) for line in lines)
    if not fresh or not complete:
        try:
            _fetch(home)
            looked.touch()
        except NotHad as error:
            if not complete:
                raise
            print(f"using the kernels that are here: {error}", flush=True)
    found = {line: _newest(line, _unpacked(home)) for line in lines}
    return [Kernel(line, home / release) for line, release in found.items() if release]


def _unpacked(home: Path) -> list[str]:
    return [path.name for path in home.glob("*-cloud-*")]


def _newest(line: str, releases: list[str]) -> str | None:
    """The newest release of a line, such as 6.1.0-56-cloud-amd64 or 6.12.117+deb12-cloud-amd64 among others."""
    version, _, arch = line.partition("-")
    pattern = re.compile(rf"{re.escape(version)}\.\d[\d.]*(-\d+)?(\+deb\d+)?-cloud-{arch or 'amd64'}")
    own = [release for release in releases if pattern.fullmatch(release)]
    return max(own, key=lambda release: [int(number) for number in re.findall(r"\d+", release)], default=None)


def _fetch(home: Path) -> None:
    """Unpack the newest kernel of every line; older ones of a line go. NotHad if the archive lacks a line."""
    options = apt_options(home)
    print("looking for kernels in Debian's archive", flush=True)
    call("apt-get", "-qq", *options, "update")
    names = call("apt-cache", *options, "pkgnames", "linux-").split()
    offered = [name.removeprefix("linux-image-") for name in names if name.startswith("linux-image-")]
    missing = []
    for line in LINES:
        newest, here = _newest(line, offered), _newest(line, _unpacked(home))
        if newest is None and here is None:
            missing.append(line)
        if newest is None or newest == here:
            continue
        print(f"unpacking {newest}", flush=True)
        _unpack(home, newest, set(names), options)
        if here:
            shutil.rmtree(home / here)
    if missing:
        there = {found[1] for name in offered if (found := re.match(r"(\d+\.\d+)\.\S+-cloud-\w+$", name))}
        lines = ", ".join(sorted(there, key=lambda line: list(map(int, line.split(".")))))
        raise NotHad(f"Debian has no kernel {', '.join(missing)} (LINES in tests/vm/kernels.py); it has {lines}")


def _unpack(home: Path, release: str, names: set[str], options: list[str]) -> None:
    # from 7.2 on the image package is an empty one that depends on these; base has the list of built-in modules
    parts = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    packages = parts if parts[0] in names else [f"linux-image-{release}"]
    making = home / "making"
    shutil.rmtree(making, ignore_errors=True)
    (making / "packages").mkdir(parents=True)
    arch = release.rpartition("-")[2]
    words = [f"{package}:{arch}" for package in packages]
    call("apt-get", "-qq", *options, "download", *words, folder=making / "packages")
    for package in (making / "packages").iterdir():
        call("dpkg-deb", "-x", package, making / "root")
    root = making / "root"
    if (root / "usr/lib/modules").exists():  # depmod looks for lib only
        (root / "lib").mkdir(exist_ok=True)
        if not (root / "lib/modules").exists():
            (root / "lib/modules").symlink_to("../usr/lib/modules")
    call("depmod", "-b", root, release)  # Debian does that when a package is installed
    root.rename(home / release)
    shutil.rmtree(making)
