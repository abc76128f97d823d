"""Judges audit events as they come, and writes the alerts."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable

from gadget.errors import UsageError
from gadget.rules import alerts
from gadget.rules.alerts import Alert
from gadget.rules.audit import AuditEvent
from gadget.rules.channels import Channels
from gadget.rules.fields import AUDIT
from gadget.rules.ruleset import Ruleset
from kubectl_gadget.detect.audit import Counts, events, payloads
from kubectl_gadget.output import terminal
from kubectl_gadget.tell import tell, write_line

_COLOURS = {"Emergency": terminal.RED, "Alert": terminal.RED, "Critical": terminal.RED, "Error": terminal.RED}


def judge(where: str, rules: Ruleset, form: str, channels: Channels, *, follow: bool, first: bool) -> None:
    """Write the alerts of audit events from a place, then how many there were; until Ctrl-C where it has no end."""
    if not any(rule.source == AUDIT and rule.enabled for rule in rules.rules):
        raise UsageError("none of these rules is for audit events (source: k8s_audit), and enabled")
    counts, fired = Counts(), Counter[str]()
    write = _writer(form)
    came = payloads(where, counts, follow=follow)
    endless = follow or where.startswith("http")
    if endless:
        tell(f"judging audit events of {where}; ends with Ctrl-C")
    try:
        for number, found in enumerate(events(came, counts), 1):
            event = AuditEvent(found, number)
            time_ns = int(event.get("jevt.rawtime") or 0)
            for alert in alerts.alerts(rules, event, AUDIT, time_ns, first=first):
                fired[alert.rule.name] += 1
                write(alert)
                channels.put(alert)
    except KeyboardInterrupt:
        if not endless:
            raise
    tell(_summary(counts, fired))
    for sent in channels.end():
        lost = f", {sent.lost} lost: {sent.why}" if sent.lost else ""
        tell(f"{sent.sent} alert{'' if sent.sent == 1 else 's'} sent to {sent.name}{lost}")


def own_name() -> str:
    """The name of this machine in alerts; FALCO_HOSTNAME says another, as in Falco."""
    return os.environ.get("FALCO_HOSTNAME") or socket.gethostname()


def _writer(form: str) -> Callable[[Alert], None]:
    hostname = own_name()
    if form == "json":
        return lambda alert: write_line(alert.json(hostname).decode())
    if form == "text":
        return lambda alert: write_line(alert.line())
    return lambda alert: write_line(_columns(alert), _COLOURS.get(alert.rule.priority, ""))


def _columns(alert: Alert) -> str:
    """When, how urgent, which rule, and what it says."""
    clock = alert.line().partition(".")[0]
    return f"{clock}  {alert.rule.priority:13}  {alert.rule.name}: {alert.text}"


def _summary(counts: Counts, fired: Counter[str]) -> str:
    """How many alerts of which rules there were, of how many events, and what was not judged."""
    alerts_ = sum(fired.values())
    which = f" ({', '.join(f'{number} {name}' for name, number in fired.most_common(5))}" if fired else ""
    more = f", and {len(fired) - 5} more rules" if len(fired) > 5 else ""
    lost = "; ".join(f"{number} of what came {why}" for why, number in counts.lost.items())
    told = f"{alerts_} alert{'' if alerts_ == 1 else 's'}{f'{which}{more})' if fired else ''}"
    return f"{told} from {counts.events} audit event{'' if counts.events == 1 else 's'}{f'; {lost}' if lost else ''}."
