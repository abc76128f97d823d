"""Which agents a command talks to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gadget.errors import Unreachable
from kubectl_gadget.local import local_agent

NO_TARGET = (
    "no agent to talk to: trace this machine with --local, name an agent with --agent ADDRESS, "
    "or reach a cluster's with kubectl and `kubectl gadget deploy`"
)


@contextmanager
def find_targets(agents: Sequence[str], local: bool) -> Iterator[dict[str, str]]:
    """The addresses of the agents to use, by what users call them. Unreachable if none is named or found."""
    if agents:
        yield {address: address for address in agents}
    elif local:
        with local_agent() as address:
            yield {"this machine": address}
    else:
        raise Unreachable(NO_TARGET)
