"""What `why` tells of how it is now: what is asked, and what is made of the answer."""

from __future__ import annotations

import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.facts import Component, Facts, FileUser, MountUsage, NodeFacts
from kubectl_gadget.why.judge import judge
from kubectl_gadget.why.live import in_its_place, node_of, with_node
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.why.stories import Story, address

DIR, FILE, FIFO = 0o040755, 0o100644, 0o010644
ENDED = item("cart-0", "app", "e" * 64, ended_ns=2, status=256, started_ns=1)
RUNNING = item("cart-0", "app", "f" * 64, cgroup=8, running=True, started_ns=3)


def missing(path: str = "/etc/cart/prices.yaml") -> Story:
    return Story().works().opens(path).says(f"fatal: {path}: no such file\n").exits(1)


def details(story: Story, live: NodeFacts) -> list[str]:
    """What is told below the first finding."""
    return list(judge(story.facts(live=live))[0].details)


def part(path: str, mode: int = DIR, **more: Any) -> Component:
    return Component(path, True, mode, **more)


def gone(path: str, **more: Any) -> Component:
    return Component(path, False, **more)


def failing(call: str, error: str, text: str, *args: int, **texts: Any) -> Story:
    found = {int(name[1:]): each for name, each in texts.items()}
    return Story().works().call(call, *args, result=error, texts=found).says(text).exits(1)


