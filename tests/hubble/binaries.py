"""Hubble's command line, its relay, an oracle of its server and Cilium's parser of policies: built once for each version."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from tests.e2e.cluster.binaries import built_once, kubernetes_binaries, policy_enforcer

MODULE = Path(__file__).parent / "module"


def hubble_binaries() -> Path:
    """The folder with hubble, hubble-relay, oracle and policies. Takes minutes at first."""
    files = [MODULE / name for name in ("go.mod", "go.sum", "oracle/main.go", "oracle/metrics.go", "policies/main.go")]
    found = re.search(r"github.com/cilium/cilium v([\d.]+)", files[0].read_text())
    assert found, "go.mod requires no Hubble"
    version = found[1]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]
    flags = f"-s -w -X github.com/cilium/cilium/hubble/pkg.Version={version}"

    def build(folder: Path) -> None:
        command = [
            "nice",
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
            f"{folder}/",
            "tool",
            "./oracle",
            "./policies",
        ]
        subprocess.run(command, cwd=MODULE, env={**os.environ, "CGO_ENABLED": "0"}, check=True)

    return built_once(f"hubble-{version}-{digest}", f"Hubble {version}", build)


if __name__ == "__main__":  # all that CI builds
    kubernetes_binaries()
    hubble_binaries()
    policy_enforcer()
