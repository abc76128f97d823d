"""What a service of an agent is: something that is at work as long as the agent, beside the runs of gadgets.

agent/services/NAME.py has a SERVICE; nothing else names it. Its settings are options, keys of --config and variables of
the environment (agent/settings.py). What it says of itself is in `status`, and what is wrong with its threads ends the
agent's health.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from agent.bpf.bpf_object import Program
from agent.containers.identity import Container
from agent.containers.tracker import Tracker
from agent.limits import RunBudget
from agent.run.runs import Runs
from agent.threads import Worker
from gadget.errors import KernelLacks

if TYPE_CHECKING:
    import grpc

S = TypeVar("S")
#: Says whether an answer is still waited for.
Active = Callable[[], bool]


@dataclass(frozen=True)
class ServedCall:
    """A method of the gRPC service, and what answers it: answer gives the reply, of a stream an iterator of replies.

    reads: it may take long, so that there may be only so many of these at once.
    """

    name: str
    answer: Callable[[Any, Active], Any]
    stream: bool = False
    reads: bool = False


#: Makes of a call the method of a servicer, as grpcio wants it: with our contract, errors and limits.
Method = Callable[[Any, "grpc.ServicerContext"], Any]
Answering = Callable[[ServedCall], Method]


class Number(NamedTuple):
    """A number for Prometheus. Its name has its unit, and ends with _total if it only grows; labels are few.

    With buckets it is a histogram, of which the value is the sum: each upper bound, as text, with how many are below.
    """

    name: str
    doc: str
    value: float
    labels: Mapping[str, str] = {}
    buckets: tuple[tuple[str, float], ...] = ()


class Running:
    """A service at work, or why it is not. What one has nothing to say to it leaves as it is here."""

    def describe(self) -> str:
        """How it is, in one line, for `status`; empty if that is nobody's concern."""
        return ""

    def problem(self) -> str:
        """What keeps it from its work and is for people to mend, for `status`; empty as a rule. It goes on."""
        return ""

    def programs(self) -> Sequence[Program]:
        """What the kernel says of its programs."""
        return ()

    def losses(self) -> Mapping[str, int]:
        """How much it should have and has not, by reason."""
        return {}

    def numbers(self) -> Iterable[Number]:
        """What it counts beside its losses."""
        return ()

    @property
    def workers(self) -> Sequence[Worker]:
        """The threads that it cannot do without."""
        return ()

    def calls(self) -> Sequence[ServedCall]:
        """The methods of the agent's gRPC service (proto/gadget/v1/gadget.proto) that it answers."""
        return ()

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[Any]]]:
        """What else than a gadget a client may begin a run with, by the name in RunRequest, and what streams then."""
        return {}

    def register(self, server: grpc.Server, answering: Answering) -> None:
        """Add gRPC services of its own."""

    def labels(self, container: Container) -> Mapping[str, str] | None:
        """The labels of a container's pod that is gone, if it remembers them."""
        return None

    def end(self) -> None:
        """Stop for good: leave nothing that would outlive this agent. It is closed all the same."""

    def close(self) -> None:
        """Let go. What is kept in bpffs goes on."""


@dataclass(frozen=True)
class ServiceContext:
    """What a service works with. pins: the folder of bpffs, state: that on disk, in which it has one of its name.

    redact: patterns of what may not leave this machine. running: the services so far, in the end all of them; on: the
    names of those that are wanted.
    """

    node: str
    tracker: Tracker
    pins: Path
    state: Path
    redact: tuple[str, ...] = ()
    runs: Runs = field(default_factory=Runs)
    budget: RunBudget = field(default_factory=RunBudget)
    running: dict[str, Running] = field(default_factory=dict)
    on: frozenset[str] = frozenset()

    def labels(self, container: Container) -> Mapping[str, str] | None:
        """The labels of a container's pod, also of one that is gone if a service remembers it; None if not known."""
        found: Mapping[str, str] | None = self.tracker.labels(container)
        for each in self.running.values() if found is None else ():
            found = each.labels(container)
            if found is not None:
                break
        return found


@dataclass(frozen=True)
class Service(Generic[S]):
    """A service, before it is begun. name is also its section of --config, and its folder in bpffs.

    off makes what stands for it where it is not at work, with the reason; with an empty one, nobody asked for it.
    """

    name: str
    settings: type[S]
    begin: Callable[[ServiceContext, S], Running]
    off: Callable[[ServiceContext, str], Running]
    is_on: Callable[[S], bool] = lambda settings: True
    #: bytes that it keeps in the kernel, which count as the agent's own
    memory: Callable[[S], int] = lambda settings: 0
    #: whether its programs and maps outlive the agent, in bpffs
    kept: bool = False
    #: whether an agent that lives only for one command has it
    for_one_command: bool = False
    #: what may be wrong with a machine on which the rest of the agent works all the same
    lacking: tuple[type[Exception], ...] = (KernelLacks, OSError)
