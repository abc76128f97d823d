"""Lines of mountinfo, as containers can make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent._generated.readers.snapshot_mounts import Reader, is_of_runtime, parse
from agent.containers.tracker import Cgroup


@pytest.mark.parametrize(
    ("tags", "propagation"),
    [
        ("", "private"),
        ("shared:3 ", "shared"),
        ("master:2 propagate_from:1 ", "slave"),
        ("shared:3 master:2 ", "shared slave"),
        ("unbindable ", "unbindable"),
        ("new:7 ", "private"),
    ],
)
def test_propagation(tags: str, propagation: str) -> None:
    """A mount's propagation is what its tags say, in any number, also of later kernels."""
    found = parse(f"36 35 98:0 /a /b rw,noatime {tags}- ext3 /dev/root rw,errors=continue".encode())
    assert found and found["propagation"] == propagation
    assert (found["root"], found["target"], found["source"]) == (b"/a", b"/b", b"/dev/root")


def test_odd_names() -> None:
    """Names with blanks, line ends and dashes are whole; a file system without a name or options has none."""
    found = parse(rb"1 2 0:1 / /a\040-\040b\012\134 rw - tmpfs  rw")
    assert found and (found["target"], found["source"]) == (b"/a - b\n\\", b"")
    assert parse(rb"1 2 0:1 / /\377 rw - tmpfs none")["target"] == b"/\xff"  # type: ignore[index]


@pytest.mark.parametrize("line", [b"", b"1 2 3", b"x 2 0:1 / /a rw - tmpfs none rw", b"1 2 0:1 / /a rw tmpfs none rw"])
def test_nonsense(line: bytes) -> None:
    """A line that makes no sense is left out."""
    assert parse(line) is None


def test_ends_of_lines(tmp_path: Path) -> None:
    """A carriage return in a name, which the kernel does not escape, hides no mount."""
    cgroup, process = tmp_path / "cgroup/pod", tmp_path / "proc/17"
    cgroup.mkdir(parents=True)
    process.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("17\n")
    (process / "stat").write_text(f"17 (app) S 1 {' '.join('0' * 30)}")
    (process / "mountinfo").write_bytes(b"1 2 0:1 / /a\rb rw - tmpfs none rw\n3 1 0:2 / /c rw - tmpfs none rw\n4 1 0:")
    found = Reader(tmp_path / "cgroup", tmp_path / "proc").read([Cgroup(7, None, 0, "/pod")])
    assert [each.values["target"] for each in found if each.values] == [b"/a\rb", b"/c"]


@pytest.mark.parametrize(
    ("mount", "of_runtime"),
    [
        ("/ /proc rw - proc proc rw", True),
        ("/sys /proc/sys ro - proc proc rw", True),
        ("/ /proc/acpi ro - tmpfs tmpfs ro", True),
        ("/null /proc/kcore rw - tmpfs tmpfs rw", True),
        ("/null /proc/keys rw - devtmpfs udev rw", True),
        ("/ /sys/fs/cgroup ro - cgroup2 cgroup rw", True),
        ("/ /dev rw - tmpfs tmpfs rw", True),
        ("/ /dev/shm rw - tmpfs shm rw", True),
        ("/zero /dev/zero rw - devtmpfs udev rw", True),
        ("/ / rw - overlay overlay rw", False),
        ("/pods/7/hosts /etc/hosts rw - ext4 /dev/sda rw", False),
        ("/ /dev/shm rw - tmpfs tmpfs rw", False),  # a volume in memory
        ("/ /dev rw - devtmpfs udev rw", False),  # the node's devices
        ("/sda /dev/sda rw - devtmpfs udev rw", False),
        ("/etc /proc/etc rw - ext4 /dev/sda rw", False),
        ("/ /sys/kernel/debug rw - debugfs debugfs rw", False),
        ("/ /process rw - proc proc rw", False),
        ("/ /proc/x rw - tmpfs tmpfs rw", False),
    ],
)
def test_what_runtimes_mount(mount: str, of_runtime: bool) -> None:
    """What every container has from its runtime is told from volumes and from what is of the node, wherever it is."""
    values = parse(f"36 35 0:17 {mount}".encode())
    assert values and is_of_runtime(values, b"app", of_node=False) == of_runtime


