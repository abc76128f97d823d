"""What a standing run keeps: recordings in files of a folder, of which the oldest goes first.

A file is called NUMBER.BEFORE.gadget: BEFORE is how many events the run had seen before its first one, so that nothing
else has to be kept to tell how many are gone. Each begins with a Started, and names its containers itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.folders import own_folder, remove
from gadget._generated import gadget_pb2 as pb
from gadget.recorded import MAGIC, header, packed

SUFFIX = ".gadget"
#: Files that a history is of: so much of it goes at a time.
FILES = 8
LEAST_FILE_BYTES, MOST_FILE_BYTES = 64 << 10, 4 << 20
#: How often one who waits for more looks whether he still should.
LOOK_SECONDS = 0.25
#: One who follows hears so often that the run is watched, if it is.
BEAT_SECONDS = 1.0
OVERWRITTEN = "overwritten"


@dataclass
class File:
    """One file. before: events of the run that are older; size: bytes of whole entries."""

    number: int
    before: int
    path: Path
    size: int = 0
    events: int = 0
    first_ns: int = 0
    last_ns: int = 0


class History:
    """The files of one run. One thread writes, any number read."""

    def __init__(self, folder: Path, gadget: str, node: str, most: int) -> None:
        """Go on with what is in folder, or begin; keep so many bytes at most."""
        self._folder, self._gadget, self._node, self.most = folder, gadget, node, most
        self._file_bytes = min(max(most // FILES, LEAST_FILE_BYTES), MOST_FILE_BYTES)
        self._changed = threading.Condition()
        os.close(own_folder(folder))
        self._files: list[File] = []
        self._writing = -1
        self._closed = False
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            number, before = path.name.removesuffix(SUFFIX).split(".")
            file = File(int(number), int(before), path)
            _scan(file)
            self._files.append(file)
        self._heard = os.open(folder / "heard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: up to when the run was watched, in nanoseconds since 1970; 0 if it never was
        self.heard_ns = int.from_bytes(os.pread(self._heard, 8, 0), "little")

    @property
    def events(self) -> int:
        """How many there were, kept or not."""
        with self._changed:
            return self._files[-1].before + self._files[-1].events if self._files else 0

    @property
    def kept(self) -> tuple[int, int, int]:
        """Events that are kept, in how many bytes, and when the oldest was read, in nanoseconds since 1970."""
        with self._changed:
            files = list(self._files)
        oldest = next((file.first_ns for file in files if file.first_ns), 0)
        return sum(file.events for file in files), sum(file.size for file in files), oldest

    @property
    def overwritten(self) -> int:
        """Events that made room for newer ones."""
        with self._changed:
            return self._files[0].before if self._files else 0

    def beat(self, read_ns: int) -> None:
        """The run was watched up to then."""
        self.heard_ns = read_ns
        os.pwrite(self._heard, read_ns.to_bytes(8, "little"), 0)

    def interrupt(self, reason: str) -> None:
        """Note that the run was not watched from when it was last heard of to the next Started. OSError."""
        if self._writing < 0 and self._files:
            last = self._files[-1]
            self._writing = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if self._writing >= 0:
            end = pb.RecordedEnd(target=self._node, error=reason, heard_ns=self.heard_ns)
            self._append(packed(pb.RecordingEntry(end=end)))

    def append(self, reply: pb.RunReply) -> None:
        """Keep a reply. OSError if it cannot be, as where a disk is full; then nothing of it is there."""
        reply.node = self._node
        data = packed(pb.RecordingEntry(reply=pb.RecordedReply(target=self._node, reply=reply)))
        self._append(data)
        with self._changed:
            file = self._files[-1]
            if count := sum(section.count for section in reply.batch.sections):
                file.events += count
                file.first_ns, file.last_ns = file.first_ns or reply.sent_ns, reply.sent_ns
            self._changed.notify_all()

    def is_full(self) -> bool:
        """Whether the next reply should be in a file of its own, which begins with a Started: see begin."""
        with self._changed:
            return not self._files or self._files[-1].size >= self._file_bytes

    def begin(self, started: pb.RunReply) -> None:
        """Begin a file, and let the oldest go if there is no room for it. OSError."""
        with self._changed:
            number = self._files[-1].number + 1 if self._files else 1
            before = self._files[-1].before + self._files[-1].events if self._files else 0
            path = self._folder / f"{number:08}.{before}{SUFFIX}"
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if self._writing >= 0:
                os.close(self._writing)
            self._writing = made
            self._files.append(File(number, before, path))
        self._append(MAGIC + packed(header(self._gadget)))
        self.append(started)
        while self.kept[1] + self._file_bytes > self.most and self.shrink():
            pass

    def shrink(self) -> bool:
        """Let the oldest file go, unless it is the one that is written; whether one went."""
        with self._changed:
            if len(self._files) < 2:
                return False
            self._files.pop(0).path.unlink(missing_ok=True)
            return True

    def _append(self, data: bytes) -> None:
        with self._changed:
            file = self._files[-1]
        try:
            if os.write(self._writing, data) < len(data):
                raise OSError(28, os.strerror(28))  # a disk that is full takes a part
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._writing, file.size)
            raise
        with self._changed:
            file.size += len(data)
            self._changed.notify_all()

    def read(self, since_ns: int, follow: bool, active: Callable[[], bool]) -> Iterator[pb.RunReply]:
        """What is kept, without whole files that are older than since_ns; then what comes, as long as active says so.

        What made room for newer events before it could be read is a loss, if it was asked for. In the end a summary.
        """
        file, gone = self._first(since_ns)
        reader = _Reader(gone)
        yield from self._read(reader, file, follow, active)
        yield reader.summary(self.heard_ns)

    def _read(
        self, reader: _Reader, file: File | None, follow: bool, active: Callable[[], bool]
    ) -> Iterator[pb.RunReply]:
        caught_up, told, beat = False, 0, 0.0
        while file:
            before = reader.events
            for data in self._parts(file):
                for entry in _entries(data):
                    yield from reader.pass_on(entry)
                if data:
                    continue
                if not caught_up or (self.heard_ns != told and time.monotonic() - beat >= BEAT_SECONDS):
                    told, beat = self.heard_ns, time.monotonic()
                    yield pb.RunReply(batch=pb.Batch(), sent_ns=told, caught_up=not caught_up)
                    caught_up = True
                if not follow or not active():
                    return
            following = self._next(file)
            if following and (missed := following.before - file.before - (reader.events - before)) > 0:
                yield reader.miss(missed, self.heard_ns)
            file = following

    def _parts(self, file: File) -> Iterator[bytes]:
        """The entries of a file as they come, nothing where more may come later; the end when another file begins."""
        try:
            source = file.path.open("rb")
        except FileNotFoundError:  # it has just made room
            return
        with source:
            at = len(MAGIC)
            while not self._closed:
                with self._changed:
                    end, last = file.size, file is self._files[-1]
                if at < end:
                    source.seek(at)
                    yield source.read(end - at)
                    at = end
                elif last:
                    yield b""
                    with self._changed:
                        if file.size == at and file is self._files[-1] and not self._closed:
                            self._changed.wait(LOOK_SECONDS)
                else:
                    return

    def _first(self, since_ns: int) -> tuple[File | None, int]:
        """Where to begin, and how many events that were asked for are gone."""
        with self._changed:
            files = list(self._files)
        wanted = [file for file in files if not file.last_ns or file.last_ns >= since_ns or file is files[-1]]
        if not wanted:
            return None, 0
        is_oldest = wanted[0] is files[0]
        older = is_oldest and (not since_ns or (files[0].first_ns and files[0].first_ns > since_ns))
        return wanted[0], files[0].before if older else 0

    def _next(self, file: File) -> File | None:
        with self._changed:
            return next((each for each in self._files if each.number > file.number), None)

    def close(self) -> None:
        """Write no more, and end those who read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            fds, self._writing, self._heard = (self._writing, self._heard), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def delete(self) -> None:
        """Remove all of it."""
        remove(self._folder)


