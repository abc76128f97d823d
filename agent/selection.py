"""Which containers a run is about."""

from __future__ import annotations

from collections.abc import Mapping

from agent.identity import Container
from gadget.chosen import Chosen

#: What of a client's Selection is understood, as Started tells.
SELECTS = 1


class Selection(Chosen):
    """What a client chose, asked of the agent's containers."""

    def decide(self, container: Container, labels: Mapping[str, str] | None) -> bool | None:
        """Whether a container is chosen; None if that depends on labels that are not known (yet).

        A pod whose labels stay unknown is shown rather than left out: see Run.
        """
        in_pod = bool(container.pod_uid)
        return self.matches(container.namespace, container.pod, container.name, labels, in_pod=in_pod)
