"""What the recorder of system calls keeps of workloads."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from agent.syscalls.workloads import CallingWorkloads, SeenCalls, WorkloadContainer

CART = WorkloadContainer("shop", "Deployment/cart", "app")


def see(
    workloads: CallingWorkloads, cgroup_id: int, who: WorkloadContainer, calls: int, last: int = 7, older: bool = False
) -> None:
    workloads.see(workloads.come(cgroup_id, who, older), calls, 0, 3, last)


def test_restart(tmp_path: Path) -> None:
    """A new agent knows what the one before knew, and counts no container twice; after a reboot, too."""
    file = tmp_path / "state/workloads.json"
    before = CallingWorkloads(file, 10, boot="one")
    see(before, 1, CART, 0b1)
    see(before, 2, CART, 0b10, older=True)
    see(before, 1, CART, 0b100, last=9)
    before.forget(2)
    before.save()
    for boot, containers in (("one", 2), ("two", 3)):
        after = CallingWorkloads(file, 10, boot=boot)
        assert (after.began, after.found) == (before.began, {CART: SeenCalls(0b111, 0, 2, 1, 3, 9)})
        see(after, 1, CART, 0b1000)
        assert (after.found[CART].calls, after.found[CART].containers) == (0b1111, containers)


def test_owner_is_told_late() -> None:
    """A container whose owner is told late is that workload's alone."""
    workloads = CallingWorkloads(Path("/none/file"), 10)
    workloads.come(1, WorkloadContainer("shop", "Pod/cart-x", "app"), False)
    see(workloads, 1, CART, 1)
    assert [*workloads.found] == [CART]


def test_room(tmp_path: Path) -> None:
    """What is kept is bounded: the oldest of the namespace that has most goes, and is counted."""
    workloads = CallingWorkloads(tmp_path / "file", 3)
    see(workloads, 1, CART, 1, last=1)
    for number in range(2, 7):
        see(workloads, number, WorkloadContainer("web", f"Pod/run-{number}", "app"), 1, last=number)
    assert [who.workload for who in workloads.found] == ["Deployment/cart", "Pod/run-5", "Pod/run-6"]
    assert workloads.evicted == 3


@pytest.mark.parametrize(
    "change",
    [
        {"workloads": [[["a", "b", "c"], "zz", "0", 1, 1, 1, 1]]},
        {"workloads": [[["a", "b"], "1", "0", 1, 1, 1, 1]]},
        {"workloads": [[["a", "b", "c"], "1" * 129, "0", 1, 1, 1, 1]]},
        {"live": [["x", ["a", "b", "c"], False, False]]},
        {"began": -1},
        {"workloads": None},
    ],
)
def test_damaged_file(tmp_path: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file is told in a line, and the recorder goes on without."""
    file = tmp_path / "file"
    before = CallingWorkloads(file, 10)
    see(before, 1, CART, 1)
    before.save()
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), **change}))
    after = CallingWorkloads(file, 10)
    assert (after.found, after.live) == ({}, {}) and "system calls seen before are lost" in caplog.text


def test_full_disk(tmp_path: Path) -> None:
    """What cannot be saved is told, and saved later."""
    place = tmp_path / "state"
    place.write_text("in the way")
    workloads = CallingWorkloads(place / "file", 10)
    see(workloads, 1, CART, 1)
    workloads.save()
    assert workloads.problem
    place.unlink()
    workloads.save()
    assert not workloads.problem and CART in CallingWorkloads(place / "file", 10).found
