from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import click
import pytest

from agent.blocked import find_blocked
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.output import terminal
from kubectl_gadget.traceloop.show import View, show
from tests.conftest import events, run_cli, wait_until
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.traceloop.replies import KINDS, record, reply

ENDED = 1_700_000_000_000_000_000
RUNNING = item("cart-0", "app", "c" * 64, calls=47, dropped=2, running=True)
GONE = item("cart-0", "app", "c" * 64, calls=47, status=11, known=True, ended_ns=ENDED)
BLOCKED = pb.Blocked(pid=7, tid=8, comm="ca\x1brt", number=0, args=[3, 0x7F00, 1, 0, 0, 0])


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def shown(folder: Path, capfd: pytest.CaptureFixture[str], *replies: pb.TraceloopReadReply, view: View) -> str:
    with FakeRecorder(folder, [RUNNING], list(replies)) as agent:
        show(agent.instance(), view)
    return capfd.readouterr().out


def test_gaps_and_what_is_going_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As text: a head that says how complete it is, a line for a gap with its count, what each thread is in now."""
    given = reply(
        record(1), record(1240), item=RUNNING, node="node-a", unread=3, blocked=[BLOCKED], clock_offset_ns=ENDED
    )
    assert shown(tmp_path, capfd, given, view=View()).splitlines() == [
        "# shop/cart-0/app cccccccccccc on node-a: running, 2 of 47 calls kept, 5 could not be read: they were being written",
        "22:13:20.000001 [cart 7] getpid() = 0",
        "… 1,238 calls are missing here …",
        "22:13:20.001240 [cart 7] getpid() = 0",
        "now             [ca\\x1brt 8] read(3, <unfinished ...>)",
    ]


def test_long(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a recording of many lines I am told on a terminal how to see fewer; not where I have said it myself."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    given = reply(*map(record, range(1, 302)), item=RUNNING, node="node-a")
    for tail, hint in ((0, "301 lines; --tail 50 shows the last 50"), (250, "")):
        with FakeRecorder(tmp_path, [RUNNING], [given]) as agent:
            show(agent.instance(), View(tail=tail))
        told = capfd.readouterr().err
        assert hint in told and bool(told) == bool(hint)


def test_late(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The head says when a recording began later than its container, and nothing of it if it did not."""
    given = {
        late: reply(
            record(1),
            item=item("cart-0", "app", "c" * 64, running=True, started_ns=ENDED, recorded_ns=recorded),
            node="node-a",
        )
        for late, recorded in ((True, ENDED + 16_000_000), (False, ENDED), (None, 0))
    }
    heads = {late: shown(tmp_path, capfd, each, view=View()).splitlines()[1] for late, each in given.items()}
    assert heads[True] == "# recorded from 16.0ms after its start on"
    assert not heads[False].startswith("#") and not heads[None].startswith("#")


