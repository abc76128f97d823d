"""Advice as files: YAML with the evidence as comments, JSON, one file per policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from gadget.errors import GadgetError
from gadget.text import counted
from kubectl_gadget.advise import calico, cilium, documents
from kubectl_gadget.advise.documents import Comments, comment, to_yaml
from kubectl_gadget.advise.files import write_file
from kubectl_gadget.advise.networks import single
from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Advice, Peer, Policy, Remark
from kubectl_gadget.advise.policy_files import KUSTOMIZATION
from kubectl_gadget.advise.talks import natural
from kubectl_gadget.output.encode import encode

#: How many pods are named as evidence.
SHOWN = 4
_MADE = "# made by kubectl gadget advise network-policy: all policies of this folder"


@dataclass(frozen=True)
class Dialect:
    """Whose policies: how one becomes an object, and what there is to say of its places, briefly or with explain."""

    to_dict: Callable[[Policy], dict[str, Any]]
    comments: Callable[[Policy, bool], Comments]


def render_yaml(advice: Advice, *, explain: bool = False, dialect: str = "kubernetes") -> str:
    """All policies as one YAML stream, with who each peer is as comments, and warnings above what they are about.

    The same flows give the same bytes, whenever they are asked for; explain tells what was seen, how often and when.
    """
    head = _about(advice.warnings, None, explain)
    if explain:
        head = f"{comment(advice.summary)}\n{head}"
    return head + "---\n".join(_document(advice, policy, explain, dialect) for policy in advice.policies)


def render_json(advice: Advice, *, dialect: str = "kubernetes") -> str:
    """All policies as one List object."""
    items = [DIALECTS[dialect].to_dict(policy) for policy in advice.policies]
    return _json({"apiVersion": "v1", "kind": "List", "items": items})


def write_policies(
    advice: Advice, folder: Path, *, explain: bool = False, dialect: str = "kubernetes", form: str = "yaml"
) -> list[Path]:
    """Write each policy to a file of its own and a kustomization of all that are there, and give their paths.

    GadgetError if the disk refuses.
    """
    paths: list[Path] = []
    for policy in advice.policies:
        text = _document(advice, policy, explain, dialect)
        if form == "json":
            text = _json(DIALECTS[dialect].to_dict(policy))
        paths.append(folder / f"{_file_name(policy.namespace)}.{_file_name(policy.name)}.{form}")
        write_file(paths[-1], text)
    kustomization = folder / KUSTOMIZATION
    if paths and _is_ours(kustomization):
        there = sorted(each.name for each in folder.glob(f"*.{form}") if each.name != KUSTOMIZATION)
        body = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        write_file(kustomization, f"{_MADE}\n{to_yaml({**body, 'resources': there}, {})}")
        paths.append(kustomization)
    return paths


def _is_ours(kustomization: Path) -> bool:
    """Whether a kustomization is not there, or was written by us: one that a person wrote stays."""
    try:
        return not kustomization.exists() or kustomization.read_text(errors="replace").startswith(_MADE)
    except OSError as error:
        raise GadgetError(f"--output-dir {kustomization}: {error.strerror}") from None


def _json(body: Mapping[str, Any]) -> str:
    return encode(body, indent=True).decode() + "\n"


def _file_name(name: str) -> str:
    """A name that stays in its folder and is no other's, whatever a flows file has for names."""
    plain = re.sub(r"[^-a-z0-9.]|^\.", "_", name)[:100]
    return plain if plain == name else f"{plain}-{sha256(name.encode()).hexdigest()[:6]}"


def _document(advice: Advice, policy: Policy, explain: bool, dialect: str) -> str:
    """A policy as YAML, with the warnings about it above."""
    chosen = DIALECTS[dialect]
    about = _about(advice.warnings, policy.key, explain)
    return about + to_yaml(chosen.to_dict(policy), chosen.comments(policy, explain))


def _about(remarks: Iterable[Remark], key: tuple[str, str] | None, explain: bool) -> str:
    """What there is to say of a policy, or of none, a line each; what is about the recording only with explain."""
    found = (
        each.text for each in remarks if (each.key if each.policy else None) == key and (explain or not each.passing)
    )
    return "".join(f"{comment(text)}\n" for text in found)


