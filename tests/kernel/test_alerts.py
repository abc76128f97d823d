"""Rules on this kernel: real containers, an agent, and the alerts that I get."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.pods import Pod

RULES = """
- rule: Program is started
  desc: d
  condition: evt.type in (execve, execveat) and evt.res = SUCCESS and proc.exe = started
  output: a program is started (pod=%k8s.pod.name container=%container.id parent=%proc.pname)
  priority: NOTICE
- rule: Program is not there
  desc: d
  condition: evt.type in (execve, execveat) and evt.res = ENOENT
  output: a program is not there (pod=%k8s.pod.name)
  priority: ERROR
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES)
    return folder


def run_execs(pod: Pod, binary: Path, number: int, failing: int) -> str:
    """Programs that are started in a container, and how its id begins."""
    container = pod.container("app", "/workload", "1", str(number), str(failing), files={"/workload": binary})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end", 60)
    return container.id[:12]


def counted(alerts: list[dict]) -> Counter[str]:
    """How often each rule fired; equal ones are one alert with a count."""
    counts = Counter[str]()
    for alert in alerts:
        counts[alert["rule"]] += alert["output_fields"].get("evt.count", 1)
    return counts


def test_live(agent: Agent, start_cli: Callable[..., Cli], make_pod: Callable[..., Pod], workload: Callable[[str], Path],
              rules: Path) -> None:  # fmt: skip
    """Of programs that a pod starts I get an alert each, with pod and parent, none of another pod, and the end in a second."""
    cli = start_cli("detect", "--agent", agent.address, "--rules", str(rules), "-n", "shop", "-o", "json")
    wait_until(lambda: "rules of a client began" in agent.log.read_text(), "the stream's start")
    run_execs(make_pod("other", "web-0"), workload("execs"), 11, 3)
    id_ = run_execs(make_pod("shop", "cart-0"), workload("execs"), 101, 7)
    began = time.monotonic()
    out, err = cli.finish()
    assert time.monotonic() - began < 1.5, err
    assert "nothing lost" in err, err
    alerts = events(out)
    assert counted(alerts)["Program is started"] == 94
    assert counted(alerts)["Program is not there"] >= 1
    assert {alert["hostname"] for alert in alerts} == {"node-a"}
    fields = [alert["output_fields"] for alert in alerts if alert["rule"] == "Program is started"]
    assert {(each["k8s.pod.name"], each["container.id"], each["proc.pname"]) for each in fields} == {
        ("cart-0", id_, "workload")
    }


def test_recording(agent: Agent, start_cli: Callable[..., Cli], make_pod: Callable[..., Pod], workload: Callable[[str], Path],
                   rules: Path, tmp_path: Path) -> None:  # fmt: skip
    """A recording has the alerts that I got live, to the byte, where there is no agent; other rules say what they would have."""
    file = tmp_path / "a.gadget"
    chosen = ("--rules", str(rules), "-o", "json")
    cli = start_cli("detect", "--agent", agent.address, *chosen, "-n", "shop", "--record", str(file))
    wait_until(lambda: "rules of a client began" in agent.log.read_text(), "the stream's start")
    run_execs(make_pod("other", "web-0"), workload("execs"), 11, 3)
    run_execs(make_pod("shop", "cart-0"), workload("execs"), 23, 7)
    out, err = cli.finish()
    assert "nothing lost" in err, err
    again = run_cli("detect", "--dry-run", str(file), *chosen)
    assert counted(events(out))["Program is started"] == 16
    assert sorted(out.splitlines()) == sorted(again.stdout.splitlines()), again.stderr
    (rules / "rules.yaml").write_text(RULES.replace("Program is started", "Program of root is started")
                                      .replace("proc.exe = started", "proc.exe = started and user.uid = 0"))  # fmt: skip
    others = run_cli("detect", "--dry-run", str(file), *chosen)
    assert counted(events(others.stdout))["Program of root is started"] == 16, others.stderr


def test_always(start_agent: Callable[..., Agent], make_pod: Callable[..., Pod], workload: Callable[[str], Path], rules: Path,
                tmp_path: Path) -> None:  # fmt: skip
    """What rules of a folder said without me I read later, also from the next agent, and what they say after a change."""
    state = str(tmp_path / "state")
    first = start_agent("--detect", str(rules), "--state", state)
    wait_until(lambda: "2 rules; " in status(first), "the rules")
    run_execs(make_pod("shop", "cart-0"), workload("execs"), 13, 1)
    wait_until(lambda: counted(kept(first))["Program is started"], "an alert")
    first.stop()
    second = start_agent("--detect", str(rules), "--state", state)
    (rules / "odd.yaml").write_text("- rule: [")
    wait_until(lambda: "refused: odd.yaml:" in status(second), "the refusal")
    run_execs(make_pod("shop", "cart-1"), workload("execs"), 7, 1)
    assert counted(kept(second, "-p", "cart-0"))["Program is started"] == 12
    wait_until(lambda: counted(kept(second, "-p", "cart-1"))["Program is started"], "an alert of the other pod")
    second.stop()  # those that are counted are told then
    third = start_agent("--detect", str(rules), "--state", state)
    assert counted(kept(third, "-p", "cart-1"))["Program is started"] == 6
    told = run_cli("alerts", "--agent", third.address).stderr
    assert "not seen from" in told and "nothing lost of what was watched" in told


def status(agent: Agent) -> str:
    return str(json.loads(run_cli("status", "--agent", agent.address, "-o", "json").stdout)["detect"])


def kept(agent: Agent, *chosen: str) -> list[dict]:
    return events(run_cli("alerts", "--agent", agent.address, "-o", "json", *chosen).stdout)
