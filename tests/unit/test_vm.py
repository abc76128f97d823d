from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.vm import __main__ as vm
from tests.vm import core, results
from tests.vm.archive import NotHad
from tests.vm.guest import Done, GuestError
from tests.vm.kernels import LINES, Kernel, _newest
from tests.vm.results import WORKS, Result


def guest(*said: dict[str, object], status: int = 0, more: str = "") -> Done:
    return Done("".join(json.dumps(line) + "\n" for line in said) + more, status, 1.0)


DONE = {"done": True}


@pytest.fixture
def trying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs tests.vm with what it finds and what a guest then does replaced; gives its exit code and what it says."""

    def go(find: Callable[..., Any], boot: Callable[..., Any], *args: str) -> tuple[int, str]:
        for name, value in {
            "find_kernels": find,
            "run": boot,
            "compile_workload": print,
            "cache": lambda: tmp_path,
        }.items():
            monkeypatch.setattr(vm, name, value)
        monkeypatch.setattr(vm.os, "geteuid", lambda: 0)
        monkeypatch.setattr(vm.platform, "machine", lambda: "x86_64")
        done = CliRunner().invoke(vm.main, args)
        return done.exit_code, done.output

    return go


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("args", [(), ("6.1", "--run", "true")], ids=["core tests", "a command"])
def test_no_kernel_fails(trying, args: tuple[str, ...]) -> None:
    """A kernel that cannot be had is a failed run and told, not a kernel less."""
    code, said = trying(raises(NotHad("Debian has no kernel 6.1")), print, *args)
    assert (code, said.splitlines()[-1]) == (1, "Error: Debian has no kernel 6.1")


@pytest.mark.parametrize("args", [(), ("6.1", "6.12", "--run", "true")], ids=["core tests", "a command"])
def test_no_boot_fails(trying, tmp_path: Path, args: tuple[str, ...]) -> None:
    """A kernel that does not boot is a failed run, also if a command works on others; what its console said is told."""
    lines = ("6.1", "6.12") if args else ("6.1",)  # without guest 6.12's core tests would fail for another reason
    kernels = [Kernel(line, tmp_path / f"{line}.1-cloud-amd64") for line in lines]

    def boot(kernel: Kernel, *_: object) -> Done:
        if kernel.line == "6.1":
            raise GuestError("it said nothing for 60 s: Kernel panic")
        return Done("", 0, 1.0)

    code, said = trying(lambda lines: kernels, boot, *args)
    assert code == 1
    assert "Kernel panic" in said and "6.1.1-cloud-amd64" in said


def test_attempts() -> None:
    """Before Linux 7.0 a program that is busy again and again is a failure after three attempts, not hidden by thirty."""
    releases = ("5.10.0-40-cloud-amd64", "6.18.9+deb14-cloud-amd64", "7.3.1+deb14-cloud-amd64", "10.1.0-1-cloud-amd64")
    assert [core.attempts_on(release) for release in releases] == [3, 3, 30, 30]


def test_newest_of_a_line() -> None:
    """6.1 is not 6.12, the newest is not the last in the alphabet, and other flavours do not count."""
    there = ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.9+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64"]
    there += ["6.12.200+deb12-amd64", "6.12.200+deb12-cloud-amd64-unsigned", "6.1.0-99-cloud-amd64-dbg"]
    assert _newest("6.1", there) == "6.1.0-56-cloud-amd64"
    assert _newest("6.12", there) == "6.12.117+deb12-cloud-amd64"
    assert _newest("6.18", there) is None
    assert _newest("6.12-arm64", there) is None
    there.append("6.12.110+deb12-cloud-arm64")
    assert _newest("6.12-arm64", there) == "6.12.110+deb12-cloud-arm64"
    assert _newest("6.12", there) == "6.12.117+deb12-cloud-amd64"


def test_a_command_of_each_machine(tmp_path: Path) -> None:
    """arm64's guests run Debian's Python, find its compiled packages first, and none of this machine's programs."""
    folders = [tmp_path / f"6.12.117+deb12-cloud-{arch}" for arch in ("amd64", "arm64")]
    here, there = (vm.core_tests(Kernel("6.12", folder), Path("/w"), results.objects()).split() for folder in folders)
    assert sys.executable in here and "/w/amd64" in here
    assert sys.executable not in there and "/usr/bin/python3.11" in there and "/w/arm64" in there
    assert any(word.startswith("PYTHONPATH=/opt/numpy-") for word in there)
    assert "PATH=/run/bin:/usr/bin" in there


def test_order_of_lines() -> None:
    """Older kernels are above newer ones, those of another machine below."""
    assert sorted(LINES, key=results.place) == ["5.10", "6.1", "6.12", "6.18", "7.3", "6.12-arm64"]


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


def test_accepting_hides_no_failure(trying, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What worked on a kernel and does not any more is not accepted with the figures, unless I name it."""
    saved: list[dict[str, Result]] = []
    monkeypatch.setattr(results, "load", lambda: {"5.10": Result("5.10.0", {"execsnoop": WORKS, "biotop": WORKS})})
    monkeypatch.setattr(results, "save", saved.append)
    monkeypatch.setattr(vm.generate, "write", lambda: None)
    done = guest({"release": "5.10.1"}, {"case": "execsnoop", "lacks": "no hook", "attempts": 1}, DONE)
    tried = (
        (lambda lines: [Kernel("5.10", tmp_path / "5.10.1-cloud-amd64")]),
        (lambda *_: done),
        "5.10",
        "--accept",
        "--only",
        "execsnoop",
    )
    code, said = trying(*tried)
    assert (code, saved) == (1, []) and "execsnoop worked before: no hook" in said and "LACKS=execsnoop" in said
    code, said = trying(*tried, "--lacks", "biotop")
    assert (code, saved) == (1, [])
    code, said = trying(*tried, "--lacks", "execsnoop")
    assert (code, saved[0]["5.10"].gadgets) == (0, {"biotop": WORKS, "execsnoop": "no hook"})


def test_only_some() -> None:
    """With ONLY the figures of objects that were not tried stay as they are."""
    before = Result("5.10.0", {"biotop": WORKS, "cputop": WORKS}, {"biotop/asked": 7, "cputop/charged": 11})
    tried = Result("5.10.1", {"aged": WORKS, "biotop": "lacks"}, {"aged/one": 3})
    assert before.with_new(tried) == Result(
        "5.10.1", {"aged": WORKS, "biotop": "lacks", "cputop": WORKS}, {"aged/one": 3, "cputop/charged": 11}
    )
    assert results.judge("5.10", tried, {"aged", "biotop"}, None, whole=False) == []
    assert results.judge("5.10", tried, {"aged", "biotop", "cputop"}, None, whole=False) == ["cputop was not tried"]
