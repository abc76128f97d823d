"""Which containers a run is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.identity import Container
from gadget.selector import parse_labels, parse_names


class Selection:
    """Namespaces, pods, containers and labels that a client chose; everything if it chose nothing."""

    def __init__(
        self,
        namespaces: Sequence[str] = (),
        pods: Sequence[str] = (),
        containers: Sequence[str] = (),
        labels: str = "",
    ) -> None:
        """UsageError if labels is not a selector."""
        self._namespaces = parse_names(namespaces)
        self._pods = parse_names(pods)
        self._containers = parse_names(containers)
        self._labels = parse_labels(labels)

    @property
    def needs_labels(self) -> bool:
        """Whether it can decide nothing without labels."""
        return bool(self._labels)

    def decide(self, container: Container, labels: Mapping[str, str] | None) -> bool | None:
        """Whether a container is chosen; None if that depends on labels that are not known (yet).

        A pod whose labels stay unknown is shown rather than left out: see Run.
        """
        if not (
            self._namespaces.matches(container.namespace)
            and self._pods.matches(container.pod)
            and self._containers.matches(container.name)
        ):
            return False
        if not self._labels:
            return True
        if not container.pod_uid:
            return False  # outside pods there are no labels
        return None if labels is None else all(item.matches(labels) for item in self._labels)
