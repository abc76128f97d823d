"""`advise network-policy diff`: what advised policies would change in the existing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any, Literal

import orjson
import yaml

from gadget.text import escape


@dataclass(frozen=True)
class Change:
    """What happens to one policy. text is a unified diff of YAML, empty unless the policy is created or changed.

    A policy that is there and not advised stays: applying advice deletes nothing.
    """

    namespace: str
    name: str
    state: Literal["created", "changed", "unchanged", "not advised"]
    text: str


def diff(current: Iterable[Mapping[str, Any]], advised: Iterable[Mapping[str, Any]]) -> list[Change]:
    """What applying advised would do to current, by namespace and name.

    Only what a policy means is compared: not the order of rules, peers and ports, nor defaults that one of the two
    spells out, nor what the API server adds, nor labels that others gave it.
    """
    new = {key(policy): _normalise(policy) for policy in advised}
    old = {key(policy): _normalise(policy, new.get(key(policy))) for policy in current}
    return [_change(*key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]


def show(changes: Sequence[Change]) -> str:
    """Changes as text: the diffs, each after a line that says what it is, then the policies that have none."""
    lines = [] if changes else ["nothing to change: there are no policies there, and none is advised\n"]
    for change in sorted(changes, key=lambda change: not change.text):
        note = ", and stays: no flow needs it" if change.state == "not advised" else ""
        name = escape(f"{change.namespace}/{change.name}")
        lines.append(f"{change.state}  {name}{note}\n{change.text}")
    return "".join(lines)


def key(policy: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of a policy."""
    metadata = policy["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _change(namespace: str, name: str, old: Any, new: Any) -> Change:
    if new is None:
        return Change(namespace, name, "not advised", "")
    if old == new:
        return Change(namespace, name, "unchanged", "")
    where = escape(f"{namespace}/{name}")
    lines = unified_diff(_lines(old), _lines(new), f"{where} (current)" if old else "/dev/null", f"{where} (advised)")
    return Change(namespace, name, "changed" if old else "created", "".join(lines))


def _lines(policy: Any) -> list[str]:
    return yaml.safe_dump(policy, width=1000).splitlines(keepends=True) if policy else []


def _normalise(policy: Mapping[str, Any], advised: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A policy in the form that is compared. An existing one keeps only the labels that the advised one has."""
    metadata, spec = policy["metadata"], _tidy(policy.get("spec") or {})
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Egress", "Ingress"] if "egress" in spec else ["Ingress"])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")
    kept = {key: metadata[key] for key in ("namespace", "name", "labels") if metadata.get(key)}
    if advised and "labels" in kept:
        wanted = advised["metadata"].get("labels", {})
        kept["labels"] = {key: value for key, value in kept["labels"].items() if key in wanted}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": kept, "spec": _sort(spec)}


def _tidy(value: Any) -> Any:
    """A copy without members that mean nothing: null, empty lists, an empty matchLabels. {} stays: it may mean all."""
    if isinstance(value, Mapping):
        tidied = {key: _tidy(item) for key, item in value.items() if item is not None and item != []}
        return {key: item for key, item in tidied.items() if (key, item) != ("matchLabels", {})}
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def _sort(value: Any) -> Any:
    """The same with all lists sorted: in a policy none has an order that means anything."""
    if isinstance(value, Mapping):
        return {key: _sort(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(map(_sort, value), key=lambda item: orjson.dumps(item, option=orjson.OPT_SORT_KEYS))
    return value