def _comments(policy: Policy, explain: bool) -> Comments:
    comments: dict[documents.Path, list[str]] = {}
    for direction, key, peers in ((INGRESS, "ingress", "from"), (EGRESS, "egress", "to")):
        for number, rule in enumerate(policy.rules.get(direction, ())):
            for place, peer in enumerate(rule.peers):
                comments["spec", key, number, peers, place] = _lines(peer, direction, explain)
    return comments


def _cilium_comments(policy: Policy, explain: bool) -> Comments:
    comments: dict[documents.Path, list[str]] = {}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        for number, (kind, peers, _) in enumerate(cilium.parts(policy, direction)):
            for place, peer in enumerate(peers):
                # all nodes are the same two entities
                own = () if kind.endswith("Entities") else (place,)
                comments.setdefault(("spec", key, number, kind, *own), []).extend(_lines(peer, direction, explain))
    return comments


def _calico_comments(policy: Policy, explain: bool, *, names: bool) -> Comments:
    comments: dict[documents.Path, list[str]] = {}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        for number, (kind, peers, _) in enumerate(calico.parts(policy, direction, names=names)):
            for place, peer in enumerate(peers):
                own = () if kind == "selector" else (calico.SIDES[direction], "domains", place)
                if peer.cidr:
                    own = (calico.SIDES[direction], "nets", place)
                comments["spec", key, number, *own] = _lines(peer, direction, explain)
    return comments


def _of_calico(*, names: bool) -> Dialect:
    return Dialect(partial(calico.to_calico, names=names), partial(_calico_comments, names=names))


#: By the word after --format.
DIALECTS = {
    "kubernetes": Dialect(lambda policy: policy.to_dict(), _comments),
    "cilium": Dialect(cilium.to_cilium, _cilium_comments),
    "calico": _of_calico(names=False),
    "calico-enterprise": _of_calico(names=True),
}


def _lines(peer: Peer, direction: str, explain: bool) -> list[str]:
    """Comments that say who a peer is, unless its address says all; with explain also what was seen."""
    if explain:
        return _explained(peer, direction)
    if not peer.cidr and peer.selector is None:
        return []  # a name, whose addresses come and go
    told = () if _says_all(peer) or not peer.names else (_some(peer.names),)
    domains = (_some(peer.domains),) if peer.domains else ()
    return [", ".join((*told, *domains))] if told or domains else []


def _explained(peer: Peer, direction: str) -> list[str]:
    seen = peer.evidence
    if not seen.last:
        return [f"{_head(peer) or f'{peer.cidr}: '}not seen, but others like it"]
    lines = [f"{_head(peer)}{_counted(seen)}, first {_second(seen.first)}, last {_second(seen.last)}"]
    if len(peer.ports) > 1:
        counts = (f"{port} {each.count:,}" for port, each in sorted(peer.ports.items()))
        lines.append(f"by port: {', '.join(counts)}")
    pods = seen.sources if direction == INGRESS else seen.targets
    if pods:
        lines.append(f"{'from' if direction == INGRESS else 'to'} {_some(pods)}")
    if not (seen.received_in_all if direction == INGRESS else seen.sent_in_all):
        lines.append("seen at the other end only")
    return lines


def _counted(evidence: Evidence) -> str:
    parts = []
    if evidence.count or not evidence.refused:
        parts.append(counted(evidence.count, "connection", ","))
    if evidence.refused:
        parts.append(f"{evidence.refused:,} failed")
    if evidence.older:
        parts.append("some older than the agent")
    return ", ".join(parts)


def _head(peer: Peer) -> str:
    """Who a peer is, unless its address says all."""
    if _says_all(peer):
        return f"{_some(peer.domains)}: " if peer.domains else ""
    unnamed = [f"{peer.unnamed:,} address{'es' * (peer.unnamed != 1)}"] if peer.unnamed else []
    return f"{', '.join([*([_some(peer.names)] if peer.names else []), *unnamed])}: "


def _says_all(peer: Peer) -> bool:
    """Whether a peer's address is all that is known of it."""
    return bool(peer.cidr) and {single(name) for name in peer.names} == {peer.cidr}


def _some(names: set[str]) -> str:
    ordered = natural(names)
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else "")


def _second(nanoseconds: int) -> str:
    # UTC, so that the same flows give the same bytes everywhere
    return strftime("%Y-%m-%d %H:%M:%SZ", gmtime(nanoseconds // 1_000_000_000))
