"""What is said last, against what was said, or failed, before it."""

from __future__ import annotations

import pytest

from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.judge import judge
from tests.unit.why.stories import Story

CHAINED = (
    "Traceback (most recent call last):\nConnectionRefusedError: [Errno 111] Connection refused\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    "Traceback (most recent call last):\nDatabaseError: no healthy upstream\n"
)
#: A program that worked on after a failure that it told, and what it ended by.
WORKED_ON: dict[str, tuple[Story, str, str]] = {
    "words of something else": (
        Story().connects("10.0.0.9:5432").says("connect 10.0.0.9:5432: connection refused\n").works(5)
        .says("schema version 7 is too old\n").exits(1), "nothing", "schema version 7",
    ),
    "words of a runtime, and then others": (
        Story().works().says("java.lang.ClassNotFoundException: shop.Metrics\n").works(9)
        .says("quota of tenant 7 is used up\n").exits(2), "nothing", "quota of tenant 7",
    ),
    "an option, after a module that it does without": (
        Story().says("ModuleNotFoundError: No module named 'metrics'\nmetrics are off\n")
        .says("replicas must be at least 1\n").exits(1), "bad-option", "replicas must",
    ),
    "an exception of something else": (
        Story().opens("/etc/flags.json").says("warn: open /etc/flags.json: no such file or directory\n")
        .says("panic: runtime error: index out of range [2]\n").exits(2), "exception", "index out of range",
    ),
    "something worse, of which it said nothing": (
        Story().opens("/etc/flags.json").says("ENOENT: no such file or directory, open '/etc/flags.json'\n").works(12)
        .call("bind", 5, 0, 16, result="EADDRINUSE").works(4).exits(1), "address-in-use", "address already in use",
    ),
    "an exception with its cause": (
        Story().connects("10.0.0.9:5432").says(CHAINED).exits(1), "refused", "10.0.0.9:5432",
    ),
    "words of an error, long after a probe for a file": (
        Story().opens("/etc/gnutls/config").works(60).says("curl: (22) The requested URL returned error: 503\n")
        .exits(22), "nothing", "503",
    ),
    "what was kept back till the end": (
        Story().says("tariffs are of last year\n").says("starting\n", 1).exits(1), "nothing", "tariffs are of last year",
    ),
    "a folder of a file system in which nothing can be made": (
        Story().opens("/tmp/x7f3", "EROFS").says("FileNotFoundError: No usable temporary directory found in ['/tmp']\n")
        .exits(1), "read-only", "/tmp/x7f3",
    ),
    "a file that could not be made, and is not there": (
        Story().call("mkdir", result="EROFS", texts={0: "/var"}).call("statx", 0, result="ENOENT", texts={1: "/var"})
        .works(1).exits(1), "read-only", "/var",
    ),
    "another error of the same file": (
        Story().call("newfstatat", 0, result="ENOENT", texts={1: "/tmp/now"}).says("ln: /tmp/now: File exists\n").exits(1),
        "nothing", "File exists",
    ),
    "an alarm, as nobody answered": (
        Story().connects("10.0.0.9:443", "EINTR", waited=1).says("nc: timed out\n").exits(1), "no-answer", "10.0.0.9:443",
    ),
    "words of Node that tell nothing": (
        Story().connects("10.0.0.9:443").says("TypeError: fetch failed\n\nNode.js v20.20.2\n").exits(1), "refused",
        "10.0.0.9:443",
    ),
    "a peer that it waited for": (
        Story().connects("10.0.0.9:6379", 0).call("sendto", 5, 0, 4, result=4).call("close", 5, after=2)
        .says("cache timed out\n").exits(1), "no-answer", "10.0.0.9:6379 had not answered",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKED_ON)
def test_worked_on(name: str) -> None:
    """Of a program that went on after an error I am told what it ended by, and not that error."""
    story, cause, words = WORKED_ON[name]
    found = judge(story.facts())[0]
    assert found.cause == cause, found
    assert words in found.sentence


@pytest.mark.parametrize(
    "words", ["shutting down", "giving up", "see the documentation", "    at main.js:3", "} [cause]"]
)
def test_farewell(words: str) -> None:
    """What a program says as it ends, after an error that it told, is no other error."""
    story = Story().connects("10.0.0.9:5432").says("connect 10.0.0.9:5432: connection refused\n").works(9)
    found = judge(story.says(f"{words}\n").exits(1).facts())[0]
    assert (found.cause, found.certain) == ("refused", True)


def test_failed_after_it_was_told() -> None:
    """An error is not told as certain if something else failed after it was told, right before the end."""
    story = Story().opens("/tmp/pass", "EACCES").says("/tmp/pass: Permission denied\n").opens("/etc/next").exits(1)
    assert not judge(story.facts())[0].certain


def test_does_without() -> None:
    """What a program says that it ignores, or has a default for, is not why it runs on or ended."""
    said = "open /etc/agent.yaml: no such file or directory, using defaults\n"
    assert judge(Story().opens("/etc/agent.yaml").says(said).hangs("nanosleep").facts())[0].cause == "nothing"
    found = judge(Story().opens("/etc/agent.yaml").says(said).exits(1).facts())[0]
    assert (found.cause, found.certain) == ("nothing", False)


def test_serves_without() -> None:
    """Of a server that runs I am not told what it had lacked before it began to listen."""
    said = "no /etc/shop.json: no such file or directory\n"
    story = Story().opens("/etc/shop.json").says(said)
    assert judge(story.hangs("poll").facts())[0].cause == "missing-file"
    story = Story().opens("/etc/shop.json").says(said).call("listen", 5).hangs("poll")
    assert judge(story.facts())[0].cause == "nothing"


def script(*children: tuple[str, str], code: int = 1) -> Finding:
    """A shell whose children each miss a file and exit with 1; so does it."""
    story = Story(program="/bin/sh")
    for pid, (program, path) in enumerate(children, 101):
        story.call("execve", 0, texts={0: program, 1: f"{program}\0"}, pid=pid).opens(path, pid=pid)
        story.says(f"{program}: {path}: No such file or directory\n", pid=pid).exits(1, pid).waits(pid, 1 << 8)
    return judge(story.exits(code).facts())[0]


def test_what_cleans_up() -> None:
    """Of a script I am told what failed, and not what failed as it cleaned up behind that."""
    found = script(("/bin/cat", "/etc/tls.key"), ("/bin/rm", "/run/app.pid"))
    assert "/etc/tls.key" in found.sentence
    assert found.certain
    assert "/run/app.pid" in script(("/bin/rm", "/run/app.pid")).sentence


def test_two_that_ended_alike() -> None:
    """Of a script whose status several of its commands had I am told that one of them is a guess."""
    assert not script(("/bin/cat", "/etc/tls.key"), ("/bin/wget", "/etc/wgetrc")).certain
    assert script(("/bin/cat", "/etc/a"), ("/bin/cat", "/etc/b")).certain


def test_no_name_was_asked_for() -> None:
    """That an address is bad is no certain failure of a name if no name server was asked."""
    found = judge(Story().works().says("httpd: bad address 'eighty'\n").exits(1).facts())[0]
    assert (found.cause, found.certain) == ("dns", False)


def test_a_runtime_that_rests() -> None:
    """That the runtime of Go rests for a moment before its program gives up does not hide the worker that failed."""
    story = Story().says("panic: no shard\n", pid=101).exits(2, 101).waits(7, 2 << 8).call("nanosleep", waited=0.00002)
    assert judge(story.says("worker: exit status 2\n").exits(1).facts())[0].cause == "exception"
