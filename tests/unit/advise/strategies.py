"""Random clusters, what really happened in them, and what agents see of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hypothesis import strategies as st

from tests.unit.advise.build import BEGAN, SECOND, Build, Place
from tests.unit.advise.kinds import LETTERS, OPERATORS, REPLICAS, RUNS, Identity, made

PROTOCOLS = ("TCP", "UDP", "SCTP")
PORTS = (53, 80, 443, 8080, 9090)
#: Addresses outside; two of each IP version are in one group of --cidr-group 24.
OUTSIDE = {4: ("203.0.113.7", "203.0.113.200", "198.51.100.1"), 6: ("2001:db8:ffff::7", "2001:db8:ffff::8", "2001:db8:fffe::1")}  # fmt: skip
#: What Services without selector lead to.
LEGACY = {4: "192.0.2.9", 6: "2001:db8:eeee::9"}
KINDS = (*REPLICAS, *REPLICAS, *OPERATORS, *RUNS)
NAMES = ("ask", "bake", "cast", "dig", "eat", "fix")
#: Few, so that they are found in more than one namespace, and selectors find other workloads' pods.
APPS, TIERS = ("a", "b", "c"), ("front", "back")
#: No flow of the first half is seen after that.
HALF = BEGAN + 1800 * SECOND
KINDS_OF_SERVICE = ("slices", "slices", "selected", "headless", "legacy", "balancer", "node port", "dns")


@dataclass(eq=False, repr=False)
class Group:
    """A workload that was made. Gone pods had their addresses in the first half of the recording only.

    labels: those that its pods have for good; wants: those of them by which policies select it, empty if they cannot.
    every: all labels of each pod, by UID; later: those of pods that come next, or after a failover.
    """

    namespace: str
    name: str
    labels: dict[str, str]
    wants: dict[str, frozenset[str]]
    http: int
    pods: list[Place] = field(default_factory=list)
    gone: list[Place] = field(default_factory=list)
    every: dict[str, dict[str, str]] = field(default_factory=dict)
    later: list[dict[str, str]] = field(default_factory=list)
    host_network: bool = False

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis tells it; what it is by itself fills pages."""
        printer.text(f"{self.namespace}/{self.name}")

    def __repr__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def named(self) -> bool:
        """Whether policies can be about it."""
        return bool(self.wants) and not self.host_network

    def finds(self, other: Group) -> bool:
        """Whether its selector finds the pods of another, or its own."""
        return (
            self.named
            and self.namespace == other.namespace
            and not other.host_network
            and all(other.labels.get(key) in values for key, values in self.wants.items())
        )


#: Whom policies tell apart: a workload, or an address.
Who = Group | str


@dataclass(frozen=True)
class Truth:
    """A connection that was made, to the port that its target listens on. An end without a group is an address.

    node: on which the address is, if it is the source's; may_be: from which others the next such connection may come.
    """

    source: Place | None
    source_group: Group | None
    target: Place | None
    target_group: Group | None
    address: str
    protocol: str
    port: int
    seen_by_source: bool
    seen_by_target: bool
    failed: bool
    last: int
    count: int
    perhaps: tuple[Group, ...] = ()  # whom the source may have reached by a Service, for all that its agent knows
    node: str = ""
    may_be: tuple[str, ...] = ()

    @property
    def is_from_own_node(self) -> bool:
        """Whether it came to a pod from its node."""
        node = self.source.node if self.source and self.source.host_network else self.node
        return self.target is not None and node == self.target.node

    @property
    def seen(self) -> bool:
        """Whether any agent saw it."""
        return self.seen_by_source or self.seen_by_target

    @property
    def is_about_a_pod(self) -> bool:
        """Whether a policy can be about either end."""
        return any(group is not None and not group.host_network for group in (self.source_group, self.target_group))

    @property
    def may_be_about_a_pod(self) -> bool:
        """Whether a policy could be about either end if the Service had chosen another, for all that agents saw."""
        others = self.perhaps if self.seen_by_source else ()
        return self.is_about_a_pod or not all(group.host_network for group in others)

    @property
    def nameable(self) -> bool:
        """Whether a policy can be about both ends."""
        return all(
            group is None or group.host_network or group.wants for group in (self.source_group, self.target_group)
        )


