from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget import catalog, filters
from gadget.errors import UsageError
from gadget.schema import IDENTITY
from tests.unit.rows import table

SCHEMA = catalog.find("execsnoop").schema


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("", [0, 1, 2]),
        ("comm==sh", [0]),
        ("comm!=sh", [1, 2]),
        ("pid>1,pid<3", [1]),
        ("pid>=2", [1, 2]),
        ("error==ENOENT", [2]),
        ("error!=0", [2]),
        ("error==0x2", [2]),
        ("args_truncated==true", [1]),
        ("args~-c", [0]),
        ('args=="sh -c true"', [0]),
        ("exe==/usr/bin/ls", [1]),
        ("namespace==shop", [0]),
        ("pod~^web", [1]),
        ("node==node-a,container!=cart", [1, 2]),
        ("comm<m", [1]),
    ],
)
def test_filter(expression: str, kept: list[int]) -> None:
    """A filter keeps exactly the events that meet all its conditions."""
    mask = filters.parse(expression, SCHEMA, IDENTITY)(table())
    assert (list(range(3)) if mask is None else mask.nonzero()[0].tolist()) == kept


@given(st.text(alphabet='abcpid=!<>~,"\\ 019*(', max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """Whatever I type after --filter, it works or is refused as wrong usage."""
    with contextlib.suppress(UsageError):
        filters.parse(text, SCHEMA, IDENTITY)(table())
