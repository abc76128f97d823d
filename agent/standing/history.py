"""What a standing run keeps: recordings in files of a folder. The container that has most makes room first.

A file is called NUMBER.BEFORE.gadget: BEFORE is how many events the run had seen before its first one, so that nothing
else has to be kept to tell how many are gone. Each begins with a Started, behind an end if nobody watched
before it, then has the losses so far, and names its containers itself.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.folders import own_folder, remove
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import find
from gadget.recorded import MAGIC, OVERWRITTEN, entries, header, packed

SUFFIX = ".gadget"
#: Files that a history is of: so much of it goes at a time.
FILES = 8
LEAST_FILE_BYTES, MOST_FILE_BYTES = 64 << 10, 4 << 20
#: Events of the container that has most go first, if they are such a part of a file at least: else the whole file goes.
PART_OF_FILE = 1 / 8
#: How often one who waits for more looks whether he still should.
LOOK_SECONDS = 0.25
#: One who follows hears so often that the run is watched, if it is.
BEAT_SECONDS = 1.0
#: What a reader has in memory of a file, unless an entry is larger.
PART_BYTES = 256 << 10
_MOST_NS = (1 << 63) - 1
_NAME = re.compile(r"(\d{1,18})\.(\d{1,18})" + re.escape(SUFFIX))


@dataclass
class File:
    """One file. before: events of the run that are older; size: bytes of whole entries, of: of events by container.

    Times are of its Started, its first event and its last entry. has_gap: it begins behind a time that nobody watched.
    """

    number: int
    before: int
    path: Path
    size: int = 0
    events: int = 0
    began_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    has_gap: bool = False
    of: Counter[int] = field(default_factory=Counter)


class History:
    """The files of one run. One thread writes, any number read."""

    def __init__(
        self,
        folder: Path,
        gadget: str,
        node: str,
        most: int,
        *,
        least_file: int = LEAST_FILE_BYTES,
        part: int = PART_BYTES,
    ) -> None:
        """Go on with what is in folder, or begin; keep so many bytes at most.

        A file has least_file bytes at least, and readers hold part of one, or an entry that is larger.
        """
        self._folder, self._gadget, self._node, self.most = folder, gadget, node, most
        self._file_bytes = min(max(most // FILES, least_file), MOST_FILE_BYTES)
        self._part_bytes = part
        self._cgroup_at = find(gadget).schema["cgroup_id"].offset
        self._changed = threading.Condition()
        self._io = threading.Lock()  # taken first: descriptors stay what they are while a disk takes its time
        os.close(own_folder(folder))
        self._files: list[File] = []
        self._writing = -1
        self._closed = False
        self._end: pb.RecordedEnd | None = None  # what the next file begins with
        self._heard = os.open(folder / "heard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: up to when the run was watched, in nanoseconds since 1970; 0 if it never was
        self.heard_ns = int.from_bytes(os.pread(self._heard, 8, 0), "little") & _MOST_NS
        found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        whole = True
        for file in sorted((File(int(match[1]), int(match[2]), path) for match, path in found), key=_number):
            whole = self._scan(file)
            if file.began_ns:
                self._files.append(file)
            else:  # its agent was killed before it had begun it
                file.path.unlink()
        if self._files and not whole:  # what was cut off had been heard, too
            self.heard_ns = min(self.heard_ns, self._files[-1].last_ns)

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
            last = self._files[-1] if self._files else None
            return last.before + last.events - sum(file.events for file in self._files) if last else 0

    def beat(self, read_ns: int) -> None:
        """The run was watched up to then."""
        with self._io:
            if not self._closed:
                os.pwrite(self._heard, read_ns.to_bytes(8, "little"), 0)
                self.heard_ns = read_ns

    def interrupt(self, reason: str) -> None:
        """The run was not watched from when it was last heard of to the next Started, with which a file begins."""
        self._end = pb.RecordedEnd(target=self._node, error=reason, heard_ns=self.heard_ns)

    def append(self, reply: pb.RunReply) -> None:
        """Keep a reply. OSError if it cannot be, as where a disk is full; then nothing of it is there."""
        data = self._packed(reply)
        with self._io:
            file = self._files[-1]
            try:
                _write(self._writing, data)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._writing, file.size)
                raise
            with self._changed:
                file.size += len(data)
                self._note(file, reply)
                self._changed.notify_all()

    def is_full(self) -> bool:
        """Whether the next reply should be in a file of its own, which begins with a Started: see begin."""
        with self._changed:
            return self._end is not None or self._writing < 0 or self._files[-1].size >= self._file_bytes

    def begin(self, started: pb.RunReply, losses: Sequence[pb.Loss] = ()) -> None:
        """Begin a file, losses being all so far, and make room for it. OSError."""
        while self.kept[1] + self._file_bytes > self.most and self.shrink():
            pass
        data = MAGIC + packed(header(self._gadget))
        with self._io:
            last = self._files[-1] if self._files else None
            has_gap = bool(self._end and (last or self._end.heard_ns))
            if has_gap:
                data += packed(pb.RecordingEntry(end=self._end))
            data += self._packed(started)
            if losses:
                data += self._packed(pb.RunReply(batch=pb.Batch(losses=losses), sent_ns=started.sent_ns))
            number, before = (last.number + 1, last.before + last.events) if last else (1, 0)
            path = self._folder / f"{number:08}.{before}{SUFFIX}"
            if self._closed:
                raise OSError(errno.ESTALE, "it has ended")
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _write(made, data)
            except OSError:
                os.close(made)
                with suppress(OSError):
                    path.unlink()
                raise
            if self._writing >= 0:
                os.close(self._writing)
            self._writing, self._end = made, None
            file = File(number, before, path, len(data), has_gap=has_gap)
            self._note(file, started)
            with self._changed:
                self._files.append(file)
                self._changed.notify_all()

    def shrink(self) -> bool:
        """Make room, but for the file that is written; whether there was something to make room of.

        Whoever floods makes room of its own, the oldest first: what others did before it stays.
        """
        with self._io:
            files = self._files[:-1]
            if not files:
                return False
            of = sum((file.of for file in self._files), Counter[int]())
            greatest = max(of, key=of.__getitem__, default=0)
            file = next((each for each in files if each.of[greatest]), files[0])
            if file.of.keys() <= {greatest} and (file is files[0] or not file.has_gap):
                return self._drop(file)
            is_much = file.of[greatest] > file.of.total() * PART_OF_FILE
            return (is_much and self._leave_out(file, greatest)) or self._drop(files[0])

    def _drop(self, file: File) -> bool:
        with self._changed:
            try:
                file.path.unlink(missing_ok=True)
            except OSError:  # as where the file system has become read only
                return False
            self._files.remove(file)
            return True

    def _leave_out(self, file: File, container: int) -> bool:
        """Write a file anew without the events of a container. False if it cannot be written."""
        made, anew = File(file.number, file.before, file.path), self._folder / "anew"
        kept = [MAGIC]
        for entry, _ in entries(file.path.read_bytes()[len(MAGIC) : file.size]):
            batch = entry.reply.reply.batch
            if _count(batch):
                sections = [each for section in batch.sections if (each := self._without(section, container)).count]
                alerts = [each for each in batch.alerts if each.container.cgroup_id != container]
                del batch.sections[:], batch.alerts[:]
                batch.sections.extend(sections)
                batch.alerts.extend(alerts)
                if not (sections or alerts or batch.containers or batch.losses):
                    continue
            self._note(made, entry.reply.reply)
            kept.append(packed(entry))
        data = b"".join(kept)
        try:
            fd = os.open(anew, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write(fd, data)
            finally:
                os.close(fd)
            anew.rename(file.path)
        except OSError:
            return False
        with self._changed:  # one who reads what was there before reads so much of it, and misses the rest
            file.size, file.events, file.of, file.first_ns = len(data), made.events, made.of, made.first_ns
        return True

    def _without(self, section: pb.Section, container: int) -> pb.Section:
        chosen = self._containers(section) != container
        if chosen.all():
            return section
        rows = np.frombuffer(section.rows, f"V{section.record_size}")[chosen]
        return pb.Section(record_size=section.record_size, count=len(rows), rows=rows.tobytes())

    def _containers(self, section: pb.Section) -> npt.NDArray[np.uint64]:
        """Of each row the container; of none where a disk has damaged them."""
        at, size = self._cgroup_at, section.record_size
        if size < at + 8 or len(section.rows) != section.count * size:
            return np.zeros(0, np.uint64)
        rows = np.frombuffer(section.rows, np.uint8).reshape(section.count, size)
        return np.ascontiguousarray(rows[:, at : at + 8]).view(np.uint64)[:, 0]

    def _note(self, file: File, reply: pb.RunReply) -> None:
        """A file has one more reply."""
        if reply.HasField("started"):
            file.began_ns = file.began_ns or reply.sent_ns
        file.last_ns = max(reply.sent_ns, file.began_ns)
        if count := _count(reply.batch):
            file.events += count
            file.first_ns = file.first_ns or reply.sent_ns
        for section in reply.batch.sections:
            containers, counts = np.unique(self._containers(section), return_counts=True)
            for container, number in zip(containers.tolist(), counts.tolist(), strict=True):
                file.of[container] += number * section.record_size
        for alert in reply.batch.alerts:
            file.of[alert.container.cgroup_id] += alert.ByteSize()

    def _scan(self, file: File) -> bool:
        """Find out what a file has, and cut off an entry that its agent did not finish; whether there was none."""
        data = file.path.read_bytes()
        at = len(MAGIC)
        for entry, end in entries(data[at:] if data.startswith(MAGIC) else b""):
            at = len(MAGIC) + end
            file.has_gap |= entry.WhichOneof("what") == "end"
            self._note(file, entry.reply.reply)
        file.size = at
        if at < len(data):
            os.truncate(file.path, at)
        return at == len(data)

    def _packed(self, reply: pb.RunReply) -> bytes:
        reply.node = self._node
        return packed(pb.RecordingEntry(reply=pb.RecordedReply(target=self._node, reply=reply)))

    def read(self, since_ns: int, follow: bool, active: Callable[[], bool]) -> Iterator[pb.RunReply]:
        """What is kept but for what was read up to since_ns; then what comes, as long as active says so.

        What made room for newer events before it could be read is a loss, if it was asked for. In the end a summary.
        """
        file, gone = self._first(since_ns)
        reader = _Reader(gone, since_ns)
        yield from self._read(reader, file, follow, active)
        yield reader.summary()

    def _read(
        self, reader: _Reader, file: File | None, follow: bool, active: Callable[[], bool]
    ) -> Iterator[pb.RunReply]:
        caught_up, told, beat = False, 0, 0.0
        while file:
            before = reader.events
            for part, heard_ns in self._parts(file):
                for entry in part:
                    yield from reader.pass_on(entry)
                if part:
                    continue
                if not caught_up or (heard_ns != told and time.monotonic() - beat >= BEAT_SECONDS):
                    told, beat = heard_ns, time.monotonic()
                    yield reader.beat(told, caught_up=not caught_up)
                    caught_up = True
                if not follow or not active():
                    return
            if self._closed:
                return
            following = self._next(file)
            if following and (missed := following.before - file.before - (reader.events - before)) > 0:
                yield reader.miss(missed)
            file = following

    def _parts(self, file: File) -> Iterator[tuple[list[pb.RecordingEntry], int]]:
        """The entries of a file as they come, and up to when the run was watched by then.

        Nothing where more may come later; the end when another file begins.
        """
        try:
            source = file.path.open("rb")
        except FileNotFoundError:  # it has just made room
            return
        with source:
            at, part = len(MAGIC), self._part_bytes
            while not self._closed:
                heard_ns = self.heard_ns  # first: all that was read up to then is there
                with self._changed:
                    end, last = file.size, file is self._files[-1]
                if at < end:
                    source.seek(at)
                    found = list(entries(source.read(min(part, end - at))))
                    if found:
                        at, part = at + found[-1][1], self._part_bytes
                        yield [entry for entry, _ in found], heard_ns
                    elif part < end - at:
                        part *= 2  # an entry that is larger
                    else:
                        at = end  # it has been damaged: see _read
                elif last:
                    yield [], heard_ns
                    with self._changed:
                        if file.size == at and file is self._files[-1] and not self._closed:
                            self._changed.wait(LOOK_SECONDS)
                else:
                    return

    def _first(self, since_ns: int) -> tuple[File | None, int]:
        """Where to begin, and how many events that were asked for are gone."""
        with self._changed:
            files = list(self._files)
        if not files:
            return None, 0
        # the first after which one began too late: where the clock was set back, there may be several
        at = next((at for at, later in enumerate(files[1:]) if later.began_ns > since_ns), len(files) - 1)
        return files[at], files[0].before if at == 0 and files[0].began_ns > since_ns else 0

    def _next(self, file: File) -> File | None:
        with self._changed:
            return next((each for each in self._files if each.number > file.number), None)

    def close(self) -> None:
        """Write no more, and end those who read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._io:
            fds, self._writing, self._heard = (self._writing, self._heard), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def delete(self) -> None:
        """Remove all of it."""
        remove(self._folder)


