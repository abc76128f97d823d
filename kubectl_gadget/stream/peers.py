"""Adds the names of pods, services and nodes to the addresses in a stream, before it is shown or recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address, ip_address
from time import monotonic

from gadget._generated import gadget_pb2 as pb
from gadget.checks import parse_schema
from gadget.endpoints import RAW, Owner, is_everybodys, name_of
from gadget.errors import GadgetError
from gadget.kinds.ends import End
from gadget.rows import Decoder, Table
from kubectl_gadget.agents.targets import Targets, context_of
from kubectl_gadget.stream.containers import list_containers
from kubectl_gadget.stream.streams import Message

#: How old what we know may be when a name in it is asked for; after that a row waits for a look-up. When that takes its
#: time, or fails, names are shown up to another age: a bare address is right, and a name may be its former owner's.
KNOWN_SECONDS, MOST_KNOWN_SECONDS = 30.0, 60.0
#: After how long an address that nobody had is looked for again: at first, and when nobody ever has it, as with most of
#: the internet. All look-ups together keep such a pause too, which grows up to KNOWN_SECONDS while they find nobody.
UNKNOWN_SECONDS, MOST_UNKNOWN_SECONDS = 2.0, 300.0
#: How long the stream waits for names: of the first look-up, so that the first row has its name already, and of others.
FIRST_WAIT_SECONDS, WAIT_SECONDS = 1.0, 0.2
#: Addresses of nobody that are remembered.
MOST_UNKNOWN = 50_000
ANSWER_SECONDS = 3.0

#: Everyone who has an address, by the address as text.
Directory = dict[str, Owner]
#: Who has which address in a cluster, by its context; "" stands for the only one.
Look = Callable[[str], Directory]


class Peers:
    """Names of addresses, asked for in a thread of their own when the first unknown one turns up."""

    def __init__(
        self,
        look: Callable[[], Directory],
        first_wait: float = FIRST_WAIT_SECONDS,
        wait: float = WAIT_SECONDS,
    ) -> None:
        """Names from look, which takes its time, and is waited for so many seconds."""
        self._look, self._first_wait, self._wait = look, first_wait, wait
        self._known: dict[bytes, Owner] = {}
        #: when those that nobody had may be looked for again, and how long they wait then
        self._unknown: dict[bytes, tuple[float, float]] = {}
        #: who had an address by a row of its own, and when; by agent, for whose rows alone that is believed
        self._seen: dict[tuple[str, bytes], tuple[Owner, float]] = {}
        #: who has an address by what an agent says and not by the last look-up
        self._claims: dict[bytes, Owner] = {}
        self._looked = self._known_at = -MOST_UNKNOWN_SECONDS
        self._pause = 0.0
        self._done: threading.Event | None = None

    def name(self, address: bytes, target: str = "") -> Owner:
        """The owner of an address (16 bytes) in a target's row, as far as it is known by now."""
        if is_everybodys(address):
            return RAW
        now = monotonic()
        name, at = self._seen.get((target, address), (RAW, 0.0))
        if name != RAW and now - at <= KNOWN_SECONDS:
            return name
        if address in self._known:
            if now - self._looked > KNOWN_SECONDS:
                self._begin(now).wait(self._first_wait)  # once for each look-up
            elif address in self._claims and now >= self._looked + max(self._pause, UNKNOWN_SECONDS):
                claim = self._claims.pop(address)
                self._begin(now).wait(self._first_wait)
                self._rest(self._known.get(address) == claim)
            if now - self._known_at > MOST_KNOWN_SECONDS:
                return RAW
        elif self._may_ask(address, now):
            wait = self._wait if self._done else self._first_wait
            self._begin(now).wait(wait)
            self._rest(address in self._known)
        return self._known.get(address, RAW)

    def note(self, address: bytes, owner: Owner, target: str = "") -> None:
        """A target has a row of owner's with an address as its own end, so that it is not another pod's any more.

        Its own rows say so from now on. For rows of others, which it may wish to deceive, it is looked up again.
        """
        known = self._known.get(address, RAW)
        if (target, address) in self._seen or (known != owner and known.kind == owner.kind):  # a node's own stays it
            for table in (self._seen, self._claims):
                if len(table) >= MOST_UNKNOWN:
                    table.clear()
            self._seen[target, address] = owner, monotonic()
            if known != owner:
                self._claims[address] = owner

    def _rest(self, found: bool) -> None:
        """Keep a pause after a look-up. It grows each time that the look-up did not find the address."""
        self._pause = UNKNOWN_SECONDS if found else min(max(self._pause * 2, UNKNOWN_SECONDS), KNOWN_SECONDS)

    def _may_ask(self, address: bytes, now: float) -> bool:
        """Whether it is time to look for an address; then it is not so soon again."""
        again, wait = self._unknown.get(address, (now, UNKNOWN_SECONDS))
        if now < max(again, self._looked + self._pause) or (self._done and not self._done.is_set()):
            return False
        if len(self._unknown) >= MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[address] = now + wait, min(wait * 2, MOST_UNKNOWN_SECONDS)
        return True

    def _begin(self, now: float) -> threading.Event:
        """Begin a look-up, unless one is under way. The event says that it is done."""
        if self._done is None or self._done.is_set():
            self._done, self._looked = threading.Event(), now
            threading.Thread(target=self._fetch, args=(self._done, now), name="names", daemon=True).start()
        return self._done

    def _fetch(self, done: threading.Event, began: float) -> None:
        with suppress(GadgetError):  # what is known stays so for a while
            try:
                self._known = dict(_packed(self._look()))
                self._known_at = began
            finally:
                done.set()


