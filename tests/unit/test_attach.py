"""How programs are attached, by the section that they are in."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.bpf.attach import KINDS, Where, cgroups, iterators, itself, kind_of, samples

BPF = Path(__file__).parents[2] / "bpf"


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("tp_btf/sys_exit", itself),
        ("fentry/tcp_connect", itself),
        ("cgroup_skb/egress", cgroups),
        ("cgroup/connect4", cgroups),
        ("perf_event", samples),
        ("iter/task_file", iterators),
        ("kprobe/tcp_connect", None),
        ("", None),
    ],
)
def test_kinds(section: str, kind: object) -> None:
    """A section belongs to one kind, or to none."""
    assert kind_of(section) is kind
    assert sum(each.takes(section) for each in KINDS) == (kind is not None)


def test_every_section() -> None:
    """Somebody knows how to attach each of our programs."""
    sections = {
        section for path in BPF.rglob("*.[ch]") for section in re.findall(r'^SEC\("([^"]+)"\)', path.read_text(), re.M)
    }
    assert len(sections) > 10
    assert all(map(kind_of, sections))


def test_online(tmp_path: Path) -> None:
    """Samples come from the CPUs that are online."""
    (tmp_path / "online").write_text("0-2,5,8-9\n")
    assert samples.online(tmp_path / "online") == [0, 1, 2, 5, 8, 9]


@pytest.mark.parametrize("hz", [0, -1, samples.MOST_HZ + 1])
def test_senseless_rates(hz: int) -> None:
    """A rate that makes no sense is refused before anything is attached."""
    with pytest.raises(OSError, match="samples a second are 1 to 1000"):
        list(samples.attach(0, Where(hz=hz)))


def test_no_cgroup() -> None:
    """A program for packets cannot be attached to nothing."""
    with pytest.raises(OSError, match="no cgroup"):
        list(cgroups.attach(0, Where()))


def test_a_million_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """An iterator that has nothing to say of a million things goes on: the kernel only asks whether it is to."""
    reads = iter([BlockingIOError(), b"", BlockingIOError()])

    def read(fd: int, size: int) -> bytes:
        found = next(reads)
        if isinstance(found, BaseException):
            raise found
        return found

    calls = SimpleNamespace(
        bpf_program__section_name=lambda program: b"iter/task",
        bpf_program__attach=lambda program: 1,
        bpf_link__fd=lambda link: 2,
        bpf_iter_create=lambda fd: 3,
    )
    monkeypatch.setattr(iterators.libbpf, "library", lambda: calls)
    monkeypatch.setattr(iterators.os, "read", read)
    monkeypatch.setattr(iterators.os, "close", lambda fd: None)
    assert list(iterators.attach(0, Where())) == [1]
    assert len(list(reads)) == 1
