"""Agents that are asked at once, of which some are slow."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.at_once import answers
from tests.conftest import CLI, wait_until
from tests.terminal import Terminal
from tests.unit.traceloop.fake import FakeRecorder, item


class Slow(FakeRecorder):
    """An agent that does not answer before it has to."""

    def __init__(self, *about: Any) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        super().__init__(*about)

    def TraceloopList(self, request: pb.TraceloopListRequest, context: Any) -> pb.TraceloopListReply:
        """Wait."""
        self.asked.set()
        self.go.wait(30)
        return super().TraceloopList(request, context)


@pytest.mark.parametrize("command", [["why"], ["why", "-A"], ["traceloop", "list"]])
def test_interrupted(command: list[str], tmp_path: Path, start_cli: Any) -> None:
    """Ctrl-C ends `why` at once, although an agent has not answered yet."""
    with Slow(tmp_path, [item("cart-0", "app", "ab12")]) as agent:
        cli = start_cli(*command, "--agent", agent.address)
        wait_until(agent.asked.is_set, "the question")
        began = time.monotonic()
        out, err = cli.finish(signal.SIGINT)
        assert (out, err.strip(), cli.process.returncode) == ("", "", 130)
        assert time.monotonic() - began < 5
        agent.go.set()


def test_waits_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """If agents are slow I am told for which I wait; what all of them answer comes in order."""

    def slow() -> int:
        time.sleep(0.5)  # the slowness that is tested
        return 3

    slow_ones = {f"node-{name}": slow for name in "bcdef"}
    assert answers({"node-a": lambda: 7, **slow_ones}, silent_seconds=0.05) == [7, 3, 3, 3, 3, 3]
    assert capsys.readouterr().err == "waiting for node-b, node-c, node-d and 2 more\n"
    assert answers({"node-a": slow, "node-b": slow}, {"node-b"}, 0.05) == [3, 3]
    assert capsys.readouterr().err == "waiting for node-b\n"
    assert answers({"node-a": lambda: 7}) == [7]
    assert capsys.readouterr().err == ""


def test_waits_go_from_a_terminal(tmp_path: Path) -> None:
    """On a terminal the line that tells for whom I wait is gone once the answer is there."""
    with (
        Slow(tmp_path, [item("cart-0", "app", "ab12")]) as agent,
        Terminal(str(CLI), "traceloop", "list", "--agent", agent.address) as shown,
    ):
        wait_until(lambda: "waiting for" in shown.raw, "the line")
        agent.go.set()
        shown.wait()
        assert "\x1b[1A\r\x1b[J" in shown.raw.partition("waiting for")[2].partition("cart-0")[0]
