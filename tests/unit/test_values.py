from __future__ import annotations

import dataclasses

from gadget.values import dataclass


@dataclass(frozen=True)
class Shop:
    """A shop."""

    name: str
    pods: tuple[str, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class Cart(Shop):
    """A shop with a port."""

    port: int


def test_values() -> None:
    """A value is a dataclass like any other: what is equal is equal, has one hash, and says what it is."""
    one, same, other = Shop("a", labels={"x": "y"}), Shop("a", labels={"x": "y"}), Shop("b")
    assert one == same and hash(one) == hash(same) and one != other and one != "a"
    assert repr(other) == "Shop(name='b', pods=(), labels={})"
    assert dataclasses.replace(one, name="b", labels={}) == other
    assert dataclasses.asdict(Cart(name="a", port=1)) == {"name": "a", "pods": (), "labels": {}, "port": 1}
    assert Cart(name="a", port=1) != Shop("a")
