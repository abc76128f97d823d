"""What the command line makes of agents that send tables."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import click
import numpy as np
import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from gadget.kinds.numbers import COUNT_UNKNOWN
from gadget.schema import SNAPSHOT, TABLE, Row
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.commands import GadgetCommand, ReplayCommand
from kubectl_gadget.output import Output, make_output
from kubectl_gadget.output.tables import TableOutput
from kubectl_gadget.stream import session
from kubectl_gadget.stream.begin import begin
from kubectl_gadget.stream.order import read_order
from kubectl_gadget.stream.recording import Recording
from kubectl_gadget.stream.request import make_request
from tests.fakes import FakeAgent
from tests.unit.test_snapshots import batch as batch_of

GADGET = replace(catalog.find("execsnoop"), source=TABLE, sort=["-pid"])


def table(number: int, *pids: int, seconds: float = 0.2, cut: bool = False) -> pb.Batch:
    """A table with a row for each pid."""
    size = GADGET.schema.text_offset
    rows = np.zeros(len(pids), GADGET.schema.dtype(size))
    rows["timestamp"], rows["cgroup_id"], rows["pid"] = number * 10**9, 7, pids
    sections = [pb.Section(record_size=size, count=len(rows), rows=rows.tobytes())] if pids else []
    return pb.Batch(sections=sections, table=number, table_ns=int(seconds * 1e9), table_cut=cut)


def send(agent: FakeAgent, number: int, *pids: int) -> None:
    agent.send(table(number, *pids))


def run(agents: list[FakeAgent], do, form: str = "json", **settings) -> None:
    """Stream tables of agents while do runs."""
    options = {"interval": 0.2, "order": read_order(GADGET, "", 0), **settings}
    request = make_request(GADGET, {}, form, "node,pid", (), "", **options)
    targets = Targets({each.node: each.reach for each in agents})

    def script() -> None:
        for each in agents:
            assert each.started.wait(10)
        do()

    thread = threading.Thread(target=script)
    with begin(request, targets) as streams:
        thread.start()
        session.stream(request, targets, streams, dict)
    thread.join()


def shown(text: str) -> list[tuple[str, int]]:
    return [(row["node"], row["pid"]) for row in map(orjson.loads, text.splitlines())]


def test_sorted_together(fake, capsys) -> None:
    """The rows of one interval of all nodes are sorted together; --count ends the command after so many tables."""
    agents = [fake("node-a"), fake("node-b")]

    def do() -> None:
        for number in (1, 2):
            send(agents[0], number, 5 * number, 1)
            send(agents[1], number, 3)

    run(agents, do, count=2)
    out, err = capsys.readouterr()
    assert shown(out) == [("node-a", 5), ("node-b", 3), ("node-a", 1), ("node-a", 10), ("node-b", 3), ("node-a", 1)]
    assert err.startswith("6 rows in 2 tables from 2 nodes")


def test_top(fake, capsys) -> None:
    """--top is of all nodes together."""
    agents = [fake("node-a"), fake("node-b")]

    def do() -> None:
        send(agents[0], 1, 1, 2, 3)
        send(agents[1], 1, 4, 5)

    run(agents, do, count=1, order=read_order(GADGET, "-pid", 3))
    assert shown(capsys.readouterr().out) == [("node-b", 5), ("node-b", 4), ("node-a", 3)]


def test_slow_node(fake, capsys) -> None:
    """A node from which nothing comes does not keep the tables of the others."""
    agents = [fake("node-a"), fake("node-b")]
    run(agents, lambda: send(agents[0], 1, 7), count=1)
    assert shown(capsys.readouterr().out) == [("node-a", 7)]


def test_one_below_the_other(fake, capsys) -> None:
    """Where no terminal is, each table has its header, also one without rows."""
    agent = fake("node-a")

    def do() -> None:
        send(agent, 1, 7)
        send(agent, 2)
        send(agent, 3, 8)

    run([agent], do, form="columns", count=3)
    out = [[line.split() for line in table.splitlines()] for table in capsys.readouterr().out.split("\n\n")]
    assert out == [[["NODE", "PID"], ["node-a", "7"]], [["NODE", "PID"]], [["NODE", "PID"], ["node-a", "8"]]]


def test_recorded(fake, capsys, tmp_path) -> None:
    """A recording has the same tables."""
    agents = [fake("node-a"), fake("node-b")]

    def do() -> None:
        for number in (1, 2):
            for each in agents:
                send(each, number, number)

    path = tmp_path / "tables.gadget"
    run(agents, do, count=2, record=path)
    first = capsys.readouterr().out
    request = make_request(GADGET, {}, "json", "node,pid", (), "", order=read_order(GADGET, "", 0))
    session.replay(Recording(path), request)
    out, err = capsys.readouterr()
    assert sorted(shown(out)) == sorted(shown(first))
    assert "4 rows in 2 tables from 2 nodes" in err


def test_recorded_by_time(capsys) -> None:
    """A recording shows together what nodes read at the same time, also if one of them joined later."""

    def read(node: str, number: int, at: int) -> pb.RunReply:
        return pb.RunReply(node=node, batch=table(number, 10 * number, seconds=1), sent_ns=at * 10**9)

    show("columns", *(read("a", number, number) for number in (1, 2, 3)), read("b", 1, 3), live=False)
    tables = capsys.readouterr().out.split("\n\n")
    assert [each.split()[1:] for each in tables] == [["10"], ["20"], ["30", "10"]]


class Screen(io.StringIO):
    """A terminal, as far as it is asked."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch):
    """Makes tables on a terminal, of which each drawing is kept."""
    drawn: list[list[str]] = []

    class Place:
        room = 2

        def draw(self, lines, more, said) -> None:
            drawn.append([*lines, f"{more} more; {said}"])

        def close(self) -> None:
            pass

    monkeypatch.setattr("kubectl_gadget.output.tables.InPlace", Place)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout", Screen())
    fields = [GADGET.schema["pid"]]

    def make() -> Output:
        return make_output("columns", fields, {})

    return TableOutput(fields, make, once=False), drawn


