"""Containers that want to do what rules are about without an alert, or take the alerts of others."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.attacks.conftest import usual_root
from tests.conftest import Agent, Cli, events, wait_until
from tests.pods import Container, Pod

NAMESPACE = "evil"
READ, SPOKE = "Password hashes are read", "Container speaks to the container runtime"
MOVED = "File is moved or linked into a system folder"
SHADOW, TOOL = "/etc/shadow", "/usr/bin/tool"
#: How the workload does it, its arguments, and the rule that tells of it
WAYS = (
    ("parent", (SHADOW,), READ),
    ("thread", (SHADOW,), READ),
    ("become", (SHADOW, "/bin/su"), READ),
    ("long", (SHADOW,), READ),
    ("read32", (SHADOW,), READ),
    ("rename", ("/opt/tool", TOOL), MOVED),
    ("socket", ("/run/docker.sock",), SPOKE),
    ("user", ("/opt/tool",), "User namespace is made"),
)


class Watch(NamedTuple):
    """A detect at work."""

    cli: Cli
    out: Path
    beacon: Container

    def alerts(self) -> list[dict[str, Any]]:
        """Those so far of the container that attacks."""
        return [each for each in events(self.out.read_text()) if each["output_fields"].get("k8s.pod.name") == "evil-0"]

    def beacons(self) -> int:
        """How often the other container did something, as far as is told."""
        return sum(each["output_fields"].get("k8s.pod.name") == "beacon" for each in events(self.out.read_text()))


@pytest.fixture
def watch(
    start_agent: Callable[..., Agent], start_cli: Callable[..., Cli], make_pod: Callable[..., Pod], tmp_path: Path
) -> Watch:
    """The default rules, asked of containers, and one container beside the one that attacks."""
    out = tmp_path / "alerts"
    with out.open("w") as file:
        options = ("-n", NAMESPACE, "-o", "json", "--rule-matching", "first")
        cli = start_cli("detect", "--agent", start_agent().address, *options, stdout=file, stderr=subprocess.PIPE)
    found = Watch(cli, out, make_pod(NAMESPACE, "beacon").container("beacon", "/bin/sleep", "600"))

    def begins() -> bool:
        found.beacon.exec("/bin/cat", "/proc/1/environ")
        return found.beacons() > 0

    wait_until(begins, "the begin")
    return found


@pytest.fixture
def evader(make_pod: Callable[..., Pod], workload: Callable[[str], Path]) -> Container:
    """A container whose program does things in ways that are not seen easily."""
    files = {"/evades": workload("evades"), SHADOW: Path("/etc/hostname"), "/bin/su": Path("/bin/busybox")}
    container = make_pod(NAMESPACE, "evil-0").container("evader", "/bin/sleep", "600", files=files, change=usual_root)
    container.exec("/bin/busybox", "mkdir", "-p", "/opt", "/run", "/usr/bin")
    container.exec("/bin/busybox", "touch", "/opt/tool")
    return container


@pytest.mark.parametrize(("how", "arguments", "rule"), WAYS, ids=[way[0] for way in WAYS])
def test_evasion(watch: Watch, evader: Container, how: str, arguments: tuple[str, ...], rule: str) -> None:
    """A container is told of, under its own name, however it does what a rule is about."""
    subprocess.run(["runc", "exec", evader.id, "/evades", how, *arguments], stdin=subprocess.DEVNULL, check=False)
    wait_until(watch.alerts, "an alert")
    told = [(each["rule"], each["output_fields"]["proc.cmdline"]) for each in watch.alerts()]
    command = f"exe read {SHADOW}" if how == "thread" else " ".join(("evades", how, *arguments))
    assert told == [(rule, command)]


FLOODS = {
    "alerts": "i=0; while :; do i=$((i+1)); echo x > /etc/$i-$PPID; done",
    "folders": "while :; do cd /tmp; cd /; done",
    "programs": "while :; do /bin/true; done",
    "processes": "while :; do (:); done",
}


@pytest.mark.parametrize("how", FLOODS)
def test_flood_beside(watch: Watch, evader: Container, how: str) -> None:
    """What another container does is told in time while one floods, and nothing of it is lost."""
    flood = ["runc", "exec", evader.id, "/bin/busybox", "timeout", "6", "/bin/sh", "-c", FLOODS[how]]
    with subprocess.Popen(flood, stdin=subprocess.DEVNULL) as running:
        time.sleep(2)
        before = watch.beacons()
        for _ in range(7):
            watch.beacon.exec("/bin/cat", "/proc/1/environ")
        seconds = time.monotonic()
        wait_until(lambda: watch.beacons() >= before + 7, "the alerts")
        assert time.monotonic() - seconds < 3
        running.wait()
    watch.cli.process.send_signal(signal.SIGINT)
    _, err = watch.cli.process.communicate(timeout=60)
    assert "beacon" not in err
