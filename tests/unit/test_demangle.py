"""Names of C++ and Rust as people write them; a container may have chosen them to do harm."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from functools import partial

import pytest

from kubectl_gadget.profile import demangle
from kubectl_gadget.profile.stacks import Function, Samples, StackOwner

pytestmark = pytest.mark.skipif(not shutil.which("c++filt"), reason="needs c++filt")
#: On a busy machine a process of c++filt may take seconds to begin.
PATIENT = 100.0
PRICE = "_ZN4shop4cart5priceEi"


def bomb(levels: int) -> str:
    """A name that means twice as much text with each level: f(pair<int, int>, pair<the one before, the one before>, …)."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1fSt4pairIiiE" + "".join(f"S_IS{digits[at]}_S{digits[at]}_E" for at in range(levels))


def test_names() -> None:
    """C++, Rust old and new, and clones that compilers make are readable; what is neither stays."""
    names = [
        PRICE,
        "_ZN4core3fmt5write17h0123456789abcdefE",
        "_RNvCs1234_7mycrate3foo",
        "main",
        "_Z",
        "_ZZZZ",
        "a _Z1fv",
    ]
    found = demangle.demangled(names, seconds=PATIENT)
    assert found[PRICE] == "shop::cart::price(int)" and "core::fmt::write" in found[names[1]]
    assert "mycrate" in found[names[2]] and "foo" in found[names[2]]
    assert {*found} == {*names[:3]}
    assert demangle.demangled([]) == {} == demangle.demangled(["main"])


def test_hostile_names() -> None:
    """A name that means more text than there is memory stays as it is, and takes little time."""
    assert demangle.demangled([bomb(3)], seconds=PATIENT)[bomb(3)].startswith("f(std::pair<int, int>, ")
    before = os.times()
    found = demangle.demangled([f"{bomb(at)}{'i' * at}" for at in range(20, 32)])
    assert os.times().children_user - before.children_user < 2 * demangle.SECONDS
    assert all(len(each) <= demangle.LONGEST + 1 for each in found.values())


def test_names_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with names without end takes no other one's time: of both the first ones are asked for together.

    Names that may mean much text come after all others.
    """
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(demangle, "_ask", lambda command, names, until: asked.append(names) or [*names])
    own = [PRICE, bomb(3), bomb(9)]
    demangle.demangled([f"_ZN4flod{at:07}5priceEi" for at in range(20_000)], [bomb(at) for at in range(12, 32)], own)
    assert PRICE in asked[0] and not any(bomb(12) in each for each in asked[:-2])
    assert [*asked[-2]] == own[1:] and bomb(31) in asked[-1]


def test_stacks_of_the_same_name() -> None:
    """Stacks that are the same by the names that people write are one."""
    samples, cart = Samples(99), StackOwner("node-a", "shop", "cart-0", "app")
    for name in ("_ZN4shop4cartC1Ev", "_ZN4shop4cartC2Ev"):  # two constructors that compilers make of one
        samples.add(cart, (Function("main", "/app"), Function(name, "/app")), 3)
    samples.add(cart, (Function(PRICE, "[kernel]", kernel=True),), 1)
    samples.rename(partial(demangle.demangled, seconds=PATIENT))
    assert samples.counts == {
        (cart, (Function("main", "/app"), Function("shop::cart::cart()", "/app"))): 6,
        (cart, (Function(PRICE, "[kernel]", kernel=True),)): 1,
    }


def test_ends_of_lines_in_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Rust name may have any letter, also one that ends lines elsewhere: the names beside it are asked for once, as ever."""
    odd, asked = "_RNvC1au6ab_x3t", []
    ask = demangle._ask
    monkeypatch.setattr(demangle, "_ask", lambda *of: asked.append(of[1]) or ask(*of))
    assert demangle.demangled([odd, PRICE], seconds=PATIENT) == {odd: "a[0]::a\u2028b", PRICE: "shop::cart::price(int)"}
    assert len(asked) == 1


def test_long_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find those that mean much text takes as long for names of letters that could each begin a reference as for others."""
    monkeypatch.setattr(shutil, "which", lambda _: None)

    def cost(letter: str) -> float:
        names = [f"_Z{at:03}{letter * 1000}" for at in range(50)]
        began = time.thread_time()
        demangle.demangled(names)
        return time.thread_time() - began

    assert min(cost("S") for _ in range(3)) < 10 * min(cost("s") for _ in range(3))
