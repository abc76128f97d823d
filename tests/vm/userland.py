"""What guests of another machine run: Debian's programs and compiled Python packages, unpacked and never installed."""

from __future__ import annotations

import fcntl
import shutil
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from tests.e2e.cluster.binaries import cache
from tests.vm.archive import apt_options, call, settings

#: With what they depend on.
PACKAGES = ("bash", "busybox-static", "dash", "libbpf1", "libstdc++6", "python3")
#: Debian 12's, which these packages are of.
PYTHON = "3.11"
#: What the core tests import that is compiled. All else is this machine's own.
COMPILED = ("numpy", "orjson", "protobuf")
#: Of Debian's libc and older ones, as wheels say it.
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


def find_userland() -> Path:
    """A folder of arm64's programs, made once, to be laid over this machine's files."""
    home = cache() / "arm64"
    home.mkdir(parents=True, exist_ok=True)
    root = home / "-".join(PACKAGES)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(home, root)
        for name in COMPILED:
            _install(name, version(name), root / "opt" / f"{name}-{version(name)}")
    return root


def _make(home: Path, root: Path) -> None:
    print("unpacking programs of arm64", flush=True)
    making, archives = home / "making", home / "apt/cache/archives"
    for old in home.glob("*/"):
        shutil.rmtree(old)
    options = apt_options(home)
    (home / "nothing").touch()  # is installed: so all that they depend on comes too
    options += settings(
        {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Install-Recommends": "false",
            "Dir::State::status": home / "nothing",
        }
    )
    call("apt-get", "-qq", *options, "update")
    call("apt-get", "-qq", "-y", *options, "--download-only", "install", *PACKAGES)
    for package in archives.glob("*.deb"):
        call("dpkg-deb", "-x", package, making)
    for name in ("bin", "lib", "sbin"):  # links on this machine, which would be hidden
        shutil.copytree(making / name, making / "usr" / name, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(making / name)
    shutil.rmtree(home / "apt")
    making.rename(root)


def _install(name: str, release: str, folder: Path) -> None:
    if folder.exists():
        return
    making = folder.with_name("making")
    shutil.rmtree(making, ignore_errors=True)
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    how = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--target={making}"]
    call(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *how, *platforms, f"{name}=={release}")
    making.rename(folder)


def python() -> list[str]:
    """Python's words in such a guest."""
    packages = [f"/opt/{name}-{version(name)}" for name in COMPILED] + [sysconfig.get_path("purelib")]
    return ["env", f"PYTHONPATH={':'.join(packages)}", f"/usr/bin/python{PYTHON}"]