@dataclass(repr=False)
class World:
    """A cluster, and all that happened in it."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis tells it; what it is by itself fills pages."""
        printer.text(f"a world of {self.groups}")

    build: Build
    groups: list[Group]
    both: dict[str, tuple[str, ...]]  # all addresses of pods, by UID
    truths: list[Truth] = field(default_factory=list)
    #: who may connect to whom, and whether it has only been tried: as a client saw a Service, to all behind it
    open: list[tuple[Who, Who, str, int, bool]] = field(default_factory=list)
    #: where a workload answers for DNS: by UDP and TCP
    dns: list[tuple[Group, int]] = field(default_factory=list)
    #: to whom every node leads by a node port: the workload, the protocol, and the port there
    led_to: list[tuple[Group, str, int]] = field(default_factory=list)
    #: the API servers, each with its node if it is on one
    api_servers: dict[str, str] = field(default_factory=dict)
    #: at which address pods on others see each node, by IP version
    nodes: dict[int, dict[str, str]] = field(default_factory=dict)
    #: a node that is not there any more: it had pods, and an agent
    gone_node: str = ""


@dataclass(frozen=True)
class _Port:
    protocol: str
    port: int
    node_port: int
    targets: tuple[tuple[Group, int], ...]  # who answers, at which port
    legacy: int = 0  # the port of addresses outside
    answering: tuple[str, ...] = ()  # these, if they are others than the usual ones


