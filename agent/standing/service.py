"""The standing runs of an agent: those that clients made, and those that files define."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.containers.tracker import Tracker
from agent.files import printable, read_regular
from agent.folders import own_folder, remove
from agent.limits import RunBudget
from agent.run.runs import Runs
from agent.service import Active, Number, Running, ServedCall
from agent.standing.settings import Settings
from agent.standing.standing import StandingRun
from agent.threads import Worker
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, GadgetError, Unsupported, UsageError
from gadget.kinds.texts import decode_text
from gadget.standing import MOST_BYTES, SUFFIX, check, from_toml, to_toml

log = logging.getLogger(__name__)

#: What one may keep at least.
LEAST_KEEP_BYTES = 256 << 10
#: In the folder of each.
DEFINITION = "run.toml"
#: How long an agent that ends just now is waited for.
LOCK_SECONDS = 2.0


def only_ours(state: Path) -> int:
    """The folder, which no other agent writes to as long as this one does. Unsupported if one does."""
    fd = own_folder(state)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise Unsupported(f"another agent on this machine has those in {state}") from None
            time.sleep(0.1)


def remove_left(state: Path) -> None:
    """Remove the folder that an earlier agent has left, unless another agent writes to it."""
    with suppress(OSError, GadgetError):
        fd = only_ours(state)
        try:
            remove(state)
        finally:
            os.close(fd)


class StandingService:
    """Lists, makes, reads and deletes standing runs."""

    def __init__(
        self,
        node: str,
        runs: Runs,
        tracker: Tracker,
        budget: RunBudget,
        state: Path,
        settings: Settings,
    ) -> None:
        """Go on with the runs in the folder state and those that the folder of settings defines."""
        self._node, self._runs, self._tracker, self._budget = node, runs, tracker, budget
        self._state, self._files, self._keep = state, settings.runs, settings.keep << 20
        self._settings = settings
        self._lock = threading.Lock()
        self._standing: dict[str, StandingRun] = {}
        self._seen: dict[str, bytes | None] = {}  # what each file said when it was last looked at; None: look again
        self._problems: dict[str, str] = {}  # of files that define nothing, by path
        self._lock_fd = only_ours(state)
        for folder in sorted(state.iterdir()):
            self._go_on(folder)
        self._look()
        self.worker = Worker("standing", self._watch)
        self.worker.start()

    @property
    def workers(self) -> list[Worker]:
        """Its threads."""
        return [self.worker, *(each.worker for each in list(self._standing.values()))]

    def numbers(self) -> Iterator[Number]:
        """What runs count for Prometheus."""
        for each in [*self._standing.values()]:
            yield from each.counting.numbers()

    def list(self) -> pb.StandingListReply:
        """All of them."""
        status = [each.status() for _, each in sorted(self._standing.items())]
        status += [
            pb.StandingStatus(
                run=pb.Standing(name=printable(self._name(Path(path)))), file=printable(path), problem=printable(why)
            )
            for path, why in sorted(self._problems.items())
        ]
        kept = sum(each.kept_bytes for each in status)
        return pb.StandingListReply(node=self._node, runs=status, kept_bytes=kept, most_bytes=self._keep)

    def put(self, run: pb.Standing, file: str = "") -> None:
        """Begin a run. One of that name that is about the same goes on; another one is replaced."""
        check(run)
        with self._lock:
            before = self._standing.get(run.name)
            if before and to_toml(before.run) == to_toml(run):
                if file and before.file != file:
                    before.file = file
                    _write_file(self._state / run.name / "file", file)
                return
            if not before and len(self._standing) >= self._settings.most_runs:
                raise Exhausted(f"{self._settings.most_runs} standing runs on {self._node} already: delete one first")
            if run.keep_bytes > self._keep:
                raise UsageError(f"--keep: {self._node} keeps at most {self._keep >> 20}M in all (--runs-keep)")
            if before:
                self._remove(before)
            try:
                self._begin(run, file)
            except OSError as error:
                raise Exhausted(f"{self._node}: what {run.name} sees cannot be kept: {error.strerror}") from None

    def delete(self, name: str) -> str:
        """End a run and remove what it kept. The file that defines it, if one does. UsageError if there is none."""
        with self._lock:
            run = self._standing.get(name)
            if run is None:
                if "/" not in name and self._problems.pop(str(self._state / name / DEFINITION), ""):
                    remove(self._state / name)
                    return ""
                raise UsageError(f"{self._node} has no standing run {name!r}")
            self._remove(run)
            return run.file

    def read(self, request: pb.Attach, active: Callable[[], bool]) -> Iterator[pb.RunReply]:
        """What a run kept, then what comes, as long as active says so."""
        run = self._standing.get(request.name)
        if run is None:
            raise UsageError(f"{self._node} has no standing run {request.name!r}")
        if not run.history.kept[1]:
            why = run.problem or "it has just begun"
            raise Unsupported(f"{self._node} has kept nothing of {request.name}: {why}")
        for reply in run.history.read(request.since_ns, request.follow, active):
            reply.node = self._node
            yield reply

    def close(self) -> None:
        """End all; what they kept stays."""
        self.worker.stop()
        with self._lock:
            for each in self._standing.values():
                each.close()
            self._standing.clear()
        os.close(self._lock_fd)

    def end(self) -> None:
        """End all for good, and leave nothing on disk."""
        self.worker.stop()
        with self._lock:
            for each in list(self._standing.values()):
                self._remove(each)
            with suppress(OSError):
                remove(self._state)

    def _go_on(self, folder: Path) -> None:
        """With the run of an earlier agent, if it is one's folder; why not is told."""
        path = folder / DEFINITION
        try:
            run = from_toml(folder.name, decode_text(read_regular(path, MOST_BYTES)))
            file = ""
            with suppress(FileNotFoundError):
                file = os.fsdecode(read_regular(folder / "file", MOST_BYTES))
            self._begin(run, file)
        except (FileNotFoundError, NotADirectoryError):
            return
        except (GadgetError, OSError) as error:
            log.warning("%s: %s", path, error)
            self._problems[str(path)] = str(error)
            return
        if file and Path(file).parent == self._files:
            self._seen[Path(file).name] = None  # if it has gone meanwhile the run ends

    def _begin(self, run: pb.Standing, file: str) -> None:
        folder = self._state / run.name
        os.close(own_folder(folder))
        _write_file(folder / DEFINITION, to_toml(run))
        _write_file(folder / "file", file)
        keep = max(run.keep_bytes or self._keep // 4, LEAST_KEEP_BYTES)
        self._standing[run.name] = StandingRun(
            run,
            file,
            folder,
            keep,
            self._settings.again_seconds,
            self._runs,
            self._node,
            self._tracker,
            self._budget,
            self._make_room,
        )

    def _remove(self, run: StandingRun) -> None:
        del self._standing[run.run.name]
        run.close()
        with suppress(FileNotFoundError):  # somebody else has removed it
            run.history.delete()

    def _make_room(self) -> None:
        """Let the oldest that any run keeps go, as long as all keep too much."""
        while True:
            runs = list(self._standing.values())
            kept = [(each.history.kept, each) for each in runs]
            if sum(size for (_, size, _), _ in kept) <= self._keep:
                return
            if not any(each.history.shrink() for (_, _, oldest), each in sorted(kept, key=lambda item: item[0][2])):
                return

    def _watch(self, worker: Worker) -> None:
        while not worker.stopping:
            worker.wait(self._settings.look_seconds)
            self._look()

    def _look(self) -> None:
        """Take over what the folder of definitions says, where that has changed."""
        try:
            found = self._read_files()
        except OSError as error:  # which says nothing of what is in it
            self._tell(self._files, str(error))
            return
        self._problems.pop(str(self._files), None)
        for name in [each for each in self._seen if each not in found]:
            del self._seen[name]
            path = self._files / name
            self._problems.pop(str(path), None)
            run = self._standing.get(path.stem)
            if run and run.file == str(path):
                log.info("%s: %s is gone: ended", path.stem, path)
                with suppress(GadgetError, OSError):  # a client may just have deleted it
                    self.delete(path.stem)
        for name, data in found.items():
            path = self._files / name
            if data is None or self._seen.get(name) == data:
                continue
            self._seen[name] = data
            try:
                self.put(from_toml(path.stem, decode_text(data)), str(path))
                self._problems.pop(str(path), None)
            except (GadgetError, OSError) as error:
                self._tell(path, str(error))
                if not isinstance(error, UsageError):
                    self._seen[name] = None  # it may be otherwise the next time

    def _read_files(self) -> dict[str, bytes | None]:
        """What each file says; None of one that cannot be read, which is told."""
        found: dict[str, bytes | None] = {}
        try:
            paths = sorted(path for path in self._files.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
        except FileNotFoundError:
            return {}
        most = self._settings.most_files
        for path in paths[:most]:
            try:
                found[path.name] = read_regular(path, MOST_BYTES, follow=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                found[path.name] = None
                self._seen[path.name] = None
                self._tell(path, str(error))
        for path in paths[most:]:
            found[path.name] = self._seen.setdefault(path.name, None)
        if len(paths) > most:
            self._tell(paths[most], f"not looked at, nor are those after it: {most} files at most")
        return found

    def _name(self, path: Path) -> str:
        """The run that a file defines."""
        return path.parent.name if path.parent.parent == self._state else path.stem

    def _tell(self, path: Path, why: str) -> None:
        if self._problems.get(str(path)) != why:
            self._problems[str(path)] = why
            log.warning("%s: %s", path, why)


class StandingRuns(Running):
    """The standing runs as clients see them, also where there are none."""

    def __init__(self, node: str, standing: StandingService | None, why_not: str = "") -> None:
        """Answer as node; without standing say why there is none."""
        self._node, self._standing = node, standing
        self._why_not = why_not or "an agent of --local ends with its command: run gadget-agent as a service"

    def _on(self) -> StandingService:
        if self._standing is None:
            raise Unsupported(f"no standing runs on {self._node}: {self._why_not}")
        return self._standing

    @property
    def workers(self) -> Sequence[Worker]:
        """Their threads."""
        return self._standing.workers if self._standing else ()

    def numbers(self) -> Iterator[Number]:
        """How each run gets on."""
        for each in self._standing.list().runs if self._standing else ():
            labels = {"name": each.run.name, "gadget": each.run.start.gadget}
            yield Number("standing_events_total", "Events of a standing run.", each.events, labels)
            yield Number("standing_lost_total", "Events of it that were lost.", each.lost, labels)
            yield Number("standing_overwritten_total", "Events of it that made room.", each.overwritten, labels)
            yield Number("standing_kept_bytes", "Bytes of it that are kept.", each.kept_bytes, labels)
            yield Number("standing_problem", "Whether it does not run, or not all is kept.", bool(each.problem), labels)
        if self._standing:
            yield from self._standing.numbers()

    def calls(self) -> Sequence[ServedCall]:
        """What clients ask."""
        return (
            ServedCall("StandingList", lambda request, active: self._on().list()),
            ServedCall("StandingPut", self._put),
            ServedCall("StandingDelete", self._delete),
        )

    def beginnings(self) -> Mapping[str, Callable[[pb.Attach, Active], Iterator[pb.RunReply]]]:
        """A client may attach to a run."""
        return {"attach": lambda request, active: self._on().read(request, active)}

    def _put(self, request: pb.StandingPutRequest, active: Active) -> pb.StandingPutReply:
        self._on().put(request.run)
        return pb.StandingPutReply(node=self._node)

    def _delete(self, request: pb.StandingDeleteRequest, active: Active) -> pb.StandingDeleteReply:
        return pb.StandingDeleteReply(node=self._node, file=self._on().delete(request.name))

    def end(self) -> None:
        """End all for good, and leave nothing on disk."""
        standing, self._standing = self._standing, None
        if standing:
            self._why_not = "they have been removed there"
            standing.end()
            standing.close()

    def close(self) -> None:
        """End all; what they kept stays."""
        if self._standing:
            self._standing.close()


def _write_file(path: Path, text: str) -> None:
    """Write a file whole or not at all, unless it says that already."""
    data = os.fsencode(text)
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
