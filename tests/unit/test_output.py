"""Screens, pinned: change them on purpose."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.kinds.times import rfc3339
from gadget.rows import Decoder
from gadget.schema import Column
from kubectl_gadget.output import Output, choose_fields, make_output
from kubectl_gadget.output.counts import Counts
from kubectl_gadget.output.forms.documents import MANY, JsonLines
from kubectl_gadget.stream.recording import Writer
from tests.conftest import CLI
from tests.unit.rows import NAMES, batch

GADGET = catalog.find("execsnoop")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def show(form: str, fields: str = "") -> None:
    chosen = choose_fields(GADGET, form, fields, [])
    output = make_output(form, chosen, {})
    decoder = Decoder("node-a", GADGET.schema)
    rows = [row for _, row, _ in decoder.rows(batch(), [field.name for field in chosen], lambda table: None)]
    output.start([("node-a", *names) for names in NAMES.values()])
    output.write(rows)


def on_terminal(columns: int, *args: str, what: Callable[..., None] = show) -> str:
    """What show prints on a terminal of that many columns."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.pop("COLUMNS", None)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8", write_through=True)
        what(*args)
        os._exit(0)
    data = b""
    try:
        while chunk := os.read(fd, 4096):
            data += chunk
    except OSError:
        pass
    os.waitpid(pid, 0)
    return data.decode().replace("\r\n", "\n")


def test_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns line up, nothing is cut in a pipe, and what processes put into names cannot reach my terminal."""
    show("columns")
    assert capsys.readouterr().out == (
        "NODE    NAMESPACE  POD     CONTAINER  PID      PPID     COMM          ERROR   ARGS\n"
        "node-a  shop       cart-0  cart       1        -        sh            -       sh -c true\n"
        'node-a  web        web-0   nginx      2        -        ls            -       ls \\x1b[31mred "a b" …\n'
        "node-a  -          -       -          3        -        nope          ENOENT  -\n"
    )


def test_wide(capsys: pytest.CaptureFixture[str]) -> None:
    """-o wide adds who ran it and which file."""
    show("wide", "-node,-namespace,-pod,-container")
    assert capsys.readouterr().out == (
        "PID      PPID     COMM          ERROR   TID      UID    GID    PCOMM         EXE                   ARGS\n"
        "1        -        sh            -       1        0      0      -             /bin/sh               sh -c true\n"
        "2        -        ls            -       2        0      0      -             /usr/bin/ls           "
        'ls \\x1b[31mred "a b" …\n'
        "3        -        nope          ENOENT  3        0      0      -             ./nope                -\n"
    )


@pytest.mark.parametrize("columns", [80, 200])
def test_fits_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal no line is longer than it, the header comes once, and failures are red."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_terminal(columns, "columns")
    lines = re.sub(r"\x1b\[\d+m", "", shown).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum(line.endswith("ARGS") for line in lines) == 1
    assert shown.count("\x1b[31mENOENT\x1b[0m") == shown.count("\x1b[31m") == 1


def test_json(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """JSON is one object a line: time in RFC 3339, who, then the event; an errno by name and by number."""
    show("json")
    lines = capsysbinary.readouterr().out.splitlines()
    assert len(lines) == 3
    first, _, last = map(orjson.loads, lines)
    assert list(first)[:6] == ["timestamp", "node", "namespace", "pod", "container", "containerId"]
    assert first["timestamp"] == "2023-11-14T22:13:20.000000000Z"
    assert (first["args"], first["error"], first["error_raw"], first["exe"]) == (
        ["sh", "-c", "true"],
        None,
        0,
        "/bin/sh",
    )
    assert (last["args"], last["error"], last["error_raw"], last["pod"]) == ([], "ENOENT", 2, None)


#: Texts of which a terminal obeys a part: CSI as one character, DEL, direction marks, a line's end, a language tag.
CRAFTED = ["a\x9b31mred", "b\x7f", "c\u202edrawkcab", "d\x85e", "f\u2028g", "h\U000e0041", "Grüße 世界", "i\x1b[2J"]


def show_crafted(form: str) -> None:
    fields = [Column("path", "path"), Column("comm", "comm"), Column("args", "args")]
    make_output(form, fields, {}).write([(text, text, [text]) for text in CRAFTED])


@pytest.mark.parametrize("form", ["json", "jsonpretty", "yaml"])
def test_documents_on_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and YAML on a terminal hold no character that it obeys, and say the same as in a file."""
    read = yaml.safe_load_all if form == "yaml" else lambda text: map(orjson.loads, re.split(r"\n(?=\{)", text))
    shown = on_terminal(100, form, what=show_crafted)
    assert shown.replace("\n", "").isprintable()
    assert [item["path"] for item in read(shown)] == CRAFTED
    assert [(item["comm"], *item["args"]) for item in read(shown)] == [(text, text) for text in CRAFTED]
    assert "Grüße 世界" in shown
    show_crafted(form)
    assert [item["path"] for item in read(capsys.readouterr().out)] == CRAFTED


