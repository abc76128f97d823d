from __future__ import annotations

import orjson
import pytest

from agent.traceloop import rings
from gadget import syscalls
from gadget.errors import GadgetError
from kubectl_gadget import strace
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import Entry, MissingCalls, ReplyReader, ThreadEnd
from tests.unit.traceloop.replies import further, record, reply

MILLISECOND = 1_000_000


def texts(entries: list[Entry]) -> list[str]:
    return [strace.text(entry) for entry in entries if isinstance(entry, Call)]


def test_gaps_are_counted_exactly() -> None:
    """Where calls are missing I am told how many, also between two replies and where the count begins anew."""
    reader = ReplyReader()
    assert [entry for entry in reader.entries(reply(*map(record, (5, 6, 13, 14, 32)))) if isinstance(entry, MissingCalls)] == [
        MissingCalls(6), MissingCalls(17)
    ]  # fmt: skip
    kinds = [type(entry).__name__ for entry in reader.entries(reply(record(46), record(47)))]
    assert kinds == ["MissingCalls", "Call", "Call"]
    last = (1 << 32) - 2
    reader = ReplyReader()
    found = reader.entries(
        reply(record(1, count=last), record(2, count=last + 1), record(3, count=0), record(4, count=3))
    )
    assert [entry for entry in found if isinstance(entry, MissingCalls)] == [MissingCalls(2)]


def test_calls_that_were_counted_in_another_order_are_no_gap() -> None:
    """Two CPUs may take count and position in different order: that is no gap, and nothing is counted twice."""
    found = ReplyReader().entries(reply(record(1, count=1), record(2, count=3), record(3, count=2), record(4, count=4)))
    assert [type(entry).__name__ for entry in found] == ["Call"] * 4


#: What there is room for beside access's two arguments, with the NUL.
PATH = b"/" + b"p" * 46


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, b"q" * 103, 3890), (1, b"r" * 5, 0)], f'"/{"p" * 46}{"q" * 103}rrrrr"'),
        ([(0, b"q" * 103, 3890), (1, b"r" * 103, 3787)], f'"/{"p" * 46}{"q" * 103}{"r" * 103}"...'),
        ([(0, b"q" * 103, 3890)], f'"/{"p" * 46}{"q" * 103}"...'),
        ([(1, b"r" * 5, 0)], f'"/{"p" * 46}"...'),
        ([], f'"/{"p" * 46}"...'),
        ([(0, b"", 0)], f'"/{"p" * 46}"'),
    ],
)
def test_a_path_with_lost_pieces_is_cut(parts: list[tuple[int, bytes, int]], expected: str) -> None:
    """Of a path of which a piece was overwritten or dropped I see the beginning with dots, never a wrong path."""
    call = record(9, name="access", text=PATH, args=[1, 0])
    more = tuple(further(9, 0, *part) for part in parts)
    assert texts(ReplyReader().entries(reply(call, more=more))) == [f"access({expected}, F_OK) = 0"]


def test_a_second_path_with_lost_pieces_is_cut() -> None:
    """That holds for arguments of which nothing is beside the call, too."""
    call = record(9, name="rename", text=b"a", args=[1, 2])
    assert texts(ReplyReader().entries(reply(call, more=(further(9, 1, 1, b"b"),)))) == ['rename("a", ""...) = 0']
    assert texts(ReplyReader().entries(reply(call, more=(further(9, 1, 0, b"b" * 103, 9),)))) == [
        f'rename("a", "{"b" * 103}"...) = 0'
    ]


@pytest.mark.parametrize(
    ("count", "items", "expected"),
    [
        (2, [(0, b"a"), (1, b"b")], '["a", "b"]'),
        (3, [(0, b"a"), (2, b"c")], '["a", ...]'),
        (3, [(1, b"b"), (2, b"c")], "[...]"),
        (8, [(at, b"x") for at in range(6)], "[" + '"x", ' * 6 + "...]"),
        (1, [(0, b"")], '[""]'),
    ],
)  # fmt: skip
def test_argument_lists_with_lost_pieces_are_cut(count: int, items: list[tuple[int, bytes]], expected: str) -> None:
    """Of an argument list I see the strings up to the first that is lost, and dots if there were more."""
    call = record(9, name="execve", text=b"missing", args=[1, 2, 0], result=-2)
    more = tuple(further(9, 1, count << 4 | at, item) for at, item in items)
    (shown,) = texts(ReplyReader().entries(reply(call, more=more)))
    assert shown == f'execve("missing", {expected}, NULL) = -1 ENOENT (No such file or directory)'


