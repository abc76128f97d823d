"""Judges flows by the NetworkPolicies of a file, as `advise network-policy check` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gadget.errors import GadgetError
from gadget.kube.api import ApiServer
from gadget.text import escape
from kubectl_gadget.advise.cluster import Cluster
from kubectl_gadget.advise.collect import hear, look_up
from kubectl_gadget.advise.evaluate import Evaluator, Verdict
from kubectl_gadget.advise.flows import PORTLESS, Context, Flow
from kubectl_gadget.advise.judge import decide_each, labels_of_namespaces
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.targets import Targets

#: How long after what is known of pods was asked for it is asked for again, because of a pod that is not known.
AGAIN_SECONDS = 10.0


class Opinions:
    """Says of each flow what policies would do to it."""

    def __init__(self, policies: Sequence[Mapping[str, Any]], ask: Callable[[], Context]) -> None:
        """By policies as the API serves them. ask tells what is known of pods and addresses."""
        self._policies, self._ask = policies, ask
        self._asked = 0.0
        self.judged = self.denied = 0
        self._learn(ask())

    def _learn(self, context: Context) -> None:
        self._asked = time.monotonic()
        self._evaluator = Evaluator(self._policies, labels_of_namespaces(context))
        self._cluster = Cluster(context, by_address=self._evaluator.looks_at_addresses)
        newest = sorted(self._cluster.pods, key=lambda pod: pod.last)
        self._uids = {(pod.namespace, pod.name): pod.uid for pod in newest}

    def _uid(self, namespace: str, name: str) -> str:
        if (namespace, name) not in self._uids and time.monotonic() - self._asked > AGAIN_SECONDS:
            try:
                self._learn(self._ask())
            except GadgetError:  # what was known counts on
                self._asked = time.monotonic()
        return self._uids.get((namespace, name), "")

    def of(self, row: Mapping[str, Any], word: Mapping[str, str]) -> tuple[bool, str]:
        """Whether a flow would be denied, and by what, or what allows it; empty if no policy has a say in it."""
        own, peer, protocol = row["src"], row["dst"], word["protocol"].upper()
        if own is None or peer is None or own.kind != "pod" or protocol in PORTLESS:
            return False, ""
        uid = self._uid(own.namespace, own.name)
        if not uid:
            return False, "; policies: not judged, as nothing is known of its pod"
        egress = word["direction"] == "egress"
        flow = Flow(
            node=row["node"], namespace=own.namespace, pod=own.name, uid=uid,
            direction="egress" if egress else "ingress", protocol="TCP" if protocol == "TCP" else "UDP",
            peer=peer.addr, port=peer.port if egress else own.port, count=1, first=row["timestamp"],
            last=row["timestamp"], local=own.addr,
        )  # fmt: skip
        verdicts = [*decide_each(self._evaluator, self._cluster, flow)]
        self.judged += 1
        denying = [verdict for verdict in verdicts if not verdict.allowed]
        if denying:
            self.denied += 1
            perhaps = "would" if len(denying) == len(verdicts) else "may"
            return True, f"; policies {perhaps} deny it: {escape(denying[0].reason)}"
        return False, _allowed_by(verdicts)

    def summary(self) -> str:
        """A sentence with how many of the flows would be denied."""
        return f"The policies would deny {self.denied:,} of {self.judged:,} flows."


def _allowed_by(verdicts: Sequence[Verdict]) -> str:
    names = {f"{rule.namespace}/{rule.policy}": None for verdict in verdicts for rule in verdict.rules}
    return f" allowed by {', '.join(map(escape, sorted(names)))}" if names else ""


def read_opinions(targets: Targets, file: Path, namespaces: Sequence[str], api: ApiServer | None) -> Opinions:
    """By the policies of a file, and what agents know, and the cluster if there is one. UsageError for no such file."""
    namespace = next((name for name in namespaces if not name.startswith("!")), "default")
    policies = read_policies(file, namespace).policies

    def ask() -> Context:
        context = hear(targets).context
        if api:
            look_up(api, context, namespaces)
        return context

    return Opinions(policies, ask)
