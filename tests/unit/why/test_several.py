"""`why -A` where agents do not answer for all of what they listed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.stream.request import make_selection
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.several import Reason, reasons
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.traceloop.replies import record, reply


def ends(*pods: str) -> list[pb.TraceloopItem]:
    """Recordings of containers that have just exited with 1."""
    now = time.time_ns()
    return [
        item(pod, "app", f"id{at}", cgroup=at, status=256, known=True, ended_ns=now, started_ns=now - 10**9)
        for at, pod in enumerate(pods, 1)
    ]


def told(found: list[Instance]) -> dict[str, Reason]:
    """What is told, by pod."""
    everywhere = make_selection((), True, (), (), "")
    return {each.pod: each for each in reasons(found, everywhere, 3600)}


def instances(recorder: FakeRecorder) -> list[Instance]:
    agent = Agent(recorder.address, recorder.address)
    return [Instance(agent, "node-a", each) for each in recorder.items.values()]


def test_made_room(tmp_path: Path) -> None:
    """An end whose recording went while I asked for it is told as such, and the others with their reason."""
    missing = record(1, name="open", text=b"/etc/cart.yaml", args=[1], result=-2)
    with FakeRecorder(tmp_path, ends("cart", "web"), [reply(missing)]) as recorder:
        found = instances(recorder)
        del recorder.items[2]
        rows = told(found)
    assert "/etc/cart.yaml" in rows["cart"].why
    assert rows["web"].why == "its recording has made room for another meanwhile"
    assert rows["web"].state == "exited 1"


def test_damaged(tmp_path: Path) -> None:
    """A recording that makes no sense is told as such for its own container alone, and no end goes missing."""
    missing = record(1, name="open", text=b"/etc/cart.yaml", args=[1], result=-2)
    with FakeRecorder(tmp_path, ends("cart", "web"), [reply(missing)]) as recorder:
        recorder.damaged = {1}
        rows = told(instances(recorder))
    assert rows["cart"].finding is None and recorder.address in rows["cart"].why
    assert "/etc/cart.yaml" in rows["web"].why


def test_gone_agent(tmp_path: Path) -> None:
    """The ends of a node whose agent has gone are told with the reason that they have no reason."""
    with FakeRecorder(tmp_path, ends("cart")) as recorder:
        gone = Agent("node-b", f"unix://{tmp_path}/gone.sock")
        (other,) = instances(recorder)
        names = pb.Container(namespace="shop", pod="web", container="app", cgroup_id=9)
        lost = pb.TraceloopItem(container=names, status=256, known=True, ended_ns=time.time_ns())
        rows = told([other, dataclasses.replace(other, agent=gone, item=lost)])
    assert rows["cart"].finding and rows["web"].finding is None
    assert rows["web"].why.startswith("node-b: ")