def test_long_arguments_of_a_program_that_started() -> None:
    """Of a program that started I see how many bytes of its arguments were kept; its environment never was."""
    more = (further(9, 1, 0, b"sh\0-c\0" + b"x" * 98, 120), further(9, 1, 1, b"y" * 104, 16))
    (shown,) = texts(ReplyReader().entries(reply(record(9, "KIND_EXEC", "execve", b"/bin/sh"), more=more)))
    assert shown == f'execve("/bin/sh", ["sh", "-c", "{"x" * 98}{"y" * 30}"..., ...], [...]) = 0'
    (shown,) = texts(
        ReplyReader().entries(reply(record(9, "KIND_EXEC", "execve", b"/bin/sh"), more=(further(9, 1, 0, b"sh\0"),)))
    )
    assert shown == 'execve("/bin/sh", ["sh"], [...]) = 0'
    (call,) = ReplyReader().entries(reply(record(9, "KIND_EXEC", "execve", b"/bin/sh"), more=more))
    assert isinstance(call, Call) and strace.to_json(call)["cut"] == ["argv", "envp"]


def test_a_program_that_started_by_descriptor() -> None:
    """An execveat of a descriptor, or of a path below one, is told as such."""
    for name, expected in (
        (b"/dev/fd/5", 'execveat(5, "", ["x"], [...], AT_EMPTY_PATH) = 0'),
        (b"/dev/fd/5/bin/x", 'execveat(5, "bin/x", ["x"], [...], 0) = 0'),
    ):
        more = (further(9, 2 - 1, 0, b"x\0"),)
        assert texts(ReplyReader().entries(reply(record(9, "KIND_EXEC", "execveat", name), more=more))) == [expected]


def test_threads_that_die_together_end_one_process() -> None:
    """A process ends once, whatever number of its threads die at the same moment; its number may be used again."""
    ends = [record(at, "KIND_PROCESS_EXIT", tid=tid) for at, tid in ((3, 8), (4, 9), (5, 7))]
    reader = ReplyReader()
    found = [*reader.entries(reply(record(1), *ends[:2])), *reader.entries(reply(ends[2]))]
    assert [entry.last for entry in found if isinstance(entry, ThreadEnd)] == [True, False, False]
    found = reader.entries(reply(record(6), record(7, "KIND_PROCESS_EXIT")))
    assert [entry.last for entry in found if isinstance(entry, ThreadEnd)] == [True]


def test_a_thread_is_in_its_own_order() -> None:
    """Each thread's calls are in their order, also where one CPU's clock was a little behind another's."""
    given = [
        record(1, time=50, args=[1]),
        record(2, time=49, args=[2]),
        record(3, time=10, tid=8),
        record(4, time=60, tid=8),
    ]
    found = [entry for entry in ReplyReader().entries(reply(*given)) if isinstance(entry, Call)]
    assert [(call.tid, call.time_ns) for call in found] == [(8, 10), (7, 50), (7, 49), (8, 60)]


def placed(nanoseconds: int, waits: int) -> int:
    return (nanoseconds >> 10 & 0xFFFFFF) | waits << 24


def test_only_calls_that_waited_have_a_wait() -> None:
    """-T: a thread that others were given the CPU of did not wait in its call; one that slept in it did, for that long."""
    second = 1_000_000_000
    found = ReplyReader().entries(
        reply(
            record(1, time=0, placed=placed(0, 255), ran=0),
            record(2, time=80 * MILLISECOND, placed=placed(80 * MILLISECOND, 255), ran=0),  # preempted in its own code
            record(3, time=130 * MILLISECOND, placed=placed(130 * MILLISECOND, 256 & 255), ran=0),
            record(4, time=3 * second, placed=placed(3 * second, 1), ran=second >> 10),
            record(5, time=4 * second, placed=placed(4 * second, 2), ran=second >> 10, argument=1 << 3),
        )
    )
    waits = [entry.duration_ns for entry in found if isinstance(entry, Call)]
    assert waits[0] is None
    assert waits[1] == 0
    assert [round(wait / MILLISECOND) for wait in waits[2:] if wait is not None] == [50, 1870, 1000]


