"""`detect check`: what rules need the kernel to send, and what they cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gadget import catalog
from gadget.text import counted
from kubectl_gadget.output import terminal
from kubectl_gadget.text import wrap

if TYPE_CHECKING:
    from gadget.rules.cost import Cost
    from gadget.rules.ruleset import Rule, Ruleset

#: A rule with more types of events has in fact none.
MANY = 100
#: Cells of a line where there is no terminal.
_WIDEST = 100
#: What the kernel reads beside calls only if a rule asks about these fields.
_CONTENTS = {"buffers": "evt.buffer", "environment": "proc.env"}
_PARTS = {"call": "call", "process": "process", "file": "file or socket"}


@dataclass(frozen=True)
class RuleNeeds:
    """What rules of one source need, whether they are on or not, and what they cost together."""

    rules: Ruleset
    chosen: Sequence[Rule]

    @property
    def of_calls(self) -> bool:
        """Whether they judge what happens on nodes."""
        return self.chosen[0].source == "syscall"

    @cached_property
    def _on(self) -> Ruleset:
        return replace(self.rules, rules=tuple(replace(rule, enabled=True) for rule in self.chosen))

    @property
    def _types(self) -> frozenset[str]:
        return frozenset[str]().union(*(rule.types for rule in self.chosen))

    @cached_property
    def calls(self) -> list[str]:
        """The calls that the kernel sends for them, by Falco's names."""
        return sorted(self._types & _all_calls())

    @property
    def all_calls(self) -> int:
        """How many the kernel can send."""
        return len(_all_calls())

    @property
    def unseen(self) -> list[str]:
        """The types of events that they are asked of and no agent sees; none if they do not say which."""
        return sorted(self._types - _all_calls()) if len(self._types) <= MANY else []

    @property
    def contents(self) -> list[str]:
        """The fields for which the kernel has to send more than calls have by themselves."""
        from gadget.rules import live

        parameters = live.parameters(self._on, live.names_of_calls(catalog.find("detect").schema))
        asked = [field for name, field in _CONTENTS.items() if parameters[name] == "true"]
        return [*asked, *(name for name in live.DOMAINS if live.asks(self._on, name))]

    @cached_property
    def cost(self) -> Cost:
        """What they take."""
        from gadget.rules.cost import cost

        return cost(self.rules, self.chosen, self.calls)

    @property
    def sends(self) -> str:
        """What the kernel sends for them."""
        calls = f"all {self.all_calls} calls" if len(self.calls) == self.all_calls else " ".join(self.calls)
        return f"{calls or 'nothing'}{' with ' * bool(self.contents)}{', '.join(self.contents)}"

    @property
    def parts(self) -> str:
        """What of them is asked of what."""
        found = self.cost.parts
        once = ", ".join(f"{word} {found[name]}" for name, word in _PARTS.items() if found.get(name))
        each = f"each time: {found['event']}" if found.get("event") else ""
        return "; ".join(each for each in (f"parts asked once: {once}" if once else "", each) if each)

    def described(self) -> dict[str, Any]:
        """As JSON."""
        if not self.of_calls:
            return {"calls": None, "cost_ns": round(self.cost.ns, 1)}
        return {
            "calls": self.calls,
            "unseen": self.unseen,
            "contents": self.contents,
            "cost_ns": round(self.cost.ns, 1),
            "asked_once": {name: self.cost.parts[name] for name in _PARTS},
            "asked_each": self.cost.parts["event"],
        }


def _all_calls() -> frozenset[str]:
    from gadget.rules import live

    return live.sent(live.names_of_calls(catalog.find("detect").schema))


def table(rules: Ruleset, chosen: Sequence[Rule]) -> Iterator[str]:
    """Lines: rules by what they need, the dearest first."""
    on = [rule for rule in chosen if rule.enabled]
    by_calls: dict[tuple[str, ...], list[Rule]] = {}
    for rule in on:
        if rule.source == "syscall":
            by_calls.setdefault(tuple(RuleNeeds(rules, [rule]).calls), []).append(rule)
    audit = [rule for rule in on if rule.source != "syscall"]
    cells = terminal.columns() if sys.stdout.isatty() else _WIDEST
    if by_calls:
        every = RuleNeeds(rules, [rule for found in by_calls.values() for rule in found])
        text = f"For these rules the kernel sends {len(every.calls)} of {every.all_calls} system calls"
        more = f", with {', '.join(every.contents)}" if every.contents else ""
        yield from ("", *wrap(f"{text}{more}. What rules take for one, measured here on made-up events:", cells))
    groups = [RuleNeeds(rules, found) for found in (*by_calls.values(), audit) if found]
    for group in sorted(groups, key=lambda each: -each.cost.ns):
        what = group.sends if group.of_calls else "audit events"
        together = f" {time_text(group.cost.ns)}, {counted(len(group.chosen), 'rule')} together"
        yield from ("", *wrap(f"{what}:{together if len(group.chosen) > 1 else ''}", cells, "", "  "))
        for each in sorted((RuleNeeds(rules, [rule]) for rule in group.chosen), key=lambda each: -each.cost.ns):
            of_each = " (asks of each event)" if each.cost.parts.get("event") else ""
            yield f"  {time_text(each.cost.ns):>7}  {each.chosen[0].name}{of_each}"


def time_text(ns: float) -> str:
    """A time, in two digits: it is another one on another machine."""
    if ns >= 1000:
        return f"{ns / 1000:.2g} µs"
    return f"{float(f'{ns:.2g}'):.0f} ns"
