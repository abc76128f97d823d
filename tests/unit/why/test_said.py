"""What programs say as they fail, and what it means."""

from __future__ import annotations

import re
import time
import tomllib

import pytest

from kubectl_gadget.why import said
from kubectl_gadget.why.judge import judge
from tests.unit.why.stories import Story

TABLE = tomllib.loads(said.TABLE.read_text())["said"]


@pytest.mark.parametrize("entry", TABLE, ids=[f"{each['cause']}-{number}" for number, each in enumerate(TABLE)])
def test_examples(entry: dict) -> None:
    """What a runtime, a library or a shell says as it fails is understood: each entry of the table by its example."""
    story = Story().says(entry["example"]).exits(entry.get("code", 1))
    sentences = [finding.sentence for finding in said.find(story.facts()) if finding.cause == entry["cause"]]
    before, _, _ = entry["sentence"].partition("{")
    assert any(sentence.startswith(before) for sentence in sentences)
    assert not any("{" in sentence or sentence.endswith(": ") for sentence in sentences)
    assert judge(story.facts())[0].cause == entry["cause"]


def _then(early: str, late: str = "", code: int = 1) -> Story:
    """Something is said, then it works, and says something else."""
    return Story().works().says(f"{early}\n").works(200).says(f"{late}\n" if late else "\n").exits(code)


#: What was said of a cause that was not it, or need not be.
DOUBTS: dict[str, tuple[Story, str]] = {
    "a setting": (_then("using CERT_FILE=/certs/tls.crt", "fatal: licence expired"), "tls"),
    "a port scanner": (_then("http: TLS handshake error from 10.0.0.3:4: tls: first record does not look like a TLS handshake"),
                       "tls"),
    "an alert": (_then("http: TLS handshake error from 10.0.0.3:4: remote error: tls: bad certificate"), "tls"),
    "a default": (_then("CACHE_DIR is not set, using /tmp"), "bad-option"),
    "a level": (_then("ERROR: missing argument FILE", code=2), "bad-option"),
    "a thread of Java": (_then('Exception in thread "pool-1-thread-3" java.lang.IllegalStateException: x'), "exception"),
    "a traceback that was logged": (_then("Traceback (most recent call last):\n  x\nKeyError: 'A'", "bye"), "exception"),
    "a panic that was caught": (_then("thread 'tokio-runtime-worker' panicked at src/main.rs:4:5"), "exception"),
    "a fatal error of no Go": (_then("fatal error: cannot parse /etc/x"), "exception"),
    "long ago": (_then("java.net.UnknownHostException: redis.shop, retrying", "tick\n" * 6), "dns"),
    "another error after it": (_then("getaddrinfo EAI_AGAIN redis; retrying", "fatal: licence expired"), "dns"),
    "before it was asked to end": (
        Story().says("java.net.UnknownHostException: redis.shop, retrying\n").works().signal(15).exits(143), "dns",
    ),
    "before it crashed": (Story().says("getaddrinfo EAI_AGAIN redis; retrying\n").works().signal(11, 1, (8,)).ends(11), "dns"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_doubts(name: str) -> None:
    """What a program logs and goes on after, as it does for what others do wrong, is not the cause for certain."""
    story, cause = DOUBTS[name]
    assert not [found for found in judge(story.facts()) if found.cause == cause and found.certain]


@pytest.mark.parametrize("story", [DOUBTS[name][0] for name in ("before it was asked to end", "before it crashed")])
def test_before_a_signal(story: Story) -> None:
    """Nor is it told before the signal that ended it."""
    assert judge(story.facts())[0].cause in ("killed-deletion", "fault")


def test_aborts() -> None:
    """A signal by which a program ends itself does not make what it said less certain, as first process of a container too."""
    words = "terminate called after throwing an instance of 'std::bad_alloc'\n"
    for story in (Story().says(words).ends(6), Story().says(words).call("tgkill", 1, 1, 6).signal(11, 128).ends(11)):
        found = judge(story.facts())[0]
        assert (found.cause, found.certain) == ("memory", True)


@pytest.mark.parametrize("filler", ["\n", "\tat Main.deep(Main.java:7)\n"])
def test_far_away(filler: str) -> None:
    """What was said is found behind any number of empty lines and lines of stacks."""
    story = Story().opens("/etc/cart.yaml").says("/etc/cart.yaml: no such file\n").says(filler * 5000).exits(1)
    assert 'it said "/etc/cart.yaml: no such file"' in judge(story.facts())[0].sentence


def test_quoted() -> None:
    """I can tell what a program said from what is told about it: more than a name stands in quotation marks."""
    story = Story().says("fatal error: concurrent map writes, it was killed\n").exits(2)
    assert judge(story.facts())[0].sentence == 'Go ended by a fatal error: "concurrent map writes, it was killed"'
    story = Story().says('exec: "git": executable file not found in $PATH\n').exits(1)
    assert judge(story.facts())[0].sentence == "the command git does not exist"


def test_ended_well() -> None:
    """A program that logged an exception and exited with 0 did not end by it."""
    story = Story().says('Exception in thread "main" java.lang.IllegalStateException: retried').exits(0)
    assert judge(story.facts())[0].cause == "clean-exit"


@pytest.mark.parametrize("filler", ["a", " ", "x: ", "Error: ", "\n", "Caused by: ", "Traceback (most recent call last)\n",
                                    "\t at \n", "exec: \"", "A_B ", "1:in `", "lookup x: ", "[[[[", "'", "ab.so ", "OSError: ",
                                    "Error: x\n", "version `", "a:"])  # fmt: skip
def test_hostile_words(filler: str) -> None:
    """What a container writes cannot keep the command busy: 100,000 letters of any kind take half a second at most."""
    story = Story()
    for _ in range(400):
        story.says((filler * 240)[:240])
    facts = story.exits(1).facts()
    began = time.process_time()
    judge(facts)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("number", range(len(TABLE)))
def test_hostile_beginnings(number: int) -> None:
    """Nor can it by the beginning of what is looked for, and then something else over and over, or that again and again."""
    example, pattern = TABLE[number]["example"], said.table()[number].pattern
    began = time.process_time()
    for beginning in {example[: match.end()] for match in re.finditer(r"\w+|\W", example)}:
        for filler in (".so", "a", "a ", " ", "a:1:", "x: ", "A_", "/", "\n", beginning):
            list(pattern.finditer((beginning + filler * 4000)[:4000]))
    assert time.process_time() - began < 2
