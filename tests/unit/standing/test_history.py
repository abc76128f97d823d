"""What a standing run keeps."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.standing.history import History
from gadget._generated import gadget_pb2 as pb
from gadget.recorded import OVERWRITTEN
from kubectl_gadget.stream.recording import Recording

SIZE = 1000


def keep(history: History, number: int, count: int = 10) -> None:
    """A batch of count events, read at second number."""
    if history.is_full():
        history.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=number * 10**9))
    batch = pb.Batch(sections=[pb.Section(record_size=SIZE // count, count=count, rows=bytes(SIZE))])
    history.append(pb.RunReply(batch=batch, sent_ns=number * 10**9))
    history.beat(number * 10**9)


def keep_of(history: History, number: int, *containers: int) -> None:
    """A batch with an event of each container, read at second number."""
    if history.is_full():
        history.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=number * 10**9))
    rows = b"".join(bytes(8) + each.to_bytes(8, "little") + bytes(84) for each in containers)
    section = pb.Section(record_size=100, count=len(containers), rows=rows)
    history.append(pb.RunReply(batch=pb.Batch(sections=[section]), sent_ns=number * 10**9))
    history.beat(number * 10**9)


def of(replies: list[pb.RunReply]) -> list[tuple[int, int]]:
    """Of each event in which second it was read, and its container."""
    return [
        (reply.sent_ns // 10**9, int.from_bytes(section.rows[at * 100 + 8 : at * 100 + 16], "little"))
        for reply in replies
        for section in reply.batch.sections
        for at in range(section.count)
    ]


def read(history: History, since: int = 0) -> list[pb.RunReply]:
    return list(history.read(since * 10**9, False, lambda: True))


def seen(replies: list[pb.RunReply]) -> tuple[int, int]:
    """Events that are there, and those that are told to be gone."""
    events = sum(section.count for reply in replies for section in reply.batch.sections)
    losses = [loss for reply in replies for loss in (*reply.batch.losses, *reply.summary.losses)]
    gone = [loss.count for loss in losses if loss.reason == OVERWRITTEN]
    return events, gone[-1] if gone else 0


def go_on(folder: Path, **settings: int) -> History:
    """The history of the next agent, or the first one. Its files are small."""
    return History(folder / "run", "opensnoop", "node-a", 20 * SIZE, least_file=0, **settings)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = go_on(tmp_path)
    yield made
    made.close()


def test_all_is_kept(history: History) -> None:
    """What fits is all there, once, in order, with one beginning, and then I am told that what follows is new."""
    for number in range(1, 8):
        keep(history, number)
    replies = read(history)
    assert seen(replies) == (70, 0)
    assert [reply.WhichOneof("what") for reply in replies] == ["started", *["batch"] * 8, "summary"]
    assert [reply.caught_up for reply in replies] == [False] * 8 + [True, False]
    assert replies[-1].summary == pb.Summary(events=70)


def test_overwritten(history: History) -> None:
    """What made room for newer events is counted: with what is there it is all that happened; size stays in bounds."""
    for number in range(1, 101):
        keep(history, number)
    events, gone = seen(read(history))
    assert events + gone == 1000 == history.events
    assert gone == history.overwritten > 0 and history.kept[0] == events
    assert history.kept[1] <= 20 * SIZE
    assert sum(path.stat().st_size for path in history._folder.glob("*.gadget")) == history.kept[1]


def test_since(history: History) -> None:
    """With --since I get nothing that was read before, and am not told of losses that were before."""
    for number in range(1, 101):
        keep(history, number)
    events, gone = seen(read(history, 97))
    assert (events, gone) == (30, 0)
    assert seen(read(history, 2))[1] == history.overwritten


def test_next_agent(history: History, tmp_path: Path) -> None:
    """The next agent goes on with what was kept, and says from when to when nobody watched."""
    keep(history, 1)
    history.beat(3 * 10**9)
    history.close()
    following = go_on(tmp_path)
    following.interrupt("the agent was not there")
    following.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=9 * 10**9))
    keep(following, 10)
    replies = read(following)
    assert seen(replies) == (20, 0)
    assert [reply.WhichOneof("what") for reply in replies] == [
        "started", "batch", "interrupted", "started", "batch", "batch", "summary"
    ]  # fmt: skip
    assert replies[2].interrupted == pb.Interrupted(reason="the agent was not there", heard_ns=3 * 10**9)
    following.close()


@pytest.mark.parametrize("cut", [1, 100, SIZE])
def test_killed_in_the_middle(history: History, tmp_path: Path, cut: int) -> None:
    """What an agent was writing when it was killed is not there, and all that it had written is."""
    for number in (1, 2):
        keep(history, number)
    history.close()
    (path,) = (tmp_path / "run").glob("*.gadget")
    os.truncate(path, path.stat().st_size - cut)
    following = go_on(tmp_path)
    following.interrupt("gone")
    following.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=3 * 10**9))
    keep(following, 3)
    assert seen(read(following)) == (20, 0)
    following.close()


def test_replay(history: History) -> None:
    """Each file is a recording that `replay` reads."""
    for number in range(1, 30):
        keep(history, number)
    for path in history._folder.glob("*.gadget"):
        recording = Recording(path)
        messages = [message for _, message in recording if isinstance(message, pb.RunReply)]
        assert recording.header.gadget == "opensnoop"
        assert messages[0].HasField("started") and len(messages) > 1


def test_full_disk(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full, nothing half-written stays, and what comes once there is room is kept."""
    keep(history, 1)
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            keep(history, 2)
    keep(history, 3)
    assert seen(read(history)) == (20, 0)