def _packed(directory: Directory) -> Iterator[tuple[bytes, Owner]]:
    for text, name in directory.items():
        with suppress(ValueError):  # a host's name for an address
            address = ip_address(text)
            yield address.packed if address.version == 6 else IPv6Address(f"::ffff:{text}").packed, name


def ask_agents(targets: Targets, context: str | None = None) -> Directory:
    """The containers and nodes that agents know, or those of a cluster, by address. Who does not answer names none."""
    directory: Directory = {}
    for target in targets:
        if context is not None and context_of(target) != context:
            continue
        try:
            for reply in list_containers(targets.reach(target), pb.ContainersRequest(), ANSWER_SECONDS):
                directory |= {own: Owner("node", "", reply.node) for own in reply.addresses}
                for item in sorted(reply.containers, key=lambda item: -item.ended_ns):  # who runs comes last
                    who = item.container
                    name = name_of(who.namespace, who.pod, who.container, who.id)
                    directory |= dict.fromkeys(item.addresses, name)
        except GadgetError:
            continue  # the stream itself says that the agent is gone
    return directory


def add_names(messages: Iterable[Message], look: Look) -> Iterator[Message]:
    """The same messages, each batch with the names of those addresses in it whose name is new.

    The same address is another one's in each cluster.
    """
    peers: dict[str, Peers] = {}
    told: dict[str, dict[bytes, Owner]] = {}
    streams: dict[str, Decoder] = {}
    for target, message in messages:
        if isinstance(message, pb.RunReply):
            if message.WhichOneof("what") == "started":
                streams[target] = Decoder(target, parse_schema(target, message.started.schema))
                told[target] = {}
            elif message.WhichOneof("what") == "batch":
                streams[target].learn(message.batch.containers)
                context = context_of(target)
                known = peers.get(context) or peers.setdefault(context, Peers(partial(look, context)))
                _tell(message.batch, streams[target], told[target], known, target)
        yield target, message


def _tell(batch: pb.Batch, stream: Decoder, told: dict[bytes, Owner], peers: Peers, target: str) -> None:
    del batch.peers[:]  # who has an address is not for one agent to say
    fields = [field.name for field in stream.schema.shown if isinstance(field.means.each, End)]
    for section in batch.sections if fields else ():
        table = Table(stream.schema, section, stream.names, "", 0)
        for address, owner in table.own_ends().items():
            peers.note(address, owner, target)
        for address in {address for name in fields for address in table.addresses(name)}:
            name = peers.name(address, target)
            if told.get(address, RAW) != name:
                told[address] = name
                batch.peers.append(pb.Peer(address=address, kind=name.kind, namespace=name.namespace, name=name.name))
