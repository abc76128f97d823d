"""What led to alerts: what their container did before, its last system calls, and the rule. Each alert takes it along,
as the container may be gone when somebody reads it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

from agent.detect.surroundings import Surroundings
from agent.service import ServiceContext
from agent.traceloop.service import TraceloopService
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.rules.alerts import Alert, at_least, valid
from gadget.rules.messages import pack
from gadget.rules.recent import MOST_CONTAINERS, Budget, Happened
from gadget.rules.ruleset import Rule, Ruleset
from gadget.rules.texts import PiecedText

log = logging.getLogger(__name__)

#: Rules of these priorities have system calls without a word, so many.
URGENT, CALLS = at_least("Critical"), 200
#: More are not read, whatever a rule says.
MOST_CALLS = 2000
#: A container's calls are read once in so long, and those of all so often in a row, then each tenth of a second.
AGAIN_NS = 5_000_000_000
READINGS, EACH_READING_NS = 20, 100_000_000
#: Addresses that a container got by DNS.
ANSWERS = 32
#: Letters of the rule's own texts.
LONGEST_RULE = 4000
#: An id is of these: neither l and 1 nor o and 0.
_LETTERS, _ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789", 7

Mask = Callable[[bytes], bytes]


def id_of(node: str, alert: Alert, event: str = "") -> str:
    """A short name of an alert, the same for all who get it: of node, rule, time and process, or event."""
    pid = alert.ancestry[0].pid if alert.ancestry else 0
    text = "\0".join(
        (node, valid(alert.rule.name), str(alert.time_ns), str(alert.cgroup_id), str(pid), *filter(None, [event]))
    )
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return "".join(_LETTERS[number >> 5 * at & 31] for at in range(_ID_LETTERS))


class RuleWords:
    """What alerts tell of their rules."""

    def __init__(self, rules: Ruleset) -> None:
        """Of a set of rules."""
        self._rules = {rule.name: rule for rule in rules.rules}
        self._conditions = {
            name: " ".join(PiecedText.joined(rule.condition).value.split()) for name, rule in rules.files.rules.items()
        }

    def fill(self, past: pb.Past, name: str) -> Rule | None:
        """Put the texts of its rule into what led to an alert. Returns the rule."""
        if rule := self._rules.get(name):
            past.description = valid(" ".join(rule.desc.split()))[:LONGEST_RULE]
            past.condition = valid(self._conditions.get(name, ""))[:LONGEST_RULE]
        return rule


class Pasts:
    """Tells of each alert what led to it. One thread calls it."""

    def __init__(self, context: ServiceContext, rules: Ruleset, surroundings: Surroundings, mask: Mask | None) -> None:
        """Of alerts of rules. mask hides what is not to leave this machine."""
        self._context, self._surroundings, self._mask = context, surroundings, mask
        self._words = RuleWords(rules)
        self._happened: OrderedDict[int, str] = OrderedDict()  # by cgroup the alert that had it last
        self._calls: OrderedDict[int, str] = OrderedDict()
        self._no_calls: OrderedDict[int, str] = OrderedDict()  # why those of a container were not read
        self._has_failed = False
        self._budget, self._of_all = Budget(1, AGAIN_NS), Budget(READINGS, EACH_READING_NS)

    def of(self, alert: Alert) -> bytes:
        """What led to an alert that has an id, as its message has it; empty if that cannot be told.

        Whatever is wrong with it, the alert is to be heard.
        """
        try:
            return self._of(alert)
        except Exception:
            if not self._has_failed:
                log.exception("detect: what led to the alert %s cannot be told, and may be so of others", alert.id)
            self._has_failed = True
            return b""

    def _of(self, alert: Alert) -> bytes:
        past = pb.Past(image=valid(self._image(alert.cgroup_id)))
        rule = self._words.fill(past, alert.rule.name)
        self._add_happened(past, alert)
        number = (rule.history if rule else 0) or CALLS * (alert.rule.priority in URGENT)
        if number > 0:
            self._add_calls(past, alert, min(number, MOST_CALLS))
        if not (data := pack(past)) and past.HasField("calls"):
            past.ClearField("calls")
            past.no_calls = "they were too large"
            data = pack(past)
        return data

    def _image(self, cgroup_id: int) -> str:
        container = self._surroundings.container(cgroup_id)
        return str(container.get("container.image") or "") if container is not None else ""

    def _add_happened(self, past: pb.Past, alert: Alert) -> None:
        if alert.happened is None:
            past.happened_of = self._happened.get(alert.cgroup_id, "")
            return
        _remember(self._happened, alert.cgroup_id, alert.id)
        past.happened.extend(self._told(each, alert.cgroup_id) for each in alert.happened)
        for address, names in self._surroundings.answers(alert.cgroup_id, ANSWERS):
            past.resolved.add(name=names[0], addresses=[str(ip_address(address))])

    def _told(self, each: Happened, cgroup_id: int) -> pb.Happened:
        names = self._surroundings.domains(cgroup_id, each.address) if each.address else ()
        return pb.Happened(
            time_ns=each.time_ns,
            call=each.call,
            pid=each.pid,
            name=valid(self._hidden(each.name)),
            what=map(valid, self._hidden("\0".join(each.what)).split("\0") if each.what else ()),
            result=each.result,
            domains=names,
            cut=each.cut,
        )

    def _hidden(self, text: str) -> str:
        return masked_text(text, self._mask) if self._mask else text

    def _add_calls(self, past: pb.Past, alert: Alert, number: int) -> None:
        """What the flight recorder has, which is read now and then only: a flood of alerts costs no more."""
        now_ns, cgroup_id = time.monotonic_ns(), alert.cgroup_id
        recorder = self._context.running.get("traceloop")
        if self._surroundings.container(cgroup_id) is None:
            past.no_calls = "it was outside containers"
            return
        if not isinstance(recorder, TraceloopService):
            past.no_calls = "this agent has no flight recorder"
            return
        if not self._budget.take(cgroup_id, now_ns):
            past.calls_of = self._calls.get(cgroup_id, "")
            why = self._no_calls.get(cgroup_id, "they were read just before, and could not be")
            past.no_calls = "" if past.calls_of else why
            return
        if not self._of_all.take(0, now_ns):
            past.no_calls = "too many containers had alerts at once"
            return
        try:
            past.calls.CopyFrom(recorder.last(cgroup_id, number, alert.time_ns))
        except (GadgetError, OSError, ValueError) as error:
            self._calls.pop(cgroup_id, None)
            past.no_calls = valid(str(error))
            _remember(self._no_calls, cgroup_id, past.no_calls)
            return
        _remember(self._calls, cgroup_id, alert.id)


def masked_text(text: str, mask: Mask) -> str:
    """A text with masks over what must not leave this machine."""
    return mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _remember(known: OrderedDict[int, str], cgroup_id: int, name: str) -> None:
    known[cgroup_id] = name
    known.move_to_end(cgroup_id)
    if len(known) > MOST_CONTAINERS:
        known.popitem(last=False)
