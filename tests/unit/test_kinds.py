"""What kinds of values mean, in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_batch, parse_schema
from gadget.errors import Malformed
from gadget.filters import parse
from gadget.kinds import KINDS
from gadget.kinds.base import OF_PROCESS, Described, Kind
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.rows import Decoder
from gadget.schema import Column, Field, Schema
from kubectl_gadget.output import all_fields, make_output, text_of
from kubectl_gadget.output.counts import Counts
from tests.unit.rows import batch

ROOT = Path(__file__).parents[2]
EXECS = catalog.find("execsnoop").schema


class Half(Kind):
    """A number of halves."""

    is_right = True
    usual = 9

    def text(self, column: Described) -> Callable[[Any], str]:
        return lambda value: f"{value}/2"

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        return {column.name: lambda value: value / 2}

    def digits(self, text: str) -> int:
        return round(float(text) * 2)


def with_kind(kind: str, *names: str) -> Schema:
    fields = [replace(field, kind=kind) if field.name in names else field for field in EXECS.fields]
    return replace(EXECS, fields=tuple(fields))


def shown(schema: Schema, form: str, condition: str, *names: str) -> None:
    rows = Decoder("node-a", schema).rows(batch(), names, parse(condition, schema))
    output = make_output(form, [all_fields(schema)[name] for name in names], {})
    output.start([])
    output.write([row for _, row, _ in rows])


def test_a_kind_is_one_class(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of value is defined once: columns, JSON, filters and all else have it from there."""
    monkeypatch.setitem(KINDS, "half", Half("half"))
    schema = with_kind("half", "pid")
    shown(schema, "columns", "pid>=1.0", "pid", "comm")
    assert capsys.readouterr().out.splitlines() == ["      PID  COMM", "      2/2  ls", "      3/2  nope"]
    shown(schema, "json", "pid==1.5", "pid")
    assert orjson.loads(capsys.readouterr().out) == {"pid": 1.5}


def test_kinds_are_those_of_c() -> None:
    """Whatever a member of an event may be in C is known to the command line."""
    header = (ROOT / "bpf/include/fields.h").read_text()
    names = set(re.findall(r"^typedef .*?gadget_(\w+)(?:\[\d+\])?;", header, re.MULTILINE))
    assert len(names) > 10 and names <= KINDS.keys()


def test_nobody_else_asks_for_kinds() -> None:
    """No other module asks a value for the name of its kind: what a kind means cannot differ from place to place."""
    asks = re.compile(r"\bkind (?:==|!=|in|not in) \(?\"(?:" + "|".join(KINDS) + r")\"")
    modules = [each for folder in ("gadget", "kubectl_gadget", "docs") for each in (ROOT / folder).rglob("*.py")]
    found = [f"{path}: {line}" for path in modules for line in path.read_text().splitlines() if asks.search(line)]
    assert len(modules) > 100 and found == []


def test_kind_of_another_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A number of a kind that only a newer agent knows is shown as it is."""
    shown(with_kind("kind_of_tomorrow", "pid"), "json", "pid>2", "pid")
    assert orjson.loads(capsys.readouterr().out) == {"pid": 3}


def field(name: str, kind: str, offset: int, size: int, **rest: Any) -> Field:
    return Field(name, kind, offset=offset, size=size, doc=name, **rest)


SLICE = (field("offset", "int", 0, 2), field("length", "int", 2, 2))
END = (field("address", "chars", 0, 16), field("port", "int", 16, 2))
LISTS = Schema(
    (
        field("timestamp", "timestamp", 0, 8),
        field("cgroup_id", "cgroup_id", 8, 8),
        field("stack", "int", 16, 32, count=4),
        field("errors", "errno", 48, 8, count=2, signed=True, values={"2": "ENOENT", "13": "EACCES"}),
        field("answers", "endpoint", 56, 60, count=3, parts=END),
        field("names", "text", 116, 8, count=2, parts=SLICE),
        field("comms", "comm", 124, 32, count=2),
    ),
    156,
)


def answers() -> pb.Batch:
    """Two DNS answers, so to speak."""
    rows = np.zeros(2, LISTS.dtype(168))
    rows["stack"][0], rows["stack"][1] = (7, 0, 9, 0), (8, 0, 0, 0)
    rows["errors"][0] = (2, 13)
    rows["answers"]["address"][0] = [IPv6Address("::ffff:10.0.0.1").packed, IPv6Address("2001:db8::1").packed, b""]
    rows["answers"]["port"][0] = (53, 443, 0)
    rows["names"]["length"][0], rows["names"]["offset"][0] = (3, 5), (0, 3)
    rows["comms"][0] = (b"sh", b"curl")
    data = bytearray(rows.tobytes())
    data[156:164] = b"webexact"
    return pb.Batch(sections=[pb.Section(record_size=168, count=2, rows=bytes(data))])


def listed(form: str, condition: str, *names: str) -> None:
    schema, sent = parse_schema("node-a", orjson.dumps(LISTS.to_json()).decode()), answers()
    check_batch("node-a", schema, sent)
    rows = Decoder("node-a", schema).rows(sent, names, parse(condition, schema))
    output = make_output(form, [all_fields(schema)[name] for name in names], {})
    output.start([])
    if rows:
        output.write([row for _, row, _ in rows])


NAMES = ("stack", "errors", "answers", "names", "comms")


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    """A field may be a list of anything: numbers, errors, ends of connections, texts. JSON has lists, columns commas."""
    listed("json", "", *NAMES)
    first, second = map(orjson.loads, capsys.readouterr().out.splitlines())
    ends = [(end["addr"], end["port"]) for end in first.pop("answers")]
    assert ends == [("10.0.0.1", 53), ("2001:db8::1", 443)]
    assert first == {
        "stack": [7, 0, 9],
        "errors": ["ENOENT", "EACCES"],
        "errors_raw": [2, 13],
        "names": ["web", "exact"],
        "comms": ["sh", "curl"],
    }
    assert second == {"stack": [8], "errors": [], "errors_raw": [], "answers": [], "names": [], "comms": []}
    listed("format={stack}|{errors}|{answers}|{names}|{comms}", "", *NAMES)
    assert capsys.readouterr().out.splitlines() == [
        "7, 0, 9|ENOENT, EACCES|10.0.0.1:53, [2001:db8::1]:443|web, exact|sh, curl",
        "8|-|-|-|-",
    ]
    for form in ("columns", "csv", "yaml"):
        listed(form, "", *NAMES)
        assert "EACCES" in capsys.readouterr().out
    counts = Counts([LISTS[name] for name in NAMES], lambda fields: make_output("json", fields, {}), {})
    counts.write([row for _, row, _ in Decoder("node-a", LISTS).rows(answers(), NAMES, lambda table: None)] * 3)
    counts.finish()
    assert orjson.loads(capsys.readouterr().out.splitlines()[0])["count"] == 3


@pytest.mark.parametrize(
    ("condition", "stacks"),
    [
        ("stack==9", ["7, 0, 9"]),
        ("stack!=9", ["8"]),
        ("stack>7", ["7, 0, 9", "8"]),
        ("errors==EACCES", ["7, 0, 9"]),
        ("errors~^ENO", ["7, 0, 9"]),
        ("errors!~^ENO", ["8"]),
        ("answers==10.0.0.0/8", ["7, 0, 9"]),
        ("answers==*:443", ["7, 0, 9"]),
        ("names==ex*", ["7, 0, 9"]),
        ("names~^b", []),
        ("comms!=sh", ["8"]),
    ],
)
def test_filters_of_lists(condition: str, stacks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A filter on a list holds if it holds for any of it, and with != or !~ if it does for none."""
    listed("format={stack}", condition, "stack")
    assert capsys.readouterr().out.splitlines() == stacks


