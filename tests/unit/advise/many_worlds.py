"""All that advice promises, held against WORLDS random clusters, each made once: `make worlds`."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import given, note, settings
from hypothesis import strategies as st

from kubectl_gadget.advise.talks import Settings
from tests.unit.advise import test_property as promises
from tests.unit.advise.strategies import World, worlds

WORLDS = int(os.environ.get("WORLDS") or 10_000)
#: What a promise is tested with beside the world, in the order of its test's arguments.
GIVEN: dict[Callable[..., None], tuple[str, ...]] = {
    promises.test_observed_flows_are_allowed: ("asked",),
    promises.test_directions: (),
    promises.test_what_comes_next_is_allowed: (),
    promises.test_nothing_else_is_allowed: ("asked",),
    promises.test_each_connection_is_judged_once: ("by_address", "closed"),
    promises.test_nothing_is_denied_silently: (),
    promises.test_same_bytes: ("seed", "cut"),  # the last one, as it puts the world in another order
}


@settings(promises.MANY, max_examples=WORLDS)
@given(
    world=worlds(),
    asked=promises.ASKED,
    by_address=st.booleans(),
    closed=st.sampled_from(["nothing", "advice", "all"]),
    seed=st.integers(0, 1000),
    cut=st.booleans(),
)
def test_all_promises(world: World, asked: Settings, **more: object) -> None:
    """Every promise holds in every world."""
    more["asked"] = asked
    for promise, names in GIVEN.items():
        note(promise.__name__)
        promise.hypothesis.inner_test(world=world, **{name: more[name] for name in names})  # type: ignore[attr-defined]
