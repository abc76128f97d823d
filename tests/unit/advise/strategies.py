"""Random clusters, what really happened in them, and what agents see of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

from tests.unit.advise.build import BEGAN, SECOND, Build, Place

PROTOCOLS = ("TCP", "UDP", "SCTP")
PORTS = (53, 80, 443, 8080, 9090)
#: Addresses outside; two of each IP version are in one group of --cidr-group 24.
OUTSIDE = {4: ("203.0.113.7", "203.0.113.200", "198.51.100.1"), 6: ("2001:db8:ffff::7", "2001:db8:ffff::8", "2001:db8:fffe::1")}  # fmt: skip
#: What Services without selector lead to.
LEGACY = {4: "192.0.2.9", 6: "2001:db8:eeee::9"}
#: What workloads are of; bare pods have no owner.
KINDS = ("Deployment", "Deployment", "StatefulSet", "DaemonSet", "CronJob", "")
#: Few, so that they are found in more than one namespace, and selectors find other workloads' pods.
APPS, TIERS = ("a", "b", "c"), ("front", "back")
#: No flow of the first half is seen after that.
HALF = BEGAN + 1800 * SECOND
KINDS_OF_SERVICE = ("slices", "slices", "selected", "headless", "legacy", "balancer", "node port", "dns")


@dataclass(eq=False)
class Group:
    """A workload that was made. Gone pods had their addresses in the first half of the recording only.

    wants: the labels by which policies select it, empty if they cannot.
    """

    namespace: str
    name: str
    labels: dict[str, str]
    wants: dict[str, frozenset[str]]
    http: int
    pods: list[Place] = field(default_factory=list)
    gone: list[Place] = field(default_factory=list)
    host_network: bool = False

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
    failed: bool
    last: int
    count: int
    perhaps: tuple[Group, ...] = ()  # whom the source may have reached by a Service, for all that its agent knows

    @property
    def seen(self) -> bool:
        """Whether any agent saw it."""
        return self.seen_by_source or self.seen_by_target

    @property
    def is_about_a_pod(self) -> bool:
        """Whether a policy can be about either end, or could be if the Service had chosen another."""
        groups = (self.source_group, self.target_group, *(self.perhaps if self.seen_by_source else ()))
        return any(group is not None and not group.host_network for group in groups)

    @property
    def nameable(self) -> bool:
        """Whether a policy can be about both ends."""
        return all(
            group is None or group.host_network or group.wants for group in (self.source_group, self.target_group)
        )


@dataclass
class World:
    """A cluster, and all that happened in it."""

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


@dataclass(frozen=True)
class _Port:
    protocol: str
    port: int
    node_port: int
    targets: tuple[tuple[Group, int], ...]  # who answers, at which port
    legacy: int = 0  # the port of an address outside


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
    for number in range(draw(st.integers(2, 6))):
        world.groups.append(_group(draw, world, count, number, versions))
    services = [_service(draw, world, number, versions) for number in range(draw(st.integers(0, 3)))]
    seeing = {f"node-{number}" for number in range(count) if number not in blind}
    _surely(draw, world, seeing, versions[0])
    for _ in range(draw(st.integers(5, 30))):
        _connect(draw, world, [service for service in services if service and service.ports], seeing, versions)
    return world


def _address(version: int, node: int, number: int) -> str:
    return f"10.244.{node}.{number}" if version == 4 else f"fd00:10:244:{node:x}::{number:x}"


def _node_address(version: int, node: str) -> str:
    number = int(node.removeprefix("node-")) + 1
    return f"192.168.0.{number}" if version == 4 else f"fd00:1::{number}"


def _owner(draw: st.DrawFn, build: Build, namespace: str, name: str, labels: dict[str, str]) -> tuple[str, str, dict[str, frozenset[str]]]:  # fmt: skip
    """Kind and owner of pods, and the labels that a policy asks for."""
    kind = draw(st.sampled_from(KINDS))
    if not labels:
        kind = draw(st.sampled_from(["CronJob", ""]))
    every = {key: frozenset([value]) for key, value in labels.items()}
    if kind == "CronJob":
        build.owner("CronJob", namespace, name, {})
        return kind, build.owner("Job", namespace, f"{name}-28333334", {}, f"CronJob/{name}"), every
    if not kind:
        return kind, "", every
    asked = {key: labels[key] for key in draw(st.sampled_from([["app"], sorted(labels)]))}
    if kind == "Deployment":
        return kind, build.deployment(namespace, name, asked), {key: frozenset([value]) for key, value in asked.items()}
    if draw(st.booleans()):
        return kind, build.owner(kind, namespace, name, {"matchLabels": asked}), {
            key: frozenset([value]) for key, value in asked.items()
        }  # fmt: skip
    values = [labels["app"], "none"]
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": values}]}
    return kind, build.owner(kind, namespace, name, selector), {"app": frozenset(values)}


def _group(draw: st.DrawFn, world: World, nodes: int, number: int, versions: list[int]) -> Group:
    build, namespace, name = world.build, draw(st.sampled_from(["shop", "web"])), f"w{number}"
    labels: dict[str, str] = {}
    if number < 2 or draw(st.integers(0, 9)):  # one in ten has none
        labels = {"app": draw(st.sampled_from(APPS))}
        labels |= {"tier": draw(st.sampled_from(TIERS))} if draw(st.booleans()) else {}
    kind, owner, wants = _owner(draw, build, namespace, name, labels)
    group = Group(namespace, name, labels, wants, draw(st.sampled_from([8080, 9090])))
    group.host_network = number > 1 and draw(st.integers(0, 5)) == 0
    passing = {
        "Deployment": {"pod-template-hash": "6c9f7d5b8"},
        "CronJob": {"batch.kubernetes.io/job-name": f"{name}-28333334"},
    }
    ports = [{"name": "http", "containerPort": group.http}]
    for replica in range(draw(st.integers(1, 3))):
        own = {**labels, **passing.get(kind, {})}
        if kind == "StatefulSet":
            own["statefulset.kubernetes.io/pod-name"] = f"{name}-{replica}"
        node = draw(st.integers(0, nodes - 1)) if replica else 0
        addresses = [_address(each, node + 1, 10 + 10 * number + replica) for each in versions]
        if group.host_network:
            addresses = [_node_address(each, f"node-{node}") for each in versions]
        place = build.pod(
            namespace, f"{name}-{replica}", f"node-{node}", own, owner, address=addresses[0],
            host_network=group.host_network, ports=ports,
            started="2023-11-14T22:45:00Z" if replica else "2023-11-14T20:00:00Z",
        )  # fmt: skip
        build.context.objects[-1]["status"]["podIPs"] = [{"ip": each} for each in addresses]
        world.both[place.uid] = tuple(addresses)
        group.pods.append(place)
    if not group.host_network and draw(st.booleans()):
        node = draw(st.integers(0, nodes - 1))
        address = _address(versions[0], node + 1, 100 + number)
        # or one that the second replica of some workload has later
        later = [pod for each in [*world.groups, group] for pod in each.pods[1:] if not each.host_network]
        if later and draw(st.booleans()):
            pod = draw(st.sampled_from(later))
            node, address = int(pod.node[-1]), pod.address
        if (address,) not in {pod.addresses for pod in build.context.pods}:
            own = {**labels, **passing.get(kind, {})}
            place = build.gone(namespace, f"{name}-gone", f"node-{node}", own, owner, address, 0, 1700)
            world.both[place.uid] = (address,)
            group.gone.append(place)
    return group


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
    how = draw(st.sampled_from(["pod", "pod", "service", "service", "outside", "inside"]))
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
            _true(world, ends, LEGACY[version], chosen.protocol, chosen.legacy, (agent, False), more)
            return
        # what is not there at the time is not behind the Service, but the file tells of the end of the recording
        target_group, port = draw(st.sampled_from(chosen.targets))
        target = draw(st.sampled_from([pod for pod in target_group.pods if not early or pod.name.endswith("-0")]))
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
    _true(world, ends, _of_version(world, target, version), protocol, port, (sent, received), more, perhaps)


def _true(
    world: World, ends: tuple[Place | None, Group | None, Place | None, Group | None], address: str, protocol: str,
    port: int, seen: tuple[bool, bool], more: dict[str, int], perhaps: tuple[Group, ...] = (),
) -> None:  # fmt: skip
    failed = "failed" in more
    truth = Truth(*ends, address, protocol, port, *seen, failed, BEGAN + more["last"] * SECOND, more["count"], perhaps)
    world.truths.append(truth)
    if truth.seen and not (truth.source_group and truth.target_group):
        start, stop = truth.source_group or address, truth.target_group or address
        world.open += [
            (start, stop, each, port, failed) for each in _protocols(world, truth.target_group, protocol, port)
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
    starts: list[Who] = [_of_version(world, source, version) if source_group.host_network else source_group]
    if source_group.host_network and any(
        (group.namespace, group.wants, each, at) == (target_group.namespace, target_group.wants, protocol, port)
        for group, each, at in world.led_to
    ):
        starts = [_node_address(version, node) for node in world.build.nodes]
    protocols = _protocols(world, target_group, protocol, port)
    for target in targets:
        stop: Who = _of_version(world, target, version) if target_group.host_network else target_group
        world.open += [(start, stop, each, port, failed) for start in starts for each in protocols]


def _there(group: Group, early: bool) -> list[Place]:
    """The pods that were there in the first half of the recording, or in the second."""
    first = [pod for pod in group.pods if pod.name.endswith("-0")]
    return first + group.gone if early else group.pods