def test_slow_reader(history: History) -> None:
    """One who reads while it is overwritten sees what is left, and how much went before he came to it."""
    for number in range(1, 15):
        keep(history, number)
    replies = history.read(0, True, lambda: True)
    first = [next(replies), next(replies)]
    for number in range(15, 200):
        keep(history, number)
    rest = []
    for reply in replies:
        rest.append(reply)
        if reply.caught_up:
            break
    events, gone = seen([*first, *rest])
    assert events + gone == 1990 and gone > 0


def test_follow(history: History) -> None:
    """One who follows sees what comes, and that it is watched where nothing comes."""
    keep(history, 1)
    over = threading.Event()
    replies: list[pb.RunReply] = []
    reader = threading.Thread(target=lambda: replies.extend(history.read(0, True, lambda: not over.is_set())))
    reader.start()
    for number in range(2, 40):
        keep(history, number)
    while seen(replies)[0] + seen(replies)[1] < 390:
        pass
    history.beat(50 * 10**9)
    while replies[-1].sent_ns != 50 * 10**9:
        pass
    over.set()
    reader.join(5)
    assert not reader.is_alive()


def test_deleted(history: History) -> None:
    """Those who follow a run that is deleted come to its end."""
    keep(history, 1)
    replies = history.read(0, True, lambda: True)
    assert [next(replies).WhichOneof("what") for _ in range(3)] == ["started", "batch", "batch"]
    timer = threading.Timer(0.1, history.close)
    timer.start()
    assert [reply.WhichOneof("what") for reply in replies] == ["summary"]
    history.delete()
    assert not history._folder.exists()


def test_gap_before_what_is_kept(history: History, tmp_path: Path) -> None:
    """With --since I am told of a time in which nobody watched if it reaches into what I ask for, else not."""
    keep(history, 1)
    history.close()
    following = go_on(tmp_path)
    following.interrupt("gone")
    keep(following, 50)
    whats = [reply.WhichOneof("what") for reply in read(following, 20)]
    assert whats == ["started", "interrupted", "started", "batch", "batch", "summary"]
    assert [reply.WhichOneof("what") for reply in read(following, 60)] == ["started", "batch", "summary"]
    following.close()


