"""The dialects of policies (Kubernetes, Cilium, Calico) by the word after --format, and what each can say."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_gadget.advise.cilium import has_names
from kubectl_gadget.advise.policy import Peer


def by_name(dialect: str, peers: Iterable[Peer]) -> bool:
    """Whether the egress rules of peers are about names where names are known."""
    return dialect == "calico-enterprise" or (dialect == "cilium" and has_names(peers))