def test_yaml_and_pretty(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """YAML and indented JSON say the same as JSON."""
    show("json")
    plain = [orjson.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    show("yaml")
    assert list(yaml.safe_load_all(capsysbinary.readouterr().out)) == plain
    show("jsonpretty")
    assert capsysbinary.readouterr().out.startswith(b'{\n  "timestamp"')


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """--fields shows just those fields, in my order; +field and -field change what is usual."""
    show("columns", "comm,pid,timestamp")
    assert capsys.readouterr().out.splitlines()[:2] == [
        "COMM          PID      TIMESTAMP",
        "sh            1        22:13:20.000000",
    ]
    show("columns", "-node,-pod,-namespace,-args,+uid")
    assert capsys.readouterr().out.splitlines()[0] == "CONTAINER  PID      PPID     COMM          ERROR   UID"


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 1 << 62), st.sampled_from([None, 0, 5])), min_size=1, max_size=5)
    | st.lists(st.tuples(st.integers(0, 1 << 62), st.just(5)), min_size=1, max_size=5).map(lambda rows: rows * MANY)
)
def test_json_at_once(rows: list[tuple[int | None, int | None]]) -> None:
    """A line of JSON says the same whatever stands in the lines around it; a time is never rounded."""
    fields = [Column("time", "timestamp"), Column("fd", "int")]
    written = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(written):
        JsonLines(fields).write(rows)
    lines = written.buffer.getvalue().splitlines()
    wanted = [{"time": None if time is None else rfc3339(time), "fd": fd} for time, fd in rows]
    assert [orjson.loads(line) for line in lines] == wanted


@given(
    st.lists(st.text(max_size=6) | st.sampled_from(['","', '"', "\\", '\\","', "\n", "\x00"]), min_size=1, max_size=9)
)
def test_any_text_in_json(texts: list[str]) -> None:
    """Whatever stands in a path, a line of JSON is valid and says just that."""
    output = JsonLines([Column("path", "path"), Column("comm", "comm"), Column("args", "args")])
    written = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(written):
        output.write([(text, text, [text, ""]) for text in texts])
    lines = written.buffer.getvalue().splitlines()
    assert [orjson.loads(line) for line in lines] == [
        {"path": text, "comm": text, "args": [text, ""]} for text in texts
    ]


@pytest.mark.parametrize(("form", "headers"), [("json", 0), ("columns", 1)])
def test_disk_fills(tmp_path: Path, form: str, headers: int) -> None:
    """Where a disk fills in the middle of a batch the one line of the error names the file and says how many events it has."""
    recording, shown = tmp_path / "execs.gadget", tmp_path / "shown"
    schema = orjson.dumps(catalog.find("execsnoop").schema.to_json()).decode()
    replies = [pb.RunReply(node="node-a", started=pb.Started(schema=schema, contract=CONTRACT))]
    replies += [pb.RunReply(node="node-a", batch=batch())] * 101
    with Writer(recording, "execsnoop") as writer:
        list(writer.keep([("node-a", reply) for reply in replies]))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10_007, 10_007))
    with shown.open("wb") as file:
        command = [CLI, "replay", recording, "-o", form]
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, preexec_fn=limit, check=False)
    assert shown.stat().st_size == 10_007
    written = shown.read_bytes().count(b"\n") - headers
    assert 10 < written < 303
    assert (done.returncode, done.stderr) == (1, f"error: {shown}: File too large: {written} events written\n")


@pytest.mark.parametrize(
    ("args", "cut", "text"),
    [
        (b"sh\0-c\0", False, "sh -c"),
        (b"sh\0-c\0", True, "sh -c …"),
        (b"sh\0a b", True, 'sh "a b"…'),
        (b"", True, "…"),
    ],
)
def test_arguments_that_are_not_all_there(args, cut, text, capsys) -> None:
    """Where a program had more arguments than are kept, columns and counts end in …, and JSON says args_truncated."""
    schema = GADGET.schema
    row = np.zeros(1, schema.dtype(schema.text_offset + 16))
    row["args"]["length"], row["args_truncated"] = len(args), cut
    packed = bytearray(row.tobytes())
    packed[schema.text_offset :] = args.ljust(16, b"\0")
    batch = pb.Batch(sections=[pb.Section(record_size=len(packed), count=1, rows=bytes(packed))])

    def shown(form: str, fields: str, wrap: Callable[[list[Column]], Output] | None = None) -> str:
        chosen = choose_fields(GADGET, form, fields, [])
        output = wrap(chosen) if wrap else make_output(form, chosen, {})
        rows = Decoder("node-a", schema).rows(batch, [field.name for field in chosen], lambda table: None)
        output.write([row for _, row, _ in rows])
        output.finish()
        return capsys.readouterr().out.splitlines()[-1].strip()

    assert shown("columns", "args") == text
    counted = shown("columns", "args", lambda by: Counts(by, lambda fields: make_output("columns", fields, {}), {}))
    assert counted.split(maxsplit=1)[1].rstrip("… ") == text.rstrip("… ")
    assert counted.endswith("…") == cut
    assert orjson.loads(shown("json", "args,args_truncated"))["args_truncated"] == cut
