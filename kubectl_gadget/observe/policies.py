"""Judges flows by the NetworkPolicies of a file or a cluster, as `advise network-policy check` does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.kube.api import ApiError, ApiServer, not_allowed
from kubectl_gadget.advise.cluster import Cluster
from kubectl_gadget.advise.collect import PATHS, hear, look_up
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.flows import PORTLESS, Flow, FlowContext
from kubectl_gadget.advise.judge import decide_each, labels_of_namespaces
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.agents import Background
from kubectl_gadget.cluster.directory import FORBIDDEN
from kubectl_gadget.observe.opinion import ALLOWED, DENIED, NOT_JUDGED, PERHAPS, Opinion, told
from kubectl_gadget.tell import tell

#: How long after what is known of pods was asked for it is asked for again, because of a pod that is not known; and how
#: long flows wait for the answer: later ones are judged by it.
AGAIN_SECONDS, WAIT_SECONDS = 10.0, 1.0
#: How often policies are read again while flows come.
POLICIES_SECONDS = 5.0
#: As the API serves them.
Policies = Sequence[Mapping[str, Any]]


class Opinions:
    """Says of each flow what policies would do to it."""

    def __init__(
        self,
        read: Callable[[], Policies],
        ask: Callable[[], FlowContext],
        again_seconds: float = AGAIN_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        policies_seconds: float = POLICIES_SECONDS,
    ) -> None:
        """By the policies that read gives. ask tells what is known of pods and addresses."""
        self._again_seconds, self._wait_seconds, self._policies_seconds = again_seconds, wait_seconds, policies_seconds
        self._read, self._ask = read, ask
        self._policies = self._newest = read()
        self._asking: Background[FlowContext] | None = None
        self.judged = self.denied = 0
        self._learn(ask())

    def follow(self) -> None:
        """Read the policies again and again, in a thread: flows that come later are judged by what they are then."""
        threading.Thread(target=self._keep_reading, name="policies", daemon=True).start()

    def _keep_reading(self) -> None:
        while True:
            time.sleep(self._policies_seconds)
            with suppress(GadgetError):  # those that were read last count on
                self._newest = self._read()

    def _change(self) -> None:
        """Judge by the newest policies. Those that make no sense, as of a file half written, change nothing."""
        before, self._policies = self._policies, self._newest
        if before == self._policies:
            return
        try:
            self._learn(self._context)
        except UsageError:
            self._policies = self._newest = before
        else:
            tell(f"The policies have changed: {len(self._policies):,} from here on.")

    def _learn(self, context: FlowContext) -> None:
        self._context, self._asked = context, time.monotonic()
        self._evaluator = Evaluator(self._policies, labels_of_namespaces(context))
        self._cluster = Cluster(context, by_address=self._evaluator.looks_at_addresses)
        newest = sorted(self._cluster.pods, key=lambda pod: pod.last)
        self._uids = {(pod.namespace, pod.name): pod.uid for pod in newest}

    def _uid(self, namespace: str, name: str) -> str:
        if (namespace, name) not in self._uids:
            self._look_again()
        return self._uids.get((namespace, name), "")

    def _look_again(self) -> None:
        if self._asking is None and time.monotonic() - self._asked > self._again_seconds:
            self._asking = Background("agents", self._ask)
            with suppress(Unreachable):  # they take their time
                self._asking.wait(self._wait_seconds)
        if self._asking and self._asking.done:
            asking, self._asking, self._asked = self._asking, None, time.monotonic()
            with suppress(GadgetError):  # what was known counts on
                self._learn(asking.wait())

    def judge(self, row: Mapping[str, Any], word: Mapping[str, str]) -> Opinion:
        """What would become of a flow, which counts."""
        opinion = self.decide(row, word)
        self.judged += opinion.is_judged
        self.denied += opinion.word in (DENIED, PERHAPS)
        return opinion

    def decide(self, row: Mapping[str, Any], word: Mapping[str, str]) -> Opinion:
        """What would become of a flow."""
        if self._newest is not self._policies:
            self._change()
        own, peer, protocol = row["src"], row["dst"], word["protocol"].upper()
        if own is None or peer is None or own.kind != "pod" or protocol in PORTLESS:
            return Opinion()
        uid = self._uid(own.namespace, own.name)
        if not uid:
            return Opinion(NOT_JUDGED, "nothing is known of its pod")
        egress = word["direction"] == "egress"
        flow = Flow(
            node=row["node"], namespace=own.namespace, pod=own.name, uid=uid,
            direction="egress" if egress else "ingress", protocol="TCP" if protocol == "TCP" else "UDP",
            peer=peer.addr, port=peer.port if egress else own.port, count=1, first=row["timestamp"],
            last=row["timestamp"], local=own.addr,
        )  # fmt: skip
        verdicts = [*decide_each(self._evaluator, self._cluster, flow)]
        denying = [verdict for verdict in verdicts if not verdict.allowed]
        if not denying:
            leaving, coming = (
                tuple(dict.fromkeys(name for each in verdicts for name in each.deciders[at])) for at in range(2)
            )
            by = ", ".join("/".join(each) for each in sorted({*leaving, *coming}))
            return Opinion(ALLOWED if by else "", by, leaving, coming, is_judged=True)
        leaving, coming = denying[0].deciders
        return Opinion(
            DENIED if len(denying) == len(verdicts) else PERHAPS, denying[0].reason, leaving, coming, is_judged=True
        )

    def of(self, row: Mapping[str, Any], word: Mapping[str, str]) -> tuple[bool, str]:
        """Whether a flow would be denied, and what lines say of that; empty if there is nothing to say."""
        return told(self.judge(row, word))

    def summary(self) -> str:
        """A sentence with how many of the flows would be denied."""
        return f"The policies would deny {self.denied:,} of {self.judged:,} flows."


def read_opinions(targets: Targets, file: Path | None, namespaces: Sequence[str], api: ApiServer | None) -> Opinions:
    """By the policies of a file, else of the cluster, and what agents know, and the cluster if there is one.

    UsageError for no such file.
    """

    def ask() -> FlowContext:
        context = hear(targets).context
        if api:
            look_up(api, context, namespaces)
        return context

    return Opinions(reader(file, namespaces, api), ask)


def reader(file: Path | None, namespaces: Sequence[str], api: ApiServer | None) -> Callable[[], Policies]:
    """What reads the policies of a file, else of the cluster. UsageError for no such file."""
    named = [name for name in namespaces if not name.startswith("!")]

    def read() -> Policies:
        if file:
            return read_policies(file, named[0] if named else "default").policies
        assert api
        return policies_of(api, named)

    return read


def policies_of(api: ApiServer, namespaces: Sequence[str]) -> Policies:
    """The policies of a cluster; of namespaces, where the user may not list all."""
    path = PATHS["NetworkPolicy"]
    try:
        return list(api.list(path))
    except ApiError as error:
        if error.code != FORBIDDEN or not namespaces:
            raise not_allowed(error, "list networkpolicies", "") from None
    group, _, plural = path.rpartition("/")
    try:
        return [each for name in namespaces for each in api.list(f"{group}/namespaces/{quote(name)}/{plural}")]
    except ApiError as error:
        raise not_allowed(error, "list networkpolicies", "") from None
