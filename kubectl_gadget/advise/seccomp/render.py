"""Profiles as files, objects and snippets."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import orjson
import yaml

from gadget.text import escape
from kubectl_gadget.advise.seccomp import profile
from kubectl_gadget.advise.seccomp.collect import CallingWorkload

FORMS = ("oci", "spo", "pod")


def suffix(form: str) -> str:
    """How a file of that form ends."""
    return ".json" if form == "oci" else ".yaml"


def render(workload: CallingWorkload, form: str, action: str) -> str:
    """A workload's profile as text: JSON for runtimes, an object of the Security Profiles Operator, or a snippet."""
    if form == "pod":
        return _pod(workload)
    made = profile.make(workload, action)
    return _object(workload, made) if form == "spo" else orjson.dumps(made, option=orjson.OPT_INDENT_2).decode() + "\n"


def _object(workload: CallingWorkload, made: Mapping[str, Any]) -> str:
    """Its custom resource knows no comments; YAML does."""
    name = profile.file_name(workload).replace("_", "-").lower()
    lines = ["---\napiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\n"]
    lines.append(f"metadata:\n  name: {name}\n")
    if workload.namespace:
        lines.append(f"  namespace: {_yaml(workload.namespace)}\n")
    lines += [f"spec:\n  defaultAction: {made['defaultAction']}\n  architectures:\n"]
    lines += [f"  - {each}\n" for each in made["architectures"]]
    lines.append("  syscalls:\n")
    for rule in made["syscalls"]:
        lines.append(f"  # {escape(rule['comment'])}\n  - action: {rule['action']}\n")
        lines += [f"    errnoRet: {rule['errnoRet']}\n"] if "errnoRet" in rule else []
        lines += ["    names:\n", *(f"    - {each}\n" for each in rule["names"])]
    return "".join(lines)


def _pod(workload: CallingWorkload) -> str:
    """What goes into a pod, or into the template of pods."""
    file = f"{profile.file_name(workload)}{suffix('oci')}"
    where = f"# {escape(str(workload))}: the profile belongs on each node, as /var/lib/kubelet/seccomp/{file}\n"
    security = {"seccompProfile": {"type": "Localhost", "localhostProfile": file}}
    body = {"containers": [{"name": workload.container, "securityContext": security}]}
    return f"---\n{where}" + yaml.safe_dump(body, sort_keys=False)


def _yaml(value: str) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=inf).removesuffix("\n...\n").strip()
