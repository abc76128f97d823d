"""What others wrote may be damaged: each parser takes it or refuses it in its own words."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

#: JSON and the like break in other ways than packed bytes do.
WORDS = [
    b"null",
    b"0",
    b"-1",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"1e9",
    b"99999999999999999999",
    b"\xff",
    b"\0",
    b"(",
    b"!",
]


@cache
def seed(name: str) -> bytes:
    return TARGETS[name].seed()


@st.composite
def mutations(draw: st.DrawFn, name: str) -> bytes:
    """Valid input with some bytes changed, cut out, doubled, or replaced by a word."""
    data = bytearray(seed(name))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        to = at + draw(st.integers(1, 12))
        how = draw(st.sampled_from(["change", "cut", "double", "word", "end"]))
        if how == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at:to]
        elif how == "double":
            data[at:at] = data[at:to]
        elif how == "word":
            data[at:to] = draw(st.sampled_from(WORDS))
        else:
            del data[max(at, len(data) // 2) :]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_undamaged(name: str) -> None:
    """What the mutations begin with is right."""
    TARGETS[name].try_it(seed(name))


def found(name: str, valid: bytes, damaged: bytes) -> tuple[str, bytes]:
    """What fuzzing failed on once."""
    assert valid in seed(name)
    return name, seed(name).replace(valid, damaged)


#: A member of a ring's state, of which there may be several.
FIRST = b'{"name":"first","kind":"int","doc":"","values":{},"offset":44,"size":4,"signed":false,"parts":[],"count":%d}'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        found("pods", b'"cgroups":[9]', b'"cgroups":9'),
        found("pods", b'"addresses":["10.0.0.1"]', b'"addresses":null'),
        found("pods", b'"labels":{"app":"cart"}', b'"labels":{"app":7}'),
        found("pods", b'"last":0', b'"last":"10.0.0.1"'),
        found("flows", b'"last":1700000120000000000', b'"last":17000001200000000001700000'),
        found("flows", b'"last":1700000100000000000,"node":"node-a"', b'"last":1700000100000000000,"node":7'),
        found("flows", b'"nodeName":"node-a"', b'"nodeName":7'),
        found("flows", b'"until":1700003600000000000', b'"until":170000360000000000017000'),
        found("catalogue", b'"schema":{', b'"scheme":{'),
        found("ring", FIRST % 1, FIRST % 2),
        found("ring", b'"names":[{"name":"constant"', b'"names":[{"naue":"constant"'),
        found("ring", b'"values":{"8192":"ABOUT_BYTES"', b'"values":{"x":"ABOUT_BYTES"'),
    ],
)
def test_found(name: str, data: bytes) -> None:
    """What a fuzzer has failed on once is refused in the parser's own words since then."""
    TARGETS[name].try_it(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged(name: str) -> None:
    """Whatever happened to a file, a schema, a selector: I get an answer or one line, never a traceback or a hang."""

    @settings(max_examples=200, deadline=2000, suppress_health_check=list(HealthCheck))
    @given(mutations(name) | st.binary(max_size=80))
    def any_data(data: bytes) -> None:
        TARGETS[name].try_it(data)

    any_data()