OPEN = "/etc/cart/prices.yaml"
NODES: dict[str, tuple[Story, NodeFacts, list[str]]] = {
    "another name": (
        missing(), NodeFacts({OPEN: (part("/etc"), part("/etc/cart"), gone(OPEN, names=("prices.yml",)))}),
        ["the folder /etc/cart exists; it has prices.yml"],
    ),
    "an empty folder": (
        missing(), NodeFacts({OPEN: (part("/etc"), part("/etc/cart"), gone(OPEN))}), ["the folder /etc/cart exists, without it"],
    ),
    "no folder": (
        missing(), NodeFacts({OPEN: (part("/etc"), gone("/etc/cart", names=("card",)))}), ["the folder /etc exists; it has card"],
    ),
    "a file where a folder should be": (
        missing(), NodeFacts({OPEN: (part("/etc"), part("/etc/cart", FILE), gone(OPEN))}), ["/etc/cart is no folder"],
    ),
    "a link that leads nowhere": (
        missing(), NodeFacts({OPEN: (part("/etc"), gone("/etc/cart", link="/mnt/cart"))}),
        ["/etc/cart is a link to /mnt/cart, which is not there"],
    ),
    "there by now": (missing(), NodeFacts({OPEN: (part("/etc"), part(OPEN, FILE))}), [f"{OPEN} is there now"]),
    "the folder that refuses": (
        failing("openat", "EACCES", "prices.yaml: permission denied\n", 0xFFFFFF9C, _1=OPEN),
        NodeFacts({OPEN: (part("/etc"), part("/etc/cart", 0o040750, uid=101, gid=102), part(OPEN, FILE))}, identity=FileUser(1000, 1000)),
        ["/etc/cart has mode 0750, owner 101:102; it runs as 1000:1000"],
    ),
    "the file that refuses": (
        failing("openat", "EACCES", "prices.yaml: permission denied\n", 0xFFFFFF9C, _1=OPEN),
        NodeFacts({OPEN: (part("/etc"), part("/etc/cart", 0o040750, gid=102), part(OPEN, 0o100600))},
             identity=FileUser(1000, 1000, frozenset([102]))),
        [f"{OPEN} has mode 0600, owner 0:0; it runs as 1000:1000"],
    ),
    "read-only": (
        failing("openat", "EROFS", "x: read-only file system\n", 0xFFFFFF9C, _1="/x"),
        NodeFacts({"/x": (gone("/x"),)}, mounts={"/x": MountUsage("/", read_only=True)}), ["/ is mounted read-only"],
    ),
    "a full disk": (
        failing("openat", "ENOSPC", "/tmp/x: no space left\n", 0xFFFFFF9C, _1="/tmp/x"),
        NodeFacts({"/tmp/x": (part("/tmp"),)}, mounts={"/tmp/x": MountUsage("/tmp", total_bytes=64 << 20)}),
        ["0 bytes free of 64 MiB at /tmp"],
    ),
    "no inodes": (
        failing("openat", "ENOSPC", "/tmp/x: no space left\n", 0xFFFFFF9C, _1="/tmp/x"),
        NodeFacts({}, mounts={"/tmp/x": MountUsage("/tmp", False, 1 << 20, 2 << 20, 0, 1024)}), ["0 of 1,024 inodes are free at /tmp"],
    ),
    "descriptors": (
        failing("openat", "EMFILE", "x: too many open files\n", 0xFFFFFF9C, _1="/x"),
        NodeFacts(limits={"nofile": 1024}, used={"nofile": 1024}),
        ["open files of a process (RLIMIT_NOFILE): limit 1,024, all in use"],
    ),
    "processes": (
        failing("clone", "EAGAIN", "can't fork\n"), NodeFacts(limits={"pids": 32}, used={"pids": 7}),
        ["processes and threads of its cgroup (pids.max): limit 32, 7 in use now"],
    ),
    "memory": (
        failing("mmap", "ENOMEM", "cannot allocate memory\n"), NodeFacts(limits={"memory": 48 << 20}, used={"memory": 3 << 19}),
        ["memory of its cgroup: limit 48 MiB, 1.5 MiB in use now"],
    ),
    "who listens there": (
        failing("bind", "EADDRINUSE", "address in use\n", 3, 0, 16, _1=address("0.0.0.0:80")),
        NodeFacts(listeners={80: "PID 12 (nginx)"}), ["PID 12 (nginx) listens there"],
    ),
    "who listens there now": (
        failing("connect", "ECONNREFUSED", "127.0.0.1:80: refused\n", 3, 0, 16, _1=address("127.0.0.1:80")),
        NodeFacts(listeners={80: "PID 12 (nginx)"}), ["PID 12 (nginx) listens there now"],
    ),
    "elsewhere nobody knows": (
        failing("connect", "ECONNREFUSED", "10.0.0.1:80: refused\n", 3, 0, 16, _1=address("10.0.0.1:80")),
        NodeFacts(listeners={80: "PID 12 (nginx)"}), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_how_it_is_now(name: str) -> None:
    """Below the sentence I read how what it is about is now: what is there, whose it is, what is in use of a limit."""
    story, live, expected = NODES[name]
    assert details(story, live) == expected


def hang(story: Story, live: NodeFacts) -> str:
    """What it waits for."""
    return judge(story.facts(live=live))[0].sentence


def test_hangs() -> None:
    """Of what hangs I am told on whom: the holder of the lock, the child, the peer, the FIFO."""
    story = Story().hangs("futex", 0x7F00, 128, 2)
    assert "a lock that thread 9 (worker) holds" in hang(story, NodeFacts(holders={100: "thread 9 (worker)"}))
    story = Story().hangs("wait4", 0xFFFFFFFF)
    assert hang(story, NodeFacts(children={100: "PID 9 (sleep)"})).endswith("for a child to end, PID 9 (sleep)")
    story = Story().hangs("poll", 0x7F00, 1, 0xFFFFFFFF)
    polled = NodeFacts(waits={100: ("socket 10.0.0.5:6379",)})
    assert hang(story, polled).endswith("for 10.0.0.5:6379, which sends nothing")
    story = Story().hangs("openat", 0xFFFFFF9C, 0x7F00, 0, texts={1: "/tmp/jobs"})
    fifo = NodeFacts({"/tmp/jobs": (part("/tmp"), part("/tmp/jobs", FIFO))})
    assert hang(story, fifo).endswith("in an open of /tmp/jobs, a FIFO that nobody has opened at its other end")
    assert "in an open of /tmp/jobs: of a FIFO" in hang(story, NodeFacts())
    story = Story().hangs("connect", 5, 0x7F00, 16, texts={1: address("10.0.0.5:80")})
    assert hang(story, NodeFacts()).endswith("for 10.0.0.5:80 to answer its connect")
    story = Story().hangs("read", 5, 0x7F00, 1)
    assert hang(story, NodeFacts(descriptors={(100, 5): "socket "})).endswith("in a read from descriptor 5")
    assert hang(story, NodeFacts(descriptors={(100, 5): "socket 10.0.0.5:80"})).endswith(
        "for 10.0.0.5:80, which sends nothing"
    )


class Answering(FakeRecorder):
    """An agent that answers about containers."""

    asked: pb.InspectRequest

    def Inspect(self, request: pb.InspectRequest, context: grpc.ServicerContext) -> pb.InspectReply:
        """That the folder is there."""
        self.asked = request
        parts = [pb.Component(path="/etc", exists=True, mode=DIR), pb.Component(path=OPEN, names=["prices.yml"])]
        return pb.InspectReply(paths=[pb.InspectedPath(components=parts)], missing=["sockets: \x1b[31m"])


def instance(agent: FakeRecorder, which: pb.TraceloopItem) -> Instance:
    return Instance(Agent(agent.address, agent.address), "node-a", which)


def test_asks_the_one_in_its_place(tmp_path: Path) -> None:
    """Of a container that ended the one is asked that runs in its place, about the files that the first findings name."""
    with Answering(tmp_path, [ENDED, RUNNING]) as agent:
        others = [instance(agent, each) for each in (ENDED, RUNNING)]
        facts = with_node(missing().facts(), others[0], others)
    assert (agent.asked.cgroup_id, list(agent.asked.paths)) == (8, [OPEN])
    assert judge(facts)[0].details == ("the folder /etc exists; it has prices.yml",)
    assert list(facts.missing) == ["how it is now: sockets: \\x1b[31m"]


def test_nothing_runs(tmp_path: Path) -> None:
    """If nothing runs in its place I am told that nobody knows how it is now; if nothing is to be asked, nothing."""
    other = item("cart-1", "app", "f" * 64, cgroup=8, running=True)
    with Answering(tmp_path, [ENDED, other]) as agent:
        others = [instance(agent, each) for each in (ENDED, other)]
        told = "how it is now: not looked at, as it no longer runs"
        assert with_node(missing().facts(), others[0], others).missing == (told,)
        assert with_node(Story().exits(0).facts(), others[0], others).missing == ()


def test_older_agent(tmp_path: Path) -> None:
    """With an older agent `why` works, and says what it cannot tell."""
    with FakeRecorder(tmp_path, [RUNNING]) as agent:
        one = instance(agent, RUNNING)
        facts = with_node(Story().hangs("read", 5).facts(), one, [one])
    assert facts.missing == ("how it is now: the agent of node-a is older and cannot tell",)
    assert facts.live is None


def test_silent_agent(tmp_path: Path) -> None:
    """An agent that does not answer soon is not waited for."""
    over = threading.Event()

    class Silent(FakeRecorder):
        """One that takes its time."""

        def Inspect(self, request: pb.InspectRequest, context: grpc.ServicerContext) -> pb.InspectReply:
            """Late."""
            over.wait(30)
            return pb.InspectReply()

    with Silent(tmp_path, [RUNNING]) as agent:
        one = instance(agent, RUNNING)
        began = time.monotonic()
        facts = with_node(Story().hangs("read", 5).facts(), one, [one], seconds=0.2)
        assert time.monotonic() - began < 15
        over.set()
    assert facts.live is None and len(facts.missing) == 1


def test_in_its_place() -> None:
    """In the place of a container is the newest that runs under its name; outside pods on the same machine alone."""
    agent = Agent("a", "a")
    bare = item("", "app", "a" * 64, namespace="", ended_ns=2)
    elsewhere = item("", "app", "b" * 64, namespace="", cgroup=9, running=True)
    instances = [Instance(agent, "node-a", bare), Instance(agent, "node-b", elsewhere)]
    assert in_its_place(instances[0], instances) is None
    assert in_its_place(instances[1], instances) is instances[1]


def test_hostile_answer() -> None:
    """Whatever an agent answers, and whatever a container calls its peers, `why` has a sentence."""
    huge = (1 << 64) - 1
    reply = pb.InspectReply(
        paths=[
            pb.InspectedPath(components=[pb.Component(path="\x1b", mode=0xFFFFFFFF, link="\x1b", names=["\x1b"] * 99)])
        ]
        * 99,
        usages=[pb.Usage(name="nofile", limit=huge, used=huge), pb.Usage(name="\x1b")],
        listeners=[pb.Listener(port=0xFFFFFFFF)],
        waits=[pb.Wait(pid=1, tid=1, kind="\x1b", holder=pb.Task(), child=pb.Task(comm="\x1b"))],
        identity=pb.Identity(uid=0xFFFFFFFF, capabilities=huge),
    )
    peer = struct.pack("<H", 1) + f"x:{'9' * 5000}".encode()
    for story in (
        missing(),
        failing("connect", "ECONNREFUSED", "refused\n", 3, 0, 16, _1=peer),
        failing("bind", "EADDRINUSE", "in use\n", 3, 0, 16, _1=peer),
    ):
        facts = story.facts()
        with_it: Facts = replace(facts, live=node_of(reply, [OPEN]))
        assert all(text.isprintable() for found in judge(with_it) for text in (found.sentence, *found.details))
