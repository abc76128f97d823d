"""Advice as a patch for kubectl, with what was seen as comments, and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, count, groupby
from math import inf
from typing import Any

import yaml

from gadget.text import counted, escape
from kubectl_gadget.advise.capabilities.need import CapabilityUses, Need, Who

#: Where kinds of workloads have what their pods are made from.
_TEMPLATE = ("spec", "template", "spec")
_PATHS = {"CronJob": ("spec", "jobTemplate", *_TEMPLATE), "Pod": ("spec",)}
#: Programs that a comment names.
_NAMED = 5


def together(needs: Iterable[Need]) -> list[list[Need]]:
    """The needs of each workload: it has one for each container of its pods."""
    return [list(of) for _, of in groupby(needs, key=lambda need: need.who[:3] if need.who.name else need.who)]


def patch(needs: Sequence[Need], watched: str) -> str:
    """The patch of a workload; watched says for how long."""
    who = needs[0].who
    lines = [f"---\n# {escape(called(who))}, watched for {watched}\n", *_how(who)]
    path = _PATHS.get(who.kind, _TEMPLATE) if who.name else ()
    for depth, name in enumerate(path):
        lines.append(f"{'  ' * depth}{name}:\n")
    space = "  " * len(path)
    lines.append(f"{space}containers:\n")
    for need in needs:
        lines += [f"{space}# {line}\n" for line in remarks(need)]
        lines.append(
            f"{space}- name: {_yaml(need.who.container)}\n{space}  securityContext:\n{space}    capabilities:\n"
        )
        lines.append(f"{space}      drop: [ALL]\n")
        lines += [f"{space}      add:\n"] if need.add else []
        for name in need.add:
            lines.append(f"{space}      - {name}  # {evidence(need.granted[f'CAP_{name}'])}\n")
    return "".join(lines)


def called(who: Who) -> str:
    """What a workload is called."""
    if not who.name:
        return who.container
    return f"{who.namespace}/{who.name}"


def _how(who: Who) -> list[str]:
    """How a patch is applied."""
    if who.kind == "Pod":
        return ["# a pod cannot be changed: make it anew with this in it\n"]
    if not who.name:
        return []
    if not who.kind:
        return ["# of what kind it is the agents do not know: the place is that of a Deployment\n"]
    return [
        f"# kubectl patch {escape(who.kind.lower())} {escape(who.name)} -n {escape(who.namespace)} --patch-file FILE\n"
    ]


def remarks(need: Need) -> list[str]:
    """What is to be known of a container's advice."""
    told = [f"{escape(need.who.container)}: {counted(len(need.containers), 'container')}"]
    if need.older:
        began = "it began" if len(need.containers) == 1 else f"{len(need.older)} of them began"
        told[0] += f"; {began} before the watch: what only the start needs may be missing"
    told += [f"needs capability {escape(name)} too, which has no name here" for name in need.unknown]
    for what, asked in (
        ("denied, and not added", need.denied),
        ("only in its own user namespaces, and not added", need.own),
    ):
        told += [
            f"{what}: {escape(name.removeprefix('CAP_'))}, {evidence(asked[name])}"
            for name in sorted(asked)
            if name not in need.granted
        ]
    return told


def evidence(asked: CapabilityUses) -> str:
    """Who was asked, in which call, and at least how often: the gadget tells of the 1st, 10th, 100th check."""
    named = sorted(asked.uses.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{escape(use.comm)}{f' in {escape(use.call)}' if use.call else ''}" for use, _ in named if use.comm]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    by = f" by {', '.join(words[:_NAMED])}{more}," if words else ""
    return f"asked for{by} at least {counted(asked.times, 'time', ',')}"


def to_json(needs: Sequence[Need], seconds: float) -> dict[str, Any]:
    """All that is known of a workload."""
    who = needs[0].who
    return {
        "namespace": who.namespace,
        "kind": who.kind,
        "name": who.name,
        "watchedSeconds": round(seconds, 3),
        "containers": [
            {
                "name": need.who.container,
                "containers": len(need.containers),
                "older": len(need.older),
                "capabilities": {"drop": ["ALL"], "add": need.add},
                "granted": _uses(need.granted),
                "denied": _uses(need.denied),
                "inOwnUserNamespaces": _uses(need.own),
            }
            for need in needs
        ],
    }


def _uses(asked: dict[str, CapabilityUses]) -> list[dict[str, Any]]:
    return [
        {
            "capability": name,
            "atLeast": each.times,
            "by": [{"comm": use.comm, "syscall": use.call or None, "atLeast": n} for use, n in each.uses.items()],
        }
        for name, each in sorted(asked.items())
    ]


def file_names(workloads: Iterable[Sequence[Need]]) -> list[str]:
    """A name for a file of each patch. Those that would have the same one have the kind or a number, too."""
    made: dict[str, None] = {}
    for needs in workloads:
        who = needs[0].who
        called = who.name or who.container
        plain, kind = _file_name(who.namespace, called), _file_name(who.namespace, who.kind, called)
        numbered = (f"{plain}.{number}" for number in count(2))
        made[next(name for name in chain((plain, kind), numbered) if name not in made)] = None
    return [f"{name}.yaml" for name in made]


def _file_name(*parts: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", ".".join(filter(None, parts))).lstrip(".") or "_"


def _yaml(value: str) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=inf).removesuffix("\n...\n").strip()
