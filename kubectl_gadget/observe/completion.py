"""Shell completion of a filter's last term."""

from __future__ import annotations

import re

import click
from click.shell_completion import CompletionItem

from gadget import catalog
from kubectl_gadget.completion import Complete, complete_namespaces, complete_pods
from kubectl_gadget.terms import KEYS, OF_FLOW, SAID, SAME

#: What completes the values of a key.
_VALUES: dict[str, Complete] = {"pod": complete_pods, "namespace": complete_namespaces}


def complete_terms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys that there are, or the values of one."""
    *_, last = re.split(r"[\s,]", incomplete)
    before = incomplete[: len(incomplete) - len(last)]
    found = re.fullmatch(r"(!?(?:(?:from|to):)?!?)(?:([a-z]+)=)?(.*)", last, re.DOTALL)
    assert found
    sign, key, value = found[1], SAME.get(found[2] or "", found[2]), found[3]
    if key is None:
        keys = [each for each in KEYS if not (":" in sign and each in OF_FLOW)]
        words = [*(f"{each}=" for each in keys), *([] if ":" in sign else ["from:", "to:"])]
    elif key in _VALUES:
        words = [item.value for item in _VALUES[key](ctx, param, value)]
    elif key == "policy":
        words = [*SAID]
    else:
        schema = catalog.find("observe").schema
        column = schema[key] if key in ("protocol", "verdict") else None
        words = [word.replace(" ", "-") for word in column.means.words(column)] if column else []
    start = before + sign + (f"{found[2]}=" if key else "")
    return [CompletionItem(start + word) for word in words if word.startswith(value)]