@pytest.mark.parametrize(
    ("mount", "of_runtime"),
    [
        ("/null /proc/keys rw - devtmpfs udev rw", True),
        ("/zero /dev/zero rw - devtmpfs udev rw", True),
        ("/ /dev/shm rw - tmpfs shm rw", True),  # the node has that of each pod
        ("/ /sys/fs/cgroup ro - cgroup2 cgroup rw", True),
        ("/kubepods/pod7/app /sys/fs/cgroup rw - cgroup2 cgroup rw", True),
        ("/ /sys/fs/cgroup rw - cgroup2 cgroup rw", False),
        ("/../../.. /sys/fs/cgroup rw - cgroup2 cgroup rw", False),
        ("/../app/inside /sys/fs/cgroup rw - cgroup2 cgroup rw", True),
        ("/kubepods /sys/fs/cgroup rw - cgroup2 cgroup rw", False),  # with those of others
        ("/kubepods/pod7/other /sys/fs/cgroup/unified rw - cgroup2 cgroup rw", False),
        ("/kubepods/pod7/other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids", False),
        ("/ /proc rw - proc proc rw", False),
        ("/sys /proc/sys ro - proc proc rw", False),
        ("/ /sys ro - sysfs sysfs rw", False),
        ("/ /dev/pts rw - devpts devpts rw", False),
        ("/3 /dev/console rw - devpts devpts rw", False),
        ("/containerd /sys/firmware ro - tmpfs tmpfs rw", False),  # with the runtime's socket
        ("/ /proc/acpi ro - tmpfs tmpfs rw", False),
        ("/ /sys/firmware ro - devtmpfs udev rw", False),  # with the node's disks
        ("/ /dev rw - tmpfs tmpfs rw", False),
    ],
)
def test_mounts_of_the_node(mount: str, of_runtime: bool) -> None:
    """A part of the node that a pod has mounted is not left out, though it is named and placed as runtimes do."""
    values = parse(f"36 35 0:17 {mount}".encode())
    assert values and is_of_runtime(values, b"app", of_node=True) == of_runtime


@pytest.mark.parametrize(
    ("of_node", "shown"),
    [
        (b"1 0 0:9 / / rw - ext4 /dev/sda rw\n", [b"/sys", b"/sys"]),
        (b"1 0 0:9 / / rw - ext4 /dev/sda rw\n2 1 0:1 / /proc rw - proc proc rw\n", [b"/proc", b"/sys", b"/sys"]),
        (None, [b"/proc", b"/sys", b"/sys"]),
    ],
)
def test_mounts_that_look_like_those_of_runtimes(tmp_path: Path, of_node: bytes | None, shown: list[bytes]) -> None:
    """A mount over one of the runtime's is shown, and so are all that may be the node's."""
    cgroup, process, first = tmp_path / "cgroup/pod", tmp_path / "proc/17", tmp_path / "proc/1"
    for folder in (cgroup, process, first):
        folder.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("17\n")
    (process / "stat").write_text(f"17 (app) S 1 {' '.join('0' * 30)}")
    lines = ["1 2 0:1 / /proc rw - proc proc rw", *(f"{at} 1 0:{at} / /sys ro - sysfs sysfs ro" for at in (3, 4))]
    (process / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    if of_node is not None:
        (first / "mountinfo").write_bytes(of_node)
    found = Reader(tmp_path / "cgroup", tmp_path / "proc").read([Cgroup(7, None, 0, "/pod")])
    assert [each.values["target"] for each in found if each.values and not each.values["runtime"]] == shown
