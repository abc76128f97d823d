"""Programs that share the hooks of system calls: which calls they want, and who gets which place."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from agent.bpf import calls
from agent.bpf.bpf_object import BpfObject
from agent.bpf.calls import Lanes
from agent.bpf.objects import OBJECTS, read_object

BPF = Path(__file__).parents[2] / "bpf"
#: They want every call, or have numbers beyond the table.
ALL_CALLS = {"calls", "detect", "syscall-latency", "syscalls", "syscalltop", "traceloop"}


def test_who_hooks_calls() -> None:
    """A gadget about some system calls names them in a table, so that the others do not pay for it."""
    hooks = {
        path.parent.name: path.read_text()
        for path in BPF.glob("*/*.bpf.c")
        if re.search(r'^SEC\("tp_btf/sys_(enter|exit)"\)', path.read_text(), re.M)
    }
    assert {name for name, text in hooks.items() if not re.search("^(CALLS|SOCKET_CALL)", text, re.M)} == ALL_CALLS
    for name in hooks:
        with BpfObject(read_object(name), name) as program:
            wanted = program.calls()
        assert bool(wanted) == (name not in ALL_CALLS)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_calls_of_a_gadget(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls are those of 64-bit and of 32-bit programs, on each machine."""
    numbers = {"x86_64": [42, 512 + 362], "aarch64": [203, 512 + 283]}  # connect(2)
    elf = (OBJECTS / machine / "tcpconnect.bpf.o").read_bytes()
    with BpfObject(elf, "tcpconnect") as program:
        assert program.calls() == numbers[machine]


class FakeLane:
    """Keeps who has which call."""

    made = 0

    def __init__(self, hook: str) -> None:
        type(self).made += 1
        self.hook, self.who, self.log = hook, dict[int, int](), list[str]()
        self.object = self

    @property
    def taken(self) -> set[int]:
        return set(self.who)

    def give(self, wanted: set[int], program: int) -> None:
        assert not wanted & self.taken
        if program < 0:
            raise OSError
        self.who |= dict.fromkeys(wanted, program)

    def take_back(self, wanted: set[int]) -> None:
        for call in wanted:
            self.who.pop(call, None)

    def attach(self) -> None:
        assert self.who, "nobody would see what comes before"

    def close(self) -> None:
        self.log.append("closed")

    def missed(self) -> int:
        return 3


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Lanes:
    monkeypatch.setattr(calls, "Lane", FakeLane)
    return Lanes()


def shown(lanes: Lanes, hook: str = "exit") -> list[dict[int, int]]:
    return [dict(sorted(lane.who.items())) for lane in lanes._of.get(hook, [])]


def test_places(lanes: Lanes) -> None:
    """Who wants other calls shares a lane; who wants the same ones takes another, and only for these."""
    first = lanes.attach("exit", 1, {5, 6})
    second = lanes.attach("exit", 2, {6, 7})
    third = lanes.attach("exit", 3, {8})
    assert shown(lanes) == [{5: 1, 6: 1, 7: 2, 8: 3}, {6: 2}]
    lanes.attach("enter", 4, {5})
    assert shown(lanes, "enter") == [{5: 4}]
    first.leave()
    assert shown(lanes) == [{7: 2, 8: 3}, {6: 2}]
    lanes.attach("exit", 5, {6})
    assert shown(lanes) == [{6: 5, 7: 2, 8: 3}, {6: 2}]
    second.leave()
    assert shown(lanes) == [{6: 5, 8: 3}]  # an empty lane ends
    third.leave()
    third.leave()
    assert shown(lanes) == [{6: 5}]


def test_no_place(lanes: Lanes) -> None:
    """A program that cannot be put in leaves nothing behind, and others where they are."""
    lanes.attach("exit", 1, {5})
    with pytest.raises(OSError):
        lanes.attach("exit", -1, {5, 6})
    assert shown(lanes) == [{5: 1}]


def test_missed(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lane missed since a program is in it is told as missed by the program."""
    lanes.attach("exit", 1, {5})
    seat = lanes.attach("exit", 2, {5, 6})
    assert seat.missed() == 0
    monkeypatch.setattr(FakeLane, "missed", lambda _: 5)
    assert seat.missed() == 4  # two lanes


def test_asked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` does not wait for a program that is being put in."""
    lanes, told = Lanes(), list[list[object]]()

    class Asked(FakeLane):
        def __init__(self, hook: str) -> None:
            super().__init__(hook)
            asking = threading.Thread(target=lambda: told.append([*lanes.programs()]), daemon=True)
            asking.start()
            asking.join(10)

        def programs(self) -> list[tuple[str, str]]:
            return [(self.hook, "program")]

    monkeypatch.setattr(calls, "Lane", Asked)
    lanes.attach("exit", 1, {5})
    lanes.attach("exit", 2, {5})
    assert told == [[], [("exit", "program")]]
