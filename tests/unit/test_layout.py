"""Tables on terminals of any width, with whatever processes choose to be called."""

from __future__ import annotations

import ctypes
import io
import locale
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadget import catalog
from gadget._generated.kinds.privsnoop import Asked
from gadget.endpoints import Endpoint
from gadget.kinds import Cut
from gadget.kinds.containers import ContainerNames
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.schema import Column, Row
from kubectl_gadget.about import FIELDS as STATUS
from kubectl_gadget.about import LOOK as STATUS_LOOK
from kubectl_gadget.output import Look, all_fields, choose_fields, terminal
from kubectl_gadget.output.counts import COUNT
from kubectl_gadget.output.forms.columns import Columns
from kubectl_gadget.stream.request import Request
from kubectl_gadget.text import fit, fit_endpoint, width
from kubectl_gadget.traceloop.commands import FIELDS as RECORDINGS
from tests.conftest import CLI, wait_until
from tests.fakes import FakeAgent
from tests.terminal import Terminal
from tests.unit.test_snapshots import batch as packed

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
NUMBERS = st.integers(0, (1 << 64) - 1) | st.integers(0, 99_999)
#: Wide and zero-wide characters, direction marks, control bytes and what a terminal obeys, beside plain letters.
TEXTS = st.text(max_size=90) | st.text(
    alphabet="ab/-.9世界\u0301\u200d\ufe0f❤\x1b[2J\x9b\x7f\u202e\U0001f600\u1160ᄀ", max_size=200
)
ENDPOINTS = st.none() | st.builds(
    Endpoint,
    st.ip_addresses().map(str),
    st.integers(0, 65535),
    st.sampled_from(["raw", "pod", "svc"]),
    TEXTS,
    TEXTS,
)
VALUES = {
    "errno": st.sampled_from([0, 0, 2, 13, 133, 99_999]),
    **dict.fromkeys(("endpoint", "some_endpoint"), ENDPOINTS),
    "args": st.lists(TEXTS, max_size=4),
    "bool": st.booleans(),
    "flags": st.integers(0, (1 << 31) - 1),
    "words": st.integers(0, 12),
    "moment": st.none() | st.integers(1, 1 << 62),
    "timestamp": st.integers(1, 1 << 62),
    "duration": st.just(DURATION_UNKNOWN) | st.integers(0, (1 << 63) - 1),
    "size": st.integers(0, 1 << 63),
    "rate": st.floats(0, 1e15),
    "privilege_detail": st.tuples(*[st.integers(0, (1 << 32) - 1)] * 4, TEXTS).map(lambda parts: Asked(*parts)),
    "mode": st.integers(0, 0o7777),
    "histogram": st.lists(st.integers(0, (1 << 64) - 1), min_size=48, max_size=48),
}
#: No id: of calls that have none.
NO_ID = (1 << 32) - 1
NARROW = {"node": "node-a", "namespace": "shop"}
PATH = "/var/lib/kubelet/pods/0f6d/volumes/data"
#: Values of other kinds than numbers, as long as they often are.
LONG: dict[str, Any] = {
    **dict.fromkeys(("path", "absolute_path", "full_path"), PATH),
    **dict.fromkeys(("text", "word"), "SOCKET_FILTER"),
    **dict.fromkeys(("dns_name", "dns_cnames"), "redis.shop.svc.cluster.local"),
    "dns_addresses": "10.244.12.137",
    "dns_type": "AAAA",
    "args": ["python3", "-m", "http.server", "--bind", "127.0.0.1"],
    "histogram": [*[0] * 16, 3, 41, 17_011, 1, *[0] * 27, 10**9],
    "container": ContainerNames("shop", "cart-6c9f7d5b8-x2x7l", "cart", ""),
    "privilege_detail": Asked(0, 0x24020000, NO_ID, 0, ""),
}
TABLES: dict[str, tuple[list[Column], Look]] = {
    name: (choose_fields(gadget, "columns", "", []), Look(narrow=gadget.narrow, fixed={"node": "node-a"}))
    for name, gadget in catalog.load().items()
} | {
    "status": (STATUS, STATUS_LOOK),
    "traceloop list": (RECORDINGS, Look()),
    "count-by path": ([COUNT, catalog.find("opensnoop").schema["path"]], Look()),
    "count-by all": ([COUNT, *catalog.find("tcptracer").schema.shown], Look()),
}