def test_what_is_remembered_of_threads_is_bounded() -> None:
    """--follow of a container that makes threads without end takes no more and more memory."""
    reader = ReplyReader(most_threads=5)
    for at in range(1, 30):
        reader.entries(reply(record(at, tid=at)))
        assert len(reader._before) <= 5
    reader = ReplyReader(most_threads=5)
    reader.entries(reply(*(record(at, tid=at) for at in (1, 2))))
    reader.entries(reply(*(record(at, "KIND_THREAD_EXIT", tid=at - 2) for at in (3, 4))))
    assert not reader._before
    for at in range(5, 30):
        reader.entries(reply(record(at, "KIND_PROCESS_EXIT", pid=at)))
        assert len(reader._ended) <= 5


def test_numbers_beyond_all_calls() -> None:
    """A number that no kernel has is shown as it was given, and a 32-bit call apart from those of 64 bits."""
    unknown = record(1, number=0xFFFF, size=0x20001, shape=6 << 4)
    narrow = record(2, number=4, shape=6 << 4 | 8)
    names = [text.partition("(")[0] for text in texts(ReplyReader().entries(reply(unknown, narrow)))]
    assert names == ["syscall_0x20001", "write"]


def without(*removed: tuple[str, str]) -> str:
    """A layout without some fields or constants, as an older program had none of them."""
    layout = {name: [dict(field) for field in fields] for name, fields in rings.own_layout().items()}
    for name, gone in removed:
        for field in layout[name]:
            field["name"] = f"no_{gone}" if field["name"] == gone else field["name"]
            field["values"] = {key: value for key, value in field["values"].items() if value != gone}
    return orjson.dumps(layout).decode()


def test_recordings_of_older_agents() -> None:
    """Recordings that an older agent saved are shown: what they do not tell is left out."""
    older = without(
        ("more", "left"), ("call", "size"), ("call", "buffers"), ("call", "skipped"),
        ("names", "NUMBER_UNKNOWN"), ("names", "PLACED_BITS"),
    )  # fmt: skip
    given = [
        record(1, name="access", text=b"/etc", args=[1, 0]),
        record(2, name="writev", text=b"hello", args=[1, 2, 1], result=5),
        record(3, number=0xFFFF, shape=6 << 4),
        record(4, name="access", text=b"/" * 47, args=[1, 0], placed=1 << 30),
    ]
    more = (further(4, 0, 0, b"p" * 103), further(4, 0, 1, b"p" * 103))
    shown = texts(ReplyReader().entries(reply(*given, more=more, layout=older)))
    assert shown[:2] == ['access("/etc", F_OK) = 0', 'writev(1, [{iov_base="hello", iov_len=5}], 1) = 5']
    assert shown[2].startswith("syscall_0xffff(")
    assert shown[3] == f'access("{"/" * 47}{"p" * 206}"..., F_OK) = 0'


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"layout": without(("names", "kind"))}, r"this recording is damaged: KeyError 'kind'"),
        ({"layout": without(("call", "count"))}, r"this recording is damaged: ValueError "),
        ({"layout": "{}"}, r"this recording is damaged: KeyError 'call'"),
        ({"layout": "[]"}, r"this recording is damaged: AttributeError"),
        ({"machine": "riscv\x1b"}, r"this recording is of an unknown machine, 'riscv\\x1b'"),
        ({"calls": b"x"}, r"this recording is damaged: ValueError"),
    ],
)
def test_a_damaged_recording_is_one_line(damage: dict[str, object], message: str) -> None:
    """A saved recording that is damaged is refused in one line, never with a traceback."""
    with pytest.raises(GadgetError, match=message) as refused:
        ReplyReader().entries(reply(record(1), **damage))
    assert "\n" not in str(refused.value)


def test_a_record_of_an_unknown_kind_is_a_gap() -> None:
    """A record that makes no sense counts as missing; the others are shown."""
    found = ReplyReader().entries(reply(record(1), record(2, shape=7), record(3)))
    assert [type(entry).__name__ for entry in found] == ["Call", "MissingCalls", "Call"]


def test_32_bit_calls_have_their_own_names() -> None:
    """A 32-bit call has its own name, not that of the 64-bit call of its number; one that is unknown has a number."""
    numbers = {"x86_64": {1: "exit", 4: "write", 29: "pause", 102: "socketcall"}, "aarch64": {1: "exit", 322: "openat"}}
    for machine, names in numbers.items():
        assert {number: syscalls.find(machine, number | syscalls.COMPAT).name for number in names} == names
        assert syscalls.find(machine, 4095 | syscalls.COMPAT).name == "syscall_32bit_0xfff"
    assert not syscalls.find("x86_64", 90 | syscalls.COMPAT).known  # mmap, of one argument there
