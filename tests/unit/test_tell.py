"""What reaches a terminal: nothing that it obeys, whoever wrote it."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.shell_completion import ShellComplete

import kubectl_gadget
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget import completion
from kubectl_gadget.cli import PROGRAM, cli
from kubectl_gadget.output.encode import encode, visible
from kubectl_gadget.progress import Progress
from kubectl_gadget.tell import tell
from kubectl_gadget.text import fit
from tests.conftest import run_cli
from tests.fakes import WholeAgent

#: Texts of which a terminal obeys a part.
CRAFTED = "a\x9b31m\u202e\x7f\x1b[2J\U000e0041\u2028b"


def test_json_is_safe_and_the_same() -> None:
    """JSON holds nothing that a terminal obeys, wherever it goes, and says the same."""
    value = {"comm": CRAFTED, CRAFTED: [CRAFTED, "Grüße 世界", 1, None], "plain": "a\nb"}
    for indent in (False, True):
        text = encode(value, indent=indent).decode()
        assert text.replace("\n", "").isprintable() and "Grüße 世界" in text
        assert json.loads(text) == value
    assert visible(b'{"a":1}\n"\x7f"\n') == b'{"a":1}\n"\\u007f"\n'


def test_no_other_way_to_the_terminal() -> None:
    """All that is written to a terminal passes through what escapes it."""
    ways = {"tell.py", "stderr.py", "progress.py", "output/stdout.py", "kubectl_complete.py"}
    root = Path(kubectl_gadget.__file__).parent
    for file in root.rglob("*.py"):
        if str(file.relative_to(root)) in ways:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "click.echo", "click.secho") and not called.endswith(
                    (".stdout.write", ".stderr.write")
                ), file


def test_long_texts_are_cut_fast() -> None:
    """A process with long arguments in letters that take two cells does not hold up my terminal."""
    began = time.process_time()
    for _ in range(20):
        assert fit("世" * 20_000 + "e\u0301", 11) == "世" * 5 + "…"
    assert time.process_time() - began < 2  # it was a minute for each
    assert fit("e\u0301" * 7, 5) == "e\u0301" * 4 + "…" and fit("e\u0301" * 5, 5) == "e\u0301" * 5


def test_completion(monkeypatch: pytest.MonkeyPatch, agents: Callable[..., Any]) -> None:
    """Tab offers no name that would be a command: neither to my terminal nor to my shell."""
    bad = ["web;reboot", "$(reboot)", "a b", f"web{CRAFTED}", "web\n:0", "-o", "~root", ""]

    class Names(WholeAgent):
        def Containers(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
            self._say_contract(context)
            known = [pb.Container(namespace=name, pod=name, container=name) for name in (*bad, "web-0")]
            yield pb.ContainersReply(containers=[pb.ContainerState(container=each) for each in known])

        def TraceloopList(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopListReply:
            self._say_contract(context)
            known = [pb.Container(pod=name, container=name, id=name) for name in (*bad, "web-0")]
            return pb.TraceloopListReply(items=[pb.TraceloopItem(container=each) for each in known])

    address = agents("node-a", Names).address
    complete = ShellComplete(cli, {}, PROGRAM, "")
    for arguments in (["execsnoop", "-n"], ["execsnoop", "-p"], ["execsnoop", "-c"], ["traceloop", "show"]):
        before = (
            [*arguments[:2], "--agent", address]
            if arguments[-1] == "show"
            else [arguments[0], "--agent", address, arguments[1]]
        )
        offered = [item.value for item in complete.get_completions(before, "")]
        assert offered == ["web-0"], arguments
    assert not completion.is_word("web\n")


def test_tables_are_safe(agents: Callable[..., Any]) -> None:
    """No text of an agent reaches my terminal as a command, in any form of any table, nor in what is said beside it."""

    class Crafted(WholeAgent):
        def Describe(self, request: Any, context: grpc.ServicerContext) -> pb.DescribeReply:
            programs = [pb.ProgramStatus(object=CRAFTED, name=CRAFTED)]
            runs = [pb.RunStatus(gadget=CRAFTED, events=(1 << 64) - 1, lost=(1 << 64) - 1, rate=float("nan"))] * 2
            texts = dict.fromkeys(("node", "version", "kernel", "cgroups", "traceloop", "flows"), CRAFTED)
            losses = [pb.Loss(reason=CRAFTED, count=(1 << 64) - 1)]
            services = [
                pb.ServiceStatus(name=name, text=CRAFTED, problem=CRAFTED, losses=losses)
                for name in ("flows", "node", "third", CRAFTED, "x" * 33, *(f"more-{number}" for number in range(99)))
            ]
            return pb.DescribeReply(**texts, programs=programs, runs=runs, contract=9, services=services)

        def Containers(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
            self._say_contract(context)
            state = pb.ContainerState(container=who(), started_ns=-(1 << 63), owner=CRAFTED, addresses=[CRAFTED])
            yield pb.ContainersReply(node=CRAFTED, containers=[state])

        def TraceloopList(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopListReply:
            self._say_contract(context)
            item = pb.TraceloopItem(container=who(), status=0xFFFFFFFF, ended_ns=(1 << 63) - 1, oom=True)
            return pb.TraceloopListReply(node=CRAFTED, items=[item], lost=CRAFTED)

        def TraceloopRead(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.TraceloopReadReply]:
            from tests.unit.traceloop.replies import record, reply

            self._say_contract(context)
            text = CRAFTED.encode()
            call = record(1, name="openat", text=text, comm=text[:15], args=[1, 2, 3, 4])
            memory = [pb.Memory(argument=n, data=text, size=1 << 63) for n in range(9)]
            blocked = [pb.Blocked(comm=CRAFTED, number=n, args=[1], memory=memory) for n in (0, 42, 59, 257, 1 << 31)]
            item = pb.TraceloopItem(container=who(), dropped=(1 << 64) - 1, running=True)
            yield reply(call, node=CRAFTED, item=item, blocked=blocked, unread=(1 << 64) - 1)

        def Inspect(self, request: Any, context: grpc.ServicerContext) -> pb.InspectReply:
            self._say_contract(context)
            part = pb.Component(path=CRAFTED, names=[CRAFTED], link=CRAFTED, error=CRAFTED, mode=0xFFFFFFFF)
            path = pb.InspectedPath(components=[part], mount=pb.Mount(path=CRAFTED))
            task = pb.Task(pid=1, tid=2, comm=CRAFTED)
            waits = [pb.Wait(kind=CRAFTED, name=CRAFTED, state=CRAFTED, holder=task, child=task)]
            return pb.InspectReply(node=CRAFTED, paths=[path] * 16, waits=waits, missing=[CRAFTED])

        def TraceloopDelete(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopDeleteReply:
            self._say_contract(context)
            return pb.TraceloopDeleteReply()

    def who() -> pb.Container:
        names = dict.fromkeys(("namespace", "pod", "container", "runtime"), CRAFTED)
        return pb.Container(**names, id=f"{CRAFTED}ffff")

    where = ["--agent", agents("node-a", Crafted).address]
    forms = ("columns", "wide", "json", "jsonpretty", "yaml")
    commands = [
        [*name, "-o", form]
        for name in (["status"], ["version"], ["containers"], ["traceloop", "list"])
        for form in forms
    ]
    commands += [["traceloop", "show", CRAFTED, "-o", form] for form in ("columns", "json")]
    commands += [["why", CRAFTED, "-o", form] for form in ("columns", "json")]
    commands += [["traceloop", "show", "none"], ["traceloop", "delete", CRAFTED]]
    for command in commands:
        done = run_cli(*command, *where)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        for text in (done.stdout, done.stderr):
            assert text.replace("\n", "").isprintable(), (command, text)
        if "json" in command:
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            assert CRAFTED in str(rows) or any(
                CRAFTED in str(row.values()) or CRAFTED in row.values() for row in rows
            ), command


def test_progress_makes_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told while a line on my terminal changes stays there, and the line goes on below it."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.fileno", lambda: 2)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    progress = Progress()
    progress.show(["0 samples"])
    tell("no pod matches -p nosuch")
    progress.show(["7 samples"])
    progress.clear()
    tell("done")
    up = "\x1b[1A\r\x1b[J"
    told = f"\r\x1b[J0 samples\n{up}no pod matches -p nosuch\n\r\x1b[J7 samples\n{up}done\n"
    assert capsys.readouterr().err == told