class _Reader:
    """One who reads a history: what of it is passed on."""

    def __init__(self, gone: int) -> None:
        """So many events of what was asked for are gone."""
        self._gone = gone
        self._losses: list[pb.Loss] = []
        self._begun = False
        self.events = 0

    def pass_on(self, entry: pb.RecordingEntry) -> Iterator[pb.RunReply]:
        """What an entry is to the reader."""
        reply = entry.reply.reply
        if entry.WhichOneof("what") == "end":
            self._begun, self._gone, self._losses = False, 0, []  # what was told until now stays so
            end = entry.end
            yield pb.RunReply(interrupted=pb.Interrupted(reason=end.error, heard_ns=end.heard_ns))
        elif reply.WhichOneof("what") == "batch":
            self.events += sum(section.count for section in reply.batch.sections)
            if reply.batch.losses:
                self._losses = list(reply.batch.losses)
                del reply.batch.losses[:]
                reply.batch.losses.extend(self._all_losses())
            yield reply
        elif reply.WhichOneof("what") == "started" and not self._begun:  # else the file's own: the stream goes on
            self._begun = True
            yield reply
            if self._gone:
                yield self.miss(0, reply.sent_ns)

    def miss(self, count: int, now_ns: int) -> pb.RunReply:
        """So many events were gone before they could be read."""
        self._gone += count
        return pb.RunReply(batch=pb.Batch(losses=self._all_losses()), sent_ns=now_ns)

    def summary(self, now_ns: int) -> pb.RunReply:
        """What it was given in all."""
        return pb.RunReply(summary=pb.Summary(events=self.events, losses=self._all_losses()), sent_ns=now_ns)

    def _all_losses(self) -> list[pb.Loss]:
        return [*self._losses, *([pb.Loss(reason=OVERWRITTEN, count=self._gone)] if self._gone else [])]


def _scan(file: File) -> None:
    """Find out what a file has, and cut off an entry that its agent did not finish."""
    data = file.path.read_bytes()
    at = len(MAGIC)
    for entry, end in _entries_with_ends(data[at:]):
        at = len(MAGIC) + end
        reply = entry.reply.reply
        if count := sum(section.count for section in reply.batch.sections):
            file.events += count
            file.first_ns, file.last_ns = file.first_ns or reply.sent_ns, reply.sent_ns
    file.size = at
    if at < len(data):
        os.truncate(file.path, at)


def _entries(data: bytes) -> Iterator[pb.RecordingEntry]:
    return (entry for entry, _ in _entries_with_ends(data))


def _entries_with_ends(data: bytes) -> Iterator[tuple[pb.RecordingEntry, int]]:
    """Each whole entry, and where it ends."""
    at = 0
    while at < len(data):
        length = shift = 0
        while at < len(data):
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80 or shift > 28:
                break
        if at + length > len(data) or not length:
            return
        try:
            entry = pb.RecordingEntry.FromString(data[at : at + length])
        except ValueError:
            return
        at += length
        yield entry, at
