"""Lines of mountinfo, as containers can make them."""

from __future__ import annotations

import pytest

from agent.readers.snapshot_mounts import PRIVATE, SHARED, SHARED_SLAVE, SLAVE, UNBINDABLE, parse


@pytest.mark.parametrize(
    ("tags", "propagation"),
    [
        ("", PRIVATE),
        ("shared:3 ", SHARED),
        ("master:2 propagate_from:1 ", SLAVE),
        ("shared:3 master:2 ", SHARED_SLAVE),
        ("unbindable ", UNBINDABLE),
        ("new:7 ", PRIVATE),
    ],
)
def test_propagation(tags: str, propagation: int) -> None:
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
