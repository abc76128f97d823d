"""Judges audit events as they come, and writes the alerts."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FrameType

from gadget.chosen import Chosen
from gadget.rules import alerts
from gadget.rules.alerts import Alert
from gadget.rules.audit import AuditEvent
from gadget.rules.channels import Channels, SentCounts
from gadget.rules.fields import AUDIT
from gadget.rules.ruleset import Ruleset
from gadget.rules.webhook import WebhookCounts, events
from gadget.text import counted
from kubectl_gadget import interrupts
from kubectl_gadget.detect.audit import is_endless, payloads
from kubectl_gadget.detect.given import Wrong
from kubectl_gadget.detect.screen import Screen
from kubectl_gadget.detect.written import texts
from kubectl_gadget.stream.request import Selection
from kubectl_gadget.tell import end_line, tell

#: What has a request object that rules look into, where the audit policy keeps it.
_WRITES = ("create", "update", "patch")


@dataclass(frozen=True)
class WantedEvents:
    """Which audit events are judged: those about what a selection has, since a time in ns since 1970 or of none."""

    selection: Selection
    since_ns: int

    def __call__(self, event: AuditEvent) -> bool:
        """Whether one is."""
        if self.since_ns and int(event.get("jevt.rawtime") or self.since_ns) < self.since_ns:
            return False
        return self._everything or bool(self._chosen.matches(*event.place, "", None))

    @cached_property
    def _everything(self) -> bool:
        return self.selection == Selection()

    @cached_property
    def _chosen(self) -> Chosen:
        return self.selection.chosen()


def judge(
    where: Sequence[str],
    rules: Ruleset,
    wanted: WantedEvents,
    form: str,
    channels: Channels,
    *,
    follow: bool,
    first: bool,
) -> None:
    """Write the alerts of audit events from places, then how many there were; until Ctrl-C where they have no end.

    Raises:
        Wrong: Nothing of what came was an audit event, or alerts could not be sent.

    """
    counts, fired, bare, others = WebhookCounts(), Counter[str](), 0, 0
    text, stop, endless = texts(form), threading.Event(), is_endless(where, follow=follow)
    screen = Screen(channels.patience(endless=endless), stop.set)
    if endless:
        _end_with(stop)
    try:
        for number, found in enumerate(events(payloads(where, counts, stop, follow=follow, tell=tell), counts), 1):
            try:
                event = AuditEvent(found, number)
                if not wanted(event):
                    others += 1
                    continue
                bare += found.get("level") == "Metadata" and found.get("verb") in _WRITES
                judged = _judged(rules, event, first=first)
            except Exception as error:  # one event, whatever is in it, hides no other
                if counts.lose("events could not be judged"):
                    tell(f"warning: event {found['auditID']!r} could not be judged: {type(error).__name__}: {error}")
                continue
            for alert in judged:
                fired[alert.rule.name] += 1
                channels.put(alert)
                screen.write([text(alert, "")])
        screen.flush()
        tell(_summary(counts, fired, bare, others))
    finally:
        lost = end(channels, screen)
    if counts.lost and not counts.events:
        raise Wrong("nothing of what came was an audit event")
    check_sent(lost)


def end(channels: Channels, screen: Screen) -> int:
    """Let channels end, and tell of each what it sent, and what was not written; gives how many alerts were not."""
    return end_channels(channels) + screen.end()


def end_channels(channels: Channels) -> int:
    """Let channels end, and tell of each what it sent; gives how many alerts were not."""
    return sum(_told(sent).lost for sent in channels.end())


def check_sent(lost: int) -> None:
    """Wrong if so many alerts that were not sent are some."""
    if lost:
        raise Wrong(f"{lost} {'alert was' if lost == 1 else 'alerts were'} not sent")


def _judged(rules: Ruleset, event: AuditEvent, *, first: bool) -> list[Alert]:
    time_ns = int(event.get("jevt.rawtime") or time.time_ns())
    return list(alerts.alerts(rules, event, AUDIT, time_ns, first=first))


def _end_with(stop: threading.Event) -> None:
    """Let Ctrl-C and SIGTERM end it once what has come is judged; the second one at once."""

    def end(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            interrupts.end_at_once(number, frame)
        end_line()
        stop.set()

    interrupts.set_in_order(True)
    interrupts.handle(end, (signal.SIGINT, signal.SIGTERM))


def _told(sent: SentCounts) -> SentCounts:
    lost = f", {sent.lost} lost: {sent.why}" if sent.lost else ""
    tell(f"{counted(sent.sent, 'alert')} sent to {sent.name}{lost}")
    return sent


def by_rule(fired: Counter[str]) -> str:
    """How many alerts there were of which rules."""
    which = ", ".join(f"{count} {name}" for name, count in fired.most_common(5))
    which += f", and {len(fired) - 5} more rules" if len(fired) > 5 else ""
    return counted(sum(fired.values()), "alert") + (f" ({which})" if which else "")


def _summary(counts: WebhookCounts, fired: Counter[str], bare: int, others: int) -> str:
    """How many alerts of which rules there were, of how many events, and what was not judged."""
    parts = [f"{by_rule(fired)} from {counted(counts.events, 'audit event')}"]
    if others:
        parts.append(f"{others} of these were not of what was asked for")
    if bare:
        parts.append(f"{bare} that change something had no content (level Metadata) for rules to read")
    parts += [f"{lost} {why}" for why, lost in counts.lost.items()]
    return f"{'; '.join(parts)}."