def values(field: Column) -> st.SearchStrategy[Any]:
    """Any value that a field can have."""
    if field is COUNT:  # in a lifetime; one of 20 digits has no room beside an address in 40 columns
        return st.integers(0, 10**15)
    if field.kind in VALUES:
        return VALUES[field.kind]
    return TEXTS if field.means.cut or field.kind == "short_id" else NUMBERS


class Screen(io.TextIOWrapper):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What it shows, without colours."""
        return _CONTROL.sub("", self.buffer.getvalue().decode()).splitlines()


@contextmanager
def screen(columns: int) -> Iterator[Screen]:
    """Standard output as a terminal of so many columns."""
    before, size = sys.stdout, terminal.columns
    sys.stdout = made = Screen(io.BytesIO(), encoding="utf-8")
    terminal.columns = lambda: columns
    try:
        yield made
    finally:
        sys.stdout, terminal.columns = before, size


@pytest.fixture(scope="module")
def cells() -> Iterator[Any]:
    """How many cells the C library says that a text takes, which is what terminals ask."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    wcwidth = ctypes.CDLL(None).wcwidth
    wcwidth.argtypes = [ctypes.c_wchar]
    yield lambda text: sum(map(wcwidth, text))
    locale.setlocale(locale.LC_CTYPE, before)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], Look, list[list[Row]]]:
    fields, look = TABLES[draw(st.sampled_from(sorted(TABLES)))]
    row = st.tuples(*map(values, fields))
    return fields, look, draw(st.lists(st.lists(row, min_size=1, max_size=5), min_size=1, max_size=3))


@given(tables(), st.integers(40, 220), st.booleans())
@settings(deadline=None)
def test_fits(cells: Any, table: tuple[list[Column], Look, list[list[Row]]], columns: int, complete: bool) -> None:
    """Whatever the rows hold and however wide my terminal is: no line is wider, and no number, port or count is cut."""
    fields, look, batches = table
    with screen(columns) as shown:
        output = Columns(fields, {}, look)
        output.start([], batches[0] if complete else ())
        for rows in batches:
            before = len(shown.lines)
            output.write(rows)
            lines = shown.lines[before:]
            assert max(map(cells, lines)) <= columns
            assert all(line.isprintable() for line in lines)
            visible = [fields[at] for at in output._widths]
            assert COUNT not in fields or COUNT in visible
            for field in visible:
                if not field.means.cut:
                    _whole(field, fields, rows, lines)
                elif field.means.cut is Cut.HOST:
                    ports = [row[fields.index(field)].port for row in rows if row[fields.index(field)]]
                    assert all(any(f":{port}" in line for line in lines) for port in ports if port)


def _whole(field: Column, fields: Sequence[Column], rows: list[Row], lines: list[str]) -> None:
    text, at = field.means.text(field), fields.index(field)
    wanted = [text(row[at]) if row[at] is not None else field.means.missing for row in rows]
    assert all(value in line for value, line in zip(wanted, lines[-len(rows) :], strict=True))


@given(
    TEXTS.filter(str.isprintable) | st.text(st.characters(exclude_categories=["C", "Z"])),
    st.integers(1, 80),
    st.booleans(),
)
def test_cut(cells: Any, text: str, room: int, middle: bool) -> None:
    """A text that is cut has … where something is missing, and never takes more than its room."""
    cut = fit(text, room, middle=middle)
    assert cells(cut) <= width(cut) <= room
    assert (cut == text) == (width(text) <= room)
    assert fit_endpoint("shop/cart:8080", 9) == "s…rt:8080" or room
    if cut != text:
        head, _, tail = cut.partition("…")
        assert text.startswith(head) and text.endswith(tail)


