"""From what a container did to why it ended."""

from __future__ import annotations

import re
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kubectl_gadget.traceloop.calls import Sender
from kubectl_gadget.why import said
from kubectl_gadget.why.causes import CAUSES
from kubectl_gadget.why.facts import Facts, Kubernetes, PodEvent
from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.judge import judge
from kubectl_gadget.why.meant import MEANT
from tests.unit.why.stories import Story

CERTAIN, LIKELY = True, False
RUNC, SIDECAR, CHILD = Sender(7, "runc", False), Sender(8, "sh", False), Sender(101, "worker", True)


def first(story: Story, **more: object) -> Finding:
    return judge(story.facts(**more))[0]


def failed(call: str, error: str, said: str, *args: int, **texts: str) -> Story:
    """A call that fails, what is said of it, and the end."""
    found = {int(name[1:]): text for name, text in texts.items()}
    return Story().works().call(call, *args, result=error, texts=found).says(said).exits(1)


#: What happened, and what it comes to: cause, whether that is certain, and a part of the sentence.
STORIES: dict[str, tuple[Story, str, bool, str]] = {
    "a file is missing": (
        Story().works().opens("/etc/cart/prices.yaml").says("fatal: /etc/cart/prices.yaml: no such file\n").exits(1),
        "missing-file", CERTAIN, r"could not open /etc/cart/prices.yaml: no such file \(ENOENT\); it said",
    ),
    "a file is missing, and nothing is said": (
        Story().works().opens("/etc/cart/prices.yaml").exits(1), "missing-file", CERTAIN, "/etc/cart/prices.yaml",
    ),
    "a file is missing, and something else is said": (
        Story().works().opens("/etc/cart/prices.yaml").says("startup failed\n").exits(1),
        "missing-file", LIKELY, "/etc/cart/prices.yaml.*last words were \"startup failed\"",
    ),
    "one of many files is missing": (
        Story().opens("/a/x.conf").opens("/b/x.conf").opens("/c/x.conf").says("x.conf: not found\n").exits(1),
        "missing-file", CERTAIN, r"could not open x.conf: no such file \(ENOENT\), in 3 folders",
    ),
    "a library is missing": (
        Story().opens("/lib/libpq.so.5").says("/app/server: error while loading shared libraries: libpq.so.5: cannot "
                                              "open shared object file: No such file or directory\n").exits(127),
        "missing-library", CERTAIN, "libpq.so.5",
    ),
    "a command of a script is missing": (
        Story().call("newfstatat", 0, result="ENOENT", texts={1: "/bin/migrate"})
        .says("/start.sh: line 3: migrate: not found\n").exits(127), "missing-program", CERTAIN, "migrate",
    ),
    "permission": (failed("openat", "EACCES", "key.pem: Permission denied", a1="/etc/key.pem"),
                   "permission", CERTAIN, "/etc/key.pem: permission denied"),
    "read-only": (failed("mkdir", "EROFS", "cannot make /data/x: Read-only file system", a0="/data/x"),
                  "read-only", CERTAIN, "make the folder /data/x"),
    "no descriptor": (failed("openat", "EMFILE", "Too many open files", a1="/x"), "descriptors", CERTAIN, "EMFILE"),
    "disk full": (failed("openat", "ENOSPC", "No space left on device", a1="/data/x"), "disk", CERTAIN, "/data/x"),
    "no process": (failed("clone", "EAGAIN", "fork: Resource temporarily unavailable"), "processes", CERTAIN,
                   "start a process"),
    "no memory": (failed("mmap", "ENOMEM", "Cannot allocate memory"), "memory", CERTAIN, "get memory"),
    "no watches": (failed("inotify_add_watch", "ENOSPC", "No space left on device", 3, a1="/etc"), "inotify", CERTAIN,
                   "watch /etc"),
    "a right is missing": (failed("chown", "EPERM", "chown: /data: Operation not permitted", a0="/data"),
                           "capability", CERTAIN, "change the owner of /data"),
    "its own file": (Story().call("mkdir", 0, texts={0: "/tmp/a"}).call("chmod", 0, result="EPERM", texts={0: "/tmp/a"})
                     .says("/tmp/a: Operation not permitted").exits(1), "seccomp", CERTAIN, "change the mode of /tmp/a"),
    "refused": (Story().connects("10.0.0.9:6379").says("redis 10.0.0.9:6379: Connection refused\n").exits(1),
                "refused", CERTAIN, "connect to 10.0.0.9:6379: connection refused"),
    "memory may not be locked": (failed("mlock", "EPERM", "cannot lock memory: Operation not permitted"),
                                 "capability", CERTAIN, "lock memory: .*CAP_IPC_LOCK"),
    "a network may not be changed": (failed("ioctl", "EPERM", "ip: SIOCSIFMTU: Operation not permitted", 3),
                                     "capability", CERTAIN, "change a device or a network"),
    "no descriptor for events": (failed("eventfd2", "EMFILE", "event loop: Too many open files"), "descriptors", CERTAIN,
                                 "wait for events"),
    "a folder is read": (
        Story().opens("/etc/app.yaml", 3).call("read", 3, result="EISDIR").says("cat: read error: Is a directory\n").exits(1),
        "missing-file", CERTAIN, "read from /etc/app.yaml: is a directory",
    ),
    "a link to itself": (failed("openat", "ELOOP", "/etc/current: Too many levels of symbolic links", a1="/etc/current"),
                         "missing-file", CERTAIN, "/etc/current"),
    "a child was out of memory, and its parent told an exception": (
        Story().ends(9, 101, oom=True).works(60).says("Traceback (most recent call last):\nBrokenProcessPool: x\n").exits(1),
        "oom", LIKELY, "want of memory",
    ),
    "the first of its namespace aborted, and its handler heard of that": (
        Story().says("terminate called\n").call("tgkill", 1, 1, 6).call("tgkill", 1, 1, 11)
        .signal(11, 0x80, (0,)).ends(11), "abort", CERTAIN, "terminate called",
    ),
    "a child was killed by another": (
        Story().call("kill", 6, 15, pid=102).ends(15, 101).waits(6, 15).exits(143),
        "killed-by-process", LIKELY, "a process of the same container, sent .* SIGTERM",
    ),
    "refused again and again": (
        [story := Story(), *(story.connects("10.0.0.9:6379").says("Connection refused\n") for _ in range(40))][0].exits(1),
        "refused", CERTAIN, "40 times",
    ),
    "refused later": (
        Story().connects("10.0.0.9:6379", "EINPROGRESS")
        .call("getsockopt", 5, 1, 4, texts={3: b"\x6f\0\0\0"}).says("ECONNREFUSED 10.0.0.9:6379").exits(1),
        "refused", CERTAIN, "10.0.0.9:6379",
    ),
    "nobody answers a connect": (
        Story().connects("10.0.0.9:6379", "EINPROGRESS").call("close", 5, after=3).says("timeout").exits(1),
        "no-answer", CERTAIN, "10.0.0.9:6379: nobody answered",
    ),
    "nobody answers": (
        Story().connects("10.0.0.9:6379", 0).call("read", 5, result="EAGAIN", waited=1).says("redis: timed out").exits(1),
        "no-answer", CERTAIN, "read from 10.0.0.9:6379: nothing came",
    ),
    "port in use": (
        Story().call("bind", 3, result="EADDRINUSE", texts={1: b"\2\0\x1f\x90\0\0\0\0" + bytes(8)})
        .says("bind: Address already in use").exits(1), "address-in-use", CERTAIN, "listen on 0.0.0.0:8080",
    ),
    "crash": (Story().signal(11, 1, (0x10,)).ends(11), "fault", CERTAIN, r"SIGSEGV at address 0x10 \(a null pointer\)"),
    "crash of what it waits for": (
        Story().ends(11, 101).waits(7, 11).says("worker exited on signal 11\n").exits(1), "fault", LIKELY, "SIGSEGV",
    ),
    "abort": (Story().says("main.c:5: Assertion `n > 0' failed.\n").call("tgkill", 1, 1, 6).signal(6, -6).ends(6),
              "abort", CERTAIN, "Assertion `n > 0' failed"),
    "abort of a first process": (
        Story().says("free(): double free").call("tgkill", 1, 1, 6).signal(11, 128).ends(11), "abort", CERTAIN, "double",
    ),
    "seccomp kills": (Story().signal(31, 1, (0, (1 << 31 | 62) << 32 | 101)).ends(31), "seccomp", CERTAIN, "seccomp profile"),
    "out of memory": (Story().ends(9, oom=True), "oom", CERTAIN, "want of memory"),
    "killed from outside": (Story().works().signal(9, 0, (), RUNC).ends(9), "killed", CERTAIN, "from outside"),
    "asked to end and did not": (
        Story().asked().call("nanosleep", after=10).signal(9, 0, (), RUNC).ends(9), "ignored-sigterm", CERTAIN,
        "asked to end by SIGTERM and did not for 10",
    ),
    "killed by another pod's process": (Story().signal(9, 0, (), SIDECAR).ends(9), "killed-by-process", CERTAIN,
                                        r"sh \(8\), a process outside the container, sent it SIGKILL"),
    "killed by its own child": (Story().signal(9, 0, (), CHILD).ends(9), "killed-by-process", CERTAIN, r"worker \(101\)"),
    "asked to end, and did": (Story().signal(15, 0, (), RUNC).ends(15), "killed-deletion", LIKELY, "asked to end"),
    "asked to end, and did in its own way": (
        Story().signal(15, 0, (), RUNC).says("bye\n").exits(143), "killed-deletion", CERTAIN, "SIGTERM, and exited with 143",
    ),
    "asked to end, and ended in another way": (
        Story().signal(15, 0, (), RUNC).works(9).exits(1), "killed-deletion", LIKELY, "SIGTERM, and exited with 1",
    ),
    "dumped its threads": (
        Story().signal(3, 0, (), RUNC).works(2000).says("fatal: licence expired\n").exits(1), "nothing", LIKELY, "licence",
    ),
    "read its configuration again": (
        Story().signal(1, 0, (), CHILD).works(2000).says("fatal: licence expired\n").exits(1), "nothing", LIKELY, "licence",
    ),
    "was told something and ended at once": (
        Story().signal(1, 0, (), CHILD).exits(129), "killed-by-process", CERTAIN, "sent it SIGHUP; it exited with 129",
    ),
    "asked to end long ago, and went on": (
        Story().signal(15, 0, (), RUNC).call("nanosleep", after=600).opens("/etc/x.yaml").says("/etc/x.yaml: no such file")
        .exits(1), "missing-file", CERTAIN, "x.yaml",
    ),
    "dumped its threads before it was killed": (
        Story().asked(3).call("nanosleep", after=7200).signal(9, 0, (), RUNC).ends(9), "killed", CERTAIN, "SIGKILL",
    ),
    "asked to end twice": (
        Story().asked().call("nanosleep", after=7200).asked().call("nanosleep", after=10).signal(9, 0, (), RUNC).ends(9),
        "ignored-sigterm", CERTAIN, "did not for 10",
    ),
    "asked to end hours before": (
        Story().asked().call("nanosleep", after=7200).signal(9, 0, (), RUNC).ends(9), "ignored-sigterm", LIKELY, "2h",
    ),
    "asked to end as its image wants it": (
        Story().asked(3).call("nanosleep", after=10).signal(9, 0, (), RUNC).ends(9), "ignored-sigterm", CERTAIN, "SIGQUIT",
    ),
    "a worker was out of memory long ago": (
        Story().ends(9, 101, oom=True).works(300).asked().call("nanosleep", after=10).signal(9, 0, (), RUNC).ends(9),
        "ignored-sigterm", CERTAIN, "SIGTERM",
    ),
    "a crash long after a worker was out of memory": (
        Story().ends(9, 101, oom=True).works(300).signal(11, 1, (0x10,)).ends(11), "fault", CERTAIN, "SIGSEGV",
    ),
    "a worker was out of memory": (
        Story().ends(9, 101, oom=True).waits(7, 9).says("worker died\n").exits(1), "oom", LIKELY, "want of memory",
    ),
    "a wild pointer": (Story().signal(11, 128, (0,)).ends(11), "fault", CERTAIN, "SIGSEGV$"),
    "an abort that nobody saw": (Story().works().ends(6), "abort", LIKELY, "aborted itself"),
    "a pipe that nobody saw": (Story().works().ends(13), "reset", LIKELY, "SIGPIPE"),
    "a crash after it aborted a worker": (
        Story().call("kill", 57, 6).signal(11, 1, (0x10,)).ends(11), "fault", CERTAIN, "SIGSEGV",
    ),
    "ended well": (Story().works().says("done\n").exits(0), "clean-exit", CERTAIN, "by itself with 0"),
    "what Python looks for as it starts": (
        Story().call("newfstatat", result="ENOENT", texts={1: "/usr/bin/Modules/Setup.local"})
        .call("newfstatat", result="ENOENT", texts={1: "/root/.local/lib/python3.11/site-packages"})
        .works().says("no price list\n").exits(1), "nothing", LIKELY, "last words were \"no price list\"",
    ),
    "nothing": (Story().works().exits(3), "nothing", LIKELY, "nothing stands out"),
    "only words": (Story().works().says("config is bad\n").exits(3), "nothing", LIKELY, "config is bad"),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_ends(name: str) -> None:
    """I am told the cause of an end, as certain only where nothing else can have been it."""
    story, cause, certain, words = STORIES[name]
    found = first(story, oom=any(getattr(each, "oom", False) for each in story.entries))
    assert (found.cause, found.certain) == (cause, certain), found
    assert re.search(words, found.sentence)


TRAPS: dict[str, tuple[Story, str]] = {
    "it was found elsewhere": (
        Story().opens("/a/app.conf").opens("/b/app.conf", 3).connects("10.0.0.9:6379").says("refused: redis").exits(1),
        "refused",
    ),
    "a second address answers": (
        Story().connects("10.0.0.8:6379").connects("10.0.0.9:6379", 0).opens("/x.yaml").says("/x.yaml: no such file")
        .exits(1), "missing-file",
    ),
    "cleaning up": (
        Story().says("fatal: licence has expired\n").call("unlink", result="ENOENT", texts={0: "/run/app.pid"}).exits(1),
        "nothing",
    ),
    "what everybody looks for": (
        Story().opens("/etc/ld.so.preload").opens("/etc/localtime").works().says("error: no quorum\n").exits(1), "nothing",
    ),
    "an error that it went on after": (
        Story().opens("/cache").says("cannot open /cache: no such file, going on\n").works(200)
        .connects("10.0.0.9:5432").says("database 10.0.0.9:5432: connection refused\n").exits(1), "refused",
    ),
    "output that nobody sees": (
        Story().connects("10.0.0.9:5432").says("database 10.0.0.9:5432: connection refused\n")
        .opens("/dev/null", 7).call("dup2", 7, 2, result=2).call("rmdir", result="ENOENT", texts={0: "/none"})
        .says("rmdir: /none: No such file or directory\n").exits(1), "refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name: str) -> None:
    """A failure that did not matter is not taken for the cause."""
    story, cause = TRAPS[name]
    assert first(story).cause == cause


def unix(path: str) -> bytes:
    return b"\1\0" + path.encode() + b"\0"


#: What happened, and the cause that is not certain, however late it is told.
DOUBTS: dict[str, tuple[Story, str]] = {
    "a warning, long before": (
        Story().opens("/etc/app/local.yaml").says("warning: /etc/app/local.yaml not found, using defaults\n").works(500)
        .says("fatal: licence expired\n").exits(1), "missing-file",
    ),
    "a warning, shortly before": (
        Story().opens("/etc/app/local.yaml").says("warning: /etc/app/local.yaml not found, using defaults\n").works(10)
        .says("fatal: licence expired\n").exits(1), "missing-file",
    ),
    "an error with no name, long before": (
        Story().opens("/etc/app/local.yaml").says("warning: No such file or directory, using defaults\n").works(500)
        .says("licence expired\n").exits(1), "missing-file",
    ),
    "a short name, and an error of something else": (
        Story().opens("/etc/app").works(100).says("application started\n").says("ERROR: user 42 does not exist\n").exits(1),
        "missing-file",
    ),
    "an error in other words, of something else": (
        Story().opens("/root/.pgpass").works(300).says('pq: relation "users" does not exist\n').exits(1), "missing-file",
    ),
    "the same, at once": (
        Story().opens("/app/.env").says("error: missing required option --port\n").exits(1), "missing-file",
    ),
    "a number that is no port": (
        Story().connects("10.0.0.9:4317", "EINPROGRESS").call("close", 5, after=3).works(200)
        .says("ERROR: bad request: 4317 rows, not connected to a printer\n").exits(1), "no-answer",
    ),
    "what everybody looks for, and nothing else": (
        Story(program="/bin/false").opens("/usr/lib/locale/locale-archive").exits(1), "missing-file",
    ),
    "an error of before it was asked to end": (
        Story().connects("10.0.0.9:6379").says("10.0.0.9:6379: connection refused, retrying\n").signal(15, 0, (), RUNC)
        .exits(143), "refused",
    ),
    "a socket that came": (
        Story().call("connect", 5, 0, 16, result="ENOENT", texts={1: unix("/run/pg.sock")}).says("pg.sock not found\n")
        .call("connect", 5, 0, 16, texts={1: unix("/run/pg.sock")}, after=20).works(9).exits(1), "missing-file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_doubts(name: str) -> None:
    """Where something else may have been the cause I am not told that this was it, for certain."""
    story, cause = DOUBTS[name]
    assert not [found for found in judge(story.facts()) if found.cause == cause and found.certain]


def test_another_peer() -> None:
    """That a peer refused is told, though another answers at the same port of its own some time later."""
    story = (
        Story().connects("34.1.1.1:443").works().connects("10.9.9.9:443", 0, after=2).says("startup failed\n").exits(1)
    )
    assert first(story).cause == "refused"


def _many(*texts: str, times: int = 1500) -> Story:
    """A file that is missing under each of these names with a number, or a line if there is a space in it."""
    story = Story()
    for text in texts:
        for number in range(times):
            name = text.format(number)
            story.says(name) if " " in name else story.opens(name, 3 if name.startswith("/b") else "ENOENT")
    return story.exits(1)


@pytest.mark.parametrize(
    "texts", [("/a/{}", "/b/{}"), ("/a/{}", "line {} of the output\n"), ("/a/{}.so",), ("/a/{}/x",)]
)
def test_hostile_failures(texts: tuple[str, ...]) -> None:
    """What a container does cannot keep the command busy: with thousands of failures it answers in half a second."""
    facts = _many(*texts).facts()
    began = time.process_time()
    judge(facts)
    assert time.process_time() - began < 0.5


def test_told_among_many() -> None:
    """What was named before the end is found among any number of failures."""
    story = Story().opens("/etc/cart/prices.yaml")
    for number in range(500):
        story.opens(f"/a/{number}")
    found = first(story.says("/etc/cart/prices.yaml: no such file\n").exits(1))
    assert (found.cause, found.certain) == ("missing-file", True) and "prices.yaml" in found.sentence


@pytest.mark.parametrize("call", ["wait4", "waitid"])
def test_dumps_core(call: str) -> None:
    """A child that dumped core is found, whichever way its parent waited for it."""
    texts = {1: struct.pack("<i", 0x8B)} if call == "wait4" else {2: struct.pack("<iiiiiii", 17, 0, 3, 0, 7, 0, 11)}
    story = Story().ends(0x8B, 101).call(call, result=7 if call == "wait4" else 0, texts=texts).exits(1)
    assert first(story).cause == "fault"


def test_a_shell_that_ends_as_its_child(request: pytest.FixtureRequest) -> None:
    """Of a script I am told what failed in the command whose status it passed on, and not what failed in others."""
    story = Story(program="/start.sh")
    story.opens("/other", pid=102).exits(1, 102).waits(8, 1 << 8).works()
    story.opens("/data/seed.db", pid=101).says("cp: can't stat '/data/seed.db': No such file or directory\n", pid=101)
    found = first(story.exits(4, 101).waits(7, 4 << 8).exits(4))
    assert found.certain and found.sentence.startswith("server could not open /data/seed.db")


def _looks(*, works: bool = False, says: str = "") -> Story:
    """Looks for a file every second, and may do something in between, or say something first."""
    story = Story()
    if says:
        story.says(says)
    for _ in range(9):
        story.call("newfstatat", 0, 0, 0, 0, result="ENOENT", texts={1: "/shared/ready"}, after=1)
        if works:
            story.call("openat", 0xFFFFFF9C, 0, 1, result=3, texts={1: "/tmp/beat"})
    return story.hangs("clock_nanosleep", seconds=0.1)


def _refused(blocked: str = "futex") -> Story:
    """A thread of many that connects every second."""
    story = Story()
    for _ in range(9):
        story.connects("10.0.0.9:5672", after=1)
    return story.hangs(blocked, 0x7000, 0)


HANGS: dict[str, tuple[Story, str, str]] = {
    "a file": (_looks(), "missing-file", "looks for /shared/ready again and again, 9 times in 8.0s"),
    "a file, told of once": (
        _looks(says="ready is not there yet\n"), "missing-file", "looks for /shared/ready again and again, 9 times",
    ),
    "a peer that refuses": (_refused(), "refused", "tries to connect to 10.0.0.9:5672 again and again, 9 times in 8.0s"),
    "a peer that refuses a server": (_refused("epoll_wait"), "refused", "tries to connect to 10.0.0.9:5672 again and again"),
    "a file to change": (Story().call("inotify_init1", result=4).hangs("read", 4), "hang-read", "file to change (inotify)"),
    "a thread": (Story().hangs("futex", 0x7000, 0x109, 6), "nothing", "for its thread 6 to end"),
    "a lock": (Story().hangs("futex", 0x7000, 0), "hang-lock", "it has waited 1m00s for a lock"),
    "a child": (Story().hangs("wait4").hangs("read", 0, pid=101), "hang-child", "for a child to end: server, which waits"),
    "a peer": (Story().connects("10.0.0.9:5432", 0).hangs("read", 5), "hang-read", "10.0.0.9:5432, which sends nothing"),
    "a peer, of one who waits for all": (
        Story().connects("10.0.0.9:5432", 0).call("write", 5, 0, 4, result=4).call("read", 9, after=30)
        .hangs("epoll_wait"), "hang-read", "10.0.0.9:5432, which has not answered",
    ),
    "a descriptor that a child has closed": (
        Story().connects("10.0.0.9:5432", 0).call("close", 5, pid=101).hangs("read", 5, pid=101).hangs("wait4"),
        "hang-child", "which waits in a read from descriptor 5",
    ),
    "a connect": (Story().connects("10.0.0.9:5432", "EINPROGRESS").call("read", 9, after=30).hangs("epoll_wait"),
                  "hang-connect", "10.0.0.9:5432 to answer"),
    "the disk": (Story().opens("/data/wal", 5).hangs("fsync", 5), "hang-disk", "to write /data/wal"),
    "on purpose": (Story().hangs("clock_nanosleep"), "nothing", "on purpose"),
    "work": (Story().hangs("epoll_wait"), "nothing", "as a server does"),
}  # fmt: skip


@pytest.mark.parametrize("name", HANGS)
def test_hangs(name: str) -> None:
    """Of a container that hangs I am told in which call, since when and on what."""
    story, cause, words = HANGS[name]
    found = first(story)
    assert found.cause == cause, found
    assert words in found.sentence


def test_conditions() -> None:
    """A futex of which nobody knows a holder may be a condition, so it is no certain lock; a lock of a file is one."""
    assert not first(Story().hangs("futex", 0x7000, 128, 2)).certain
    assert first(Story().hangs("flock", 3, 2)).certain


def test_rests() -> None:
    """A program whose thread rests for 0.2 s between two pieces of work is not told to wait for a lock."""
    worked = Story().opens("/tmp/beat", 5).call("close", 5).hangs("futex", 0x7000, 128, 0, seconds=0.199)
    told = judge(worked.facts(now_ns=worked.now + 199_000_000))
    assert "hang-lock" not in [each.cause for each in told]
    go = Story().call("sched_getaffinity", 0, 8192, result=64).opens("/tmp/beat", 5)
    told = judge(go.hangs("futex", 0x7000, 128, 0, seconds=60).facts(now_ns=go.now + 200_000_000))
    assert "hang-lock" not in [each.cause for each in told]
    long = Story().opens("/tmp/beat", 5).hangs("futex", 0x7000, 128, 0)
    assert judge(long.facts(now_ns=long.now + 60_000_000_000))[0].cause == "hang-lock"


def test_works_between() -> None:
    """What a container looks for between other work, as a cron does, is not told as what it waits for."""
    assert not [each for each in judge(_looks(works=True).facts()) if "again and again" in each.sentence]


def test_where_it_crashed() -> None:
    """Of a crash I am told which mapped file its address lies in, and at which offset."""
    story = Story().opens("/data/index", 4).call("mmap", 0, 8192, 1, 1, 4, 4096, result=0x7F0000000000)
    found = first(story.signal(7, 2, (0x7F0000001010,)).ends(7))
    assert found.details == ("there it has mapped /data/index, offset 0x2010",)


def test_runs_and_spoke() -> None:
    """Of a container that runs and did say something I am told that it runs, not that it ended."""
    story = Story().says("up 300 s\n").waits(77, 0)
    assert first(story, now_ns=story.now).sentence == 'it runs, and its last words were "up 300 s"'


def test_busy() -> None:
    """Of a container that runs without waiting I am told so."""
    story = Story()
    assert first(story, now_ns=story.now + 5_000_000_000).cause == "hang-busy"


def _idle(story: Story) -> Story:
    """Another thread waits for work."""
    call, since = story.hangs("futex", 0x7000, 128).blocked.pop()
    story.blocked.append((call._replace(tid=107), since))
    return story


def test_busy_among_others() -> None:
    """I am told that a thread runs without waiting, though others of its process wait for work."""
    story = Story()
    found = first(_idle(story), now_ns=story.now + 5_000_000_000)
    assert (found.cause, found.certain) == ("hang-busy", False)


def test_busy_goroutine() -> None:
    """I am told of a program in Go that it runs, from the signals by which its runtime interrupts it."""
    story = Story().works()
    story.now += 2_000_000_000
    for _ in range(20):
        story.call("tgkill", 1, 1, 23).signal(23, -6)
    assert "a goroutine" in first(_idle(story), now_ns=story.now).sentence
    assert first(story.works(1), now_ns=story.now).cause != "hang-busy"


def _pod(**more: object) -> Callable[[Story], Facts]:
    return lambda story: story.facts(kubernetes=Kubernetes(**more))  # type: ignore[arg-type]


def test_kubernetes_knows_more() -> None:
    """What the kubelet says of why it killed a container comes first."""
    story = Story().asked().signal(9, 0, (), RUNC).ends(9)
    said = (PodEvent(0, "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503"),
            PodEvent(0, "Killing", "Container app failed liveness probe, will be restarted"))  # fmt: skip
    found = judge(_pod(events=said)(story))[0]
    assert (found.cause, found.certain) == ("killed-probe", True)
    assert "its liveness probe failed: HTTP status 503" in found.sentence
    assert judge(_pod(deleted=True)(story))[0].benign
    mounts = {"/etc/cart": "ConfigMap cart-config"}
    missing = Story().opens("/etc/cart/prices.yaml").exits(1)
    assert "ConfigMap cart-config" in judge(_pod(mounts=mounts)(missing))[0].details[0]


def test_every_cause_is_explained() -> None:
    """Each cause that I may be told is on the page."""
    used = {cause for _, cause, *_ in STORIES.values()} | {cause for _, cause, *_ in HANGS.values()}
    used |= {each.cause for each in MEANT} | {each.cause for each in said.table()}
    source = "".join(path.read_text() for path in Path(said.__file__).parent.glob("*.py"))
    used |= set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert used <= set(CAUSES)


def test_two_that_are_certain() -> None:
    """Two causes that exclude each other are both told as guesses."""
    story = Story().opens("/a/x.yaml").connects("10.0.0.9:5432")
    story.says("/a/x.yaml: no such file; 10.0.0.9:5432: connection refused\n").exits(1)
    found = judge(story.facts())
    assert not any(each.certain for each in found if each.cause in ("missing-file", "refused"))
    assert {"missing-file", "refused"} <= {each.cause for each in found}


def test_hostile_numbers() -> None:
    """A container that makes calls as it likes cannot make `why` fail."""
    story = Story()
    for name in (
        "connect",
        "bind",
        "wait4",
        "waitid",
        "getsockopt",
        "poll",
        "pipe2",
        "dup2",
        "write",
        "sendto",
        "execve",
    ):
        for text in (b"", b"\2", b"\1\0", b"\xff" * 40, bytes(300)):
            texts = dict.fromkeys(range(5), text)
            story.call(name, *[(1 << 64) - 1] * 6, result=(1 << 63) - 1, texts=texts)  # type: ignore[arg-type]
            story.call(name, *[0] * 6, result="ENOENT", texts=texts)  # type: ignore[arg-type]
    assert judge(story.ends(signal.SIGKILL).facts())
