"""The live table of --count-by, on a terminal, and what is left when it ends."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.output import all_fields, make_output
from kubectl_gadget.output.counts import Counts
from kubectl_gadget.stream.recording import Writer
from tests.conftest import CLI, wait_until
from tests.fakes import FakeAgent
from tests.terminal import Terminal
from tests.unit.test_snapshots import batch

GADGET = catalog.find("execsnoop")
HIDE = "\x1b[?25l"


def count_by(field: str, *agents: FakeAgent, **options: object) -> Terminal:
    """The command on a terminal."""
    where = [part for agent in agents for part in ("--agent", agent.address)]
    return Terminal(str(CLI), "execsnoop", *where, "--count-by", field, **options)


def execs(text: str, number: int) -> list[dict[str, object]]:
    """As many execs of a program of that name."""
    return [{"pid": 1, "comm": b"app", "args": text.encode() + b"\0"}] * number


def test_names_are_no_markup(fake) -> None:
    """In the live table a name is shown as it is, also one in which the table's own writer would see an instruction."""
    agent = fake("node-a")
    names = {"[/x]": 41, "[red]": 37, ":smile:": 31, "[link=http://example.com]here[/link]": 29}
    with count_by("args", agent) as terminal:
        assert agent.started.wait(20)
        agent.send(batch(GADGET, [event for name, number in names.items() for event in execs(name, number)]))
        for name, number in names.items():
            wait_until(lambda line=f"{number:>5}  {name}": line in terminal.lines, name)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert "\x1b]8" not in terminal.raw and "\x1b[31m" not in terminal.raw
        shown = terminal.lines
    final = shown[-len(names) - 1 : -1]
    assert [line.split(maxsplit=1) for line in final] == [[str(number), name] for name, number in names.items()]
    assert shown[-1].startswith("138 events from 1 node")


def test_last_of_a_burst(fake) -> None:
    """What happened last is in the live table at once, also when nothing happens after it."""
    agent = fake("node-a")
    with count_by("args", agent) as terminal:
        assert agent.started.wait(20)
        for _ in range(3):
            agent.send(batch(GADGET, execs("burst", 7)))
        wait_until(lambda: any(line.split() == ["21", "burst"] for line in terminal.lines), "all of the burst", 5)
        assert not terminal.has_cursor


def test_cursor_after_an_error(tmp_path: Path) -> None:
    """When the command fails amid the live table, its one line of error can be read, and I have my cursor again."""
    schema = orjson.dumps(GADGET.schema.to_json()).decode()
    wrong = batch(GADGET, execs("one", 1))
    wrong.sections[0].count = 2
    whats = ({"started": pb.Started(schema=schema)}, {"batch": batch(GADGET, execs("one", 1))}, {"batch": wrong})
    with Writer(file := tmp_path / "file", "execsnoop") as writer:
        assert list(writer.keep([("node-a", pb.RunReply(node="node-a", **what)) for what in whats]))
    with Terminal(str(CLI), "replay", str(file), "--count-by", "args") as terminal:
        assert terminal.wait() == 1
        assert HIDE in terminal.raw and terminal.has_cursor
        told = f"error: {file}: node-a: its agent sends events that make no sense"
        assert " ".join(terminal.lines).endswith(told)  # in lines that end between words


def test_cursor_after_ctrl_c_twice(fake) -> None:
    """Ctrl-C a second time ends the live table at once and leaves me my cursor."""
    agent = fake("node-a")
    agent.deaf = True
    with count_by("args", agent) as terminal:
        assert agent.started.wait(20)
        agent.send(batch(GADGET, execs("one", 1)))
        wait_until(lambda: any(line.split() == ["1", "one"] for line in terminal.lines), "the live table")
        terminal.process.send_signal(signal.SIGINT)
        assert agent.asked_to_stop.wait(20)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert HIDE in terminal.raw and terminal.has_cursor


def test_warnings_go_where_i_sent_them(fake, tmp_path: Path) -> None:
    """Warnings during the live table are in the file that I sent standard error to."""
    agent, hangs = fake("node-a"), fake("node-b", beat_ms=40)
    file = tmp_path / "err"
    with file.open("wb") as err, count_by("args", agent, hangs, stderr=err) as terminal:
        wait_until(lambda: ": nothing heard for 0.2 s" in file.read_text(), "the warning")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert "warning" not in terminal.raw


def test_final_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The header of the final table stands above its columns, however long the values are."""
    fields = [all_fields(GADGET.schema)[name] for name in ("node", "exe", "comm")]
    counts = Counts(fields, lambda shown: make_output("columns", shown, {}), {})
    counts.write([("a-node-with-a-long-name", "/usr/local/lib/a/very/long/path/to/it", "app")] * 11)
    assert counts.finish() == ""
    header, row = capsys.readouterr().out.splitlines()
    for title, value in (("NODE", "a-node"), ("EXE", "/usr"), ("COMM", "app")):
        assert header.index(title) == row.index(value)


def test_many_values_are_drawn_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live table of very many values does not look at the text of each to show the few that fit."""
    looked: list[str] = []

    class Value(str):
        def __repr__(self) -> str:
            looked.append(self)
            return str.__repr__(self)

    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Screen(io.BytesIO(), encoding="utf-8"))
    counts = Counts([all_fields(GADGET.schema)["comm"]], lambda shown: make_output("json", shown, {}), {})
    counts.write([(Value(number),) for number in range(10_007)])
    counts.refresh(lambda: "10007 events in 1 s; nothing lost")
    counts.close()
    assert looked == []
