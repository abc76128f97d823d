"""The flows file: who was seen to talk to whom, and what is needed to understand it later, on any machine.

JSON lines, described in docs/network-policy.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import msgspec
import orjson

from gadget.errors import GadgetError, UsageError
from kubectl_gadget.advise.networks import is_plain, normalize
from kubectl_gadget.advise.objects import KINDS, trim
from kubectl_gadget.output.encode import encode
from kubectl_gadget.private import empty, open_private

FORMAT, VERSION = "kubectl-gadget flows", 1
#: How our own writer begins a flow: nearly all lines, which the first pass need not parse.
_FLOW = b'{"flow":'
STDIN = Path("-")
Protocol = Literal["TCP", "UDP", "SCTP", "ICMP", "OTHER"]
#: Protocols that have no ports, and no policy can be about them; OTHER is any that is not named here.
PORTLESS = ("ICMP", "OTHER")
_Kind = TypeVar("_Kind")
#: Since 1970, and no later than others can count.
MOST_NS = (1 << 63) - 1
#: Connections of one flow; sums of many are still numbers that JSON has room for.
MOST_COUNTED = 1 << 48
Counted = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNTED)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=MOST_NS)]


@dataclass(frozen=True)
class Header:
    """When the flows were recorded, in nanoseconds since 1970, and on which nodes."""

    from_ns: int
    until_ns: int
    nodes: tuple[str, ...]


class Flow(msgspec.Struct, frozen=True, gc=False):  # gc: it refers to nothing that could refer to it
    """Connections of one pod with one address and port, as the agent of its node saw them.

    port is the server's. count is all attempts, failed those among them that were refused or not answered. first and
    last in nanoseconds since 1970. older: some began before the agent did. local is the pod's own address, if known;
    names are those for which it got the peer's by DNS.
    """

    node: str
    namespace: str
    pod: str
    uid: str
    direction: Literal["egress", "ingress"]
    protocol: Protocol
    peer: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    count: Counted
    first: Nanoseconds
    last: Nanoseconds
    failed: Counted = 0
    older: bool = False
    host_network: bool = False
    local: str = ""
    names: tuple[str, ...] = ()


class _Line(msgspec.Struct):
    """A line that holds a flow: msgspec makes and checks it, four times as fast as it can be done here from a dict."""

    flow: Flow | None = None


@dataclass(frozen=True)
class NamedPort:
    """A port of a container that has a name."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True)
class RememberedPod:
    """A pod as an agent remembers it, gone by now or not: who had these addresses from first to last (ns since 1970).

    owner is what controls it, as "ReplicaSet/cart-6c9f", or empty.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    owner: str
    addresses: tuple[str, ...]
    first: Nanoseconds
    last: Nanoseconds
    node: str = ""
    host_network: bool = False
    ports: tuple[NamedPort, ...] = ()


@dataclass(frozen=True)
class NodeAddresses:
    """All addresses that an agent finds on its node; the API server does not know those of bridges and tunnels.

    began: since when it has recorded there (ns since 1970), 0 if that is not known.
    """

    name: str
    addresses: tuple[str, ...]
    began: int = 0


@dataclass(frozen=True)
class Lost:
    """How many flows a node's recorder could not keep, and why."""

    node: str
    reason: str
    count: int


@dataclass
class FlowContext:
    """All that a flows file holds besides flows."""

    header: Header
    objects: list[dict[str, Any]] = field(default_factory=list)
    pods: list[RememberedPod] = field(default_factory=list)
    nodes: list[NodeAddresses] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_flows(path: Path, context: FlowContext, flows: Iterable[Flow]) -> None:
    """Write a flows file. GadgetError if the disk refuses."""
    header = context.header
    first = {"format": FORMAT, "version": VERSION, "from": header.from_ns, "until": header.until_ns}
    try:
        with open_private(path) as file:
            empty(file)
            file.write(encode({**first, "nodes": header.nodes}) + b"\n")
            for kind, values in (
                ("object", context.objects),
                ("node", context.nodes),
                ("pod", context.pods),
                ("lost", context.lost),
                ("note", context.notes),
                ("flow", map(_told, flows)),
            ):
                file.writelines(encode({kind: value}) + b"\n" for value in values)
    except OSError as error:
        raise GadgetError(f"{path}: {error.strerror}") from None


def _told(flow: Flow) -> dict[str, Any]:
    """A flow in its written form: with names if there are any."""
    body = msgspec.structs.asdict(flow)
    if not flow.names:
        del body["names"]
    return body


