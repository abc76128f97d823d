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
