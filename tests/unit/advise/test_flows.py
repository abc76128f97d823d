from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget.errors import GadgetError, UsageError
from kubectl_gadget.advise.flows import FlowsFile, Lost, write_flows
from kubectl_gadget.advise.objects import trim
from kubectl_gadget.advise.observation import Observation, read_flows
from tests.unit.advise.build import Build

HEADER = b'{"format":"kubectl-gadget flows","version":1,"from":1,"until":2,"nodes":["a"]}\n'
FLOW = {
    "node": "a", "namespace": "shop", "pod": "web", "uid": "u", "direction": "egress", "protocol": "TCP",
    "peer": "203.0.113.7", "port": 443, "count": 1, "first": 1, "last": 2,
}  # fmt: skip


def line(**changes: object) -> bytes:
    return orjson.dumps({"flow": {**FLOW, **changes}}) + b"\n"


def written(folder: Path, *lines: bytes) -> Path:
    path = folder / "flows.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def cluster() -> Build:
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"}, ports=[{"name": "http", "containerPort": 80}])
    old = build.gone("shop", "old", "node-a", {"app": "old"}, "ReplicaSet/old-1", "10.244.1.99", 0, 100)
    build.talk(web, old, 8080)
    build.node_addresses("node-a", "192.168.0.1")
    build.context.lost.append(Lost("node-a", "table full", 3))
    build.context.notes.append("a note")
    return build


def test_round_trip(tmp_path: Path) -> None:
    """A recording that is written and read again is the same."""
    build = cluster()
    write_flows(tmp_path / "flows.jsonl", build.context, build.flows)
    file = FlowsFile(tmp_path / "flows.jsonl")
    assert list(file.flows()) == build.flows
    assert file.context == build.context


def test_pipe(tmp_path: Path) -> None:
    """A recording can come through a pipe."""
    write_flows(tmp_path / "flows.jsonl", cluster().context, cluster().flows)
    data = (tmp_path / "flows.jsonl").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    assert len(list(FlowsFile(tmp_path / "pipe").flows())) == 2
    writer.join()


def test_flows_may_come_before_what_explains_them(tmp_path: Path) -> None:
    """The lines of a flows file may stand in any order."""
    write_flows(tmp_path / "flows.jsonl", cluster().context, cluster().flows)
    header, *lines = (tmp_path / "flows.jsonl").read_bytes().splitlines(keepends=True)
    turned = read_flows(written(tmp_path, header, *reversed(lines)))
    straight = Observation(cluster().context, cluster().flows)
    assert [(each.source.name, each.target.name, each.port) for each in turned.connections()] == [
        (each.source.name, each.target.name, each.port) for each in straight.connections()
    ]


def test_later_versions_may_add(tmp_path: Path) -> None:
    """Lines and members that this version does not know are passed over, and spaces do not matter."""
    spaced = b' { "flow": ' + orjson.dumps({**FLOW, "colour": "red"}) + b"}\n"
    path = written(tmp_path, HEADER, b'{"weather":1}\n', b"\n", line(colour="blue"), spaced)
    assert len(list(FlowsFile(path).flows())) == 2


