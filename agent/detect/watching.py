"""What judging and learning have in common: a run of the gadget `detect`, whose batches a thread looks at."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

from agent.detect.settings import GADGET
from agent.detect.surroundings import Surroundings
from agent.run.batch import Batch
from agent.run.replies import loss_messages
from agent.run.runs import begin, key_of
from agent.selection import Selection
from agent.service import ServiceContext
from agent.threads import Worker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported

log = logging.getLogger(__name__)

NOT_JUDGED = "could not be judged"


class Watching(ABC):
    """Looks at the events of this node until it is closed."""

    def __init__(self, name: str, context: ServiceContext, selection: Selection) -> None:
        """Make what is common; _begin begins. name is that of the thread.

        Raises:
            Unsupported: The choice needs labels that this agent does not have.

        """
        if selection.needs_labels and not context.tracker.knows_labels:
            raise Unsupported("-l needs labels, which come from the Kubernetes API server: this agent watches none")
        self._context, self._tracker = context, context.tracker
        self._lost: Counter[str] = Counter()
        self._run_losses: list[pb.Loss] = []
        #: why the last batch that was not judged was not; empty if all were
        self.problem = ""
        self.error: Exception | None = None
        self.worker = Worker(name, self._work)

    def _begin(self, surroundings: Surroundings, parameters: Mapping[str, str], whose: Selection | None = None) -> None:
        """Begin a run with parameters, of all events unless whose says which.

        surroundings are closed with it, and if it cannot begin.

        Raises:
            Unsupported: This kernel cannot.
            Exhausted: There is no memory for one more run.

        """
        self._surroundings, context = surroundings, self._context
        gadget = catalog.find(GADGET)
        start = pb.Start(gadget=GADGET, parameters={**parameters, "host": "true"})
        with ExitStack() as undo:
            undo.callback(surroundings.close)
            self._subscriber = context.runs.subscribe(
                (key_of(start), type(whose)),
                lambda: begin(gadget, dict(start.parameters), context.tracker, whose or Selection(), context.budget),
            )
            undo.callback(self._subscriber.close)
            self._look_before()
            self.worker.start()
            undo.pop_all()

    @property
    @abstractmethod
    def judged(self) -> int:
        """Events that were looked at so far."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether the end was reached and everything has been taken."""

    def finish(self) -> None:
        """End, once everything that has happened by now was looked at. Callable again."""
        self._subscriber.finish()

    def close(self) -> None:
        """End at once."""
        self._subscriber.finish()
        self.worker.stop()
        self._subscriber.close()
        self._surroundings.close()

    def _work(self, worker: Worker) -> None:
        try:
            for batch in self._subscriber.batches():
                worker.beat()
                self._take(batch)
            self._take_rest()
        except Exception as error:  # whatever ended the run: the reader is to be told
            self.error = error
        finally:
            self._subscriber.close()
            self._end()
            worker.done()

    def _take(self, batch: Batch) -> None:
        """Look at a batch. One that cannot be judged, for whatever reason, hides no other."""
        events, before = sum(section.count for section in batch.sections), self.judged
        if batch.losses is not None:
            self._run_losses = loss_messages(batch.losses)
        try:
            self._surroundings.begin(batch.read_ns)
            self._look(batch)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if why != self.problem:
                log.exception("%s: %d events could not be judged", self.worker.name, events)
            self.problem = why
            self._lost[NOT_JUDGED] += max(events - (self.judged - before), 1)

    @abstractmethod
    def _look(self, batch: Batch) -> None:
        """Look at the events of a batch."""

    @abstractmethod
    def _end(self) -> None:
        """Note that no batch comes any more."""

    def _look_before(self) -> None:  # noqa: B027 (most have nothing to do)
        """Look at what is there before the first batch."""

    def _take_rest(self) -> None:  # noqa: B027
        """Hand out what still waits after the last batch."""
