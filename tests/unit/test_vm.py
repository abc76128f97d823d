from __future__ import annotations

import json

import pytest

from tests.vm import results
from tests.vm.guest import Done
from tests.vm.kernels import _newest
from tests.vm.results import WORKS, Result


def guest(*said: dict[str, object], status: int = 0, more: str = "") -> Done:
    return Done("".join(json.dumps(line) + "\n" for line in said) + more, status, 1.0)


DONE = {"done": True}


def test_newest_of_a_line() -> None:
    """6.1 is not 6.12, the newest is not the last in the alphabet, and other flavours do not count."""
    there = ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.9+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64"]
    there += ["6.12.200+deb12-amd64", "6.12.200+deb12-cloud-amd64-unsigned", "6.1.0-99-cloud-amd64-dbg"]
    assert _newest("6.1", there) == "6.1.0-56-cloud-amd64"
    assert _newest("6.12", there) == "6.12.117+deb12-cloud-amd64"
    assert _newest("6.18", there) is None


@pytest.mark.parametrize(
    "done",
    [
        guest(),
        guest({"case": "execsnoop", "works": True, "attempts": 1}),
        guest(DONE, status=2),
        guest(DONE, status=124),
        guest({"case": "execsnoop", "failed": "Traceback", "attempts": 1}, DONE),
        guest(DONE, more="Segmentation fault\n"),
    ],
    ids=["nothing", "ended early", "status 2", "status 124", "a failed case", "other words"],
)
def test_what_did_not_run_has_failed(done: Done) -> None:
    """A guest that did not run everything to its end is a failure, whatever its status says."""
    assert results.read(done)[1]


def test_lacking_is_for_the_oldest_kernel() -> None:
    """Only on the oldest kernel may a gadget lack something, in one line, and a case that was not tried is a failure."""
    done = guest(
        {"release": "5"},
        {"case": "load a", "works": True, "attempts": 1},
        {"case": "a", "lacks": "no", "attempts": 1},
        DONE,
    )
    result, problems, _ = results.read(done)
    assert (result.gadgets, problems) == ({"a": "no"}, [])
    every = dict.fromkeys(results.objects(), WORKS)
    cases = {*every, "a"}
    result.gadgets |= every
    assert results.judge("5.10", result, cases, None) == []
    assert results.judge("6.1", result, cases, None) == ["a does not work: no"]
    assert results.judge("5.10", result, {*cases, "b"}, None) == ["b was not tried"]
    assert results.judge("5.10", result, cases, Result("5", {**every, "a": WORKS})) == ["a: no; accepted was: works"]
    assert len(results.judge("5.10", Result("5", {**every, "a": "no\nno"}), cases, None)) == 1


def test_a_jump_of_complexity_fails() -> None:
    """A fifth more instructions than accepted are one too many, and a program without an accepted figure is told."""
    every = dict.fromkeys(results.objects(), WORKS)
    accepted = Result("6", every, {"a/b": 100})
    for count, fails in ((50, False), (120, False), (121, True)):
        assert bool(results.judge("6.1", Result("6", every, {"a/b": count}), set(every), accepted)) is fails
    assert results.judge("6.1", Result("6", every, {"a/c": 1}), set(every), accepted)
