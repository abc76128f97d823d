"""What a value means, by the name that its typedef in C has: how it is decoded, shown, compared and completed.

One class for each kind, and the name of a kind nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path as Folder

from gadget.kinds.base import Compared, Cut, Encoding, Kind, Total
from gadget.kinds.containers import OtherContainer
from gadget.kinds.ends import Address, End, SomeEnd
from gadget.kinds.histograms import HISTOGRAM, BucketBound
from gadget.kinds.lists import ListOf
from gadget.kinds.numbers import (
    Bool,
    Call,
    CgroupId,
    Enum,
    Errno,
    Flags,
    Id,
    Int,
    KnownCount,
    KnownSize,
    Mode,
    Objects,
    Percent,
    Pid,
    Rate,
    Set,
    Share,
    Signal,
    Size,
    SomeSize,
    Words,
)
from gadget.kinds.texts import (
    AbsolutePath,
    Args,
    Chars,
    Comm,
    FullPath,
    Identity,
    Name,
    Path,
    ShortId,
    String,
    Text,
    Word,
)
from gadget.kinds.times import Age, Duration, LatestDuration, LongestDuration, Moment, Timestamp

__all__ = [
    "BOOL",
    "CGROUP_ID",
    "CHARS",
    "CONTAINER",
    "ENDPOINT",
    "ENUM",
    "HISTOGRAM",
    "INT",
    "KINDS",
    "STRUCT",
    "TIMESTAMP",
]
__all__ += ["Compared", "Cut", "Encoding", "Kind", "Total", "find", "list_of"]

#: Kinds that come from the shape of a record or from a type of C, not from a typedef.
BOOL, CHARS, ENUM, INT, STRUCT = Bool("bool"), Chars("chars"), Enum("enum"), Int("int"), Kind("struct")
CGROUP_ID, TIMESTAMP, ENDPOINT = CgroupId("cgroup_id"), Timestamp("timestamp"), End("endpoint")
CONTAINER = OtherContainer("container")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        BOOL,
        CHARS,
        ENUM,
        INT,
        STRUCT,
        CGROUP_ID,
        TIMESTAMP,
        ENDPOINT,
        CONTAINER,
        HISTOGRAM,
        AbsolutePath("absolute_path"),
        Address("address"),
        Age("age"),
        Args("args"),
        Call("syscall"),
        Comm("comm"),
        BucketBound("bucket_bound"),
        Duration("duration"),
        Errno("errno"),
        Flags("flags"),
        FullPath("full_path"),
        Id("gid"),
        Id("uid"),
        Identity("identity"),
        KnownCount("known_count"),
        KnownSize("known_size"),
        LatestDuration("latest_duration"),
        LongestDuration("longest_duration"),
        Mode("mode"),
        Moment("moment"),
        Name("name"),
        Objects("objects"),
        Path("path"),
        Percent("percent"),
        Pid("pid"),
        Rate("rate"),
        Set("set"),
        Share("share"),
        ShortId("short_id"),
        Signal("signal"),
        Size("size"),
        SomeEnd("some_endpoint"),
        SomeSize("some_size"),
        String("string"),
        Text("text"),
        Word("word"),
        Words("words"),
    )
}


def find(name: str) -> Kind:
    """The kind with that name. An unknown kind, from another version, is a plain number."""
    return KINDS.get(name) or _of_gadgets().get(name) or Kind(name)


@cache
def _of_gadgets() -> Mapping[str, Kind]:
    """Kinds that gadgets have in their folders: the build copies bpf/NAME/kinds.py beside the catalogue."""
    files = sorted((Folder(__file__).parents[1] / "_generated" / "kinds").glob("[!_]*.py"))
    modules = [import_module(f"gadget._generated.kinds.{file.stem}") for file in files]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def list_of(name: str) -> Kind:
    """The kind of a list of that kind."""
    return ListOf(find(name))


def in_c(alias: str) -> Kind:
    """The kind of a typedef gadget_ALIAS."""
    last = find(alias.rpartition("_")[2])
    return last if last.is_family else find(alias)