class _Reader:
    """One who reads a history: what of it is passed on."""

    def __init__(self, gone: int, since_ns: int) -> None:
        """So many events of what was asked for are gone; what was read up to since_ns was not asked for."""
        self._gone, self._since_ns = gone, since_ns
        self._losses: list[pb.Loss] = []
        self._before: Counter[tuple[str, int]] = Counter()  # losses that are older than what was asked for
        self._end: pb.RecordedEnd | None = None
        self._begun = False
        self._given = 0
        self._upto_ns = since_ns  # what was read up to then he has
        self.events = 0

    def pass_on(self, entry: pb.RecordingEntry) -> Iterator[pb.RunReply]:
        """What an entry is to the reader."""
        reply = entry.reply.reply
        if entry.WhichOneof("what") == "end":
            if self._begun:
                self._begun, self._gone, self._losses = False, 0, []  # what was told until now stays so
            self._before.clear()
            self._end = entry.end
        elif reply.WhichOneof("what") == "batch":
            yield from self._pass_on(reply)
        elif reply.WhichOneof("what") == "started" and not self._begun:  # else the file's own: the stream goes on
            end, self._end = self._end, None
            if end and reply.sent_ns > self._since_ns:
                yield pb.RunReply(interrupted=pb.Interrupted(reason=end.error, heard_ns=end.heard_ns))
            self._begun = True
            yield reply
            if self._gone:
                yield self.miss(0)

    def _pass_on(self, reply: pb.RunReply) -> Iterator[pb.RunReply]:
        batch = reply.batch
        count = _count(batch)
        self.events += count
        if reply.sent_ns <= self._since_ns:
            if batch.losses:
                self._before = Counter({(loss.reason, loss.cgroup_id): loss.count for loss in batch.losses})
            if batch.containers:  # whose events are still to come
                yield pb.RunReply(batch=pb.Batch(containers=batch.containers), sent_ns=reply.sent_ns)
            return
        self._given += count
        self._upto_ns = reply.sent_ns
        if batch.losses:
            self._losses = [
                pb.Loss(reason=loss.reason, cgroup_id=loss.cgroup_id, count=count)
                for loss in batch.losses
                if (count := loss.count - self._before[loss.reason, loss.cgroup_id]) > 0
            ]
            del batch.losses[:]
            batch.losses.extend(self._all_losses())
        yield reply

    def beat(self, heard_ns: int, *, caught_up: bool) -> pb.RunReply:
        """All that was read up to then he has."""
        self._upto_ns = heard_ns
        return pb.RunReply(batch=pb.Batch(), sent_ns=heard_ns, caught_up=caught_up)

    def miss(self, count: int) -> pb.RunReply:
        """So many events were gone before they could be read."""
        self._gone += count
        return pb.RunReply(batch=pb.Batch(losses=self._all_losses()), sent_ns=self._upto_ns)

    def summary(self) -> pb.RunReply:
        """What it was given in all."""
        return pb.RunReply(summary=pb.Summary(events=self._given, losses=self._all_losses()), sent_ns=self._upto_ns)

    def _all_losses(self) -> list[pb.Loss]:
        return [*self._losses, *([pb.Loss(reason=OVERWRITTEN, count=self._gone)] if self._gone else [])]


def _number(file: File) -> int:
    return file.number


def _write(fd: int, data: bytes) -> None:
    if os.write(fd, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a disk that is full takes a part


def _count(batch: pb.Batch) -> int:
    return sum(section.count for section in batch.sections) + len(batch.alerts)
