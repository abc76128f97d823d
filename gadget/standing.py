"""A standing run as a file: what `--detach` makes, deploy mounts and /etc/gadget/runs.d holds. TOML, NAME.toml.

gadget = "…"
keep = "64M"
metrics = ["namespace,error"]
namespaces = ["shop"]
pods = ["cart-*", "!cart-0"]

[parameters]
failed = true
"""

from __future__ import annotations

import re
import tomllib
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from gadget import parameters
from gadget.catalog import find, load
from gadget.chosen import Chosen
from gadget.errors import UsageError
from gadget.kinds import find as find_kind
from gadget.kinds.numbers import SIZES
from gadget.metric import MOST_METRICS, read_metric
from gadget.schema import SNAPSHOT

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: A name must do as a file name, as a key of a ConfigMap and as a word of the command line.
MOST_NAME = 63
NAME = re.compile(rf"[a-z0-9](?:[a-z0-9.-]{{0,{MOST_NAME - 2}}}[a-z0-9])?")
SUFFIX = ".toml"
#: A larger file is not a standing run.
MOST_BYTES = 256 << 10


class _Workload(msgspec.Struct, forbid_unknown_fields=True):
    """The pods of a deployment, a service or the like, by their labels."""

    labels: str = ""
    pattern: str = ""
    namespace: str = ""
    without: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """What may be in the file."""

    gadget: str
    keep: str = ""
    buffer: str = ""
    interval: str = ""
    metrics: list[str] = []
    namespaces: list[str] = []
    pods: list[str] = []
    containers: list[str] = []
    labels: str = ""
    parameters: dict[str, bool | int | str] = {}
    workloads: list[_Workload] = []


def check_name(name: str) -> str:
    """The name of a standing run. UsageError if it can be none."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a run: want lower-case letters, digits, - and ., at most {MOST_NAME}")
    return name


def story_run(story: str, kind: str) -> str:
    """What the run of one kind of a story is called. UsageError if a story cannot be called so."""
    name = f"{story}.{kind}"
    if not (NAME.fullmatch(story) and NAME.fullmatch(name)):
        longest = MOST_NAME - 1 - max(map(len, story_kinds()))
        wanted = f"want lower-case letters, digits, - and ., at most {longest}"
        raise UsageError(f"{story!r} cannot name a story: {wanted}")
    return name


def story_of(run: pb.Standing) -> tuple[str, str] | None:
    """The story and the kind, if a run is part of a story."""
    name, _, kind = run.name.rpartition(".")
    return (name, kind) if name and story_kinds().get(kind) == run.start.gadget else None


def shown_name(run: pb.Standing) -> str:
    """What users call a run, or the story that it is part of."""
    story = story_of(run)
    return story[0] if story else run.name


def story_kinds() -> dict[str, str]:
    """The gadget of each kind that a story may have."""
    return {gadget.story.kind: gadget.name for gadget in load().values() if gadget.story}


def check(run: pb.Standing) -> pb.Standing:
    """Return the run. UsageError if no agent could run it."""
    check_name(run.name)
    gadget = find(run.start.gadget)
    if gadget.source == SNAPSHOT or run.start.totals:
        what = "--totals" if run.start.totals else gadget.command
        raise UsageError(f"{run.name}: {what} cannot stand: a standing run keeps events, or adds up tables")
    gadget.check_interval(run.start.interval_ns)
    if gadget.has_tables and not run.metrics:
        raise UsageError(f"{run.name}: a standing run keeps no tables: say what to count of them, with --metric")
    deque(parameters.encode_all(gadget, run.start.parameters), 0)
    if len({read_metric(gadget, each) for each in run.metrics}) < len(run.metrics) or len(run.metrics) > MOST_METRICS:
        raise UsageError(f"{run.name}: up to {MOST_METRICS} metrics, each another one")
    Chosen.of(run.start.selection)
    if len(to_toml(run).encode()) > MOST_BYTES:
        raise UsageError(f"{run.name} chooses too much: its definition may have {MOST_BYTES >> 10} KiB")
    return run


def from_toml(name: str, text: str) -> pb.Standing:
    """The run that a file of that name (without suffix) defines. UsageError with what is wrong in it."""
    from gadget._generated import gadget_pb2 as pb

    try:
        found = msgspec.convert(tomllib.loads(text), _File)
        choices = [_pod(each) for each in found.pods]
        choices += [pb.PodChoice(**msgspec.structs.asdict(each)) for each in found.workloads]
        return check(
            pb.Standing(
                name=name,
                keep_bytes=_bytes("keep", found.keep),
                metrics=found.metrics,
                start=pb.Start(
                    gadget=found.gadget,
                    parameters={key: str(value) for key, value in found.parameters.items()},
                    ring_bytes=_bytes("buffer", found.buffer),
                    interval_ns=_nanoseconds(found.interval),
                    selection=pb.Selection(
                        namespaces=found.namespaces, containers=found.containers, labels=found.labels, any_of=choices
                    ),
                ),
            )
        )
    except RecursionError:
        raise UsageError(f"{name}{SUFFIX}: nested too deeply") from None
    except (ValueError, msgspec.ValidationError, UsageError) as error:  # as of numbers that no field takes
        raise UsageError(f"{name}{SUFFIX}: {error}") from None


def to_toml(run: pb.Standing) -> str:
    """The file that defines a run."""
    start, selection = run.start, run.start.selection
    pods = [f"{'!' * each.without}{each.pattern}" for each in selection.any_of if _is_name(each)]
    plain: dict[str, Any] = {
        "gadget": start.gadget,
        "keep": _size(run.keep_bytes),
        "buffer": _size(start.ring_bytes),
        "interval": f"{start.interval_ns}ns" * bool(start.interval_ns),
        "metrics": list(run.metrics),
        "namespaces": list(selection.namespaces),
        "pods": pods,
        "containers": list(selection.containers),
        "labels": selection.labels,
    }
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if value]
    if start.parameters:
        lines += ["", "[parameters]", *(f"{key} = {_value(value)}" for key, value in sorted(start.parameters.items()))]
    for each in selection.any_of:
        if not _is_name(each):
            given = {"labels": each.labels, "pattern": each.pattern, "namespace": each.namespace}
            lines += ["", "[[workloads]]", *(f"{key} = {_value(value)}" for key, value in given.items() if value)]
            lines += ["without = true"] * each.without
    return "\n".join(lines) + "\n"


def _pod(written: str) -> pb.PodChoice:
    from gadget._generated import gadget_pb2 as pb

    return pb.PodChoice(pattern=written.removeprefix("!"), without=written.startswith("!"))


def _is_name(choice: pb.PodChoice) -> bool:
    return bool(choice.pattern) and not (choice.labels or choice.namespace)


def _value(value: str | list[str]) -> str:
    """Strings in JSON are strings in TOML, but for DEL, which TOML wants escaped."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _nanoseconds(text: str) -> int:
    try:
        return find_kind("duration").digits(text) if text else 0
    except ValueError:
        raise UsageError(f"interval = {text!r}: want a time such as 10s") from None


def _bytes(what: str, text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if text and not found:
        raise UsageError(f"{what} = {text!r}: want a size such as 64M")
    return int(found[1]) * SIZES.get(found[2], 1) if found else 0


def _size(size: int) -> str:
    for unit, factor in reversed(SIZES.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size) if size else ""