def test_width_is_the_terminals(cells: Any) -> None:
    """Every character that is printed takes no more cells than we count."""
    for code in range(0x20, 0x110000):
        character = chr(code)
        if character.isprintable():
            assert width(character) >= cells(character), hex(code)


def rows_of(table: str, *changes: dict[str, Any]) -> tuple[list[Column], Look, list[Row]]:
    """Rows of a stream, each with these values."""
    fields, look = TABLES[table]
    usual = {
        "node": "node-a",
        "namespace": "shop",
        "pod": "cart-6c9f7d5b8-x2x7l",
        "container": "cart",
        "comm": "python3",
    }
    return (
        fields,
        look,
        [tuple(({"pid": 184211} | usual | change).get(f.name, 0) for f in fields) for change in changes],
    )


def test_what_says_nothing_is_left_out_and_told() -> None:
    """At 80 columns what is the same in every row stands above the header, and the path has its 30 cells."""
    path = "/etc/cart/some/where/deep/down/in/a/folder/of/its/own/prices.yaml"
    fields, look, rows = rows_of("opensnoop", {"error": 2, "path": "/app/secrets/token"}, {"error": 13, "path": path})
    with screen(80) as shown:
        output = Columns(fields, {}, Look(narrow=look.narrow, fixed={"node": "node-a", "namespace": "shop"}))
        output.start([("node-a", "shop", "cart-6c9f7d5b8-x2x7l", "cart", "")])
        output.write(rows)
    assert (
        shown.lines
        == [
            "node-a, shop; -o wide for all columns",
            "POD                   PID     COMM      ERROR   PATH",
            "cart-6c9f7d5b8-x2x7l  184211  python3   ENOENT  /app/secrets/token",
            "cart-6c9f7d5b8-x2x7l  184211  python3   EACCES  /etc/cart/some/w…own/prices.yaml",
        ]
        or shown.lines == []
    )


def test_a_column_comes_back_when_it_says_something() -> None:
    """NODE was left out for the one node that there was: when a second joins, there is a new header with it."""
    fields, look, rows = rows_of("opensnoop", {"path": "/a"}, {"path": "/b", "node": "node-b"}, {"path": "/c"})
    with screen(80) as shown:
        output = Columns(fields, {}, look)
        output.start([])
        for row in rows:
            output.write([row])
    assert [line.split()[0] for line in shown.lines if line.endswith("PATH")] == ["NAMESPACE", "NODE"]


@pytest.mark.parametrize(
    ("table", "empty", "full"),
    [
        ("dnssnoop", {"name": "pay.shop.svc.cluster.local", "type": "A", "addresses": ""}, {"addresses": "10.96.0.17"}),
        ("bindsnoop", {"error": 0, "hpid": 0, "hcomm": ""}, {"error": 98, "hpid": 4711, "hcomm": "nginx"}),
    ],
)
def test_one_header(table: str, empty: dict[str, Any], full: dict[str, Any]) -> None:
    """A column that is empty at first has its room at 80 columns from the beginning: there is one header."""
    fields, look, rows = rows_of(table, empty, empty | full, empty)
    with screen(80) as shown:
        output = Columns(fields, {}, replace(look, fixed=NARROW))
        output.start([("node-a", "shop", "cart-0", "app", "")])
        for row in rows:
            output.write([row])
    (head,) = (line for line in shown.lines if line.startswith("POD"))
    assert "COMM" in head and list(full)[-1].upper() in head


def test_resize() -> None:
    """When I make my terminal wider or narrower, the next rows have a header that fits, once."""
    peer = Endpoint("10.0.0.1", 8080, "pod", "shop", "cart-6c9f7d5b8-x2x7l")
    fields, look, rows = rows_of("tcpconnect", {"dst": peer}, {"dst": peer})
    for columns in (60, 200, 120):
        with screen(100) as shown:
            output = Columns(fields, {}, look)
            output.start([])
            output.write(rows)
            before = len(shown.lines)
            terminal.columns = lambda columns=columns: columns
            output.write(rows)
            output.write(rows)
            lines = shown.lines[before:]
        assert sum("DST" in line for line in lines) == 1 and "DST" in lines[-5]
        assert max(map(len, lines)) <= columns
        assert all(":8080" in line for line in lines[-4:])


