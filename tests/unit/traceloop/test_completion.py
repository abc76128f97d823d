from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CLI
from tests.unit.traceloop.fake import FakeRecorder, item

FOUND = [
    item("cart-0", "app", "aaaa11112222" + "0" * 52, cgroup=1, status=11, known=True),
    item("cart-0", "istio", "bbbb11112222" + "0" * 52, cgroup=2, running=True),
    item("web-0", "nginx", "aaaa33334444" + "0" * 52, namespace="web", cgroup=3, running=True),
    item("", "db", "cccc11112222" + "0" * 52, namespace="", cgroup=4, running=True),
]


def complete(*words: str, path: str = "") -> dict[str, str]:
    """What Tab would offer after some words, with its help; path is where programs are looked for before all."""
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [CLI.with_name("kubectl_complete-gadget"), *words], capture_output=True, text=True, check=True, env=environment
    )
    lines = done.stdout.splitlines()
    assert (lines.pop(), done.stderr) == (":4", "")
    return {value: text for value, _, text in (line.partition("\t") for line in lines)}


@pytest.mark.parametrize("command", ["show", "delete"])
def test_recordings_are_completed(tmp_path: Path, command: str) -> None:
    """Tab after `traceloop show` offers what has a recording, gone or not: pods, containers without one, ids."""
    with FakeRecorder(tmp_path, FOUND) as agent:
        given = ("traceloop", command, "--agent", agent.address)
        assert list(complete(*given, "")) == ["cart-0", "db", "web-0"]
        assert list(complete(*given, "-n", "web", "")) == ["web-0"]
        assert complete(*given, "aaaa") == {
            "aaaa11112222": "shop/cart-0/app: SIGSEGV (139)",
            "aaaa33334444": "web/web-0/nginx: running",
        }


def test_containers_and_calls_are_completed(tmp_path: Path) -> None:
    """Tab after -c offers containers that are recorded, after --syscalls the names of system calls."""
    with FakeRecorder(tmp_path, FOUND) as agent:
        given = ("traceloop", "show", "--agent", agent.address)
        assert list(complete(*given, "-n", "shop", "cart-0", "-c", "")) == ["app", "istio"]
        assert list(complete(*given, "-c", "n")) == ["nginx"]
        assert list(complete(*given, "--syscalls", "read,accep")) == ["read,accept", "read,accept4"]


def test_no_agent_no_completion(tmp_path: Path) -> None:
    """Where no agent answers, Tab offers nothing, and says nothing."""
    assert complete("traceloop", "show", "--agent", f"unix://{tmp_path}/none", "-c", "") == {}


def test_why_completes_pods_that_never_ran(tmp_path: Path) -> None:
    """Tab after `why` offers the cluster's pods too, also those that have no recording as they never ran."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho pod/cart-0; echo pod/waits-0\n")
    kubectl.chmod(0o755)
    assert {"cart-0", "waits-0"} <= set(complete("why", "", path=str(tmp_path)))
    assert "waits-0" in complete("why", "wai", path=str(tmp_path))
    with FakeRecorder(tmp_path, FOUND) as agent:
        assert list(complete("why", "--agent", agent.address, "", path=str(tmp_path))) == ["cart-0", "db", "web-0"]
