"""Which agents a command talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gadget.errors import Unreachable

NO_TARGET = (
    "no agent to talk to: trace this machine with --local, name an agent with --agent ADDRESS, "
    "or reach a cluster's with kubectl and `kubectl gadget deploy`"
)


@contextmanager
def find_targets(agents: Sequence[str], local: bool) -> Iterator[Callable[[], dict[str, str]]]:
    """Gives a function that waits for the agents' addresses, by what users call them. Unreachable if none is named."""
    if agents:
        yield lambda: {address: address for address in agents}
    elif local:
        from kubectl_gadget.local import local_agent

        with local_agent() as address:
            yield lambda: {"this machine": address()}
    else:
        raise Unreachable(NO_TARGET)
