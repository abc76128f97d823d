from __future__ import annotations

import contextlib
import re
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget import catalog, filters
from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import Owner
from gadget.errors import UsageError
from gadget.rows import Table
from gadget.schema import IDENTITY
from kubectl_gadget.stream.request import make_request
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
        ("error!=-2", [0, 1]),
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
        ("error==2", [2]),
        ("error==-2", [2]),
        ("error!~^ENO", [0, 1]),
        ("comm==sh && pid==1", [0]),
        ("comm==sh&&error!=0", []),
        ("comm==sh and pid==1", [0]),
        ("comm==sh || pid==2", [0, 1]),
        ("comm==sh or error!=0", [0, 2]),
        ("pid==1 or pid==2 and comm==sh", [0]),
        ("(pid==1 or pid==2),comm!=sh", [1]),
        ("not comm==sh", [1, 2]),
        ("!(pid==1 || pid==2)", [2]),
        ("exe==/usr/bin/*", [1]),
        ('exe=="/usr/*"', [1]),
        ("exe!=/usr/bin/*", [0, 2]),
        (r"exe==/usr/bin/\*", []),
        ('pod~"^(web|cart)-"', [0, 1]),
        ("comm~^(sh|ls)$", [0, 1]),
        ("error==0x2,", [2]),
        ("timestamp<=2023-11-14T22:13:20.000001Z", [0, 1]),
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
        ("tcptracer", "duration>100ms", [1]),
        ("tcptracer", "duration<1m30s", [0, 1]),
        ("tcptracer", "sent>1K", [1]),
        ("opensnoop", "mode==0640", [1]),
    ],
)
def test_filter_of_gadget(name: str, expression: str, kept: list[int]) -> None:
    """A filter takes flags and words by their names; a duration that is not known is neither long nor short."""
    schema = catalog.find(name).schema
    sent = batch(catalog.find(name), EVENTS[name])
    peers = {peer.address: Owner(peer.kind, peer.namespace, peer.name) for peer in sent.peers}
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


@given(st.text(alphabet='abcpidor=!<>~,"\\ 019*()&|', max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """Whatever I type after --filter, it works or is refused as wrong usage."""
    with contextlib.suppress(UsageError):
        filters.parse(text, SCHEMA, IDENTITY)(table())


ENDS = [
    ("dst==10.0.0.0/8", [0, 1]),
    ("dst.addr==10.0.0.0/24", [1]),
    ("dst!=10.0.0.0/8", [2]),
    ("dst==10.1.0.1", [0]),
    ("dst==10.1.0.1:80", [0]),
    ("dst==svc/shop/*", [0]),
    ("dst==svc/shop/cart", [0]),
    ("dst==svc/shop/cart:80", [0]),
    ("dst==fd00::/8", [2]),
    ("dst==[fd00::1]:443", [2]),
]


@pytest.mark.parametrize(("expression", "kept"), ENDS)
def test_filter_of_ends(expression: str, kept: list[int]) -> None:
    """I find the end of a connection by its network, its address or its name, with or without a port."""
    schema = catalog.find("tcpconnect").schema
    size = schema.text_offset + 8
    rows = np.zeros(3, schema.dtype(size))
    addresses = [ip_address(text) for text in ("::ffff:10.1.0.1", "::ffff:10.0.0.9", "fd00::1")]
    for at, port in enumerate((80, 53, 443)):
        rows["dst"]["address"][at], rows["dst"]["port"][at] = addresses[at].packed, port
    section = pb.Section(record_size=size, count=3, rows=rows.tobytes())
    names = {addresses[0].packed: Owner("svc", "shop", "cart")}
    mask = filters.parse(expression, schema, IDENTITY)(Table(schema, section, {}, "node-a", 0, names))
    assert mask is not None and mask.nonzero()[0].tolist() == kept


@pytest.mark.parametrize(
    ("name", "expression", "said"),
    [
        ("execsnoop", "comm==sh & pid>1", "one value"),
        ("execsnoop", "comm==sh; pid>1", "one value"),
        ("execsnoop", "comm==sh pid>1", "one value"),
        ("execsnoop", "pid=1", "want =="),
        ("execsnoop", "comm=~sh", "want ~"),
        ("execsnoop", "comm in (sh,bash)", "want FIELD OP VALUE"),
        ("execsnoop", "comm==sh &&", "want FIELD OP VALUE"),
        ("execsnoop", "comm==sh || ", "want FIELD OP VALUE"),
        ("execsnoop", "(comm==sh", "not closed"),
        ("execsnoop", "comm==sh)", "want FIELD OP VALUE"),
        ("execsnoop", "comm==containerd-shim-runc-v2", "seen as 'containerd-shim'"),
        ("execsnoop", "error==E*", "no value of error"),
        ("tcpconnect", "latency>100 ms", "no value of latency: want 100ms"),
        ("tcpconnect", "latency>100k", "no value of latency: want 100ms"),
        ("tcpconnect", "result==refuse", "did you mean refused?"),
        ("tcpconnect", "result==qqq", "want ok, "),
        ("tcpconnect", "dst==10.0.0.0/33", "is no network"),
        ("execsnoop", "(" * 99, "in each other"),
        ("execsnoop", "timestamp>yesterday", "want 2026"),
    ],
)
def test_a_filter_that_would_match_nothing(name: str, expression: str, said: str) -> None:
    """What I write in another tool's way is refused with the right one, and never taken for a text that nothing has."""
    with pytest.raises(UsageError, match=re.escape(said)):
        filters.parse(expression, catalog.find(name).schema, IDENTITY)


def test_several_filters() -> None:
    """Each --filter must hold, whatever is in it."""
    expression = filters.joined(["pid==1 or pid==2", "comm!=sh"])
    mask = filters.parse(expression, SCHEMA, IDENTITY)(table())
    assert mask is not None and mask.nonzero()[0].tolist() == [1]
