"""Recordings: by whose words they are read, what is in them up to a cut, and what a crafted one cannot do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, UsageError
from gadget.schema import Schema
from kubectl_gadget.stream.recording import Recording, Writer
from kubectl_gadget.stream.request import make_request, make_selection
from kubectl_gadget.stream.session import replay
from kubectl_gadget.stream.streams import Ended, Message
from tests.conftest import run_cli
from tests.unit.test_snapshots import EVENTS, batch

RECORDED = Path(__file__).parent / "recorded/execsnoop-0.1.0.gadget"
CONNECTS, EXECS = catalog.find("tcpconnect"), catalog.find("execsnoop")


def started(schema: Schema, node: str = "node-a") -> pb.RunReply:
    return pb.RunReply(node=node, started=pb.Started(schema=orjson.dumps(schema.to_json()).decode(), contract=1))


def sent(node: str = "node-a", schema: Schema = CONNECTS.schema) -> list[Message]:
    """A node's stream of three attempts to connect."""
    events = pb.RunReply(node=node, batch=batch(CONNECTS, EVENTS["tcpconnect"]))
    end = pb.RunReply(node=node, summary=pb.Summary())
    return [(node, each) for each in (started(schema, node), events, end)]


def record(file: Path, messages: Iterable[Message], gadget: str = "tcpconnect") -> Path:
    with Writer(file, gadget) as writer:
        assert list(writer.keep(messages))
    return file


def show(file: Path, fields: str, *conditions: str, form: str = "json", count_by: str = "", **rest: Any) -> None:
    recording = Recording(file)
    request = make_request(catalog.find(recording.header.gadget), {}, form, fields, conditions, count_by, **rest)
    replay(recording, request)


def shown(text: str) -> list[tuple[Any, ...]]:
    return [tuple(orjson.loads(line).values()) for line in text.splitlines()]


def with_words(schema: Schema, **words: dict[str, str]) -> Schema:
    """The schema of another version, which numbers the words of some fields in its own way."""
    fields = [replace(field, values={**field.values, **words.get(field.name, {})}) for field in schema.fields]
    return replace(schema, fields=tuple(fields))


OTHER = with_words(CONNECTS.schema, result={"1": "refused", "2": "pending"})


def test_words_of_the_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording of another version is shown, filtered and counted in its own words, not in those of today."""
    file = record(tmp_path / "file", sent(schema=OTHER))
    show(file, "result")
    assert shown(capsys.readouterr().out) == [("ok", 0), ("refused", 1), ("unreachable", 6)]
    show(file, "result", form="columns")
    assert capsys.readouterr().out.split() == ["RESULT", "ok", "refused", "unreachable"]
    for condition in ("result==refused", "result~^ref"):
        show(file, "result", condition)
        assert shown(capsys.readouterr().out) == [("refused", 1)]
    show(file, "result", "result==pending")
    assert capsys.readouterr().out == ""
    show(file, "", count_by="result", form="columns")
    assert "refused" in capsys.readouterr().out


def test_words_that_differ_between_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of nodes that call a result differently I am told, and a filter means on each node what it says there."""
    file = record(tmp_path / "file", [*sent("node-a"), *sent("node-b", OTHER)])
    show(file, "node,result", "result==refused")
    out, err = capsys.readouterr()
    assert shown(out) == [("node-b", "pending", 1)]
    assert err.splitlines()[0] == (
        "warning: node-b: its agent is of another version: what it calls refused in result is shown as pending"
    )


def test_word_that_the_recording_lacks(tmp_path: Path) -> None:
    """A filter for a word that did not exist yet is refused in one line."""
    values = {number: word for number, word in CONNECTS.schema["result"].values.items() if word != "reset"}
    fields = [replace(field, values=values) if field.name == "result" else field for field in CONNECTS.schema.fields]
    file = record(tmp_path / "file", sent(schema=replace(CONNECTS.schema, fields=tuple(fields))))
    with pytest.raises(GadgetError, match=r"^node-a: its agent is of another version: .*'reset' is no value of result"):
        show(file, "result", "result==reset")


@pytest.mark.parametrize("values", [{"one": "refused"}, {"1": 7}, {"1": None}, ["refused"]])
def test_schema_with_strange_words(tmp_path: Path, values: Any) -> None:
    """A schema whose words make no sense is refused in one line."""
    schema = CONNECTS.schema.to_json()
    next(field for field in schema["fields"] if field["name"] == "result")["values"] = values
    reply = pb.RunReply(node="node-a", started=pb.Started(schema=orjson.dumps(schema).decode()))
    with pytest.raises(GadgetError, match=r"file: node-a: its agent's events cannot be read"):
        show(record(tmp_path / "file", [("node-a", reply)]), "result")


