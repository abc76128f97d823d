"""Judges audit events as they come, and writes the alerts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gadget.rules import alerts
from gadget.rules.alerts import Alert
from gadget.rules.audit import AuditEvent
from gadget.rules.channels import Channels, Sent
from gadget.rules.fields import AUDIT
from gadget.rules.ruleset import Ruleset
from gadget.text import escape
from kubectl_gadget.detect.audit import Counts, events, is_endless, payloads
from kubectl_gadget.detect.given import Wrong
from kubectl_gadget.output import terminal
from kubectl_gadget.tell import end_line, tell, write_json, write_line

#: Letters of an id, as agents make them.
ID_LETTERS = 7
_COLOURS = {"Emergency": terminal.RED, "Alert": terminal.RED, "Critical": terminal.RED, "Error": terminal.RED}
#: The words that outputs of rules have for a container's names: ours, and those that Falco adds.
_PLACE = "container|namespace|pod|container_id|container_name|k8s_pod_name|k8s_ns_name"
#: What has a request object that rules look into, where the audit policy keeps it.
_WRITES = ("create", "update", "patch")


def judge(where: Sequence[str], rules: Ruleset, form: str, channels: Channels, *, follow: bool, first: bool) -> None:
    """Write the alerts of audit events from places, then how many there were; until Ctrl-C where they have no end.

    Raises:
        Wrong: Nothing of what came was an audit event, or alerts could not be sent.

    """
    counts, fired, bare = Counts(), Counter[str](), 0
    write, stop = writer(form), threading.Event()
    if is_endless(where, follow=follow):
        _end_with(stop)
    for number, found in enumerate(events(payloads(where, counts, stop, follow=follow, tell=tell), counts), 1):
        bare += found.get("level") == "Metadata" and found.get("verb") in _WRITES
        try:
            judged = _judged(rules, found, number, first=first)
        except Exception as error:  # one event, whatever is in it, hides no other
            if counts.lose("events could not be judged"):
                tell(f"warning: event {found['auditID']!r} could not be judged: {type(error).__name__}: {error}")
            continue
        for alert in judged:
            fired[alert.rule.name] += 1
            write(alert, "")
            channels.put(alert)
    tell(_summary(counts, fired, bare))
    lost = end(channels)
    if counts.lost and not counts.events:
        raise Wrong("nothing of what came was an audit event")
    check_sent(lost)


def end(channels: Channels) -> int:
    """Let channels end, and tell of each what it sent; gives how many alerts were not."""
    return sum(_told(sent).lost for sent in channels.end())


def check_sent(lost: int) -> None:
    """Wrong if so many alerts that were not sent are some."""
    if lost:
        raise Wrong(f"{lost} {'alert was' if lost == 1 else 'alerts were'} not sent")


def _judged(rules: Ruleset, found: dict[str, Any], number: int, *, first: bool) -> list[Alert]:
    event = AuditEvent(found, number)
    time_ns = int(event.get("jevt.rawtime") or time.time_ns())
    return list(alerts.alerts(rules, event, AUDIT, time_ns, first=first))


def _end_with(stop: threading.Event) -> None:
    """Let Ctrl-C and SIGTERM end it once what has come is judged; the second one at once."""

    def end(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        end_line()
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def _told(sent: Sent) -> Sent:
    lost = f", {sent.lost} lost: {sent.why}" if sent.lost else ""
    tell(f"{sent.sent} {'alert' if sent.sent == 1 else 'alerts'} sent to {sent.name}{lost}")
    return sent


def own_name() -> str:
    """The name of this machine in alerts; FALCO_HOSTNAME says another, as in Falco."""
    return os.environ.get("FALCO_HOSTNAME") or socket.gethostname()


#: Writes an alert, and who it is about where that is known.
Write = Callable[[Alert, str], None]


def writer(form: str, *, kept: bool = False) -> Write:
    """What writes alerts in a form: columns, text, json. Kept ones have ids, and in JSON what Falco does not tell."""
    hostname = own_name()
    if kept and form != "text":
        if form == "json":
            return lambda alert, who: write_json(alert.whole_json(hostname).decode())
        return lambda alert, who: _write_columns(alert, who, alert.id or "-")
    if form == "json":
        return lambda alert, who: write_json(alert.json(hostname).decode())
    if form == "text":
        return lambda alert, who: write_line(alert.line())
    return _write_columns


def _write_columns(alert: Alert, who: str, name: str = "") -> None:
    """When, its id, how urgent, of whom, and what it says; on a terminal lines break between words."""
    says = _sentence(alert, who)
    since = f" since {_when(alert.since_ns)}" if alert.since_ns else ""
    says += f" ({alert.count} more{since})" if alert.since_ns else f" ({alert.count} times)" * (alert.count > 1)
    says += f" (not known: {', '.join(alert.incomplete)})" if alert.incomplete else ""
    named = f"{escape(name):{ID_LETTERS}}  " * bool(name)
    line = f"{_when(alert.time_ns)}  {named}{alert.rule.priority:13}  {f'{escape(who)}  ' * bool(who)}{escape(says)}"
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = textwrap.wrap(line, width, subsequent_indent="  ", drop_whitespace=True, break_on_hyphens=False)
    else:
        lines = [line]
    for each in lines:
        write_line(each, _COLOURS.get(alert.rule.priority, ""))


def _sentence(alert: Alert, who: str) -> str:
    """The rule, and what it shows: what stands before the first | is the rule in other words, as in Falco's rules."""
    said, bar, shown = alert.text.partition(" | ")
    shown = re.sub(r"(?:^| )[\w.-]+=<NA>(?= |$)", "", shown).strip()
    if who:  # which has them already
        shown = re.sub(rf"(?:^| )(?:{_PLACE})=\S*(?= |$)", "", shown).strip()
    if bar:
        return f"{alert.rule.name} | {shown}" if shown else alert.rule.name
    return said if said.lower().startswith(alert.rule.name.lower()) else f"{alert.rule.name}: {said}"


def _when(time_ns: int) -> str:
    """Local time, with the date if that is not today."""
    then = time.localtime(time_ns // 1_000_000_000)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def by_rule(fired: Counter[str]) -> str:
    """How many alerts there were of which rules."""
    number = sum(fired.values())
    which = ", ".join(f"{count} {name}" for name, count in fired.most_common(5))
    which += f", and {len(fired) - 5} more rules" if len(fired) > 5 else ""
    return f"{number} alert{'' if number == 1 else 's'}{f' ({which})' if which else ''}"


def _summary(counts: Counts, fired: Counter[str], bare: int) -> str:
    """How many alerts of which rules there were, of how many events, and what was not judged."""
    parts = [f"{by_rule(fired)} from {counts.events} audit event{'' if counts.events == 1 else 's'}"]
    if bare:
        parts.append(f"{bare} that change something had no content (level Metadata) for rules to read")
    parts += [f"{lost} {why}" for why, lost in counts.lost.items()]
    return f"{'; '.join(parts)}."
