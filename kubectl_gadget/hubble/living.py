"""Which workloads have running containers: the numbers of others go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.workload import name_by_pod
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.hubble.metrics import FlowTotals
from kubectl_gadget.stream.containers import SOON_SECONDS, list_containers

#: How often agents are asked.
AGAIN_SECONDS = 60.0


def has_all_nodes(agent: Sequence[str], local: bool) -> bool:
    """Whether the agents of a command know all workloads. With --agent and --node others have some that go on."""
    from kubectl_gadget.cluster.options import chosen_clusters

    return local or not (agent or any(cluster.nodes for cluster in chosen_clusters()))


def living(targets: Targets) -> set[tuple[str, str]] | None:
    """Namespace and name of each; None if an agent does not tell."""
    found: set[tuple[str, str]] = set()
    try:
        now = targets.look() if targets.look else targets
        for target in now:
            for reply in list_containers(now.reach(target), pb.ContainersRequest(), SOON_SECONDS):
                each = (item.container for item in reply.containers if not item.ended_ns)
                found |= {(one.namespace, name_by_pod(one.pod or one.container)) for one in each}
    except GadgetError:
        return None
    return found


def keep_asking(targets: Targets, totals: FlowTotals) -> None:
    """Tell totals again and again, in a thread."""

    def ask() -> None:
        while True:
            totals.living = living(targets)
            time.sleep(AGAIN_SECONDS)

    threading.Thread(target=ask, name="living", daemon=True).start()
