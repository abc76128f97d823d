"""Random clusters, what really happened in them, and what agents see of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.unit.advise.build import Build, Place

PROTOCOLS = ("TCP", "UDP", "SCTP")
PORTS = (80, 443, 5432, 8080, 9090)
OUTSIDE = {4: ("203.0.113.7", "203.0.113.200", "198.51.100.1"), 6: ("2001:db8:ffff::7", "2001:db8:fffe::1")}
#: What workloads are of; bare pods have no owner.
KINDS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "")


@dataclass
class Group:
    """A workload that was made. Gone pods had their addresses in the first half of the recording only."""

    namespace: str
    name: str
    labels: dict[str, str]
    pods: list[Place] = field(default_factory=list)
    gone: list[Place] = field(default_factory=list)
    host_network: bool = False

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Truth:
    """A connection that was made, to the port that its target listens on. An end without a group is an address."""

    source: Place | None
    source_group: Group | None
    target: Place | None
    target_group: Group | None
    address: str
    protocol: str
    port: int
    seen_by_source: bool
    seen_by_target: bool

    @property
    def seen(self) -> bool:
        """Whether any agent saw it."""
        return self.seen_by_source or self.seen_by_target


@dataclass
class World:
    """A cluster, and all that happened in it."""

    build: Build
    groups: list[Group]
    truths: list[Truth]
    #: workload, peer workload or address, protocol, port: what may be open, as a client saw a Service that leads there
    open: set[tuple[str, str, str, int]]


@dataclass(frozen=True)
class _Service:
    namespace: str
    address: str
    ports: tuple[tuple[str, int, int, int], ...]  # protocol, port, target port, node port
    groups: tuple[int, ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A cluster of up to three nodes, some without agents, and connections of its pods."""
    version = draw(st.sampled_from([4, 6]))
    build = Build()
    count = draw(st.integers(1, 3))
    blind = draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    nodes = []
    for number in range(count):
        address, cidr = ("", "") if version == 4 else (f"fd00:1::{number + 1}", f"fd00:10:244:{number + 1:x}::/64")
        nodes.append(build.node(f"node-{number}", address=address, cidr=cidr, agent=number not in blind))
    seeing = {node for number, node in enumerate(nodes) if number not in blind}
    groups = [_group(draw, build, nodes, number, version) for number in range(draw(st.integers(2, 6)))]
    services = [_service(draw, build, groups, number, version) for number in range(draw(st.integers(0, 2)))]
    world = World(build, groups, [], set())
    for _ in range(draw(st.integers(1, 12))):
        _connect(draw, world, [service for service in services if service], seeing, version)
    return world


def _address(version: int, node: int, number: int) -> str:
    return f"10.244.{node}.{number}" if version == 4 else f"fd00:10:244:{node:x}::{number:x}"


def _node_address(version: int, node: str) -> str:
    number = int(node.removeprefix("node-")) + 1
    return f"192.168.0.{number}" if version == 4 else f"fd00:1::{number}"


def _group(draw: st.DrawFn, build: Build, nodes: list[str], number: int, version: int) -> Group:
    namespace, kind = draw(st.sampled_from(["shop", "web"])), draw(st.sampled_from(KINDS))
    labels = {"app": f"app-{number}", **draw(st.sampled_from([{}, {"tier": "back"}]))}
    group = Group(namespace, f"w{number}", labels, host_network=draw(st.integers(0, 5)) == 0)
    selector: dict[str, Any] = {"matchLabels": {"app": f"app-{number}"}}
    if draw(st.booleans()):
        selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": [f"app-{number}", "none"]}]}
    owner = ""
    if kind == "Deployment":
        owner = build.deployment(namespace, group.name, {"app": f"app-{number}"})
    elif kind == "CronJob":
        build.owner("CronJob", namespace, group.name, {})
        owner = build.owner("Job", namespace, f"{group.name}-28333334", {}, f"CronJob/{group.name}")
    elif kind:
        owner = build.owner(kind, namespace, group.name, selector)
    passing = {
        "Deployment": {"pod-template-hash": "6c9f7d5b8"},
        "CronJob": {"batch.kubernetes.io/job-name": f"{group.name}-28333334"},
    }
    for replica in range(draw(st.integers(1, 3))):
        own = {**labels, **passing.get(kind, {})}
        if kind == "StatefulSet":
            own["statefulset.kubernetes.io/pod-name"] = f"{group.name}-{replica}"
        node = draw(st.integers(0, len(nodes) - 1))
        address = _address(version, node + 1, 10 + 10 * number + replica)
        if group.host_network:
            address = _node_address(version, nodes[node])
        place = build.pod(
            namespace, f"{group.name}-{replica}", nodes[node], own, owner, address=address,
            host_network=group.host_network, started="2023-11-14T22:45:00Z" if replica else "2023-11-14T20:00:00Z",
        )  # fmt: skip
        group.pods.append(place)
    if not group.host_network and draw(st.booleans()):
        node = draw(st.integers(0, len(nodes) - 1))
        # an address that the second replica of some workload has later
        address = _address(version, node + 1, 10 + 10 * draw(st.integers(0, 5)) + draw(st.integers(1, 2)))
        used = {pod.addresses for pod in build.context.pods}
        if (address,) not in used:
            own = {**labels, **passing.get(kind, {})}
            group.gone.append(build.gone(namespace, f"{group.name}-gone", nodes[node], own, owner, address, 0, 1700))
    return group


