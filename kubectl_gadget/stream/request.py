"""What a user asks of a gadget, checked against the catalogue. Cheap to import: nothing has been started yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from gadget import filters
from gadget.catalog import Gadget
from gadget.chosen import Chosen
from gadget.errors import UsageError
from gadget.pod_choice import PodChoice
from gadget.schema import IDENTITY, Column
from gadget.selector import parse_labels, parse_names
from gadget.values import dataclass
from kubectl_gadget.output import Look, Output, choose_fields, find_form, known_field, make_output
from kubectl_gadget.pods import PodName, name_choices, read_pods
from kubectl_gadget.stream.order import NO_ORDER, Order
from kubectl_gadget.stream.patience import PATIENCE, Patience

#: A name that no pod has.
NOBODY = "-"


@dataclass(frozen=True)
class Selection:
    """Which containers. pods are the items of -p; any_of is what they mean; whole_names is for older agents."""

    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    labels: str = ""
    any_of: tuple[PodChoice, ...] = ()
    whole_names: tuple[str, ...] = ()

    def message(self) -> dict[str, Any]:
        """The fields of proto's Selection."""
        return {
            "namespaces": self.namespaces,
            "pods": self.whole_names,
            "containers": self.containers,
            "labels": self.labels,
            "any_of": [asdict(choice) for choice in self.any_of],
        }

    def chosen(self) -> Chosen:
        """The selection in a form that decides about containers."""
        return Chosen(self.namespaces, (), self.containers, self.labels, self.any_of)

    def resolve(self, find: Callable[[PodName], tuple[list[PodChoice], list[str]]]) -> Selection:
        """The same, with the pods of workloads: find returns how to tell them, and which exist."""
        choices, names = list(self.any_of), list(self.whole_names)
        for name in read_pods(self.pods):
            if name.is_workload:
                found, pods = find(name)
                choices += found
                names += [f"{'!' * name.without}{pod}" for pod in pods]
        if not any(name[0] != "!" for name in names) and any(not choice.without for choice in choices):
            names.append(NOBODY)  # to an older agent an empty list would mean all pods
        return replace(self, any_of=tuple(choices), whole_names=tuple(names))


def make_selection(
    namespace: tuple[str, ...], all_namespaces: bool, pod: tuple[str, ...], container: tuple[str, ...], selector: str
) -> Selection:
    """A selection from option values. UsageError if they contradict each other or the selector is none."""
    if namespace and all_namespaces:
        raise UsageError("-n and -A: choose one")
    parse_labels(selector)
    for names in (namespace, container):
        parse_names(names)
    pods = read_pods(pod)
    whole = tuple(f"{'!' * name.without}{name.name}" for name in pods if not name.is_workload)
    return Selection(namespace, pod, container, selector, name_choices(pods), whole)


@dataclass(frozen=True)
class Request:
    """One streaming command: what to show, then what only a live stream has.

    demanded are the fields that were asked for by name; others are left out where an agent does not know them.
    conditions are those of --filter, which are read anew in the words of each agent; usual is what holds for the rows
    that are shown without --all.
    nodes are those of a recording that are shown.
    max_events 0 for no limit; timeout in seconds, 0 for none; ring_bytes 0 for the gadget's own.
    order, interval (in seconds), totals and count (0 for no limit) are those of tables.
    standing is the name of the standing run to read, if it is one: what it kept since since_ns (since 1970), so many
    events of that, the last ones, 0 for all, and with follow what comes. reads is what RunRequest calls that.
    patience says how long agents are waited for.
    """

    gadget: Gadget
    parameters: Mapping[str, str] = field(default_factory=dict)
    form: str = ""
    fields: Sequence[Column] = ()
    demanded: frozenset[str] = frozenset()
    count_by: Sequence[Column] = ()
    conditions: str = ""
    usual: str = ""
    max_events: int = 0
    strict: bool = False
    selection: Selection = Selection()
    nodes: tuple[str, ...] = ()
    ring_bytes: int = 0
    timeout: float = 0.0
    record: Path | None = None
    standing: str = ""
    reads: str = "attach"
    since_ns: int = 0
    last: int = 0
    follow: bool = False
    order: Order = NO_ORDER
    interval: float = 0.0
    totals: bool = False
    count: int = 0
    patience: Patience = PATIENCE

    def about(self, selection: Selection) -> Request:
        """The same of other containers."""
        return replace(self, selection=selection)

    def make_output(self, known: Mapping[str, Column], node: str) -> Output:
        """The output for the events, with their fields as an agent knows them. node: the only node, if there is one."""
        form = self.form
        if self.count_by:
            from kubectl_gadget.output.counts import Counts

            return Counts(_in_words_of(known, self.count_by), lambda shown: make_output(form, shown, {}), {})
        shown, look = _in_words_of(known, self.fields), self.look(known, node)
        if self.gadget.has_tables and find_form(form).is_table:
            from kubectl_gadget.output.tables import TableOutput

            once = self.count == 1 or not self.interval
            return TableOutput(shown, lambda: make_output(form, shown, {}, look), once=once)
        return make_output(form, shown, {}, look)

    def look(self, known: Mapping[str, Column], node: str) -> Look:
        """How a table shows the gadget's fields, as an agent knows them. node: the only node, if there is one."""
        namespaces = parse_names(self.selection.namespaces).wanted
        fixed = {"node": node, "namespace": min(namespaces) if len(namespaces) == 1 else ""}
        return Look(
            narrow=self.gadget.narrow,
            fixed={name: value for name, value in fixed.items() if value},
            demanded=self.demanded,
            failed={name: _none_of(known[name], words) for name, words in self.gadget.good.items() if name in known},
        )


def _in_words_of(known: Mapping[str, Column], fields: Iterable[Column]) -> Sequence[Column]:
    """The fields, with what an agent calls their values; what it has no word for is called as in the catalogue."""
    return [replace(item, values={**item.values, **known[item.name].values}) for item in fields if item.name in known]


def _none_of(item: Column, words: Collection[str]) -> Callable[[int], bool]:
    """Whether a value of a field is none of words."""
    numbers = {int(number) for number, word in item.values.items() if word in words}
    return lambda value: value not in numbers


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
    counted = [known_field(gadget, name.strip()) for name in count_by.split(",") if name.strip()]
    named = {part.strip().lstrip("+") for part in f"{fields},{count_by}".split(",")}
    if counted:
        from kubectl_gadget.output.counts import COUNT

        make_output(form, [COUNT, *counted], {})  # UsageError if it is about other fields
    else:
        named |= {*(find_form(form).names or ())}
    values = {name.removeprefix("param_"): value for name, value in settings.items() if value is not None}
    shown = {field.name for field in gadget.schema.shown}
    switches = {parameter.name for parameter in gadget.parameters if parameter.means.is_switch} & shown
    # a switch named as a field fills that field, so asking for the field turns it on
    fills = {name: [name] for name in switches} | dict(gadget.fills)
    for name, filled in fills.items():
        if not named.isdisjoint(filled) or not kept.fields.isdisjoint(filled):
            values.setdefault(name, True)
    switched_on = [field for name in values if name in fills and values[name] for field in fills[name]]
    return Request(
        gadget=gadget,
        parameters={name: str(value) for name, value in values.items()},
        form=form,
        fields=choose_fields(gadget, form, fields, switched_on) if fields or not counted else [],
        demanded=frozenset(name for name in named | kept.fields if name and name[0] != "-"),
        count_by=counted,
        conditions=expression,
        **rest,
    )