def test_gap_is_kept_later(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap is told although the disk was full when it ended."""
    keep(history, 1)
    history.close()
    following = go_on(tmp_path)
    following.interrupt("gone")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            keep(following, 5)
    keep(following, 6)
    whats = [reply.WhichOneof("what") for reply in read(following)]
    assert whats == ["started", "batch", "interrupted", "started", "batch", "batch", "summary"]
    following.close()


def test_full_disk_at_the_beginning_of_a_file(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be begun, what comes once there is room can be read all the same."""
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            keep(history, 1)
    keep(history, 2)
    assert [reply.WhichOneof("what") for reply in read(history)] == ["started", "batch", "batch", "summary"]


@pytest.mark.parametrize("size", [0, 3, 20])
def test_killed_at_the_beginning_of_a_file(history: History, tmp_path: Path, size: int) -> None:
    """An agent that was killed as it began a file costs nothing of what was kept, nor of what comes."""
    keep(history, 1)
    history.close()
    (path,) = (tmp_path / "run").glob("*.gadget")
    (path.parent / "00000002.10.gadget").write_bytes(path.read_bytes()[:size])
    following = go_on(tmp_path)
    keep(following, 3)
    assert seen(read(following)) == (20, 0)
    following.close()


def lose(history: History, number: int, count: int) -> None:
    """A batch of no events that tells of so many losses in all."""
    losses = [pb.Loss(reason="ring full", cgroup_id=7, count=count)]
    history.append(pb.RunReply(batch=pb.Batch(losses=losses), sent_ns=number * 10**9))


def test_losses_since(history: History) -> None:
    """With --since I am told of the losses since then, and without it of all, also where their file has made room."""
    for number in range(1, 6):
        keep(history, number)
    lose(history, 5, 3)
    for number in range(6, 60):
        if history.is_full():
            losses = [pb.Loss(reason="ring full", cgroup_id=7, count=3)]
            history.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=number * 10**9), losses)
        keep(history, number)
    assert [loss.count for loss in read(history)[-1].summary.losses if loss.reason == "ring full"] == [3]
    assert not read(history, 58)[-1].summary.losses
    lose(history, 60, 5)
    assert [(loss.reason, loss.count) for loss in read(history, 58)[-1].summary.losses] == [("ring full", 2)]


def test_goes_on(history: History) -> None:
    """One who comes again after what was sent last gets each event that he has not had, once, with all names."""
    for number in range(1, 10):
        keep(history, number)
    named = pb.Batch(containers=[pb.Container(cgroup_id=7)])
    history.append(pb.RunReply(batch=named, sent_ns=9 * 10**9))
    keep(history, 10)
    replies = read(history, 9)
    assert seen(replies) == (10, 0) and replies[-1].summary.events == 10
    assert any(reply.batch.containers for reply in replies)


def test_ended_in_the_middle(history: History) -> None:
    """When the agent ends while I read, what I had not read yet is not taken for overwritten."""
    for number in range(1, 15):
        keep(history, number)
    replies = history.read(0, True, lambda: True)
    first = [next(replies), next(replies)]
    history.close()
    assert seen([*first, *replies])[1] == 0


def test_small_parts(tmp_path: Path) -> None:
    """However little an agent has in memory of a file at a time, each reader gets all of it."""
    history = go_on(tmp_path, part=100)
    for number in range(1, 15):
        keep(history, number)
    assert seen(read(history)) == (140, 0)
    history.close()


def test_late_writer(history: History) -> None:
    """A run that ends too late writes nothing into the folder of the next one of its name."""
    history.close()
    with pytest.raises(OSError, match="it has ended"):
        keep(history, 1)
    assert not list(history._folder.glob("*.gadget"))