def test_wide_has_every_column() -> None:
    """-o wide leaves no column out, on the narrowest terminal."""
    fields, look, rows = rows_of("tcptracer", {})
    with screen(40) as shown:
        output = Columns(fields, {}, look, everything=True)
        output.start([])
        output.write(rows)
    assert shown.lines[0].split() == [field.name.upper() for field in fields]


def test_wide_is_whole() -> None:
    """Where not all columns of -o wide fit, its lines are as long as they have to be: nothing in them is cut."""
    fields = [Column(name, "identity") for name in ("namespace", "pod", "container", "image")]
    row = ("shop", "cart-6c9f7d5b8-x2x7l", "istio-proxy", "registry.example/shop/cart")
    with screen(30) as shown:
        output = Columns(fields, {}, everything=True)
        output.start([], [row])
        output.write([row])
    assert "".join(shown.lines[1:]).split() == list(row)


def test_wide_tells_the_reason() -> None:
    """-o wide cuts what says most of a row no more than the usual table does."""
    names = [Column(name, "identity") for name in ("namespace", "pod", "container", "state")]
    with screen(80) as shown:
        output = Columns([*names, Column("why", "text")], {}, everything=True)
        rows = [("shop", "p" * 40, "app", "exited 1", "it could not open /etc/cart/prices.yaml")]
        output.start([], rows)
        output.write(rows)
    assert "it could not open /etc/cart/p" in shown.lines[1]
    assert max(map(len, shown.lines)) <= 80


def test_two_containers_in_a_pod() -> None:
    """CONTAINER is left out while each pod has one, and is there as soon as one has two."""
    fields, look, rows = rows_of("execsnoop", {"args": ["a"]}, {"args": ["b"], "container": "istio-proxy"})
    with screen(100) as shown:
        output = Columns(fields, {}, look)
        output.start([("node-a", "shop", "cart-6c9f7d5b8-x2x7l", "cart", "")])
        for row in rows:
            output.write([row])
    first, second = [line for line in shown.lines if "ARGS" in line]
    assert "CONTAINER" not in first and "CONTAINER" in second


