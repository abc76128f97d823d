"""Readings as rows of a table, where containers try to keep others out of it."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from math import inf

from agent.readers import Reading
from agent.run.readings import collect
from gadget import catalog

MOUNTS = catalog.find("snapshot_mounts").schema
HOSTILE, OTHER = 7, 8


def mounts(cgroup: int, count: int, letters: int) -> Iterator[Reading]:
    text = b"x" * letters
    names = ("root", "target", "options", "type", "source", "fs_options")
    return (Reading(cgroup, {"id": at, **dict.fromkeys(names, text)}) for at in range(count))


def test_room_for_others() -> None:
    """A container with as many and as long mounts as it may have leaves room for those of others, and its loss is told."""
    lost = Counter[int]()
    rows = collect(MOUNTS, itertools.chain(mounts(HOSTILE, 4096, 1024), mounts(OTHER, 47, 8)), lost, inf)
    assert sum(int((part.view(MOUNTS.dtype(part.shape[1]))["cgroup_id"] == OTHER).sum()) for part in rows) == 47
    assert lost[HOSTILE] > 0 == lost[OTHER]


def test_words_and_texts() -> None:
    """A reader's words of an enum, and its texts, become what the gadget's C file says of its rows."""
    reading = Reading(OTHER, {"id": 17, "propagation": "shared slave", "target": b"/data"})
    (row,) = collect(MOUNTS, [reading], Counter(), inf)
    values = row.view(MOUNTS.dtype(row.shape[1]))[0, 0]
    assert (values["cgroup_id"], values["id"]) == (OTHER, 17)
    assert MOUNTS["propagation"].values[str(values["propagation"])] == "shared slave"
    assert row[0, MOUNTS.text_offset :].tobytes().rstrip(b"\0") == b"/data"


def test_no_time() -> None:
    """A look that takes too long ends there: the agent's thread does not stall, and the table is told to be incomplete."""
    looked = []

    def endless() -> Iterator[Reading]:
        for at in itertools.count():
            assert at < 17
            looked.append(at)
            yield Reading(HOSTILE, {})

    lost = Counter[int]()
    assert collect(MOUNTS, endless(), lost, time.monotonic() - 1) == []
    assert looked == [0] and lost == {HOSTILE: 1}