@dataclass(frozen=True)
class _Service:
    addresses: dict[int, str]
    ports: tuple[_Port, ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A cluster of up to three nodes, some without agents, and connections of its pods."""
    stack: Literal[4, 6, 46] = draw(st.sampled_from([4, 6, 46]))
    versions = {4: [4], 6: [6], 46: [4, 6]}[stack]
    build = Build()
    count = draw(st.integers(1, 3))
    blind = draw(st.sets(st.integers(1, 2), max_size=2))  # the first always has an agent
    for number in range(count):
        address, cidr = ("", "") if 4 in versions else (f"fd00:1::{number + 1}", f"fd00:10:244:{number + 1:x}::/64")
        build.node(f"node-{number}", address=address, cidr=cidr, agent=number not in blind)
        if stack == 46:
            node = build.context.objects[-1]
            node["spec"]["podCIDRs"].append(f"fd00:10:244:{number + 1:x}::/64")
            node["status"]["addresses"].append({"type": "InternalIP", "address": f"fd00:1::{number + 1}"})
    world = World(build, [], {})
    seeing = {f"node-{number}" for number in range(count) if number not in blind}
    _nodes(draw, world, count, seeing, versions)
    for number in range(draw(st.integers(2, 6))):
        world.groups.append(_group(draw, world, count, number, versions))
    services = [_service(draw, world, number, versions) for number in range(draw(st.integers(0, 3)))]
    services.append(_api(draw, world, versions))
    _surely(draw, world, seeing, versions[0])
    for _ in range(draw(st.integers(5, 30))):
        _connect(draw, world, [service for service in services if service and service.ports], seeing, versions)
    return world


def _nodes(draw: st.DrawFn, world: World, count: int, seeing: set[str], versions: list[int]) -> None:
    """How pods see nodes: by their own addresses or those of a tunnel; and perhaps a node that is gone by now."""
    build, overlay = world.build, draw(st.booleans())
    names = list(build.nodes)
    if draw(st.booleans()):
        world.gone_node = f"node-{count}"
        names.append(world.gone_node)
        seeing.add(world.gone_node)
        header = build.context.header
        build.context.header = replace(header, nodes=(*header.nodes, world.gone_node))
    for version in versions:
        world.nodes[version] = {
            name: _address(version, at, 0) if overlay else _node_address(version, name)
            for at, name in enumerate(names, 1)
        }
    for name in seeing:
        own = [_node_address(version, name) for version in versions]
        build.node_addresses(name, *own, *(world.nodes[version][name] for version in versions if overlay))


def _api(draw: st.DrawFn, world: World, versions: list[int]) -> _Service:
    """The API servers, on nodes or elsewhere, behind the Service that each cluster has."""
    version = versions[0]
    outside = ["172.16.5.1", "172.16.5.2", "172.16.6.1"] if version == 4 else ["fd00:5::1", "fd00:5::2", "fd00:6::1"]
    world.api_servers = dict.fromkeys(outside[: draw(st.integers(1, 3))], "")
    if draw(st.booleans()):
        world.api_servers = {_node_address(version, node): node for node in world.build.nodes}
    address = "10.96.0.1" if version == 4 else "fd00:10:96::1"
    ports = [{"name": "https", "port": 443, "targetPort": 6443}]
    world.build.service("default", "kubernetes", address, ports, [], [6443], addresses=[*world.api_servers])
    return _Service({version: address}, (_Port("TCP", 443, 0, (), 6443, tuple(world.api_servers)),))


def _address(version: int, node: int, number: int) -> str:
    return f"10.244.{node}.{number}" if version == 4 else f"fd00:10:244:{node:x}::{number:x}"


def _node_address(version: int, node: str) -> str:
    number = int(node.removeprefix("node-")) + 1
    return f"192.168.0.{number}" if version == 4 else f"fd00:1::{number}"


def _word(number: int) -> str:
    """Another random word for each number."""
    return "".join(random.Random(number).choices(LETTERS, k=5))


def _wants(draw: st.DrawFn, build: Build, namespace: str, name: str, kind: str, first: Identity) -> dict[str, frozenset[str]]:  # fmt: skip
    """The labels that a policy asks for; makes what owns the pods, as far as those who look may list it."""
    owner_kind, _, owner = first.owner.partition("/")
    listed = draw(st.booleans())
    if kind == "cron job":
        build.owner("CronJob", namespace, name, {})
    if owner_kind in ("ReplicaSet", "Job") and listed:
        above = {"Deployment": f"Deployment/{name}", "Rollout": f"Rollout/{name}", "cron job": f"CronJob/{name}"}
        build.owner(owner_kind, namespace, owner, {"matchLabels": first.labels}, above.get(kind, ""))
    every = {key: frozenset([value]) for key, value in first.lasting.items()}
    if kind not in ("Deployment", "StatefulSet", "DaemonSet"):
        return every
    if kind == "Deployment" or draw(st.booleans()):
        asked = {key: first.lasting[key] for key in draw(st.sampled_from([["app"], sorted(first.lasting)]))}
        build.owner(kind, namespace, name, {"matchLabels": asked})
        return {key: every[key] for key in asked}
    values = [first.lasting["app"], "none"]
    build.owner(kind, namespace, name, {"matchExpressions": [{"key": "app", "operator": "In", "values": values}]})
    return {"app": frozenset(values)}


def _group(draw: st.DrawFn, world: World, nodes: int, number: int, versions: list[int]) -> Group:
    build, namespace, name = world.build, draw(st.sampled_from(["shop", "web"])), NAMES[number]
    labels: dict[str, str] = {}
    if number < 2 or draw(st.integers(0, 9)):  # one in ten has none
        labels = {"app": draw(st.sampled_from(APPS))}
        labels |= {"tier": draw(st.sampled_from(TIERS))} if draw(st.booleans()) else {}
    kind = draw(st.sampled_from(KINDS if labels else (*OPERATORS, *RUNS, "")))
    version = {"app.kubernetes.io/version": "1"} if draw(st.booleans()) else {}
    base, leader = 10 * number + 1, 10 * number + 1

    def identity(at: int, leader: int = leader) -> Identity:
        return made(kind, name, at, _word(at if kind in RUNS else number), labels, leader=leader)

    first = identity(base)
    wants = _wants(draw, build, namespace, name, kind, first)
    group = Group(namespace, name, first.lasting, wants, draw(st.sampled_from([8080, 9090])))
    group.host_network = number > 1 and draw(st.integers(0, 5)) == 0
    ports = [{"name": "http", "containerPort": group.http}]
    # of a single job with numbered labels it is not known which are of this run: the advice says so, and asks for them
    for replica in range(draw(st.integers(2 if kind == "runner" else 1, 3))):
        own = identity(base + replica)
        node = draw(st.integers(0, nodes - 1)) if replica else 0
        addresses = [_address(each, node + 1, 10 + 10 * number + replica) for each in versions]
        if group.host_network:
            addresses = [_node_address(each, f"node-{node}") for each in versions]
        place = build.pod(
            namespace, own.name, f"node-{node}", own.labels | version, own.owner, address=addresses[0],
            host_network=group.host_network, ports=ports,
            started="2023-11-14T22:45:00Z" if replica else "2023-11-14T20:00:00Z",
        )  # fmt: skip
        build.context.objects[-1]["status"]["podIPs"] = [{"ip": each} for each in addresses]
        world.both[place.uid] = tuple(addresses)
        group.pods.append(place)
        group.every[place.uid] = own.labels | version
    if not group.host_network and draw(st.booleans()):
        _gone(draw, world, group, made(kind, name, base + 8, _word(base + 8), labels), number, versions)
    version = dict.fromkeys(version, "2")
    following = [
        identity(base, base + 9),
        identity(base + 9, base + 9),
        made(kind, name, base + 9, _word(base + 9), labels),
    ]
    group.later = [each.labels | version for each in following]
    return group


def _gone(draw: st.DrawFn, world: World, group: Group, own: Identity, number: int, versions: list[int]) -> None:
    """A pod of the first half, of an earlier revision or run; at an address that may be another's later."""
    build = world.build
    node = draw(st.sampled_from([*build.nodes, world.gone_node] if world.gone_node else [*build.nodes]))
    address = _address(versions[0], int(node[-1]) + 1, 100 + number)
    later = [pod for each in [*world.groups, group] for pod in each.pods[1:] if not each.host_network]
    if later and draw(st.booleans()):
        pod = draw(st.sampled_from(later))
        node, address = pod.node, pod.address
    if (address,) not in {pod.addresses for pod in build.context.pods}:
        place = build.gone(group.namespace, own.name, node, own.labels, own.owner, address, 0, 1700)
        world.both[place.uid] = (address,)
        group.gone.append(place)
        group.every[place.uid] = own.labels


def _service(draw: st.DrawFn, world: World, number: int, versions: list[int]) -> _Service | None:
    """A Service, of one of the kinds there are. None for one that is reached at its pods' addresses."""
    kind, namespace = draw(st.sampled_from(KINDS_OF_SERVICE)), draw(st.sampled_from(["shop", "web"]))
    own = [group for group in world.groups if group.namespace == namespace]
    if not own and kind != "legacy":
        return None
    selector: dict[str, str] = {}
    groups = (
        [own[at] for at in sorted(draw(st.sets(st.integers(0, len(own) - 1), min_size=1, max_size=2)))] if own else []
    )
    if kind == "legacy":
        groups = []
    elif kind == "selected":
        selector = {"app": draw(st.sampled_from(APPS))}
        groups = [group for group in own if group.labels.get("app") == selector["app"]]
    elif kind == "dns":
        groups = [group for group in groups if not group.host_network]
    named = kind in ("slices", "selected") and draw(st.booleans())
    wanted = draw(
        st.lists(st.tuples(st.sampled_from(PROTOCOLS), st.integers(1, 99), st.sampled_from(PORTS)), min_size=1, max_size=2,
                 unique_by=lambda port: port[:2])
    )  # fmt: skip
    if named:  # the containers' named port is for TCP
        wanted = [("TCP", 80, 0)]
    elif kind == "dns":
        wanted = [("UDP", 53, 53), ("TCP", 53, 53)]
    ports = tuple(
        _Port(
            protocol, port, 30000 + 10 * number + at if kind == "node port" else 0,
            tuple((group, group.http if named else target) for group in groups), target if kind == "legacy" else 0,
        )
        for at, (protocol, port, target) in enumerate(wanted)
    )  # fmt: skip
    addresses = {each: f"10.96.0.{number + 10}" if each == 4 else f"fd00:10:96::{number + 10:x}" for each in versions}
    body: dict[str, Any] = {
        "clusterIPs": ["None"] if kind == "headless" else [addresses[each] for each in versions],
        "ports": [
            {"name": f"p{at}", "protocol": each.protocol, "port": each.port, "targetPort": "http" if named else wanted[at][2],
             **({"nodePort": each.node_port} if each.node_port else {})}
            for at, each in enumerate(ports)
        ],
    }  # fmt: skip
    status: dict[str, Any] = {}
    if kind == "balancer":
        addresses = {
            each: f"198.18.0.{number + 1}" if each == 4 else f"2001:db8:dddd::{number + 1:x}" for each in versions
        }
        status = {"loadBalancer": {"ingress": [{"ip": each} for each in addresses.values()]}}
    if selector:
        body["selector"] = selector
    world.build._add("Service", namespace, f"svc-{number}", spec=body, status=status)
    if kind != "selected":
        for version in versions:
            _slices(world, namespace, f"svc-{number}", ports, groups, version)
    if kind in ("balancer", "node port"):
        world.led_to += [(group, port.protocol, at) for port in ports for group, at in port.targets]
    if kind == "dns":
        world.dns += [(group, 53) for group in groups]
    return None if kind == "headless" else _Service(addresses, ports if groups or kind == "legacy" else ())


def _slices(
    world: World, namespace: str, name: str, ports: tuple[_Port, ...], groups: list[Group], version: int
) -> None:
    """EndpointSlices of one IP version: one for each workload, as their named ports may differ."""
    for at, group in enumerate(groups or [None]):
        endpoints: list[dict[str, Any]] = [{"addresses": [LEGACY[version]]}]
        if group:
            endpoints = [
                {"addresses": [each], "targetRef": {"kind": "Pod", "name": pod.name, "uid": pod.uid}}
                for pod in group.pods
                for each in world.both[pod.uid]
                if (":" in each) == (version == 6)
            ]
        numbers = [
            {"name": f"p{index}", "protocol": port.protocol, "port": dict(port.targets).get(group, port.legacy)}
            for index, port in enumerate(ports)
        ]
        labels = {"kubernetes.io/service-name": name}
        world.build._add(
            "EndpointSlice", namespace, f"{name}-{version}-{at}", labels, endpoints=endpoints, ports=numbers
        )


def _surely(draw: st.DrawFn, world: World, seeing: set[str], version: int) -> None:
    """One connection of two pods that both ends see, so that no world is empty; the first pods run on a node with agent."""
    source, target = world.groups[0].pods[0], world.groups[1].pods[0]
    more = {"first": 2000, "last": 2000 + draw(st.integers(0, 800)), "count": 3}
    protocol, port = draw(st.sampled_from(PROTOCOLS)), draw(st.sampled_from(PORTS))
    world.build.egress(source, _of_version(world, target, version), port, protocol, **more)
    _arrive(world, world.groups[0], source, world.groups[1], target, protocol, port, seeing, more, version)


def _of_version(world: World, place: Place, version: int) -> str:
    return next((each for each in world.both[place.uid] if (":" in each) == (version == 6)), place.address)


def _connect(draw: st.DrawFn, world: World, services: list[_Service], seeing: set[str], versions: list[int]) -> None:
    """One connection, as often as it was made, and what agents see of it."""
    build, early, version = world.build, draw(st.booleans()), draw(st.sampled_from(versions))
    first = draw(st.integers(10, 800)) + (0 if early else 2000)
    more = {"first": first, "last": first + draw(st.integers(0, 800)), "count": draw(st.integers(1, 50))}
    source_group = draw(st.sampled_from(world.groups))
    source = draw(st.sampled_from(_there(source_group, early)))
    if (":" in source.address) != (version == 6) and source in source_group.gone:
        version = 6 if ":" in source.address else 4
    how = draw(st.sampled_from(["pod", "pod", "service", "service", "outside", "inside", "node port", "webhook"]))
    protocol, port = draw(st.sampled_from(PROTOCOLS)), draw(st.sampled_from(PORTS))
    failed = draw(st.integers(0, 5)) == 0  # then nothing came about, and nothing may be open for it but with --failed
    if failed:
        more["failed"] = more["count"]
    local = {"local": _of_version(world, source, version)}
    agent = source.node in seeing
    perhaps: tuple[Group, ...] = ()
    if how in ("outside", "inside"):
        address = draw(st.sampled_from(OUTSIDE[version]))
        see = build.egress if how == "outside" else build.ingress
        if agent:
            see(source, address, port, protocol, **more, **local)
        outside = (source, source_group, None, None) if how == "outside" else (None, None, source, source_group)
        _true(world, outside, address, protocol, port, (agent and how == "outside", agent and how == "inside"), more)
        return
    if how in ("node port", "webhook"):
        return _led(draw, world, how, source_group, source, seeing, more, version)
    services = [service for service in services if version in service.addresses]
    if how == "service" and services:
        service = draw(st.sampled_from(services))
        chosen = draw(st.sampled_from(service.ports))
        address, at = service.addresses[version], chosen.port
        if chosen.node_port and draw(st.booleans()):
            address, at = _node_address(version, draw(st.sampled_from(sorted(build.nodes)))), chosen.node_port
        if agent:
            build.egress(source, address, at, chosen.protocol, **more, **local)
            for group, target_port in chosen.targets:
                _open(
                    world,
                    source_group,
                    source,
                    group,
                    group.pods,
                    chosen.protocol,
                    target_port,
                    "failed" in more,
                    version,
                )
        if chosen.legacy:
            ends = (source, source_group, None, None)
            for answering in chosen.answering or (LEGACY[version],):  # whichever it was
                _true(world, ends, answering, chosen.protocol, chosen.legacy, (agent, False), more)
                more = more | {"count": 0}
            return
        # what is not there at the time is not behind the Service, but the file tells of the end of the recording
        target_group, port = draw(st.sampled_from(chosen.targets))
        target = draw(st.sampled_from(target_group.pods[:1] if early else target_group.pods))
        protocol, perhaps = chosen.protocol, tuple(group for group, _ in chosen.targets)
    else:
        target_group = draw(st.sampled_from(world.groups))
        target = draw(st.sampled_from(_there(target_group, early)))
        if (":" in target.address) != (version == 6) and target in target_group.gone:
            return
        if target.address == source.address:
            return  # a pod with itself, or a node
        if agent:
            build.egress(source, _of_version(world, target, version), port, protocol, **more, **local)
    _arrive(world, source_group, source, target_group, target, protocol, port, seeing, more, version, perhaps)


def _led(
    draw: st.DrawFn, world: World, how: str, group: Group, target: Place, seeing: set[str], more: dict[str, int], version: int,
) -> None:  # fmt: skip
    """What came from a node: an API server calls a webhook, or a client outside came by a node port."""
    protocol, port, early = draw(st.sampled_from(PROTOCOLS)), draw(st.sampled_from(PORTS)), more["first"] < 2000
    known = {address: name for name, address in world.nodes[version].items() if name in seeing}
    if how == "webhook":
        protocol = "TCP"
        servers = {world.nodes[version].get(node, each): node for each, node in world.api_servers.items()}
        known = {each: node for each, node in servers.items() if not node or node in seeing}
    elif world.led_to:
        group, protocol, port = draw(st.sampled_from(world.led_to))
        target = draw(st.sampled_from(_there(group, early)))
    fitting = [each for each in sorted(known) if (":" in each) == (version == 6)]
    if not early:
        fitting = [each for each in fitting if known[each] != world.gone_node or not world.gone_node]
    own = [each for each in world.both[target.uid] if (":" in each) == (version == 6)]
    if group.host_network or not (fitting and own) or (how == "node port" and not world.led_to):
        return
    address = draw(st.sampled_from(fitting))
    if target.node in seeing:
        world.build.ingress(target, address, port, protocol, **more, local=own[0])
    next_ones = _alike(world, address, group, protocol, port, version)
    ends = (None, None, target, group)
    seen = (False, target.node in seeing)
    _true(world, ends, address, protocol, port, seen, more, node=known[address], may_be=next_ones)


def _alike(world: World, address: str, group: Group, protocol: str, port: int, version: int) -> tuple[str, ...]:
    """From where else the next connection may come: from any API server, or by any node's node port."""
    seen_at = world.nodes[version]
    present = {name: each for name, each in seen_at.items() if name in world.build.nodes}
    if address not in seen_at.values():  # a node, by its own address
        present = {name: _node_address(version, name) for name in present}
    servers = {present.get(node, each): node for each, node in world.api_servers.items()}
    found = set(servers) if address in servers else set[str]()
    is_node = address in {*seen_at.values(), *(_node_address(version, name) for name in seen_at)}
    if is_node and any(
        (other.namespace, other.wants, each, at) == (group.namespace, group.wants, protocol, port)
        for other, each, at in world.led_to
    ):
        found |= {*present.values()}
    recorded = {each.name for each in world.build.context.nodes}
    if address in seen_at.values():  # of a tunnel's addresses only agents tell
        found = {
            each for each in found if not each.startswith(("10.244.", "fd00:10:")) or _name(present, each) in recorded
        }
    return tuple(sorted({address, *(each for each in found if (":" in each) == (version == 6))}))


def _name(nodes: dict[str, str], address: str) -> str:
    return next(name for name, each in nodes.items() if each == address)


def _arrive(
    world: World, source_group: Group, source: Place, target_group: Group, target: Place, protocol: str, port: int,
    seeing: set[str], more: dict[str, int], version: int,
    perhaps: tuple[Group, ...] = (),
) -> None:  # fmt: skip
    """What the target's agent sees, and the truth."""
    sent, received = source.node in seeing, target.node in seeing and target.address != source.address
    if received:
        world.build.ingress(
            target,
            _of_version(world, source, version),
            port,
            protocol,
            **more,
            local=_of_version(world, target, version),
        )
    if sent or received:
        _open(world, source_group, source, target_group, [target], protocol, port, "failed" in more, version)
    ends = (source, source_group, target, target_group)
    may_be: tuple[str, ...] = ()
    if source_group.host_network:
        may_be = _alike(world, _of_version(world, source, version), target_group, protocol, port, version)
    address = _of_version(world, target, version)
    _true(world, ends, address, protocol, port, (sent, received), more, perhaps, may_be=may_be)


def _true(
    world: World, ends: tuple[Place | None, Group | None, Place | None, Group | None], address: str, protocol: str,
    port: int, seen: tuple[bool, bool], more: dict[str, int], perhaps: tuple[Group, ...] = (), node: str = "",
    may_be: tuple[str, ...] = (),
) -> None:  # fmt: skip
    failed, last = "failed" in more, BEGAN + more["last"] * SECOND
    truth = Truth(*ends, address, protocol, port, *seen, failed, last, more["count"], perhaps, node, may_be)
    world.truths.append(truth)
    if truth.seen and not (truth.source_group and truth.target_group):
        starts: tuple[Who, ...] = may_be or (truth.source_group or address,)
        stop = truth.target_group or address
        world.open += [
            (start, stop, each, port, failed)
            for start in starts
            for each in _protocols(world, truth.target_group, protocol, port)
        ]


def _protocols(world: World, target: Group | None, protocol: str, port: int) -> list[str]:
    """What a connection opens: DNS by one of TCP and UDP is DNS by the other."""
    answers = target and any(
        (group.namespace, group.wants, at) == (target.namespace, target.wants, port) for group, at in world.dns
    )
    at_node = target and target.host_network and port == 53
    return ["TCP", "UDP"] if protocol in ("TCP", "UDP") and (answers or at_node) else [protocol]


def _open(
    world: World, source_group: Group, source: Place, target_group: Group, targets: list[Place], protocol: str, port: int,
    failed: bool, version: int,
) -> None:  # fmt: skip
    """Note what may be open after this was seen: host-network pods are their node's address."""
    starts: tuple[Who, ...] = (source_group,)
    if source_group.host_network:
        starts = _alike(world, _of_version(world, source, version), target_group, protocol, port, version)
    protocols = _protocols(world, target_group, protocol, port)
    for target in targets:
        stop: Who = _of_version(world, target, version) if target_group.host_network else target_group
        world.open += [(start, stop, each, port, failed) for start in starts for each in protocols]


def _there(group: Group, early: bool) -> list[Place]:
    """The pods that were there in the first half of the recording, or in the second."""
    return group.pods[:1] + group.gone if early else group.pods