def test_refreshed(live) -> None:
    """On a terminal a table takes the place of the one before; what does not fit is counted below it."""
    tables, drawn = live
    rows: list[Row] = [(5,), (4,), (3,)]
    tables.write(rows)
    tables.refresh(lambda: "1 table")
    tables.refresh(lambda: "not yet")
    tables.write(rows[:1])
    tables.refresh(lambda: "2 tables")
    tables.close()
    assert [[line.strip() for line in each] for each in drawn] == [
        ["PID", "5", "4", "1 more; 1 table"],
        ["PID", "5", "0 more; 2 tables"],
    ]


def test_what_is_left_on_a_terminal(capsys, live, monkeypatch) -> None:
    """When a table on a terminal ends, its last screen stays, as top(1) leaves it, and what did not fit is counted."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show("columns", pb.RunReply(node="a", batch=table(1, 3, 4, 5, 6)))
    out, err = capsys.readouterr()
    assert out.split() == ["PID", "6", "5"]
    assert err.splitlines()[0] == "2 more rows of the last table: elsewhere than on a terminal all are written"


@pytest.mark.parametrize("pressure", [COUNT_UNKNOWN, 0])
def test_what_no_kernel_tells_is_said_once(capsys, pressure: int) -> None:
    """A column that no node's kernel fills is said to be unknown, once, in the end; one that is zero is not."""
    gadget = catalog.find("cputop")
    request = make_request(gadget, {}, "columns", "cpu,pressure", (), "", interval=0.2, order=read_order(gadget, "", 0))
    schema = orjson.dumps(gadget.schema.to_json()).decode()
    replies = [pb.RunReply(node="a", started=pb.Started(schema=schema))]
    for number in (1, 2):
        made = batch_of(gadget, [{"cpu": 7, "pressure": pressure, "pid": 0}])
        made.table = number
        replies.append(pb.RunReply(node="a", batch=made))
    session.Session(request).run([("a", each) for each in replies], 1, lambda: None, live=True)
    out, err = capsys.readouterr()
    assert out.split()[:4] == ["CPU", "PRESSURE", "7ns", "-" if pressure else "0.0%"]
    assert err.count("PSI is off") == bool(pressure)