def _service(draw: st.DrawFn, build: Build, groups: list[Group], number: int, version: int) -> _Service | None:
    namespace = draw(st.sampled_from(["shop", "web"]))
    own = [index for index, group in enumerate(groups) if group.namespace == namespace]
    chosen = sorted(draw(st.sets(st.sampled_from(own), min_size=1, max_size=2))) if own else []
    if not chosen:
        return None
    address = f"10.96.0.{number + 10}" if version == 4 else f"fd00:10:96::{number + 10:x}"
    ports = draw(
        st.lists(st.tuples(st.sampled_from(PROTOCOLS), st.integers(1, 99), st.sampled_from(PORTS)), min_size=1, max_size=2,
                 unique_by=lambda port: port[:2])
    )  # fmt: skip
    node_port = draw(st.booleans())
    numbered = tuple(
        (protocol, port, target, 30000 + 10 * number + index if node_port else 0)
        for index, (protocol, port, target) in enumerate(ports)
    )
    body = [
        {"name": f"p{index}", "protocol": protocol, "port": port, **({"nodePort": at} if at else {})}
        for index, (protocol, port, _, at) in enumerate(numbered)
    ]
    pods = [pod for index in chosen for pod in groups[index].pods]
    build.service(namespace, f"svc-{number}", address, body, pods, [port[2] for port in numbered])
    return _Service(namespace, address, numbered, tuple(chosen))


def _connect(draw: st.DrawFn, world: World, services: list[_Service], seeing: set[str], version: int) -> None:
    """One connection, as often as it was made, and what agents see of it."""
    build, groups = world.build, world.groups
    early = draw(st.booleans())
    first = draw(st.integers(10, 800)) + (0 if early else 2000)
    more = {"first": first, "last": first + draw(st.integers(0, 800)), "count": draw(st.integers(1, 50))}
    source_group = draw(st.sampled_from(groups))
    source = draw(st.sampled_from(_there(source_group, early)))
    how = draw(st.sampled_from(["pod", "pod", "service", "outside", "inside"]))
    protocol, port = draw(st.sampled_from(PROTOCOLS)), draw(st.sampled_from(PORTS))
    failed = draw(st.integers(0, 5)) == 0  # then nothing came about, and nothing may be open for it
    if failed:
        more["failed"] = more["count"]
    agent = source.node in seeing
    seen = agent and not failed
    if how == "outside":
        address = draw(st.sampled_from(OUTSIDE[version]))
        if agent:
            build.egress(source, address, port, protocol, **more)
        world.truths.append(Truth(source, source_group, None, None, address, protocol, port, seen, False))
    elif how == "inside":
        address = draw(st.sampled_from(OUTSIDE[version]))
        if agent:
            build.ingress(source, address, port, protocol, **more)
        world.truths.append(Truth(None, None, source, source_group, address, protocol, port, False, seen))
    elif how == "service" and services:
        service = draw(st.sampled_from(services))
        protocol, service_port, port, node_port = draw(st.sampled_from(service.ports))
        # what is not there at the time is not behind the Service, but the file tells of the end of the recording
        target_group = groups[draw(st.sampled_from(service.groups))]
        target = draw(st.sampled_from([pod for pod in target_group.pods if not early or pod.name.endswith("-0")]))
        address = service.address
        if node_port and draw(st.booleans()):
            address, service_port = _node_address(version, draw(st.sampled_from(sorted(build.nodes)))), node_port
        if agent:
            build.egress(source, address, service_port, protocol, **more)
            for index in service.groups if seen else ():
                _open(world, source_group, source, groups[index], groups[index].pods, protocol, port)
        _arrive(world, source_group, source, target_group, target, protocol, port, seen, seeing, more)
    else:
        target_group = draw(st.sampled_from(groups))
        target = draw(st.sampled_from(_there(target_group, early)))
        if target.address == source.address:
            return  # a pod with itself, or a node
        if agent:
            build.egress(source, target.address, port, protocol, **more)
        _arrive(world, source_group, source, target_group, target, protocol, port, seen, seeing, more)


def _arrive(
    world: World, source_group: Group, source: Place, target_group: Group, target: Place, protocol: str, port: int,
    sent: bool, seeing: set[str], more: dict[str, int],
) -> None:  # fmt: skip
    """What the target's agent sees, and the truth."""
    received = target.node in seeing and target.address != source.address
    if received:
        world.build.ingress(target, source.address, port, protocol, **more)
    received = received and "failed" not in more
    if sent or received:
        _open(world, source_group, source, target_group, [target], protocol, port)
    world.truths.append(
        Truth(source, source_group, target, target_group, target.address, protocol, port, sent, received)
    )


def _open(
    world: World,
    source_group: Group,
    source: Place,
    target_group: Group,
    targets: list[Place],
    protocol: str,
    port: int,
) -> None:
    """Note what may be open after this was seen: host-network pods are their node's address."""
    start = source.address if source_group.host_network else source_group.key
    for target in targets:
        world.open.add((start, target.address if target_group.host_network else target_group.key, protocol, port))


def _there(group: Group, early: bool) -> list[Place]:
    """The pods that were there in the first half of the recording, or in the second."""
    first = [pod for pod in group.pods if pod.name.endswith("-0")]
    return first + group.gone if early else group.pods
