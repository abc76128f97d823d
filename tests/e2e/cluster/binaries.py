"""Kubernetes, built from its Go module once for each version of go.mod."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
MODULE = HERE / "kubernetes"
VERSION_VARIABLES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def cache() -> Path:
    """Where what is made once is kept: outside the tree, and safe to remove."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubectl-gadget"


def built_once(name: str, what: str, build: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache. The first time build fills it, which takes minutes and is told."""
    folder = cache() / name
    if folder.is_dir():
        return folder
    print(f"building {what}, once; this takes minutes", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
    try:
        build(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def kubernetes_binaries() -> Path:
    """The folder with kube-apiserver, kubelet, kubectl and what else go.mod names as a tool. Takes minutes at first."""
    required = (MODULE / "go.mod").read_bytes()
    found = re.search(rb"k8s.io/kubernetes (v[\d.]+)", required)
    assert found, "go.mod requires no k8s.io/kubernetes"
    version = found[1].decode()
    digest = hashlib.sha256(required + (MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    flags = " ".join(["-s", "-w", *(f"-X {name}.gitVersion={version}" for name in VERSION_VARIABLES)])

    def build(folder: Path) -> None:
        # its packages are compiled several at a time, the largest takes 2 GB
        command = ["nice", "go", "build", "-trimpath", "-ldflags", flags, "-o", f"{folder}/", "tool"]
        subprocess.run(command, cwd=MODULE, check=True)

    return built_once(f"kubernetes-{version}-{digest}", f"Kubernetes {version}", build)


def policy_enforcer() -> Path:
    """The path of kube-router, which does what NetworkPolicies say on the node where it runs. Takes minutes at first."""
    module = HERE / "kube-router"
    digest = hashlib.sha256((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()).hexdigest()[:12]

    def build(folder: Path) -> None:
        command = ["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/", "tool"]
        subprocess.run(command, cwd=module, check=True)

    return built_once(f"kube-router-{digest}", "kube-router", build) / "kube-router"


if __name__ == "__main__":
    kubernetes_binaries()
