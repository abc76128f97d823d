"""Advice as files: YAML with the evidence as comments, JSON, one file per policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from time import gmtime, strftime

from gadget.errors import GadgetError
from gadget.text import counted
from kubectl_gadget.advise import documents
from kubectl_gadget.advise.cilium import parts, to_cilium
from kubectl_gadget.advise.documents import Comments, comment, to_yaml
from kubectl_gadget.advise.networks import single
from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Advice, Peer, Policy, Remark
from kubectl_gadget.advise.talks import natural
from kubectl_gadget.output.encode import encode

#: How many pods are named as evidence.
SHOWN = 4


def render_yaml(advice: Advice, *, explain: bool = False) -> str:
    """All policies as one YAML stream, with warnings and who each peer is as comments; explain tells what was seen."""
    return _stream(advice, lambda policy: to_yaml(policy.to_dict(), _comments(policy, explain)))


def render_cilium(advice: Advice, *, explain: bool = False) -> str:
    """All policies as CiliumNetworkPolicies, in one YAML stream; explain tells what was seen."""
    return _stream(advice, lambda policy: to_yaml(to_cilium(policy), _cilium_comments(policy) if explain else {}))


def render_json(advice: Advice, *, cilium: bool = False) -> str:
    """All policies as one List object."""
    items = [to_cilium(policy) if cilium else policy.to_dict() for policy in advice.policies]
    body = {"apiVersion": "v1", "kind": "List", "items": items}
    return encode(body, indent=True).decode() + "\n"


def write_policies(
    advice: Advice, folder: Path, *, explain: bool = False, cilium: bool = False, form: str = "yaml"
) -> list[Path]:
    """Write each policy to a file of its own, and give their paths. GadgetError if the disk refuses."""
    paths: list[Path] = []
    for policy in advice.policies:
        about = [each for each in advice.warnings if (each.namespace, each.policy) == (policy.namespace, policy.name)]
        body = to_cilium(policy) if cilium else policy.to_dict()
        if form == "json":
            text = encode(body, indent=True).decode() + "\n"
        else:
            comments = _comments(policy, explain)
            if cilium:
                comments = _cilium_comments(policy) if explain else {}
            text = "".join(f"{comment(each.text)}\n" for each in about) + to_yaml(body, comments)
        path = folder / f"{_file_name(policy.namespace)}.{_file_name(policy.name)}.{form}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise GadgetError(f"--output-dir {path}: {error.strerror}") from None
        paths.append(path)
    return paths


def _file_name(name: str) -> str:
    """A name that stays in its folder and is no other's, whatever a flows file has for names."""
    plain = re.sub(r"[^-a-z0-9.]|^\.", "_", name)[:100]
    return plain if plain == name else f"{plain}-{sha256(name.encode()).hexdigest()[:6]}"


def _stream(advice: Advice, show: Callable[[Policy], str]) -> str:
    head = "".join(f"{comment(text)}\n" for text in (advice.summary, *_texts(advice.warnings)))
    return head + "---\n".join(show(policy) for policy in advice.policies)


def _texts(remarks: Iterable[Remark]) -> Iterable[str]:
    return (remark.text for remark in remarks)


def _comments(policy: Policy, explain: bool) -> Comments:
    comments: dict[documents.Path, list[str]] = {}
    for direction, key, peers in ((INGRESS, "ingress", "from"), (EGRESS, "egress", "to")):
        for number, rule in enumerate(policy.rules.get(direction, ())):
            for place, peer in enumerate(rule.peers):
                path: documents.Path = ("spec", key, number, peers, place)
                comments[path] = _explained(peer, direction) if explain else [_short(peer)]
    return comments


def _cilium_comments(policy: Policy) -> Comments:
    comments: dict[documents.Path, list[str]] = {}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        every = [part for rule in policy.rules.get(direction, ()) for part in parts(rule, direction)]
        for number, (kind, peers) in enumerate(every):
            for place, peer in enumerate(peers):
                # entities and networks are lists of words, in one line
                own = (place,) if kind.endswith("Endpoints") else ()
                path: documents.Path = ("spec", key, number, kind, *own)
                named = [] if own or not peer.cidr else [peer.cidr]
                comments.setdefault(path, []).extend([*named, *_explained(peer, direction)])
    return comments


def _short(peer: Peer) -> str:
    if not peer.evidence.last:
        return f"{_head(peer) or f'{peer.cidr}: '}not seen, but others like it"
    return f"{_head(peer)}{_counted(peer.evidence)}, last {_minute(peer.evidence.last)}"


def _explained(peer: Peer, direction: str) -> list[str]:
    seen = peer.evidence
    if not seen.last:
        return [_short(peer)]
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
    if peer.cidr and {single(name) for name in peer.names} == {peer.cidr}:
        return ""
    unnamed = [f"{peer.unnamed:,} address{'es' * (peer.unnamed != 1)}"] if peer.unnamed else []
    return f"{', '.join([*([_some(peer.names)] if peer.names else []), *unnamed])}: "


def _some(names: set[str]) -> str:
    ordered = natural(names)
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else "")


def _minute(nanoseconds: int) -> str:
    # UTC, so that the same flows give the same bytes everywhere
    return strftime("%Y-%m-%d %H:%MZ", gmtime(nanoseconds // 1_000_000_000))


def _second(nanoseconds: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%SZ", gmtime(nanoseconds // 1_000_000_000))
