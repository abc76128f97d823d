"""The format of a recording's file: MAGIC, then entries, each behind its length as a varint.

The entries are RecordingEntry of proto/gadget/v1/gadget.proto: a header, then replies of agents and ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING

from gadget import __version__

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: What a recording begins with; the digit is its version.
MAGIC = b"gadget1\n"
#: What the header of a story's recording names where others name their gadget.
STORY = "story"
#: Why a standing run lost what it was to keep: it made room for what was newer, or the disk did not take it.
OVERWRITTEN, NOT_KEPT = "overwritten", "could not be kept"


def header(gadget: str, kinds: Mapping[str, bool] | None = None) -> pb.RecordingEntry:
    """The first entry of a file. kinds are the kinds of a story, each with whether it is recorded in full."""
    from gadget._generated import gadget_pb2 as pb

    of_story = [pb.RecordedKind(kind=kind, in_full=in_full) for kind, in_full in (kinds or {}).items()]
    made = pb.RecordingHeader(gadget=gadget, version=__version__, began_ns=time.time_ns(), kinds=of_story)
    return pb.RecordingEntry(header=made)


def packed(entry: pb.RecordingEntry) -> bytes:
    """An entry as it stands in the file."""
    from google.protobuf.proto import serialize_length_prefixed

    made = BytesIO()
    serialize_length_prefixed(entry, made)
    return made.getvalue()


def entries(data: bytes) -> Iterator[tuple[pb.RecordingEntry, int]]:
    """Each whole entry of a part of a file, and where it ends; up to one that is cut off or makes no sense."""
    from google.protobuf.message import DecodeError
    from google.protobuf.proto import parse_length_prefixed

    from gadget._generated import gadget_pb2 as pb

    source = BytesIO(data)
    while True:
        try:
            entry = parse_length_prefixed(pb.RecordingEntry, source)
        except (DecodeError, EOFError, OverflowError, ValueError):
            return
        if entry is None or not entry.WhichOneof("what"):
            return
        yield entry, source.tell()
