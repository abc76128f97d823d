"""What `why` shows, at any width."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.encode import encode
from kubectl_gadget.text import width
from kubectl_gadget.why import screen
from kubectl_gadget.why.facts import Earlier
from kubectl_gadget.why.judge import judge
from tests.unit.why.stories import Story

CALLS = "kubectl gadget traceloop show cart-0 -n shop -c app"


def shown(story: Story, columns: int = 80, **more: object) -> list[str]:
    facts = story.facts(**more)
    return [line for _, line in screen.lines(facts, judge(facts), columns, CALLS)]


def missing(path: str = "/etc/cart/prices.yaml") -> Story:
    return Story().works().opens(path).says(f"fatal: {path}: no such file\n").exits(1)


def test_whole() -> None:
    """On one screen I see which container it was, how it ended, why, the calls that show it, and where to look next."""
    assert shown(missing(), 100) == [
        "shop/cart-0, container app, ended 1s ago on node-a: exited with 1 after 35.0ms",
        '  certain  it could not open /etc/cart/prices.yaml: no such file (ENOENT); it said "fatal:',
        '             /etc/cart/prices.yaml: no such file" and ended 3.0ms later',
        '  before   01:46:40.032 openat("/etc/cart/prices.yaml", O_RDONLY) = -1 ENOENT',
        '           01:46:40.033 write(2, "fatal: /etc/cart/prices.yaml: no such file\\n", 43) = 43',
        "           01:46:40.034 exit_group(1)",
        f"  all calls: {CALLS}",
    ]


def test_earlier_ends() -> None:
    """I am told whether it ended in the same way before."""
    same = shown(missing(), earlier=(Earlier(256, 1.0), Earlier(256, 2.0)))
    assert "  The 2 ends before this one were the same." in same
    other = shown(missing(), earlier=(Earlier(256, 1.0), Earlier(11, 2.0)))
    assert "  Of the 2 ends before this one 1 was the same." in other


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
@given(path=st.text(min_size=1, max_size=300).filter(lambda text: "\0" not in text))
def test_fits(columns: int, path: str) -> None:
    """No line is wider than my terminal, whatever a container calls its files, and nothing in it obeys the terminal."""
    for line in shown(missing("/" + path), columns):
        assert width(line) <= columns
        assert line.isprintable()


def test_json() -> None:
    """As JSON I get the same findings, with what shows them."""
    facts = missing().facts()
    found = orjson.loads(encode(screen.to_json(facts, judge(facts))))
    assert (found["pod"], found["exit_status"], found["running"]) == ("cart-0", 1, False)
    finding = found["findings"][0]
    assert (finding["cause"], finding["certain"]) == ("missing-file", True)
    assert finding["evidence"][0]["syscall"] == "openat"


def test_json_of_what_has_not_returned() -> None:
    """A call that has not returned has no time in JSON, rather than one of 1970."""
    facts = Story().connects("10.0.0.9:5432", 0).hangs("read", 5).facts()
    facts.history.blocked[0] = (facts.history.blocked[0][0]._replace(time_ns=0), 60 * 10**9)
    found = orjson.loads(encode(screen.to_json(facts, judge(facts))))
    assert (found["findings"][0]["cause"], found["findings"][0]["evidence"][0]["time"]) == ("hang-read", None)


def test_nothing_to_tell() -> None:
    """If nothing tells why it ended the screen says that this is unclear, and that it said nothing."""
    assert "  unclear  nothing stands out before its end, and it said nothing" in shown(Story().works().exits(3))
    said = shown(Story().works().says("done so far\n").exits(3))
    assert '  unclear  it ended, and its last words were "done so far"' in said
    assert any(line.startswith("  no fault it has waited") for line in shown(Story().hangs("epoll_wait")))


def test_what_is_missing_is_told_whole() -> None:
    """What could not be asked is told to its end, in as many lines as that takes."""
    why = "events are not shown: you may not list events in namespace shop, which takes a role that allows it"
    lines = shown(missing(), missing=(why,))
    assert " ".join(line.strip() for line in lines).count(why) == 1
    assert max(map(width, lines)) <= 80


def test_nobody_saw_it() -> None:
    """Of a container whose end nobody saw I am told just that."""
    story = Story().works()
    facts = replace(story.facts(), running=False)
    assert "nobody saw how it ended" in " ".join(line for _, line in screen.lines(facts, judge(facts), 80))
