"""Who is at the other end: adds names to the addresses in a stream, before it is shown or recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv6Address, ip_address

from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import RAW, Name
from gadget.errors import GadgetError
from gadget.rows import Table, parse_schema
from gadget.schema import Schema
from kubectl_gadget.containers import list_containers
from kubectl_gadget.streams import Message
from kubectl_gadget.targets import Targets

#: How old what we know may be when an address is asked for that is not in it, and when one is.
UNKNOWN_SECONDS, KNOWN_SECONDS = 2.0, 30.0
ANSWER_SECONDS = 3.0

#: Everyone who has an address, by the address as text.
Directory = dict[str, Name]


class Peers:
    """Names of addresses, asked for when the first unknown one turns up."""

    def __init__(self, look: Callable[[], Directory]) -> None:
        """Names from look, which takes its time."""
        self._look = look
        self._known: dict[bytes, Name] = {}
        self._looked = -KNOWN_SECONDS

    def name(self, address: bytes) -> Name:
        """Who has an address of 16 bytes."""
        parsed = IPv6Address(address)
        plain = parsed.ipv4_mapped or parsed
        if plain.is_loopback or plain.is_unspecified or plain.is_link_local:
            return RAW  # whoever asks
        age = time.monotonic() - self._looked
        if age > (KNOWN_SECONDS if address in self._known else UNKNOWN_SECONDS):
            self._known = {_pack(text): name for text, name in self._look().items()}
            self._looked = time.monotonic()
        return self._known.get(address, RAW)


def _pack(text: str) -> bytes:
    address = ip_address(text)
    return address.packed if address.version == 6 else IPv6Address(f"::ffff:{text}").packed


def find_directory(targets: Targets, *, cluster: bool) -> Callable[[], Directory]:
    """Where names come from: the cluster as its user may see it, or what the agents themselves know."""
    if not cluster:
        return lambda: ask_agents(targets)
    from kubectl_gadget.cluster.api import ApiServer
    from kubectl_gadget.cluster.directory import ask_cluster
    from kubectl_gadget.cluster.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_cluster

    api = ApiServer(read_context(chosen_cluster().flags))
    return lambda: ask_cluster(api) or ask_agents(targets)


def ask_agents(targets: Targets) -> Directory:
    """The containers and nodes that agents know, by address. An agent that does not answer names none."""
    directory: Directory = {}
    for target, address in targets.items():
        try:
            for reply in list_containers(target, pb.ContainersRequest(), ANSWER_SECONDS, address()):
                directory |= {own: Name("node", "", reply.node) for own in reply.addresses}
                for item in sorted(reply.containers, key=lambda item: -item.ended_ns):  # who runs comes last
                    directory |= {own: _name(item.container) for own in item.addresses}
        except GadgetError:
            continue  # the stream itself says that the agent is gone
    return directory


def _name(container: pb.Container) -> Name:
    if container.pod:
        return Name("pod", container.namespace, container.pod)
    return Name("container", "", container.container or container.id[:12])


def add_names(messages: Iterable[Message], peers: Peers) -> Iterator[Message]:
    """The same messages, each batch with the names of those addresses in it whose name is new."""
    told: dict[str, dict[bytes, Name]] = {}
    schemas: dict[str, Schema] = {}
    for target, message in messages:
        if isinstance(message, pb.RunReply):
            if message.WhichOneof("what") == "started":
                schemas[target] = parse_schema(target, message.started.schema)
                told[target] = {}
            elif message.WhichOneof("what") == "batch":
                _tell(message.batch, schemas[target], told[target], peers)
        yield target, message


def _tell(batch: pb.Batch, schema: Schema, told: dict[bytes, Name], peers: Peers) -> None:
    fields = [field.name for field in schema.shown if field.kind == "endpoint"]
    for section in batch.sections if fields else ():
        table = Table(schema, section, {}, "", 0)
        for address in {address for name in fields for address in table.addresses(name)}:
            name = peers.name(address)
            if told.get(address, RAW) != name:
                told[address] = name
                batch.peers.append(pb.Peer(address=address, kind=name.kind, namespace=name.namespace, name=name.name))