def test_crafted_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No text in a recording reaches my terminal as a command: names of nodes, reasons of losses, errors, words."""
    title = "\x1b]0;owned\x07"
    node = f"node{title}"
    other = with_words(CONNECTS.schema, result={"0": f"ok{title}", "6": f"un{title}"}, error={"101": f"E{title}"})
    losses = [pb.Loss(reason=f"ring{title}", cgroup_id=7, count=11)]
    messages: list[Message] = [
        *sent(node, other)[:2],
        (node, pb.RunReply(node=node, summary=pb.Summary(losses=losses))),
        (node, Ended(node, GadgetError(f"gone{title}"), 1_700_000_000_000_000_000)),
        (f"late{title}", Ended(f"late{title}", GadgetError(f"late{title}"), coming=True)),
        (f"late{title}", started(CONNECTS.schema, f"late{title}")),
    ]
    file = record(tmp_path / "file", messages)
    for form in ("columns", "wide", "json", "jsonpretty", "yaml"):
        show(file, "node,result,error", form=form)
        out, err = capsys.readouterr()
        for text in (out, err):
            assert "\x1b" not in text and "\x07" not in text
        assert len(err.splitlines()) == 6
        assert r"11 lost: ring\x1b]0;owned\x07 on node\x1b]0;owned\x07 (cart 11)" in err
        assert r"gone\x1b]0;owned\x07; not seen from" in err


def test_newer_version(tmp_path: Path) -> None:
    """A recording that a newer version made is told from a file that is none, and what to do about it."""
    file = record(tmp_path / "file", sent())
    file.write_bytes(b"gadget2\n" + file.read_bytes()[8:])
    with pytest.raises(UsageError, match=r"file: made by a newer version of kubectl gadget: update this one$"):
        Recording(file)
    file.write_bytes(b"gadgets are")
    with pytest.raises(UsageError, match="file: not a recording"):
        Recording(file)


def test_cut_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording that was cut at any byte shows the events of each whole entry before the cut, and says so."""
    whole = tmp_path / "whole"
    events = batch(EXECS, EVENTS["execsnoop"])
    one = batch(EXECS, EVENTS["execsnoop"][:1])
    ends = []  # where each entry ends, and how many events there are by then
    with Writer(whole, "execsnoop") as writer:
        messages = writer.keep(
            ("node-a", each)
            for each in (
                started(EXECS.schema),
                pb.RunReply(batch=events),
                pb.RunReply(batch=one),
                pb.RunReply(batch=events),
            )
        )
        for number in (0, 2, 3, 5):
            next(messages)
            ends.append((whole.stat().st_size, number))
        assert not list(messages)
    data, cut = whole.read_bytes(), tmp_path / "cut"
    pids = [4711, 4712, 4711, 4711, 4712]
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        if size < ends[0][0]:
            with pytest.raises(GadgetError, match=r"cut before its first event$"):
                show(cut, "pid")
            continue
        show(cut, "pid")
        out, err = capsys.readouterr()
        number = max((number for end, number in ends if end <= size), default=0)
        assert (size, shown(out)) == (size, [(pid,) for pid in sorted(pids[:number])])  # in the order of time
        assert err.splitlines()[-1] == "incomplete: the recording was cut off: this is what it holds up to there"


def failed(node: str) -> Message:
    return node, Ended(node, GadgetError(f"{node}: no agent answers there"))


def test_nobody_answers(tmp_path: Path) -> None:
    """When no agent answers, --record leaves the recording that I had, and makes none where there was none."""
    old, new = record(tmp_path / "old", sent()), tmp_path / "new"
    before = old.read_bytes()
    for file in (old, new):
        record(file, [failed("node-a"), ("", None)])
    assert old.read_bytes() == before
    assert not new.exists()
    with pytest.raises(GadgetError, match=r"--record .*/missing/file: No such file or directory"):
        Writer(tmp_path / "missing/file", "tcpconnect")


def test_failure_before_the_first_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording also says of the nodes that failed before another answered; nothing of an older one is left in it."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_003)
    record(file, [failed("node-b"), *sent()])
    assert b"x" * 100 not in file.read_bytes()
    show(file, "pid")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.splitlines()[1:] == ["incomplete: node-b: no agent answers there"]


def test_failure_at_the_end(tmp_path: Path) -> None:
    """When the disk fails as the recording is closed I am told that it may not be complete."""
    writer = Writer(tmp_path / "file", "tcpconnect")

    class Failing:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def close(self) -> None:
            self.file.close()
            raise OSError(5, "Input/output error")

    writer._file = Failing(writer._file)
    with pytest.raises(GadgetError, match=r"file: Input/output error: the recording may not be complete$"), writer:
        assert len(list(writer.keep(sent()))) == 3


def test_narrowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A replay takes -n, -p, -c and --node; what the recording has not is said."""
    file = record(tmp_path / "file", [*sent("node-a"), *sent("node-b")])
    names = {name[1:4] for name in shown_names(file, capsys)}
    namespace, pod, container = sorted(names)[0]
    for options in (((namespace,), (), ()), ((), (f"pod/{pod}",), ()), ((), (), (container,))):
        selection = make_selection(options[0], False, options[1], options[2], "")
        kept = shown_names(file, capsys, selection=selection)
        assert kept == [
            each
            for each in shown_names(file, capsys)
            if all(not asked or name in "".join(asked) for asked, name in zip(options, each[1:4], strict=True))
        ]
    assert {each[0] for each in shown_names(file, capsys, nodes=("node-b",))} == {"node-b"}
    assert {each[0] for each in shown_names(file, capsys, nodes=("!node-b",))} == {"node-a"}
    with pytest.raises(UsageError, match="--node x: the recording has none of them; there is node-a, node-b"):
        show(file, "node", nodes=("x",))
    show(file, "node", selection=make_selection(("else",), False, (), (), ""))
    assert "namespace else has no containers; -A for all" in capsys.readouterr().err


def shown_names(file: Path, capsys: pytest.CaptureFixture[str], **rest: Any) -> list[tuple[Any, ...]]:
    """Node, namespace, pod and container of each event of a recording."""
    capsys.readouterr()
    show(file, "node,namespace,pod,container", **rest)
    return shown(capsys.readouterr().out)


@pytest.mark.parametrize("options", [["-l", "app=cart"], ["-p", "deploy/cart"]])
def test_labels_of_a_recording(options: list[str]) -> None:
    """Recordings have no labels, and a replay that is asked for them says so."""
    done = run_cli("replay", str(RECORDED), *options)
    assert (done.returncode, "recordings have no labels" in done.stderr) == (2, True)
