"""Streams in files: what the agents sent, word for word, to be shown again later.

Format: RecordingEntry in proto/gadget/v1/gadget.proto, described in docs/recordings.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unsupported, UsageError
from gadget.recorded import MAGIC, header, packed
from kubectl_gadget.agents import wire
from kubectl_gadget.private import empty, open_private
from kubectl_gadget.stream.streams import Ended, Message
from kubectl_gadget.tell import tell


class Writer:
    """Writes a recording. A context manager, which raises GadgetError in the end if the recording is not complete.

    A file that exists is replaced when the first agent answers. A full disk ends the recording, not the stream: the
    user is told, and later events are counted.
    """

    def __init__(self, path: Path, gadget: str, kinds: Mapping[str, bool] | None = None) -> None:
        """Prepare a recording of gadget, or of a story of kinds, at path. GadgetError if that is not possible."""
        self._path = path
        self._failed, self._missing = "", 0
        self._early: list[pb.RecordingEntry] | None = [header(gadget, kinds)]
        self._made = not path.exists()
        try:
            self._file = open_private(path)
        except OSError as error:
            raise GadgetError(f"--record {path}: {error.strerror}") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._close()
        if self._early is not None and self._made:
            self._path.unlink(missing_ok=True)
        if self._failed:
            missing = "1 event is" if self._missing == 1 else f"{self._missing} events are"
            what = f"is not complete: {missing} not in it" if self._missing else "may not be complete"
            text = f"--record {self._path}: {self._failed}: the recording {what}"
            if kind is None:
                raise GadgetError(text)
            tell(f"warning: {text}")

    def keep(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The same messages, written as they pass."""
        for target, message in messages:
            if isinstance(message, pb.RunReply | Ended):
                self._write(_entry(target, message))
            yield target, message
        self._write(pb.RecordingEntry(end=pb.RecordedEnd()))

    def _write(self, entry: pb.RecordingEntry) -> None:
        entries = [entry]
        if self._early is not None:
            entries = [*self._early, entry]
            self._early = None if entry.WhichOneof("what") == "reply" else entries
            if self._early:
                return
        if not self._failed:
            try:
                if len(entries) > 1:
                    self._begin()
                for each in entries:
                    _write(self._file, each)
            except OSError as error:
                self._failed = error.strerror or str(error)
                tell(f"warning: --record {self._path}: {self._failed}: the recording ends here")
                self._close()
        if self._failed:
            self._missing += sum(section.count for section in entry.reply.reply.batch.sections)

    def _begin(self) -> None:
        empty(self._file)
        self._file.write(MAGIC)

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # without this, the rest of the entry would be tried again
            self._failed = self._failed or error.strerror or str(error)


def _entry(target: str, message: pb.RunReply | Ended) -> pb.RecordingEntry:
    if isinstance(message, Ended):
        error = str(message.error) if message.error else ""
        lacks = isinstance(message.error, Unsupported | UsageError)
        end = pb.RecordedEnd(target=target, error=error, heard_ns=message.heard_ns, unsupported=lacks)
        return pb.RecordingEntry(end=end)
    return pb.RecordingEntry(reply=pb.RecordedReply(target=target, reply=message))


def _write(file: BinaryIO, entry: pb.RecordingEntry) -> None:
    file.write(packed(entry))
    file.flush()


class Recording:
    """A recording to read. complete says, once it has been read, whether its end was there."""

    def __init__(self, path: Path) -> None:
        """Open the file at path, standard input for -, and read its header. GadgetError if it is no recording."""
        self.path = path
        self.complete = False
        try:
            self._file = sys.stdin.buffer if str(path) == "-" else path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        magic = self._read(len(MAGIC))
        if re.fullmatch(rb"gadget[2-9]\n", magic):
            raise UsageError(f"{path}: made by a newer version of kubectl gadget: update this one")
        entry = self._next() if magic == MAGIC else None
        if entry is None or entry.WhichOneof("what") != "header":
            raise UsageError(f"{path}: not a recording made by --record, or cut before its first event")
        self.header = entry.header

    def __iter__(self) -> Iterator[Message]:
        """The messages, up to where the file is cut."""
        while (entry := self._next()) is not None:
            if entry.WhichOneof("what") == "reply":
                yield entry.reply.target, entry.reply.reply
            elif entry.end.target:
                kind = Unsupported if entry.end.unsupported else GadgetError
                error = kind(entry.end.error) if entry.end.error else None
                yield entry.end.target, Ended(entry.end.target, error, entry.end.heard_ns)
            elif entry.WhichOneof("what") == "end":
                self.complete = True
                return

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise GadgetError(f"{self.path}: {error.strerror}") from None

    def _next(self) -> pb.RecordingEntry | None:
        """The next entry; None where the file ends or makes no sense."""
        length = shift = 0
        while byte := self._read(1):
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if not byte[0] & 0x80:
                break
            if shift > 28:
                return None
        if not byte or length > wire.LARGEST:
            return None
        data = self._read(length)
        try:
            return wire.parse(pb.RecordingEntry, data)[0] if len(data) == length else None
        except ValueError:
            return None
