"""The OpenTelemetry collector's receiver of OTLP: built once."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tests.e2e.cluster.binaries import built_once

MODULE = Path(__file__).parent / "module"


def otlp_receiver() -> Path:
    """The path of a program that tells what is sent to it by OTLP."""
    digest = hashlib.sha256(b"\0".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")))

    def build(folder: Path) -> None:
        command = ["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/", "."]
        subprocess.run(command, cwd=MODULE, env={**os.environ, "CGO_ENABLED": "0"}, check=True)

    return built_once(f"otlp-{digest.hexdigest()[:12]}", "the collector's receiver of OTLP", build) / "receivers"
