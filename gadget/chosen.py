"""Which containers a command is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from gadget.pod_choice import ChosenPods, PodChoice
from gadget.selector import parse_labels, parse_names

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb


class Chosen:
    """The namespaces, pods, containers and labels that a client chose. Everything, if it chose nothing."""

    def __init__(
        self,
        namespaces: Sequence[str] = (),
        pods: Sequence[str] = (),
        containers: Sequence[str] = (),
        labels: str = "",
        any_of: Sequence[PodChoice] = (),
    ) -> None:
        """UsageError if something makes no sense. any_of takes the place of pods, if it is given."""
        self._namespaces = parse_names(namespaces)
        self._pods = parse_names(() if any_of else pods)
        self._containers = parse_names(containers)
        self._labels = parse_labels(labels)
        self._any_of = ChosenPods(any_of)

    @classmethod
    def of(cls, message: pb.Selection) -> Self:
        """The choice in a message. UsageError if something makes no sense."""
        any_of = [PodChoice(each.pattern, each.labels, each.namespace, each.without) for each in message.any_of]
        return cls(message.namespaces, message.pods, message.containers, message.labels, any_of)

    @property
    def needs_labels(self) -> bool:
        """Whether it needs labels to decide."""
        return bool(self._labels) or self._any_of.needs_labels

    def in_namespaces(self, namespace: str) -> bool:
        """Whether containers of a namespace may be chosen."""
        return self._namespaces.matches(namespace)

    def matches(
        self, namespace: str, pod: str, container: str, labels: Mapping[str, str] | None, *, in_pod: bool = True
    ) -> bool | None:
        """Whether a container is chosen; None if that depends on labels that are not known (yet)."""
        if not (
            self._namespaces.matches(namespace) and self._pods.matches(pod) and self._containers.matches(container)
        ):
            return False
        if not in_pod:  # outside pods there are no labels
            return not self._labels and bool(self._any_of.matches(namespace, pod, {}))
        chosen = self._any_of.matches(namespace, pod, labels)
        if chosen is False or not self._labels:
            return chosen
        return None if labels is None else chosen and all(item.matches(labels) for item in self._labels)
