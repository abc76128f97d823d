"""NetworkPolicies from files: YAML of one or more documents, JSON, lists of objects, folders of all that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from gadget.errors import UsageError
from kubectl_gadget.advise.compile import compile_policy

SUFFIXES = (".yaml", ".yml", ".json")
#: What `kubectl apply -k` reads in a folder; it holds no policy.
KUSTOMIZATION = "kustomization.yaml"


@dataclass(frozen=True)
class PolicyFiles:
    """The policies of some files, and how many objects of other kinds they have."""

    policies: list[dict[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def read_policies(path: Path, namespace: str) -> PolicyFiles:
    """The policies of a file, or of all files in a folder and below it; namespace is that of those that name none.

    UsageError, with file and document, if there is no file or no policy, a wrong one, or one twice: each of these would
    make a check say less than it seems to say.
    """
    found = PolicyFiles()
    seen: dict[tuple[str, str], str] = {}
    for file in _files(path):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: {getattr(error, 'strerror', None) or 'is no text in UTF-8'}") from None
        for where, item in parse_objects(text, str(file)):
            _add(found, seen, where, item, namespace)
    if not found.policies:
        others = f", only {', '.join(sorted(found.skipped))}" if found.skipped else ""
        raise UsageError(f"{path}: no NetworkPolicy of networking.k8s.io/v1{others}")
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}")]
    shown = (file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return sorted(file for file in shown if file.name != KUSTOMIZATION)


def _add(
    found: PolicyFiles, seen: dict[tuple[str, str], str], where: str, item: Mapping[str, Any], namespace: str
) -> None:
    if (item.get("apiVersion"), item.get("kind")) != ("networking.k8s.io/v1", "NetworkPolicy"):
        found.skipped[f"{item.get('kind')} ({item.get('apiVersion')})"] += 1
        return
    metadata = item.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("namespace") is None:
        item = {**item, "metadata": {**metadata, "namespace": namespace}}
    try:
        policy = compile_policy(item)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    key = (policy.namespace, policy.name)
    if key in seen:
        raise UsageError(f"{where}: policy {'/'.join(key)} is in {seen[key]} too")
    seen[key] = where
    found.policies.append(dict(item))


def parse_objects(text: str, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The Kubernetes objects in text, lists opened, each with its place, such as "a.yaml, document 2, item 3".

    UsageError, with the place, for what is no object.
    """
    for number, document in enumerate(_documents(text, where), 1):
        yield from _objects(document, f"{where}, document {number}")


def _documents(text: str, where: str) -> Iterator[Any]:
    if text.lstrip().startswith("{"):
        try:
            yield orjson.loads(text)
            return
        except orjson.JSONDecodeError:
            pass  # YAML may begin like that too
    number = 1
    try:
        for document in yaml.load_all(text, _Loader):
            yield document
            number += 1
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{where}, document {number}{line}: {problem}") from None


def _objects(item: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if item is None:
        return  # nothing but a comment between two ---
    if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
        raise UsageError(f"{where}: is no Kubernetes object: it has no kind")
    kind, items = item["kind"], item.get("items")
    if not kind.endswith("List") or not isinstance(items, list):
        yield where, item
        return
    for number, each in enumerate(items, 1):
        if isinstance(each, Mapping) and kind != "List":  # the items of a typed list need not say what they are
            each = {"apiVersion": item.get("apiVersion"), "kind": kind.removesuffix("List"), **each}
        yield from _objects(each, f"{where}, item {number}")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses a key that is there twice, as the API server does: YAML itself would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