def test_a_list_lies_in_its_record() -> None:
    """A list of texts that points outside its record is refused like one text."""
    sent = answers()
    rows = np.frombuffer(sent.sections[0].rows, LISTS.dtype(168)).copy()
    rows["names"]["length"][1, 1] = 99
    sent.sections[0].rows = rows.tobytes()
    with pytest.raises(Malformed):
        check_batch("node-a", LISTS, sent)


def test_words_as_one() -> None:
    """What is shown in words I may write as one, as system calls are called: memfd_create is `memfd create`."""
    field = catalog.find("privsnoop").schema["call"]
    assert field.means.parse(field, "memfd_create") == field.means.parse(field, "memfd create")


#: What stands for nothing, by kind.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(("comm", "text", "word", "path", "absolute_path", "full_path", "dns_name", "dns_type"), ""),
    **dict.fromkeys(("dns_addresses", "dns_cnames"), ""),
    **dict.fromkeys(("errno", "signal", "pid", "some_size"), 0),
    **dict.fromkeys(("uid", "gid", "syscall"), (1 << 32) - 1),
    **dict.fromkeys(("endpoint", "some_endpoint", "container"), None),
    "dns_rcode": 65535,
    "duration": DURATION_UNKNOWN,
    "args": [],
}


@pytest.mark.parametrize("name", catalog.load())
def test_one_mark_for_nothing(name: str) -> None:
    """What does not apply is - on every screen, and what is not known is ?: no cell is blank, or has a word for it."""
    shown = catalog.find(name).schema.shown
    for field in (field for field in shown if field.kind in NOTHING):
        unknown = field.name in OF_PROCESS or field.kind in ("endpoint", "duration")
        assert text_of(field)(NOTHING[field.kind]) == ("?" if unknown else "-"), field.name
    for field in (field for field in shown if field.kind == "words"):
        texts = {word: text_of(field)(int(number)) for number, word in field.values.items()}
        assert (texts.get("none", "-"), texts.get("unknown", "?")) == ("-", "?"), field.name


def test_whose_process_is_not_known() -> None:
    """The members of the header that tell of a process are those for which nothing means not known."""
    headers = [[field.name for field in each.schema.fields] for each in catalog.load().values() if not each.has_tables]
    common = {name for name in headers[0] if all(name in names for names in headers)}
    assert common - {"timestamp", "cgroup_id", "text_length"} == {*OF_PROCESS}


def test_few_bytes() -> None:
    """A few bytes are so many bytes and none are 0, in every table; a filter takes them as they are shown."""
    size = KINDS["size"]
    shown = size.text(Column("sent", "size"))
    assert [*map(shown, (0, 1, 17, 1023, 1024, 1 << 20))] == ["0", "1B", "17B", "1023B", "1K", "1M"]
    assert [*map(size.digits, ("0", "17B", "1K", "0x1B"))] == [0, 17, 1024, 27]
