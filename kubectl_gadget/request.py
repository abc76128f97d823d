"""What a user asks of a gadget, checked against the catalogue. Cheap to import: nothing has been started yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gadget import filters
from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.schema import IDENTITY, Field
from gadget.selector import parse_labels, parse_names
from kubectl_gadget.output import choose_fields, known_field


@dataclass(frozen=True)
class Selection:
    """Which containers, as proto's Selection has it."""

    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    labels: str = ""


def make_selection(
    namespace: tuple[str, ...], all_namespaces: bool, pod: tuple[str, ...], container: tuple[str, ...], selector: str
) -> Selection:
    """A selection from option values. UsageError if they contradict each other or the selector is none."""
    if namespace and all_namespaces:
        raise UsageError("-n and -A: choose one")
    parse_labels(selector)
    for names in (namespace, pod, container):
        parse_names(names)
    return Selection(namespace, pod, container, selector)


@dataclass(frozen=True)
class Request:
    """One streaming command: what to show, then what only a live stream has.

    demanded are the fields that were asked for by name; others are left out where an agent does not know them.
    conditions are those of --filter, which are read anew in the words of each agent.
    max_events 0 for no limit; timeout in seconds, 0 for none; ring_bytes 0 for the gadget's own.
    """

    gadget: Gadget
    parameters: Mapping[str, str]
    form: str
    fields: list[Field]
    demanded: frozenset[str]
    count_by: list[Field]
    conditions: str
    max_events: int = 0
    strict: bool = False
    selection: Selection = Selection()
    ring_bytes: int = 0
    timeout: float = 0.0
    record: Path | None = None

    def within(self, namespaces: tuple[str, ...]) -> Request:
        """The same in these namespaces; in all if there are none."""
        return replace(self, selection=replace(self.selection, namespaces=namespaces))


def make_request(
    gadget: Gadget,
    settings: Mapping[str, Any],
    form: str,
    fields: str,
    conditions: tuple[str, ...],
    count_by: str,
    **rest: Any,
) -> Request:
    """A request from option values. UsageError if fields or conditions do not fit the gadget."""
    expression = filters.joined(conditions)
    kept = filters.parse(expression, gadget.schema, IDENTITY)
    named = {part.strip().lstrip("+") for part in f"{fields},{count_by}".split(",")}
    values = {name.removeprefix("param_"): value for name, value in settings.items() if value is not None}
    shown = {field.name for field in gadget.schema.shown}
    switches = {parameter.name for parameter in gadget.parameters if parameter.kind == "bool"} & shown
    # a switch named as a field fills that field, so asking for the field turns it on
    for name in switches & (named | kept.fields):
        values.setdefault(name, True)
    return Request(
        gadget=gadget,
        parameters={name: str(value) for name, value in values.items()},
        form=form,
        fields=choose_fields(gadget, form, fields, [name for name in values if name in switches and values[name]]),
        demanded=frozenset(name for name in named | kept.fields if name and name[0] != "-"),
        count_by=[known_field(gadget, name.strip()) for name in count_by.split(",") if name.strip()],
        conditions=expression,
        **rest,
    )