@pytest.mark.parametrize(
    ("environment", "choice", "coloured"),
    [
        ({}, "auto", True),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": ""}, "auto", True),
        ({"TERM": "dumb"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({}, "never", False),
    ],
)
def test_colours(environment: dict[str, str], choice: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bold header, red errors and a colour for each pod, unless I say no: NO_COLOR, TERM=dumb, --color."""
    import click

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fields, look, rows = rows_of("execsnoop", {"error": 2, "args": []}, {"pod": "web-0", "args": []})
    with screen(120) as shown, click.Context(click.Command("x"), allow_extra_args=True) as context:
        context.meta[terminal.COLOR] = choice
        output = Columns(fields, {}, look)
        output.start([])
        output.write(rows)
        raw = shown.buffer.getvalue().decode()
    assert ("\x1b[1m" in raw) == coloured
    assert raw.count("\x1b[31mENOENT\x1b[0m") == coloured
    pods = dict(re.findall(r"(\x1b\[\d+m)((?:cart|web)-\S+)", raw))
    assert len(pods) == 2 * coloured
    assert coloured or "\x1b" not in raw


def test_real_terminal(fake: Callable[..., FakeAgent]) -> None:
    """A stream of one node has no NODE column at 80 columns and says why; when I widen the window it has."""
    agent = fake("node-a")
    with Terminal(str(CLI), "execsnoop", "--agent", agent.address, columns=80) as shown:
        assert agent.started.wait(20)
        agent.emit(1)
        wait_until(lambda: any("on-node-a" in line for line in shown.lines), "the first row")
        assert "node-a; -o wide for all columns" in shown.lines
        shown.resize(200)
        agent.emit(2)
        wait_until(lambda: any(line.startswith("NODE ") for line in shown.lines), "a header with the node")
        shown.process.send_signal(signal.SIGINT)
        assert shown.wait() == 0


def test_live_counts_say_how_complete_they_are(fake: Callable[..., FakeAgent]) -> None:
    """At 80 columns the live table has its COUNT, whatever is counted, and below it what it does not show, and losses."""
    agent = fake("node-a")
    gadget = catalog.find("execsnoop")
    execs = [{"pid": 1, "comm": b"app", "args": b"%02d" % number + b"x" * 60} for number in range(53)]
    with Terminal(
        str(CLI), "execsnoop", "--agent", agent.address, "--count-by", "comm,args", columns=80, lines=20
    ) as shown:
        assert agent.started.wait(20)
        agent.send(packed(gadget, execs))
        wait_until(lambda: any("37 more rows; 53 events in" in line for line in shown.lines), "the last line")
        assert any(re.search(r"; 53 events in \d+ s; nothing lost$", line) for line in shown.lines)
        assert any(re.match(r"COUNT +COMM +ARGS", line) for line in shown.lines)
        agent.emit(3, lost=7)
        wait_until(lambda: any("54 events in" in line and "; 7 lost" in line for line in shown.lines), "the loss")
        shown.process.send_signal(signal.SIGINT)
        assert shown.wait() == 0


def left_on_screen(raw: str) -> list[str]:
    """What a terminal shows after all that was written to it."""
    lines, row = [""], 0
    for part in re.split(r"(\r\n|\n|\x1b\[\d*A|\x1b\[2K|\x1b\[[0-9;?]*[A-Za-z]|\r)", raw):
        if part in ("\n", "\r\n"):
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return lines


def test_ctrl_c_leaves_one_table(fake: Callable[..., FakeAgent]) -> None:
    """Ctrl-C leaves the last live table on the terminal, and nothing of the one that stood there before."""
    agent = fake("node-a")
    with Terminal(str(CLI), "execsnoop", "--agent", agent.address, "--count-by", "comm", columns=80) as shown:
        assert agent.started.wait(20)
        agent.emit(3)
        wait_until(lambda: any("1 event in" in line for line in shown.lines), "the last line")
        shown.process.send_signal(signal.SIGINT)
        assert shown.wait() == 0
    assert [line.split()[0] for line in left_on_screen(shown.raw) if line.strip()] == ["COUNT", "1", "1"]


@pytest.mark.parametrize(("columns", "least"), [(80, 30), (120, 50), (200, 90)])
def test_a_reason_is_worth_more_than_a_long_name(columns: int, least: int) -> None:
    """Half of a wide terminal is for what says most, whatever the longest name in another row is."""
    fields = [Column("namespace", "identity"), Column("pod", "identity"), Column("why", "text")]
    rows = [("shop", "web-0", "it could not " * 20), ("n" * 63, "p" * 253, "it crashed")]
    with screen(columns) as terminal:
        output = Columns(fields, {})
        output.start([], rows)
        output.write(rows)
    assert all(len(line) <= columns for line in terminal.lines)
    assert len(terminal.lines[1]) - terminal.lines[0].index("WHY") >= least


#: Of each gadget: values as they are on nodes, the columns that must be there at 80 cells, and how they look.
TELLING: dict[str, list[tuple[dict[str, Any], dict[str, str]]]] = {
    "dnssnoop": [
        (
            {"message": 1, "name": "redis.shop.svc.cluster.local", "rcode": 0, "addresses": "10.244.12.137"},
            {"MESSAGE": "answer", "RCODE": "NOERROR", "ADDRESSES": "10.244.12.137"},
        ),
        (
            {"message": 1, "name": "prices.shop", "rcode": 3, "addresses": ""},
            {"NAME": "prices.shop", "RCODE": "NXDOMAIN"},
        ),
        ({"message": 2, "name": "prices.shop", "rcode": 65535, "addresses": ""}, {"MESSAGE": "no answer"}),
    ],
    "privsnoop": [
        (
            {"call": 8, "detail": Asked(0, 0x24020000, NO_ID, 0, "")},
            {"CALL": "unshare", "DETAIL": "NEWNS|NEWUTS|NEWPID"},
        ),
        ({"call": 0, "error": 1, "detail": Asked(0, 0, 0, 0, "")}, {"CALL": "setuid", "ERROR": "EPERM", "DETAIL": "0"}),
        (
            {"call": 9, "detail": Asked((10 << 16) + 16, 0, NO_ID, 4711, "")},
            {"CALL": "ptrace", "DETAIL": "attach 4711"},
        ),
        ({"call": 18, "detail": Asked(0, 0, NO_ID, 0, "/srv/jail")}, {"CALL": "chroot", "DETAIL": "/srv/jail"}),
    ],
    "oomkill": [
        (
            {
                "limit": 256 << 20,
                "used": 255 << 20,
                "fcomm": "resize",
                "trigger": ContainerNames("shop", "thumb-0", "app", ""),
            },
            {"COMM": "python3", "LIMIT": "256M", "USED": "255M", "FCOMM": "resize", "TRIGGER": "shop/thumb-0/app"},
        )
    ],
    "mountsnoop": [
        (
            {
                "operation": 0,
                "error": 16,
                "type": "overlay",
                "source": "/dev/mapper/data",
                "target": "/var/lib/app/data",
            },
            {"OPERATION": "mount", "ERROR": "EBUSY", "TYPE": "overlay", "TARGET": "/var/lib/app/data"},
        ),
        (
            {"operation": 0, "type": "tmpfs", "source": "tmpfs", "target": "/run/secrets"},
            {"TYPE": "tmpfs", "SOURCE": "tmpfs", "TARGET": "/run/secrets"},
        ),
    ],
}


@pytest.mark.parametrize("table", TELLING)
def test_what_says_most_is_there_at_80(table: str) -> None:
    """At 80 columns I see what an event is about: name and answer, call and detail, limit and trigger, source and target."""
    fields, look, rows = rows_of(table, *(values for values, _ in TELLING[table]))
    with screen(80) as shown:
        output = Columns(fields, {}, replace(look, fixed=NARROW))
        output.start([("node-a", "shop", "cart-6c9f7d5b8-x2x7l", "cart", "")])
        output.write(rows)
    header = next(line for line in reversed(shown.lines) if line.startswith("POD"))
    for line, (_, wanted) in zip(shown.lines[-len(rows) :], TELLING[table], strict=True):
        assert set(wanted) <= set(header.split())
        assert not [text for text in wanted.values() if text not in line]


def test_no_name_is_cut_to_a_few_letters() -> None:
    """Where a name or an address has no room at 80 columns, another column goes: what is left of it says who it is."""
    for table, (fields, look) in TABLES.items():
        if table not in catalog.load():
            continue
        who = Endpoint("10.244.12.137", 44122, "raw", "", "")
        long = {"identity": "cart-6c9f7d5b8-x2x7l", "comm": "containerd-shim", "endpoint": who}
        usual = {True: "redis.shop.svc.cluster.local", False: 0}  # of a gadget's own kinds too
        row = tuple(long.get(field.kind, LONG.get(field.kind, usual[field.means.is_text])) for field in fields)
        with screen(80) as shown:
            output = Columns(fields, {}, replace(look, fixed=NARROW))
            output.start([], [row])
            output.write([row])
        pieces = [cell for cell in re.split(" {2,}", shown.lines[-1]) if "…" in cell]
        assert all(len(cell) >= 12 for cell in pieces), (table, shown.lines)
        assert not any("44122" in cell for cell in pieces), (table, shown.lines)


@pytest.mark.parametrize("name", [name for name, gadget in catalog.load().items() if not gadget.has_tables])
def test_a_heading_is_the_name_of_a_field(name: str) -> None:
    """I filter by what stands above a column, in small letters."""
    gadget = catalog.find(name)
    request = Request(gadget, {}, "wide", choose_fields(gadget, "wide", "", []), frozenset(), (), "")
    with screen(200) as shown:
        request.make_output(all_fields(gadget.schema), "").start([])
    known = {field.lower() for field in all_fields(gadget.schema)}
    assert {heading.lower() for heading in shown.lines[-1].split()} <= known