def test_failures_are_red(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --color always a call that failed is red, and so is a bad end; nothing else."""
    given = [record(1), record(2, result=-2), record(3, "KIND_PROCESS_EXIT", result=139)]
    with click.Context(click.Command("show")) as context:
        context.meta[terminal.COLOR] = "always"
        text = shown(tmp_path, capfd, reply(*given, item=GONE, node="node-a"), view=View(colour=terminal.has_colours()))
    assert [terminal.RED in line for line in text.splitlines()] == [False, False, True, True]


def test_json_has_all_that_text_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As JSON the head and the calls that have not returned are there too, each as an object of its own event."""
    given = reply(record(1), record(3), item=GONE, node="node-a", unread=3, blocked=[BLOCKED], clock_offset_ns=ENDED)
    head, call, gap, after, blocked = events(shown(tmp_path, capfd, given, view=View(form="json")))
    assert head == {
        "event": "head",
        "node": "node-a",
        "namespace": "shop",
        "pod": "cart-0",
        "container": "app",
        "containerId": "c" * 64,
        "state": "SIGSEGV (139)",
        "ended": "2023-11-14T22:13:20.000000000Z",
        "kept": 2,
        "calls": 47,
        "torn": 3,
        "left_out": 0,
        "late_ns": 0,
    }
    assert (call["event"], gap, after["event"]) == ("call", {"event": "gap", "count": 1}, "call")
    assert blocked == {
        "event": "blocked",
        "pid": 7,
        "tid": 8,
        "comm": "ca\x1brt",
        "syscall": "read",
        "number": 0,
        "args": {"fd": 3, "buf": 0x7F00, "count": 1},
        "args_raw": [3, 0x7F00, 1],
        "lasts_ns": None,
    }


def test_since_by_the_clock_of_the_node(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--since of a container that runs is right whatever the clock of my own machine says."""
    sent = {"clock_offset_ns": ENDED, "sent_ns": ENDED + 2_000_000}
    given = reply(record(1), record(1240), item=RUNNING, node="node-a", **sent)
    out = shown(tmp_path, capfd, given, view=View(since=0.001))
    assert [line[:15] for line in out.splitlines() if "getpid" in line] == ["22:13:20.001240"]


def test_following_shows_one_head(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--follow shows a gap between two replies as one, and says only once what it is."""
    replies = [reply(record(at), item=RUNNING, node="node-a") for at in (5, 6, 9)]
    out = shown(tmp_path, capfd, *replies, view=View(form="json", follow=True))
    assert [row["event"] for row in events(out)] == ["head", "call", "call", "gap", "call"]


def test_what_is_chosen_of_blocked_calls(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--syscalls and --pid choose among the calls that have not returned, and none of those has failed."""
    given = reply(record(1), item=RUNNING, node="node-a", blocked=[BLOCKED])
    for view, count in ((View(names=frozenset({"read"})), 1), (View(names=frozenset({"write"})), 0), (View(pid=8), 1),
                        (View(pid=9), 0), (View(failed=True), 0)):  # fmt: skip
        assert shown(tmp_path, capfd, given, view=view).count("now ") == count


def test_a_program_that_waits_to_read() -> None:
    """Of a program that waits for input I see the read that it is in, with its arguments."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as cat:
        (blocked,) = wait_until(lambda: [each for each in find_blocked([cat.pid]) if each.number == 0], "the read")
        assert (blocked.pid, blocked.tid, blocked.comm, blocked.args[0], blocked.compat) == (
            cat.pid,
            cat.pid,
            "cat",
            0,
            False,
        )
        assert cat.stdin
        cat.stdin.close()


PAUSE = """
.globl _start
_start: mov $29, %eax
        int $0x80
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="32-bit programs of x86")
def test_a_32_bit_program_that_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A 32-bit program's call has its own name, not that of the 64-bit call of its number."""
    source, program = tmp_path / "pause.s", tmp_path / "pause"
    source.write_text(PAUSE)
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-o", program, source], check=True)
    with subprocess.Popen([program]) as pausing:
        blocked = wait_until(lambda: [each for each in find_blocked([pausing.pid]) if each.number == 29], "the pause")
        pausing.kill()
    out = shown(tmp_path, capfd, reply(record(1), item=RUNNING, node="node-a", blocked=blocked), view=View())
    assert "] pause(" in out.splitlines()[-1]


def test_a_damaged_recording_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    """`show` of a damaged recording ends with one line and exit code 1."""
    with FakeRecorder(tmp_path, [RUNNING], [reply(record(1), item=RUNNING, layout="{}")]) as agent:
        done = run_cli("traceloop", "show", "cart-0", "--agent", agent.address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {agent.address}: this recording is damaged: KeyError 'call'\n"


def test_delete_refuses_what_stands_for_several(tmp_path: Path) -> None:
    """`delete` of a name or beginning of an id that stands for several deletes nothing and lists them."""
    found = [item("cart-0", "app", f"aaaa{at}", namespace=name, cgroup=at) for at, name in enumerate(("shop", "web"))]
    with FakeRecorder(tmp_path, found) as agent:
        for name, said in (
            ("cart-0", "'cart-0' is shop/cart-0/app aaaa0"),
            ("aaaa", "'aaaa' begins several ids: shop/"),
        ):
            done = run_cli("traceloop", "delete", name, "--agent", agent.address)
            assert (done.returncode, done.stdout, agent.deleted) == (2, "", [])
            assert said in done.stderr and "web/cart-0/app aaaa1 on node-a" in done.stderr
        done = run_cli("traceloop", "delete", "aaaa1", "--agent", agent.address)
        assert (done.stdout, agent.deleted) == ("deleted web/cart-0/app aaaa1 on node-a\n", ["aaaa1"])


SIGNAL = KINDS["KIND_SIGNAL"] | 4 << 4


def test_realtime_signals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Realtime signals have the names that strace gives them."""
    given = reply(record(1, "KIND_SIGNAL", args=[34, 0, 1], shape=SIGNAL), record(2, "KIND_PROCESS_EXIT", result=64),
                  record(3, "KIND_SIGNAL", args=[32, 0, 1], shape=SIGNAL), item=RUNNING)  # fmt: skip
    lines = [line.partition("] ")[2] for line in shown(tmp_path, capfd, given, view=View()).splitlines()[1:]]
    assert lines == [
        "--- SIGRT_2 {si_signo=SIGRT_2, si_code=SI_USER, si_pid=1, si_uid=0} ---",
        "+++ killed by SIGRT_32 +++",
        "--- SIGRTMIN {si_signo=SIGRTMIN, si_code=SI_USER, si_pid=1, si_uid=0} ---",
    ]  # fmt: skip


def test_how_long_a_call_has_lasted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a call that has not returned I see for how long its thread has been in it, as far as that is recorded."""
    sent = {"clock_offset_ns": ENDED, "sent_ns": ENDED + 75_000_000_000}
    given = reply(record(1, tid=8), item=RUNNING, node="node-a", blocked=[BLOCKED], **sent)
    assert shown(tmp_path, capfd, given, view=View()).splitlines()[-1].endswith("read(3, <unfinished ...>) for 1m14s")
    json = events(shown(tmp_path, capfd, given, view=View(form="json")))[-1]
    assert json["lasts_ns"] == 75_000_000_000 - 1000


def test_durations_that_say_nothing_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """-T adds no <0.000000> to calls that did not wait."""
    waited = {"placed": 2 << 24 | 2000, "ran": 0}
    given = reply(record(1), record(2), record(3, **waited), item=RUNNING)
    lines = shown(tmp_path, capfd, given, view=View(durations=True)).splitlines()[1:]
    assert ["<" in line for line in lines] == [False, False, True]


def test_failures_are_coloured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On a terminal a failure is red, and grey if every program has it; elsewhere no line has a colour."""
    given = reply(record(1, result=-2), record(2, name="ioctl", result=-25), record(3), item=RUNNING)
    lines = shown(tmp_path, capfd, given, view=View(colour=True)).splitlines()[1:]
    assert [line[:3] for line in lines[:2]] == ["\x1b[3", "\x1b[2"] and lines[2].isprintable()
    assert "\x1b" not in shown(tmp_path, capfd, given, view=View())
