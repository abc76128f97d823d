"""Names that did not resolve."""

from __future__ import annotations

import re
import struct
import time

import pytest

from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.judge import judge
from tests.unit.why.stories import Story, address

NONE, SOME = (3, 0), (0, 1)  # RCODE and number of records


def message(name: str, answer: tuple[int, int] | None = None) -> bytes:
    """A question for a name, or its answer."""
    flags, records = (0x100, 0) if answer is None else (0x8180 | answer[0], answer[1])
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 1, flags, 1, records, 0, 0) + labels + b"\0\0\1\0\1"


def asks(connected: bool = True, **names: tuple[int, int] | None) -> Story:
    """A program that asks for names (a_b is a.b), and is answered unless it is None."""
    story = Story()
    for name, answer in ((name.replace("_", "."), answer) for name, answer in names.items()):
        where: dict[int, bytes] = {} if connected else {4: address("10.0.0.10:53")}
        if connected:
            story.connects("10.0.0.10:53", 0, 7)
        story.call("sendto", 7, 0, 40, result=40, texts={1: message(name), **where})
        if answer:
            story.call("recvfrom", 7, 0, 99, result=60, texts={1: message(name, answer)})
        story.call("close", 7).opens("/etc/hosts", 7)  # numbers are used again
    return story


def found(story: Story) -> list[Finding]:
    """What is told of names."""
    return [each for each in judge(story.facts()) if each.cause == "dns"]


SEARCHED = {
    "redis_shop_shop_svc_local": NONE,
    "redis_shop_svc_local": NONE,
    "redis_shop_local": NONE,
    "redis_shop": NONE,
}
STORIES: dict[str, tuple[Story, bool, str]] = {
    "it is named": (
        asks(redis_shop=NONE).says("dial tcp: redis.shop:6379\n").exits(1), True, "redis.shop did not resolve: NXDOMAIN$",
    ),
    "nobody answers": (
        asks(redis_shop=None).says("Temporary failure in name resolution\n").exits(1), True,
        "no name server answered for redis.shop$",
    ),
    "of a socket that is not connected": (
        asks(False, redis_shop=NONE).says("redis.shop: unknown host\n").exits(1), True, "NXDOMAIN",
    ),
    "with a search list": (
        asks(**SEARCHED).says("redis.shop: no such host\n").exits(1), True,
        "redis.shop did not resolve: NXDOMAIN, with 4 names of its search list",
    ),
    "another of the same host resolves": (
        asks(redis_cache_svc=SOME, redis_shop_svc=NONE).says("lookup redis.shop.svc: no such host\n").exits(1), True,
        "redis.shop.svc did not resolve",
    ),
    "a word of it is said of something else": (
        asks(metadata_google_internal=NONE).works().says("failed to parse metadata of order 7, unresolved\n").exits(1), False,
        "metadata.google.internal",
    ),
    "before it was asked to end": (
        asks(redis_shop=NONE).says("redis.shop: no such host, retrying\n").signal(15).exits(143), False, "redis.shop",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_unresolved(name: str) -> None:
    """A name that did not resolve is told: as certain if the program told it as it ended."""
    story, certain, words = STORIES[name]
    first = next(each for each in found(story) if each.evidence)
    assert first.certain == certain
    assert re.search(words, first.sentence)


RESOLVED: dict[str, Story] = {
    "at last": asks(redis_shop_shop_svc_local=NONE, redis_shop_svc_local=SOME),
    "as it is": asks(example_com_shop_svc_local=NONE, example_com_svc_local=NONE, example_com=SOME),
    "no question": Story().call("write", 9, 0, 40, result=40, texts={1: message("abcde")}),
}


@pytest.mark.parametrize("name", RESOLVED)
def test_resolved(name: str) -> None:
    """A name that resolves with one domain of a search list did resolve; what goes elsewhere is no question."""
    assert not found(RESOLVED[name].says("x\n").exits(1))


def test_hostile_names() -> None:
    """A container that asks for as many names as it can does not keep the command busy."""
    facts = asks(**{f"a{number}_b{number % 7}_c_d": NONE for number in range(1500)}).says("a\n" * 99).exits(1).facts()
    began = time.process_time()
    judge(facts)
    assert time.process_time() - began < 0.5


def test_addresses_without_a_name() -> None:
    """That an address has no name is no reason, unless the program told that it was."""
    name = "1_0_0_127_in-addr_arpa"
    for answer in (None, NONE):
        assert found(asks(**{name: answer}).hangs("epoll_wait")) == []
        assert found(asks(**{name: answer}).exits(1)) == []
    assert found(asks(**{name: NONE}).says("1.0.0.127.in-addr.arpa: no such host\n").exits(1))
