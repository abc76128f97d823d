"""What a standing run counts for Prometheus: `--metric namespace,error`, or a histogram: `latency:namespace`.

Of tables it is what they add up: `waited:namespace`.
"""

from __future__ import annotations

from typing import NamedTuple

from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.schema import IDENTITY, TABLE

#: Metrics of a run, and fields of one: each set of values that they have together is a series of its own.
MOST_METRICS, MOST_FIELDS = 4, 4
#: Of the container, what may be a field of a metric. Its id is another one each time, and Prometheus knows the node.
OF_CONTAINERS = tuple(name for name in IDENTITY if name not in ("node", "containerId"))


class Metric(NamedTuple):
    """Counts events by fields; with a number it is a histogram of that field, or of tables its sum."""

    by: tuple[str, ...]
    number: str = ""


def read_metric(gadget: Gadget, text: str) -> Metric:
    """A metric as it is written. UsageError if the gadget has no such fields, or they cannot be counted by."""
    number, colon, rest = text.rpartition(":")
    by = tuple(filter(None, rest.split(",")))
    if len(by) > MOST_FIELDS or len(set(by)) < len(by):
        raise UsageError(f"--metric {text}: up to {MOST_FIELDS} fields, each once")
    for name in by:
        if name not in fields_of(gadget):
            raise UsageError(f"--metric {text}: cannot count by {name!r}; there is {', '.join(fields_of(gadget))}")
    numbers = _numbers_of(gadget)
    if gadget.source == TABLE and not colon:
        raise UsageError(f"--metric {text}: say what of {gadget.command}'s tables, such as {numbers[0]}:{text}")
    if colon and number not in numbers:
        raise UsageError(f"--metric {text}: {number!r} is no number to draw; there is {', '.join(numbers) or 'none'}")
    return Metric(by, number)


def _numbers_of(gadget: Gadget) -> list[str]:
    """The fields that can be a histogram; of tables, the fields that add up."""
    known = [field for field in gadget.schema.shown if field.means.measure]
    return [field.name for field in known if field.is_added or gadget.source != TABLE]


def fields_of(gadget: Gadget) -> list[str]:
    """The fields that events can be counted by."""
    return [*OF_CONTAINERS, *(field.name for field in gadget.schema.shown if field.means.is_few)]