def show(form: str, *tables: pb.RunReply, live: bool = True) -> None:
    """Show what nodes have sent."""
    request = make_request(GADGET, {}, form, "pid", (), "", interval=0.2, order=read_order(GADGET, "", 0))
    schema = orjson.dumps(GADGET.schema.to_json()).decode()
    started = [
        pb.RunReply(node=node, started=pb.Started(schema=schema)) for node in {each.node: None for each in tables}
    ]
    session.Session(request).run([(each.node, each) for each in [*started, *tables]], 1, lambda: None, live=live)


def test_cut_short(capsys, live, monkeypatch) -> None:
    """On a terminal the last whole table stays, and what is not shown of the end is told; other short ones are shown."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    short = table(3, 7, seconds=0.125, cut=True)
    show("columns", *(pb.RunReply(node="a", batch=each) for each in (table(1, 3), table(2, 5, 6, seconds=0.01), short)))
    out, err = capsys.readouterr()
    assert out.split() == ["PID", "6", "5"]
    said = err.splitlines()
    assert said[0].startswith("3 rows in 2 tables from 1 node")
    assert said[1] == "Ended 0.1 s into a table, which is not shown."


def test_cut_short_elsewhere(capsys) -> None:
    """Where no terminal is, the table that the end cut short is there, too: all tables add up."""
    short = table(2, 7, seconds=0.125, cut=True)
    show("json", *(pb.RunReply(node="a", batch=each) for each in (table(1, 3), short)))
    out, err = capsys.readouterr()
    assert out.split() == ['{"pid":3}', '{"pid":7}']
    assert "not shown" not in err


def options(source: str) -> set[str]:
    return {name for param in GadgetCommand(replace(GADGET, source=source)).params for name in param.opts}


def test_options() -> None:
    """Gadgets with tables have options for these, and none that are about single events; other gadgets are as before."""
    of_tables, of_events = {"--interval", "--sort", "--top", "--count"}, {"--max-events", "--count-by", "--buffer"}
    assert of_tables | {"--totals"} <= options(TABLE)
    assert of_tables <= options(SNAPSHOT)
    assert not of_events & (options(TABLE) | options(SNAPSHOT))
    assert "--metric" in options(TABLE) and not {"--keep"} & options(TABLE)
    assert "--detach" not in options(SNAPSHOT)
    assert "--totals" not in options(SNAPSHOT)
    assert of_events <= options("events")
    assert not of_tables & options("events")


def test_sort_is_completed() -> None:
    """--sort completes the fields of the gadget, also the second one and after a sign."""
    command = GadgetCommand(GADGET)
    sort = next(param for param in command.params if param.name == "sort")
    context = click.Context(command)
    assert [item.value for item in sort.shell_complete(context, "-pid,-pp")] == ["-pid,-ppid"]


def test_replayed_events(fake, tmp_path, capsys, monkeypatch) -> None:
    """--max-events of a recording that has tables is refused."""
    agent = fake("node-a")
    path = tmp_path / "tables.gadget"
    run([agent], lambda: send(agent, 1, 7), count=1, record=path)
    monkeypatch.setattr("kubectl_gadget.commands.catalog.find", lambda name: GADGET)
    with pytest.raises(UsageError, match="--max-events: execsnoop has tables, no events"):
        ReplayCommand().main([str(path), "--max-events", "3"], standalone_mode=False)
    capsys.readouterr()
    ReplayCommand().main([str(path), "-o", "json", "--fields", "pid"], standalone_mode=False)
    assert capsys.readouterr().out == '{"pid":7}\n'
