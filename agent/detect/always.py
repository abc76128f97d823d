"""The rules of a folder. They judge as long as the agent runs, and their alerts are kept."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from agent.detect.folder import Followed
from agent.detect.judging import Judging
from agent.detect.kept import AlertStore
from agent.detect.settings import GADGET, Settings
from agent.files import printable
from agent.run.replies import started_reply
from agent.selection import Selection
from agent.service import Active, Number, ServiceContext
from agent.standing.service import only_ours
from agent.threads import Worker
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unsupported
from gadget.rules.fields import SYSCALL
from gadget.rules.ruleset import Ruleset
from gadget.text import counted

log = logging.getLogger(__name__)

#: How long an agent that begins waits for its rules to judge, so that one that is ready misses nothing.
BEGIN_SECONDS = 20.0
#: How long alerts are waited for before the folder is looked at again, and so on.
TAKE_SECONDS = 0.25
#: To load and compile rules may take 10 s (gadget/rules/ruleset.py).
STALL_SECONDS = 60.0
_EVER_NS = 1 << 63
#: Reasons and containers that have a count of losses each.
MOST_LOSSES = 4096
#: Rules whose alerts are counted apart: sets that replace each other may have any number.
MOST_COUNTED = 1000


class Always:
    """Judges by the rules of a folder until it is closed. What it kept stays, and the next agent goes on with it."""

    def __init__(self, context: ServiceContext, settings: Settings) -> None:
        """Begin.

        Raises:
            Unsupported: Another agent of this machine does that already.
            OSError: Nothing can be kept.

        """
        self._context, self._settings = context, settings
        folder = context.state / GADGET
        self._lock_fd = only_ours(folder)
        try:
            self.kept = AlertStore(folder / "alerts", context.node, settings.keep, self._started)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._followed = Followed(settings.rules, SYSCALL)
        self._rules: Ruleset | None = None
        self._next: Ruleset | None = None  # what has not begun yet
        self._judging: Judging | None = None
        self._from_ns = 0  # earlier events are those of the rules before, or came before it was known what runs
        self._judged = 0  # by the rules before
        self._alerts: Counter[tuple[str, str]] = Counter()  # by rule and priority
        self._earlier: Counter[tuple[str, int]] = Counter()  # losses of the rules before
        self._why_not = ""
        self._try_at = 0.0
        self._tried = threading.Event()  # whether the first rules judge, or it is known why not
        self.worker = Worker(GADGET, self._work, STALL_SECONDS)
        try:
            self.worker.start()
        except BaseException:
            self._let_go()
            raise
        self._tried.wait(BEGIN_SECONDS)

    def describe(self) -> str:
        """How it is, in one line."""
        rules = self._rules
        parts = [counted(len(rules.rules) if rules else 0, "rule"), self.kept.describe()]
        parts += [problem] if (problem := self.problem()) else []
        return printable(" ".join("; ".join(parts).split()))

    def problem(self) -> str:
        """What is wrong with its rules or with what it keeps, in one line; empty as a rule."""
        judging = self._judging.problem if self._judging else ""
        parts = [
            f"not judging: {self._why_not}" * bool(self._why_not),
            self._followed.problem(self._rules),
            f"events were not judged: {judging}" * bool(judging),
            self.kept.problem(),
        ]
        return printable(" ".join("; ".join(filter(None, parts)).split()))

    def losses(self) -> dict[str, int]:
        """All that was lost since this agent began, by reason."""
        found: Counter[str] = Counter()
        for loss in self._all_losses():
            found[loss.reason] += loss.count
        return dict(found)

    def numbers(self) -> Iterator[Number]:
        """How many events were judged, and alerts there were of each rule."""
        rules, judging = self._rules, self._judging
        yield Number("rules", "Rules that judge always.", len(rules.rules) if rules else 0)
        yield Number("rules_refused", "Whether new rules were refused.", bool(self._followed.refused))
        judged = self._judged + (judging.judged if judging else 0)
        yield Number("judged_events_total", "Events that rules judged.", judged)
        for (rule, priority), number in sorted(self._alerts.copy().items()):
            labels = {"rule": rule, "priority": priority}
            yield Number("alerts_total", "Alerts of a rule, each as often as it says.", number, labels)

    def read(self, request: pb.KeptAlerts, active: Active) -> Iterator[pb.RunReply]:
        """The alerts that were kept, and with follow also new ones.

        Raises:
            Unsupported: Nothing was, and no rules judge.

        """
        if not self.kept.history.kept[1] and (why := self._followed.refused or self._why_not):
            raise Unsupported(f"no rules judge on {self._context.node}: {why}")
        yield from self.kept.read(request, active)

    def keeps(self, rule: str) -> bool:
        """Whether alerts of a rule of that name are kept, if one fires."""
        return self._judging is not None and self._rules is not None and any(x.name == rule for x in self._rules.rules)

    def has(self, name: str) -> bool:
        """Whether the alert of an id is kept, of the newest ones."""
        return self.kept.has(name)

    def close(self) -> None:
        """End; what was kept stays."""
        self.worker.stop()
        if self._judging:
            self._end(self._judging, _EVER_NS)
            self._judging = None
        self._let_go()

    def _let_go(self) -> None:
        self.kept.history.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = -1

    def _work(self, worker: Worker) -> None:
        try:
            self._follow(worker)
        finally:
            self._tried.set()

    def _follow(self, worker: Worker) -> None:
        self.kept.history.interrupt(f"{self._context.node}: the agent was not there")
        look_at = 0.0
        while not worker.stopping:
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + self._settings.look_seconds
            if self._next and time.monotonic() >= self._try_at:
                self._begin(self._next)
            self._tried.set()
            judging = self._judging
            if judging is None:
                worker.wait(min(TAKE_SECONDS, self._settings.look_seconds))
                continue
            worker.beat()
            now_ns = time.time_ns()
            self._keep(judging, judging.take(min(TAKE_SECONDS, self._settings.look_seconds)), now_ns)
            if judging.is_over:
                self._fail(str(judging.error or "its run has ended"))

    def _look(self) -> None:
        """Take over the folder's rules if they have changed and can be loaded."""
        if rules := self._followed.look():
            self._next, self._try_at = rules, 0.0

    def _started(self) -> pb.RunReply:
        return started_reply(self._context.node, None, self._context.tracker, Selection())

    def _begin(self, rules: Ruleset) -> None:
        """Replace the rules. Each event is judged by the old rules or by the new ones, never by both or neither."""
        try:
            made = Judging(
                self._context,
                rules,
                Selection(),
                first=self._settings.first,
                host=self._settings.host,
                past=True,
                before=self._judging,
            )
        except (GadgetError, OSError) as error:
            if self._why_not != str(error):
                log.warning("detect: %s", error)
            self._why_not, self._try_at = str(error), time.monotonic() + self._settings.again_seconds
            return
        from_ns = time.time_ns()
        if self._judging:
            self._end(self._judging, from_ns)
            made.go_on_from(self._judging)
        self._judging, self._from_ns, self._rules, self._next, self._why_not = made, from_ns, rules, None, ""

    def _end(self, judging: Judging, until_ns: int) -> None:
        """End the old rules, and keep their alerts of events up to a time."""
        judging.finish()
        deadline = time.monotonic() + STALL_SECONDS / 2
        while not judging.is_over and time.monotonic() < deadline:
            self.worker.beat()
            taken = judging.take(TAKE_SECONDS)
            self._keep(judging, [each for each in taken if each.time_ns < until_ns], time.time_ns())
        self._let_pass(judging)

    def _let_pass(self, judging: Judging) -> None:
        judging.close()
        self._judged += judging.judged
        for loss in judging.losses():
            key = (loss.reason, loss.cgroup_id)
            self._earlier[key if len(self._earlier) < MOST_LOSSES else (loss.reason, 0)] += loss.count

    def _fail(self, why: str) -> None:
        """The run has ended by itself: try again later."""
        if self._judging:
            log.log(logging.WARNING if self._judging.error else logging.INFO, "detect: %s", why)  # else the agent ends
            self._let_pass(self._judging)
        self._judging, self._next, self._why_not = None, self._rules, why
        self._try_at = time.monotonic() + self._settings.again_seconds
        self.kept.history.interrupt(f"{self._context.node}: {why}")

    def _keep(self, judging: Judging, alerts: Sequence[pb.Alert], now_ns: int) -> None:
        """Keep alerts that have been taken, or count them."""
        alerts = [each for each in alerts if each.time_ns >= self._from_ns]
        for each in alerts:
            known = (each.rule, each.priority) in self._alerts or len(self._alerts) < MOST_COUNTED
            self._alerts[(each.rule, each.priority) if known else ("other", each.priority)] += max(each.count, 1)
        judged = self._judged + judging.judged
        self.kept.put(alerts, self._all_losses(), now_ns, judged, judging.named)

    def _all_losses(self) -> list[pb.Loss]:
        losses = self._earlier.copy()
        for loss in self._judging.losses() if self._judging else ():
            losses[loss.reason, loss.cgroup_id] += loss.count
        found = [pb.Loss(reason=reason, cgroup_id=cgroup, count=count) for (reason, cgroup), count in losses.items()]
        return [*found, *self.kept.losses()]
