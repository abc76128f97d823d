"""`why` on the command line, with an agent that has recordings."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from gadget._generated import gadget_pb2 as pb
from tests.conftest import run_cli
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.traceloop.replies import record, reply


def run(pod: str, container_id: str, cgroup: int, *, status: int = 256, container: str = "app") -> pb.TraceloopItem:
    """A run that ended badly, the newer the higher its cgroup."""
    now = time.time_ns() - (100 - cgroup) * 10**9
    return item(pod, container, container_id, cgroup=cgroup, status=status, known=True, ended_ns=now,
                started_ns=now - 10**9)  # fmt: skip


LONG = "recommendation-engine-worker-7d9f8b6c5d-zx9qk"
RUNS = [run("cart-0", f"aaaa0000000{at}", at) for at in (1, 2, 3)]
RUNS += [run("web-0", "bbbb00000000", 4, status=9, container="nginx"), run(LONG, "cccc00000000", 5)]


def why(folder: Path, *arguments: str) -> tuple[int, str, str, str]:
    """Exit code, output, errors, and the options that reach the agent."""
    missing = record(1, name="open", text=b"/etc/cart.yaml", args=[1], result=-2)
    with FakeRecorder(folder, RUNS, [reply(missing)]) as agent:
        done = run_cli("why", *arguments, "--agent", agent.address)
    return done.returncode, done.stdout, done.stderr, f"--agent {agent.address}"


@pytest.mark.parametrize(
    ("arguments", "which"),
    [
        (["cart-0"], "cart-0 -n shop -c app"),
        (["cart-0", "--instance", "1"], "cart-0 -n shop -c app"),
        (["cart-0", "--previous"], "aaaa00000002"),
        (["cart-0", "--instance", "3"], "aaaa00000001"),
        (["recomm"], "cccc00000000"),
    ],
)
def test_command_for_all_calls(
    arguments: list[str], which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command for all calls shows the run that I see, through the agent that I asked; a long name is an id there."""
    monkeypatch.setenv(
        "COLUMNS", str(len(f"  all calls: kubectl gadget traceloop show {LONG}") + len(str(tmp_path)) + 20)
    )
    code, out, err, how = why(tmp_path, *arguments)
    assert (code, err) == (0, "")
    assert " ".join(out.split()).endswith(f"all calls: kubectl gadget traceloop show {which} {how}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-A", "--previous"], "--previous is of one container: name a pod"),
        (["-A", "--instance", "2"], "--instance is of one container: name a pod"),
        (
            ["cart-0", "--since", "2h"],
            "--since goes with -A, the table of all bad ends; of one container the newest run is told",
        ),
        (["cart-0", "--previous", "--instance", "2"], "--instance and --previous: choose one"),
        (["deploy/cart"], "deploy/cart: only a cluster knows which pods that is: with --agent give a pod's name"),
        (["web-0", "-n", "bank"], "no recording of 'web-0' in namespace bank: it is in -n shop"),
        (["web-0", "-c", "app"], "no recording of 'web-0' with -c app: it has nginx"),
        (["web-0", "--previous"], "shop/web-0/nginx has one recorded run"),
    ],
)
def test_mistakes(arguments: list[str], said: str, tmp_path: Path) -> None:
    """What I ask for and cannot have is refused, with what to write instead."""
    assert why(tmp_path, *arguments)[:3] == (2, "", f"error: {said}\n")


def test_table(tmp_path: Path) -> None:
    """In the table the state is short: how often it ended so, a signal without its exit code. -o wide has all columns."""
    rows = [orjson.loads(line) for line in why(tmp_path, "-A", "-o", "json")[1].splitlines()]
    assert {each["pod"]: each["state"] for each in rows} == {
        "cart-0": "exited 1 ×3", "web-0": "SIGKILL", LONG: "exited 1"}  # fmt: skip
    header, *_ = why(tmp_path, "-A", "-o", "wide")[1].splitlines()
    assert header.split() == ["ENDED", "NAMESPACE", "POD", "CONTAINER", "STATE", "WHY"]


@pytest.mark.parametrize(
    ("since", "said"), [("1ms", "nothing ended badly in the last 1.0ms\n"), ("0", "nothing ended badly\n")]
)
def test_empty_table(since: str, said: str, tmp_path: Path) -> None:
    """If nothing ended badly I am told so, without the header of a table that has no rows."""
    selected = ["-n", "nowhere"] if since == "0" else []
    with FakeRecorder(tmp_path, [] if selected else RUNS) as agent:
        done = run_cli("why", "-A", "--since", since, "--agent", agent.address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)


def test_one_namespace(tmp_path: Path) -> None:
    """With -A and -n I get the table of the bad ends in that namespace."""
    for namespace, shown in (("shop", 3), ("bank", 0)):
        code, out, err, _ = why(tmp_path, "-A", "-n", namespace, "-o", "json")
        assert (code, len(out.splitlines())) == (0, shown), err