def test_damaged(history: History, tmp_path: Path) -> None:
    """Where a disk has damaged what was kept, the next agent goes on, and I am told what is gone and since when."""
    for number in range(1, 6):
        keep(history, number)
    history.close()
    first, last = sorted((tmp_path / "run").glob("*.gadget"))
    for path in (first, last):
        data = bytearray(path.read_bytes())
        data[-SIZE // 2 - 20 - SIZE : -SIZE] = b"\x0f" * (SIZE // 2 + 20)
        path.write_bytes(data)
    following = go_on(tmp_path)
    assert following.heard_ns < 5 * 10**9
    following.interrupt("gone")
    keep(following, 9)
    replies = read(following)
    events, gone = seen(replies)
    assert 0 < events < 60 and gone > 0
    assert any(reply.HasField("interrupted") for reply in replies)
    following.close()


def test_flood_of_one(history: History, tmp_path: Path) -> None:
    """A container that floods overwrites its own events, and what others did before is there, also for the next agent."""
    keep_of(history, 1, 7, 8, 9)
    keep_of(history, 2, 8, 8, 8)
    for number in range(3, 200):
        keep_of(history, number, *[8] * 9, *[9] * (number % 50 == 3))
    history.close()
    following = go_on(tmp_path)
    for each in (history, following):
        replies = read(following)
        found = of(replies)
        assert [each for each in found if each[1] != 8] == [(1, 7), (1, 9), *((at, 9) for at in range(3, 200, 50))]
        assert (199, 8) in found and (2, 8) not in found
        events, gone = seen(replies)
        assert gone == each.overwritten > 0 and events + gone == each.events == following.kept[0] + gone
        assert each.kept[1] <= 20 * SIZE
    following.close()


def test_flood_after_a_gap(history: History) -> None:
    """A flood hides no time in which nobody watched."""
    keep_of(history, 1, 7)
    for number in range(2, 200):
        if number in (3, 5):
            history.interrupt("gone")
        keep_of(history, number, *[8] * 9)
    replies = read(history)
    assert [reply.interrupted.heard_ns for reply in replies if reply.HasField("interrupted")] == [2 * 10**9, 4 * 10**9]
    assert (1, 7) in of(replies)


def test_flood_while_somebody_reads(history: History) -> None:
    """One who reads while a flood is left out gets what is left, and how much was gone before he came to it."""
    for number in range(1, 15):
        keep_of(history, number, 7, *[8] * 9)
    replies = history.read(0, True, lambda: True)
    rest = [next(replies), next(replies)]
    for number in range(15, 100):
        keep_of(history, number, *[8] * 10)
    for reply in replies:
        rest.append(reply)
        if reply.caught_up:
            break
    events, gone = seen(rest)
    assert events + gone == 990 and [each for each in of(rest) if each[1] == 7] == [(at, 7) for at in range(1, 15)]


def test_alerts_without_end(history: History) -> None:
    """A container with alerts without end overwrites its own, and by few large ones not many small ones of another."""
    for number in range(1, 200):
        if history.is_full():
            history.begin(pb.RunReply(started=pb.Started(schema="{}"), sent_ns=number * 10**9))
        large = pb.Alert(id=f"large-{number}", container=pb.Container(cgroup_id=8), past=bytes(500))
        small = [pb.Alert(id=f"small-{at}", container=pb.Container(cgroup_id=7)) for at in range(20 * (number == 1))]
        history.append(pb.RunReply(batch=pb.Batch(alerts=[*small, large]), sent_ns=number * 10**9))
    found = [alert.id for reply in read(history) for alert in reply.batch.alerts]
    assert found[:20] == [f"small-{at}" for at in range(20)] and found[-1] == "large-199"
    assert len(found) + seen(read(history))[1] == 199 + 20 and history.kept[1] <= 20 * SIZE


def test_flood_of_many(history: History) -> None:
    """Where no container has more than others, the oldest events go first."""
    for number in range(1, 200):
        keep_of(history, number, *range(1, 11))
    seconds = [second for second, _ in of(read(history))]
    assert seconds == sorted(seconds) and len(seconds) == 10 * len({*seconds})


def test_flood_on_a_full_disk(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be written anew, the oldest goes, so that what comes has room."""

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    for number in range(1, 100):
        keep_of(history, number, 7, *[8] * 9)
    assert history.kept[1] <= 20 * SIZE
    events, gone = seen(read(history))
    assert events + gone == 990
