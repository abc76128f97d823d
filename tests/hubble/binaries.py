"""Hubble's command line, its relay, an oracle of its server, Cilium's and Calico's parsers of policies: built once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

from tests.e2e.cluster.binaries import built_once, kubernetes_binaries, policy_enforcer
from tests.receivers.binaries import otlp_receiver

MODULE = Path(__file__).parent / "module"
CALICO = Path(__file__).parent / "calico"
#: What a cluster is told about the policies of each, and where the modules have it.
DEFINITIONS = {
    "cilium.yaml": (
        MODULE,
        "github.com/cilium/cilium",
        "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml",
    ),
    "calico.yaml": (
        CALICO,
        "github.com/projectcalico/calico",
        "libcalico-go/config/crd/crd.projectcalico.org_networkpolicies.yaml",
    ),
}


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


def calico_parser() -> Path:
    """The path of the program that says what Calico finds wrong with policies; beside it DEFINITIONS."""
    digest = hashlib.sha256(b"\0".join((CALICO / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")))

    def build(folder: Path) -> None:
        command = ["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/", "."]
        subprocess.run(command, cwd=CALICO, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        for name, (where, module, path) in DEFINITIONS.items():
            found = subprocess.run(
                ["go", "mod", "download", "-json", module], cwd=where, capture_output=True, check=True
            )
            (folder / name).write_bytes((Path(json.loads(found.stdout)["Dir"]) / path).read_bytes())

    return built_once(f"calico-{digest.hexdigest()[:12]}", "Calico's parser of policies", build) / "calico"


if __name__ == "__main__":  # all that CI builds
    kubernetes_binaries()
    hubble_binaries()
    calico_parser()
    otlp_receiver()
    policy_enforcer()
