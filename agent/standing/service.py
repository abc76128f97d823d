"""The standing runs of an agent: those that clients made, and those that files define."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from agent.files import read_text
from agent.folders import own_folder
from agent.limits import RunBudget
from agent.run.runs import Runs
from agent.standing.standing import StandingRun
from agent.threads import Worker
from agent.tracker import Tracker
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, GadgetError, Unsupported, UsageError
from gadget.standing import MOST_BYTES, SUFFIX, check, from_toml, to_toml

log = logging.getLogger(__name__)

#: Standing runs at once: each holds a thread, and a run with its rings if no other client asks for the same.
MOST_RUNS = 16
#: What all may keep together, unless --runs-keep says otherwise; one alone a quarter of it.
KEEP_BYTES = 64 << 20
LEAST_KEEP_BYTES = 256 << 10
#: How often the folder of definitions is looked at.
LOOK_SECONDS = 2.0
#: How long an agent that ends just now is waited for.
LOCK_SECONDS = 2.0


def _only_ours(state: Path) -> int:
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


class StandingService:
    """Lists, makes, reads and deletes standing runs."""

    def __init__(
        self,
        node: str,
        runs: Runs,
        tracker: Tracker,
        budget: RunBudget,
        state: Path,
        files: Path,
        keep: int = KEEP_BYTES,
    ) -> None:
        """Go on with the runs in the folder state and those that the folder files defines."""
        self._node, self._runs, self._tracker, self._budget = node, runs, tracker, budget
        self._state, self._files, self._keep = state, files, keep
        self._lock = threading.Lock()
        self._standing: dict[str, StandingRun] = {}
        self._seen: dict[str, str] = {}  # what each file said when it was last looked at
        self._problems: dict[str, str] = {}  # of files that define nothing
        self._lock_fd = _only_ours(state)
        for folder in sorted(state.iterdir()):
            with suppress(FileNotFoundError):
                try:
                    self._begin(from_toml(folder.name, read_text(folder / "run.toml", MOST_BYTES)), "")
                except GadgetError as error:
                    log.warning("%s: %s", folder, error)
        self._look()
        self.worker = Worker("standing", self._watch)
        self.worker.start()

    @property
    def workers(self) -> list[Worker]:
        """Its threads."""
        return [self.worker, *(each.worker for each in list(self._standing.values()))]

    def list(self) -> pb.StandingListReply:
        """All of them."""
        standing = [self._standing[name] for name in sorted(self._standing)]
        status = [each.status() for each in standing]
        status += [
            pb.StandingStatus(
                run=pb.Standing(name=name.removesuffix(SUFFIX)), file=str(self._files / name), problem=why
            )
            for name, why in sorted(self._problems.items())
        ]
        kept = sum(each.kept_bytes for each in status)
        return pb.StandingListReply(node=self._node, runs=status, kept_bytes=kept, most_bytes=self._keep)

    def put(self, run: pb.Standing, file: str = "") -> None:
        """Begin a run. One of that name that is about the same goes on; another one is replaced."""
        check(run)
        with self._lock:
            before = self._standing.get(run.name)
            if before and to_toml(before.run) == to_toml(run):
                before.file = file or before.file
                return
            if not before and len(self._standing) >= MOST_RUNS:
                raise Exhausted(f"{MOST_RUNS} standing runs on {self._node} already: delete one first")
            if run.keep_bytes > self._keep:
                raise UsageError(f"--keep: {self._node} keeps at most {self._keep >> 20}M in all (--runs-keep)")
            if before:
                self._remove(before)
            self._begin(run, file)

    def delete(self, name: str) -> str:
        """End a run and remove what it kept. The file that defines it, if one does. UsageError if there is none."""
        with self._lock:
            run = self._standing.get(name)
            if run is None:
                raise UsageError(f"{self._node} has no standing run {name!r}")
            self._remove(run)
            return run.file

    def read(self, request: pb.Attach, active: Callable[[], bool]) -> Iterator[pb.RunReply]:
        """What a run kept, then what comes, as long as active says so."""
        run = self._standing.get(request.name)
        if run is None:
            raise UsageError(f"{self._node} has no standing run {request.name!r}")
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

    def _begin(self, run: pb.Standing, file: str) -> None:
        folder = self._state / run.name
        os.close(own_folder(folder))
        (folder / "run.toml").write_text(to_toml(run))
        keep = max(run.keep_bytes or self._keep // 4, LEAST_KEEP_BYTES)
        self._standing[run.name] = StandingRun(
            run, file, folder, keep, self._runs, self._node, self._tracker, self._budget, self._make_room
        )

    def _remove(self, run: StandingRun) -> None:
        run.close()
        run.history.delete()
        del self._standing[run.run.name]

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
            worker.wait(LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        """Take over what the folder of definitions says, where that has changed."""
        found = {}
        with suppress(OSError):
            for path in self._files.iterdir():
                if path.name.endswith(SUFFIX) and not path.name.startswith("."):
                    with suppress(OSError):
                        found[path.name] = read_text(path, MOST_BYTES)
        for name in [each for each in self._seen if each not in found]:
            del self._seen[name]
            self._problems.pop(name, None)
            run = self._standing.get(name.removesuffix(SUFFIX))
            if run and run.file:
                log.info("%s: %s is gone: ended", run.run.name, run.file)
                self.delete(run.run.name)
        for name, text in found.items():
            if self._seen.get(name) == text:
                continue
            self._seen[name] = text
            try:
                self.put(from_toml(name.removesuffix(SUFFIX), text), str(self._files / name))
                self._problems.pop(name, None)
            except GadgetError as error:
                self._problems[name] = str(error)
                log.warning("%s: %s", self._files / name, error)