class FlowsFile:
    """A flows file to read: its context at once, its flows as they are asked for.

    It is gone through twice, because a flow can only be understood, and forgotten, when all objects are known.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at path, - for standard input, and read its context. UsageError if it is none."""
        self._path = "standard input" if path == STDIN else str(path)
        self._number = 0
        try:
            self._file = _seekable(path)
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}") from None
        self.context = FlowContext(self._header())
        for number, line in enumerate(self._file, 2):
            if not line.startswith(_FLOW) and not line.isspace():
                self._number = number
                self._keep(line)

    def flows(self) -> Iterator[Flow]:
        """The flows, up to where the file was cut off; their addresses have the one spelling of each."""
        decode, spelt = msgspec.json.Decoder(_Line).decode, lru_cache(65_536)(normalize)
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.startswith(_FLOW) and (number == 1 or b'"flow"' not in line[:16]):
                continue
            self._number = number
            try:
                flow = decode(line).flow
                if flow is None:
                    continue
                peer = flow.peer if ":" not in flow.peer and is_plain(flow.peer) else spelt(flow.peer)
                local = spelt(flow.local) if flow.local else ""
                if (peer, local) != (flow.peer, flow.local):
                    flow = msgspec.structs.replace(flow, peer=peer, local=local)
            except msgspec.ValidationError as error:
                raise self._wrong(f"not a flow: {error}") from None
            except (msgspec.DecodeError, UnicodeDecodeError):  # msgspec 0.22 says "not UTF-8" by the second
                self._cut_off(line)
                return
            except (ValueError, RecursionError) as error:
                raise self._wrong(f"not a flow: {error}") from None
            yield flow

    def _header(self) -> Header:
        line = self._file.readline()
        self._number = 1
        try:
            first = orjson.loads(line)
            if first["format"] != FORMAT:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise self._wrong(f'not a flows file: want {{"format":"{FORMAT}",…}} first') from None
        if first.get("version") != VERSION:
            raise self._wrong(f"version {first.get('version')} of the format: this program reads version {VERSION}")
        try:
            times = int(first["from"]), int(first["until"])
            if not all(0 <= each <= MOST_NS for each in times):
                raise ValueError
            return Header(*times, tuple(map(str, first["nodes"])))
        except (ValueError, KeyError, TypeError):
            raise self._wrong("the header wants from, until and nodes") from None

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        """What a line holds; None if it is the last one and cut off."""
        try:
            body = orjson.loads(line)
        except ValueError:
            self._cut_off(line)
            return None
        if not isinstance(body, dict):
            raise self._wrong("not a JSON object")
        return body

    def _cut_off(self, line: bytes) -> None:
        """Note that the last line was cut off. UsageError if it is another that is not JSON."""
        if line.endswith(b"\n"):
            raise self._wrong("not JSON") from None
        note = f"{self._path}: cut off in line {self._number}: read up to there"
        if note not in self.context.notes:
            self.context.notes.append(note)

    def _keep(self, line: bytes) -> None:
        """Add a line that is no flow to the context. Kinds that a later version may have are passed over."""
        for kind, value in (self._parse(line) or {}).items():
            try:
                if kind == "object":
                    if value["kind"] in KINDS:
                        self.context.objects.append(_object(value))
                elif kind == "pod":
                    self.context.pods.append(_pod(value))
                elif kind == "node":
                    own = tuple(map(normalize, value["addresses"]))
                    began = int(value.get("began", 0))
                    self.context.nodes.append(NodeAddresses(str(value["name"]), own, began))
                elif kind == "lost":
                    self.context.lost.append(Lost(str(value["node"]), str(value["reason"]), int(value["count"])))
                elif kind == "note":
                    self.context.notes.append(str(value))
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise self._wrong(f"not {'an' if kind == 'object' else 'a'} {kind}: {error}") from None

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"{self._path}, line {self._number}: {what}")


def _seekable(path: Path) -> IO[bytes]:
    file = sys.stdin.buffer if path == STDIN else path.open("rb")
    if file.seekable():
        return file
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    with file:  # a pipe
        shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def _maker(kind: type[_Kind]) -> Callable[[Any], _Kind]:
    """Makes a value from JSON; members that a later version may have are passed over."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    return lambda body: kind(**{name: value for name, value in body.items() if name in known})


def _object(body: Any) -> dict[str, Any]:
    named = {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}
    if not named.get("name") or not all(isinstance(value, str) for value in named.values()):
        raise ValueError("it has no name")
    return trim(body) or {}


def _pod(body: Any) -> RememberedPod:
    given = {**body, "labels": body.get("labels") or {}, "ports": body.get("ports") or ()}
    try:
        pod = msgspec.convert(given, RememberedPod)  # passes over members that a later version may have
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    return replace(pod, addresses=tuple(map(normalize, pod.addresses)))
