"""What was seen, of all nodes: stacks with who ran or waited in them, and how often or for how long each was seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gadget.text import escape

#: Stacks that are told apart. The samples of further ones are counted.
MOST_STACKS = 500_000


class Function(NamedTuple):
    """A function, or an address of which none is known: name is empty then. Names are as processes chose them."""

    name: str
    module: str
    address: int = 0
    kernel: bool = False

    @property
    def text(self) -> str:
        """Its name, safe on a terminal; without a name its address in its file."""
        return escape(self.name) if self.name else f"{self.file}+{self.address:#x}"

    @property
    def file(self) -> str:
        """Its file without the folders, safe on a terminal."""
        return escape(self.module.rpartition("/")[2] or self.module)


#: The outermost call of a stack of which the outermost calls are missing.
CUT = Function("[more calls than can be told]", "")
#: The only call of a stack that could not be read.
NO_STACK = Function("[no stack]", "")


class StackOwner(NamedTuple):
    """The owner of a stack. Outside containers namespace, pod and container are empty."""

    node: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    container_id: str = ""
    comm: str = ""
    pid: int = 0

    @property
    def place(self) -> str:
        """The container in a few letters; outside containers the node."""
        inside = f"{self.namespace}/{self.pod}/{self.container}" if self.pod else self.container or self.container_id
        return escape(inside or self.node)


#: How many nanoseconds a second has.
NANOSECONDS = 10**9


@dataclass
class Samples:
    """How often stacks were seen, each the outermost call first; with hz 0 for how long, in nanoseconds."""

    hz: int
    began_ns: int = 0  # since 1970
    seconds: float = 0.0
    counts: Counter[tuple[StackOwner, tuple[Function, ...]]] = field(default_factory=Counter)
    nodes: set[str] = field(default_factory=set)
    crowded: int = 0

    def add(self, who: StackOwner, calls: tuple[Function, ...], count: int) -> None:
        """Count a stack. Samples of too many different stacks are only counted."""
        self.nodes.add(who.node)
        if (who, calls) in self.counts or len(self.counts) < MOST_STACKS:
            self.counts[who, calls] += count
        else:
            self.crowded += count

    def rename(self, better: Callable[..., Mapping[str, str]]) -> None:
        """Give functions of programs other names, where better knows some of the names of each container."""
        of_each: defaultdict[tuple[str, str], dict[Function, None]] = defaultdict(dict)
        for who, calls in self.counts:
            of_each[who.node, who.place].update((call, None) for call in calls if call.name and not call.kernel)
        every = {call for calls in of_each.values() for call in calls}
        names = better(*({call.name: None for call in calls} for calls in of_each.values()))
        new = {call: call._replace(name=names[call.name]) for call in every if call.name in names}
        if new:
            stacks = [(who, tuple(new.get(call, call) for call in calls), n) for (who, calls), n in self.counts.items()]
            self.counts.clear()
            for who, calls, count in stacks:
                self.counts[who, calls] += count

    @property
    def waits(self) -> bool:
        """Whether the counts are of threads that wait."""
        return not self.hz

    @property
    def a_second(self) -> int:
        """What is counted of a second of one CPU, or of one thread that waits."""
        return self.hz or NANOSECONDS

    @property
    def total(self) -> int:
        """All of it."""
        return self.counts.total()

    def outer(self, who: StackOwner) -> Sequence[str]:
        """What a stack stands on where those of all are together: the node if there are several, container, thread."""
        node = [escape(who.node)] if len(self.nodes) > 1 and who.place != who.node else []
        return [*node, who.place, escape(who.comm)]


@dataclass(frozen=True)
class ProfileForm:
    """A form of -o for programs, or for a browser. is_file: nobody reads it on a terminal."""

    name: str
    help: str
    make: Callable[[Samples], bytes]
    is_file: bool = True
