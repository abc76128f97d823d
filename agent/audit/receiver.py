"""Judges the audit events that an API server sends, and keeps the alerts."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.detect.folder import Followed
from agent.detect.judging import TOO_LARGE, masked
from agent.detect.kept import AlertStore
from agent.detect.past import RuleWords, id_of
from agent.files import printable
from agent.masking import Masker
from agent.run.replies import started_reply
from agent.selection import Selection
from agent.service import Active, Running, ServedCall
from agent.threads import Worker
from gadget._generated import gadget_pb2 as pb
from gadget.rules import messages
from gadget.rules.alerts import Alert, alerts, valid
from gadget.rules.audit import AuditEvent
from gadget.rules.fields import AUDIT
from gadget.rules.ruleset import Ruleset
from gadget.rules.webhook import NO_TOKEN, Webhook, WebhookCounts, events
from gadget.text import counted

log = logging.getLogger(__name__)

#: What status and alerts call it, as it is of no node.
NAME = "k8s-audit"
PATH = "/k8s-audit"
LOOK_SECONDS, TAKE_SECONDS = 2.0, 0.25
#: To judge a batch, and to load rules, may take seconds.
STALL_SECONDS = 60.0
#: A message of kept alerts has no more, as gRPC takes 4 MiB; one alert has 0.6 at most.
MOST_BYTES, MOST_ALERTS = 2 << 20, 1024


@dataclass(frozen=True)
class ReceiverSettings:
    """A receiver's settings: where it listens, whom it believes, which rules judge, and how many MiB it keeps."""

    address: tuple[str, int]
    token: str
    tls: ssl.SSLContext
    rules: Sequence[str]
    state: Path
    keep: int
    redact: Sequence[str] = ()
    #: how often changes of rules are looked for
    look_seconds: float = LOOK_SECONDS
    #: of one message
    most_alerts: int = MOST_ALERTS


class Receiver(Running):
    """A webhook whose events are judged in a thread, until it is closed. What it kept stays."""

    def __init__(self, settings: ReceiverSettings) -> None:
        """Begin. OSError if the address cannot be had, or nothing can be kept."""
        self._settings, self._counts = settings, WebhookCounts()
        self._followed = Followed(settings.rules, AUDIT)
        self._rules: Ruleset | None = None
        self._words: RuleWords | None = None
        self._mask = Masker(settings.redact).mask if settings.redact else None
        self._kept = AlertStore(settings.state / NAME, NAME, settings.keep, _started)
        self._webhook = Webhook(
            settings.address, PATH, self._counts, log.warning, token=settings.token, tls=settings.tls
        )
        self.worker = Worker(NAME, self._work, STALL_SECONDS)
        self.worker.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._webhook.port

    def describe(self) -> str:
        """How it is, in one line."""
        rules, refused = self._rules, self._counts.lost.get(NO_TOKEN, 0)
        parts = [
            counted(len(rules.rules) if rules else 0, "rule"),
            counted(self._counts.events, "event"),
            self._kept.describe(),
        ]
        parts += [f"{counted(refused, 'request')} without the token refused"] if refused else []
        parts += [problem] if (problem := self.problem()) else []
        return printable(" ".join("; ".join(parts).split()))

    def problem(self) -> str:
        """What is wrong with its rules, or with what it keeps."""
        parts = [
            "" if self._webhook.is_alive else "nothing is received any more",
            self._followed.problem(self._rules),
            self._kept.problem(),
        ]
        return printable(" ".join("; ".join(filter(None, parts)).split()))

    def losses(self) -> Mapping[str, int]:
        """What should have been judged or kept, and was not."""
        return {each.reason: each.count for each in self._losses()}

    @property
    def workers(self) -> Sequence[Worker]:
        """The thread that judges."""
        return [self.worker]

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[pb.RunReply]]]:
        """A client may read the alerts."""
        return {"kept_alerts": self._kept.read}

    def calls(self) -> Sequence[ServedCall]:
        """A client may ask for one alert with its rule."""
        return (ServedCall("KeptAlert", lambda request, _: self._kept.answer(request), reads=True),)

    def close(self) -> None:
        """End, once what was answered is judged."""
        self._webhook.close()
        self.worker.stop(STALL_SECONDS)
        self._kept.history.close()

    def _work(self, worker: Worker) -> None:
        self._kept.history.interrupt(f"{NAME}: the receiver was not there")
        look_at = 0.0
        while not worker.stopping:
            worker.beat()
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + self._settings.look_seconds
            self._take(TAKE_SECONDS)
        while self._take(0):
            worker.beat()

    def _look(self) -> None:
        if rules := self._followed.look():
            self._rules, self._words = rules, RuleWords(rules)

    def _take(self, seconds: float) -> bool:
        """Judge the next batch, if it comes in time; gives whether one came."""
        body = self._webhook.get(seconds)
        found: list[pb.Alert] = []
        size = 0
        for event in events([body] if body else [], self._counts):
            self.worker.beat()
            for alert in self._judged(event):
                if found and (size + alert.ByteSize() > MOST_BYTES or len(found) >= self._settings.most_alerts):
                    self._put(found)
                    found, size = [], 0
                found.append(alert)
                size += alert.ByteSize()
        self._put(found)
        return body is not None

    def _put(self, found: Sequence[pb.Alert]) -> None:
        self._kept.put(found, self._losses(), time.time_ns(), self._counts.events)

    def _judged(self, found: dict[str, Any]) -> Iterator[pb.Alert]:
        if self._rules is None:
            self._counts.lose("events came before there were rules")
            return
        event = AuditEvent(found, self._counts.events)
        time_ns = int(event.get("jevt.rawtime") or time.time_ns())
        try:
            fired = list(alerts(self._rules, event, AUDIT, time_ns))
        except Exception as error:  # one event, whatever is in it, hides no other
            if self._counts.lose("events could not be judged"):
                log.warning("event %r could not be judged: %s: %s", found["auditID"], type(error).__name__, error)
            return
        for alert in fired:
            if message := self._message(alert, event):
                yield message

    def _message(self, alert: Alert, event: AuditEvent) -> pb.Alert | None:
        message = pb.Alert()
        named = replace(alert, id=id_of(NAME, alert, event.get("ka.auditid")))
        if not messages.fill(message, masked(named, self._mask) if self._mask else named):
            self._counts.lose(TOO_LARGE)
            return None
        message.container.namespace, message.container.pod = map(valid, event.place)
        past = pb.Past()
        if self._words:
            self._words.fill(past, alert.rule.name)
        message.past = messages.pack(past)
        return message

    def _losses(self) -> list[pb.Loss]:
        lost = [(why, count) for why, count in [*self._counts.lost.items()] if why != NO_TOKEN]
        return [*(pb.Loss(reason=why, count=count) for why, count in lost), *self._kept.losses()]


def _started() -> pb.RunReply:
    return started_reply(NAME, None, None, Selection())
