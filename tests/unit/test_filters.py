from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget import catalog, filters
from gadget.errors import UsageError
from gadget.rows import Table
from gadget.schema import IDENTITY
from kubectl_gadget.request import make_request
from tests.unit.rows import table
from tests.unit.test_snapshots import EVENTS, batch

SCHEMA = catalog.find("execsnoop").schema


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("", [0, 1, 2]),
        ("comm==sh", [0]),
        ("comm!=sh", [1, 2]),
        ("pid>1,pid<3", [1]),
        ("pid>=2", [1, 2]),
        ("error==ENOENT", [2]),
        ("error!=0", [2]),
        ("error==0x2", [2]),
        ("args_truncated==true", [1]),
        ("args~-c", [0]),
        ('args=="sh -c true"', [0]),
        ("exe==/usr/bin/ls", [1]),
        ("namespace==shop", [0]),
        ("pod~^web", [1]),
        ("node==node-a,container!=cart", [1, 2]),
        ("comm<m", [1]),
        ("error~^ENO", [2]),
        ("error~^$", [0, 1]),
    ],
)
def test_filter(expression: str, kept: list[int]) -> None:
    """A filter keeps exactly the events that meet all its conditions."""
    mask = filters.parse(expression, SCHEMA, IDENTITY)(table())
    assert (list(range(3)) if mask is None else mask.nonzero()[0].tolist()) == kept


@pytest.mark.parametrize(
    ("name", "expression", "kept"),
    [
        ("opensnoop", "flags~O_CREAT", [1]),
        ("opensnoop", "flags~O_RDONLY|O_CREAT", [0, 1, 2]),
        ("opensnoop", r"flags~^O_RDONLY\|", [0, 2]),
        ("opensnoop", "flags==O_RDONLY|O_CLOEXEC", [0, 2]),
        ("tcpconnect", "result~^(ok|unreachable)$", [0, 2]),
        ("tcpconnect", 'dst.name~"^web$"', [0, 2]),
        ("tcptracer", "duration>0", [1]),
        ("tcptracer", "duration>=0", [0, 1]),
        ("tcptracer", "duration<1", [0]),
        ("tcptracer", "duration!=0", [1, 2]),
        ("tcptracer", "duration==0", [0]),
    ],
)
def test_filter_of_gadget(name: str, expression: str, kept: list[int]) -> None:
    """A filter takes flags and words by their names; a duration that is not known is neither long nor short."""
    schema = catalog.find(name).schema
    sent = batch(catalog.find(name), EVENTS[name])
    peers = {peer.address: (peer.kind, peer.namespace, peer.name) for peer in sent.peers}
    mask = filters.parse(expression, schema, IDENTITY)(Table(schema, sent.sections[0], {}, "node-a", 0, peers))
    assert mask is not None and mask.nonzero()[0].tolist() == kept


@pytest.mark.parametrize(
    ("name", "switch", "expression"), [("opensnoop", "full_path", "full_path~^/etc"), ("execsnoop", "cwd", "cwd==/")]
)
def test_filter_by_what_an_option_adds(name: str, switch: str, expression: str) -> None:
    """A filter on a field that is filled only on demand is such a demand, unless I say no."""
    gadget = catalog.find(name)
    request = make_request(gadget, {}, "columns", "", (expression,), "")
    assert request.parameters == {switch: "True"}
    assert switch in [field.name for field in request.fields]
    assert make_request(gadget, {f"param_{switch}": False}, "columns", "", (expression,), "").parameters == {
        switch: "False"
    }
    assert make_request(gadget, {}, "columns", "", ("comm==sh",), "").parameters == {}


@given(st.text(alphabet='abcpid=!<>~,"\\ 019*(', max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """Whatever I type after --filter, it works or is refused as wrong usage."""
    with contextlib.suppress(UsageError):
        filters.parse(text, SCHEMA, IDENTITY)(table())
