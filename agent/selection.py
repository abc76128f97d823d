"""Which containers a run is about."""

from __future__ import annotations

from collections.abc import Mapping

from agent.containers.identity import Container
from gadget.chosen import Chosen

#: The parts of a client's Selection that this agent understands, as Started tells.
SELECTS = 1


class Selection(Chosen):
    """The choice of a client, applied to the agent's containers."""

    def decide(self, container: Container, labels: Mapping[str, str] | None) -> bool | None:
        """Whether a container is chosen; None if that depends on labels that are not known (yet).

        A pod whose labels stay unknown is shown rather than left out: see Run.
        """
        in_pod = bool(container.pod_uid)
        return self.matches(container.namespace, container.pod, container.name, labels, in_pod=in_pod)