def test_cut_off(tmp_path: Path) -> None:
    """A file that was cut off is read up to there, and says so."""
    observation = read_flows(written(tmp_path, HEADER, line(), line()[:40]))
    assert list(observation.losses()) == [f"{tmp_path}/flows.jsonl: cut off in line 3: read up to there"]
    observation = read_flows(written(tmp_path, HEADER, line(), b'{"pod":{"na'))
    assert "cut off in line 3" in next(observation.losses())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((b"",), "line 1: not a flows file"),
        ((b"gadget1\n",), "line 1: not a flows file"),
        ((b"[]\n",), "line 1: not a flows file"),
        ((HEADER.replace(b":1,", b":2,", 1),), "line 1: version 2 of the format: this program reads version 1"),
        ((HEADER.replace(b"until", b"untl"),), "line 1: the header wants from, until and nodes"),
        ((HEADER, b"{nonsense}\n", line()), "line 2: not JSON"),
        ((HEADER, b"7\n"), "line 2: not a JSON object"),
        ((HEADER, line(), line()[:40] + b"\n"), "line 3: not JSON"),
        ((HEADER, b'{"flow":7}\n'), "line 2: not a flow"),
        (
            (HEADER, b'{"flow":{"node":"a"}}\n'),
            "line 2: not a flow: Object missing required field `namespace` - at `$.flow`",
        ),
        ((HEADER, line(protocol="GRE")), "line 2: not a flow: Invalid enum value 'GRE' - at `$.flow.protocol`"),
        ((HEADER, line(direction="up")), "line 2: not a flow: Invalid enum value 'up' - at `$.flow.direction`"),
        ((HEADER, line(peer="shop")), "line 2: not a flow: 'shop' does not appear to be"),
        ((HEADER, line(port="80")), "line 2: not a flow: Expected `int`, got `str` - at `$.flow.port`"),
        ((HEADER, line(port=65536)), "line 2: not a flow: Expected `int` <= 65535 - at `$.flow.port`"),
        ((HEADER, line(first=1.5)), "line 2: not a flow: Expected `int`, got `float` - at `$.flow.first`"),
        ((HEADER, line(uid=["x"])), "line 2: not a flow"),
        ((HEADER, line(pod=7)), "line 2: not a flow: Expected `str`, got `int` - at `$.flow.pod`"),
        ((HEADER, line(), line(node=["x"])), "line 3: not a flow: Expected `str`, got `array` - at `$.flow.node`"),
        ((HEADER, b'{"flow":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n"), "line 2: not a flow"),
        ((HEADER, b'{"flow":{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}}\n"), "line 2: not a flow"),
        ((HEADER, line(node="x").replace(b"x", b"\xff")), "line 2: not JSON"),
        ((HEADER, b'{"pod":{"namespace":"shop"}}\n'), "line 2: not a pod"),
        ((HEADER, b'{"object":{"kind":"Pod"}}\n'), "line 2: not an object: 'metadata'"),
        ((HEADER, b'{"object":{"kind":"Pod","metadata":{"name":7}}}\n'), "line 2: not an object"),
        ((HEADER, b'{"object":{"kind":"Pod","metadata":{"name":"a"},"spec":7}}\n'), "line 2: not an object"),
        ((HEADER, b'{"lost":{"node":"a"}}\n'), "line 2: not a lost"),
    ],
)
def test_wrong_file(tmp_path: Path, lines: tuple[bytes, ...], message: str) -> None:
    """A file that makes no sense is refused in one line, with the place and what is wrong there."""
    path = written(tmp_path, *lines)
    with pytest.raises(UsageError) as caught:
        read_flows(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.sampled_from([b"{", b'"flow":', b'"pod":', b'"object":', b"[]", b"{}", b"7", b"}", b"\n"]), max_size=20)
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    """Whatever a file holds, it is read or refused as wrong usage."""
    path = written(tmp_path_factory.mktemp("any"), HEADER, *parts)
    with contextlib.suppress(UsageError):
        read_flows(path)


def test_spelling_of_addresses(tmp_path: Path) -> None:
    """However an address is spelt in a file, and in whatever order, it is one address."""
    flows = [line(peer=each, local="10.0.0.5") for each in ("::ffff:10.96.0.10", "10.96.0.10", "2001:DB8:0::1")]
    flows.append(line(peer="2001:db8::1", local="::ffff:10.0.0.5"))
    for order in (flows, flows[::-1]):
        peers = [(flow.peer, flow.local) for flow in FlowsFile(written(tmp_path, HEADER, *order)).flows()]
        assert set(peers) == {("10.96.0.10", "10.0.0.5"), ("2001:db8::1", "10.0.0.5")}


@pytest.mark.parametrize("by_address", [False, True])
def test_wrong_address_of_a_known_pod(tmp_path: Path, by_address: bool) -> None:
    """A pod's own address that is none is refused in each of its lines, not in the first alone."""
    path = written(tmp_path, HEADER, line(local="10.0.0.5"), line(local="}0.0.0.5"))
    with pytest.raises(UsageError, match="line 3: not a flow"):
        read_flows(path, by_address=by_address)


def test_wrong_node_of_a_pod(tmp_path: Path) -> None:
    """A pod whose node is no text is refused by the line it is in."""
    pod = {"namespace": "a", "name": "p", "uid": "u", "labels": {}, "owner": "", "addresses": [], "first": 0, "last": 1}
    path = written(tmp_path, HEADER, orjson.dumps({"pod": {**pod, "node": {"x": 1}}}) + b"\n")
    with pytest.raises(UsageError, match="line 2: not a pod"):
        read_flows(path)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, or cannot be written, is told by its name."""
    with pytest.raises(UsageError, match="No such file"):
        FlowsFile(tmp_path / "none")
    with pytest.raises(GadgetError, match="No such file"):
        write_flows(tmp_path / "none" / "flows", cluster().context, [])


def test_trimmed() -> None:
    """A recording keeps of an object what the advice needs, and no environment, commands or images."""
    container = {
        "name": "web",
        "image": "x",
        "env": [{"value": "secret"}],
        "ports": [{"name": "http", "containerPort": 80}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": {"secret": "x"}},
        "spec": {"nodeName": "a", "containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.2"}], "conditions": []},
    }
    assert trim(pod) == {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
        "spec": {"nodeName": "a", "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.2"}]},
    }
    assert trim({"kind": "Secret", "metadata": {"name": "x"}, "data": {"password": "x"}}) is None


def test_wrong_object(tmp_path: Path) -> None:
    """An object that is not as Kubernetes has it is told of, not fallen over."""
    body = b'{"object":{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"ports":[{"name":"x"}]}]}}}\n'
    with pytest.raises(UsageError, match="not as Kubernetes has it"):
        read_flows(written(tmp_path, HEADER, body))
