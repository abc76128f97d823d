"""Alerts that are kept: in files below a folder, of which some make room for newer ones, and found by their ids."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from agent.detect.settings import GADGET
from agent.service import Active
from agent.standing.history import History
from gadget._generated import gadget_pb2 as pb
from gadget.recorded import NOT_KEPT
from gadget.rules.messages import unpack
from gadget.text import counted

#: Alerts that are offered where an id is wanted, and those that another one names.
MOST_OFFERED, MOST_OTHERS = 50, 2
#: Newest alerts of which it is known that they are kept.
MOST_IDS = 16_384


class AlertStore:
    """Keeps alerts. One thread writes them; any number of threads may read."""

    def __init__(self, folder: Path, node: str, most_mib: int, started: Callable[[], pb.RunReply]) -> None:
        """Go on with what is in folder, or begin; started makes the reply that a file begins with. OSError."""
        self._node, self._most_mib, self._started = node, most_mib, started
        self.history = History(folder, GADGET, node, most_mib << 20)
        self._told: list[pb.Loss] = []
        self._ids: OrderedDict[str, None] = OrderedDict()  # of the newest that are kept
        self._missed, self._why_not = 0, ""

    def describe(self) -> str:
        """How many alerts are kept, in a few words."""
        events, size, _ = self.history.kept
        overwritten = self.history.overwritten
        used = f"{size / (1 << 20):.1f} of {self._most_mib} MiB"
        return f"{counted(events, 'alert')} kept in {used}{f'; {overwritten} overwritten' * bool(overwritten)}"

    def problem(self) -> str:
        """Why alerts could not be kept; empty if all were."""
        return f"{self._missed} alerts could not be kept: {self._why_not}" if self._why_not else ""

    def losses(self) -> list[pb.Loss]:
        """How many alerts could not be kept, by reason."""
        return [pb.Loss(reason=NOT_KEPT, count=self._missed)] if self._missed else []

    def put(
        self,
        alerts: Sequence[pb.Alert],
        losses: list[pb.Loss],
        now_ns: int,
        judged: int,
        named: Callable[[], Sequence[pb.Container]] = tuple,
    ) -> None:
        """Keep alerts of events up to now, or count them.

        losses are all so far, judged is how many events were; named gives the containers that are to be told of.
        """
        try:
            if self.history.is_full():
                started = self._started()
                started.started.received_ns = started.sent_ns
                self.history.begin(started, losses)
                self._told = losses
            if alerts or losses != self._told:
                reply = pb.RunReply(node=self._node, sent_ns=now_ns)
                reply.batch.judged = judged
                reply.batch.alerts.extend(alerts)
                reply.batch.containers.extend(named())
                reply.batch.losses.extend(losses if losses != self._told else ())
                self.history.append(reply)
                self._told = losses
                self._ids.update(dict.fromkeys(each.id for each in alerts))
                while len(self._ids) > MOST_IDS:
                    self._ids.popitem(last=False)
            self._why_not = ""
            self.history.beat(now_ns)
        except OSError as error:
            self._missed += len(alerts)
            self._why_not = error.strerror or str(error)

    def read(self, request: pb.KeptAlerts, active: Active) -> Iterator[pb.RunReply]:
        """The alerts that were kept, and with follow also new ones."""
        if not self.history.kept[1]:
            yield self._started()
        for reply in self.history.read(request.since_ns, request.follow, active):
            reply.node = self._node
            for alert in reply.batch.alerts:
                alert.ClearField("past")  # that of one is asked for by its id: see answer
            yield reply

    def answer(self, request: pb.KeptAlertRequest) -> pb.KeptAlertReply:
        """The alert with an id, or the alerts whose ids begin with it."""
        alerts = self._begun_by(request.id) if request.begins else self.find(request.id)
        return pb.KeptAlertReply(node=self._node, alerts=alerts)

    def find(self, name: str) -> list[pb.Alert]:
        """The alert with an id, then the alerts that carry parts of its past; empty if there is none."""
        found = self._kept_of({name})[:1]
        if found:
            past = pb.Past.FromString(unpack(found[0].past)) if found[0].past else pb.Past()
            others = {past.happened_of, past.calls_of} - {"", name}
            found += self._kept_of(others)[:MOST_OTHERS] if others else []
        return found

    def has(self, name: str) -> bool:
        """Whether the alert of an id is there, of the newest ones."""
        return name in self._ids

    def _begun_by(self, text: str) -> list[pb.Alert]:
        """The newest alerts whose ids begin with a text, without what led to them."""
        found: deque[pb.Alert] = deque(maxlen=MOST_OFFERED)
        for each in self._every():
            if each.id.startswith(text):
                each.ClearField("past")
                found.append(each)
        return [*found]

    def _kept_of(self, names: Container[str]) -> list[pb.Alert]:
        return [each for each in self._every() if each.id in names]

    def _every(self) -> Iterator[pb.Alert]:
        for reply in self.history.read(0, False, lambda: True):
            yield from reply.batch.alerts
