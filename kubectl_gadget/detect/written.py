"""Alerts as they are written: columns for people, Falco's line, Falco's JSON."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gadget.rules.alerts import Alert
from gadget.text import escape
from kubectl_gadget.detect.given import ID_LETTERS
from kubectl_gadget.output import terminal
from kubectl_gadget.tell import json_of, line_of
from kubectl_gadget.text import fit, width, wrap

#: The text of an alert, and of who it is about where that is known.
Text = Callable[[Alert, str], str]

#: Letters of the usual priorities.
PRIORITY_LETTERS = 9
_COLOURS = {"Emergency": terminal.RED, "Alert": terminal.RED, "Critical": terminal.RED, "Error": terminal.RED}
#: The words that outputs of rules have for a container's names: ours, and those that Falco adds.
_PLACE = "container|namespace|pod|container_id|container_name|k8s_pod_name|k8s_ns_name"
#: And for its image, which a pod's name tells as well.
_IMAGE = "image|container_image_repository|container_image_tag"
#: Cells of a value on a terminal, and of the narrowest line.
_WIDEST_VALUE, _NARROWEST = 160, 40


def own_name() -> str:
    """The name of this machine in alerts; FALCO_HOSTNAME says another, as in Falco."""
    return os.environ.get("FALCO_HOSTNAME") or socket.gethostname()


def texts(form: str, *, kept: bool = False) -> Text:
    """The lines of alerts in a form: columns, text, json. Kept ones have ids, and in JSON what Falco does not tell.

    Others have an id where that is kept.
    """
    hostname = own_name()
    if form == "text":
        return lambda alert, who: line_of(alert.line())
    if form == "json":
        made = Alert.whole_json if kept else Alert.json
        return lambda alert, who: json_of(made(alert, hostname).decode())

    def text(alert: Alert, who: str) -> str:
        nonlocal kept
        kept = kept or bool(alert.id)
        name = (alert.id or "-") if kept else ""
        if sys.stdout.isatty():
            return "".join(_lines(alert, who, name, max(terminal.columns(), _NARROWEST)))
        return line_of(_line(alert, who, name), _COLOURS.get(alert.rule.priority, ""))

    return text


class _Said(NamedTuple):
    """What an alert says: the rule, and what it shows. bar: in Falco's way, with a | in between."""

    what: str
    shown: str
    bar: bool


def _said(alert: Alert, left_out: str) -> _Said:
    """The rule, which stands in other words before the first | in Falco's rules, and the rest without some words."""
    said, bar, shown = alert.text.partition(" | ")
    shown = re.sub(r"(?:^| )[\w.-]+=<NA>(?= |$)", "", shown).strip()
    if left_out:
        shown = re.sub(rf"(?:^| )(?:{left_out})=\S*(?= |$)", "", shown).strip()
    if bar:
        return _Said(alert.rule.name, shown, True)
    if said.lower().startswith(alert.rule.name.lower()):
        return _Said(said, "", False)
    return _Said(alert.rule.name, said, False)


def _line(alert: Alert, who: str, name: str) -> str:
    """A line for programs: when, its id, how urgent, of whom, and what it says."""
    said = _said(alert, _PLACE if who else "")
    says = (" | " if said.bar else ": ").join(filter(None, said[:2])) + _times(alert) + _unknown(alert)
    named = f"{name:{ID_LETTERS}}  " * bool(name)
    return f"{_when(alert.time_ns)}  {named}{alert.rule.priority:13}  {f'{who}  ' * bool(who)}{says}"


def _lines(alert: Alert, who: str, name: str, columns: int) -> Iterator[str]:
    """Lines for people: when, its id, how urgent, what; below it of whom, if that has no room, and what it shows."""
    said = _said(alert, f"{_PLACE}|{_IMAGE}" if "/" in who else _PLACE if who else "")
    named = f"{name:{ID_LETTERS}}  " * bool(name)
    begin = f"{_when(alert.time_ns)}  {named}{alert.rule.priority:{PRIORITY_LETTERS}}  "
    *above, head = wrap(escape(f"{said.what}{_times(alert)}"), columns, escape(begin), "  ")
    if who and not above and width(head) + 2 + width(escape(who)) <= columns:
        head, who = f"{head}  {escape(who)}", ""
    for line in (*above, head):
        yield line_of(line, _COLOURS.get(alert.rule.priority, ""))
    shown = f"{_shortened(alert, said.shown)}{_unknown(alert)}".strip()
    rest = " | ".join(filter(None, (who, shown)))
    for line in wrap(escape(rest), columns, "  ", "  ") if rest else ():
        yield line_of(line)


def _shortened(alert: Alert, shown: str) -> str:
    """The same with long values cut in the middle: a script as an argument hides all that comes after it."""
    for value in alert.fields.values():
        if isinstance(value, str) and len(value) > _WIDEST_VALUE:
            shown = shown.replace(value, fit(value, _WIDEST_VALUE, middle=True))
    return shown


def _times(alert: Alert) -> str:
    if alert.since_ns:
        return f" ({alert.count} more since {_when(alert.since_ns)})"
    return f" ({alert.count} times)" * (alert.count > 1)


def _unknown(alert: Alert) -> str:
    return f" (not known: {', '.join(alert.incomplete)})" if alert.incomplete else ""


def _when(time_ns: int) -> str:
    """Local time, with the date if that is not today."""
    then = time.localtime(time_ns // 1_000_000_000)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)
