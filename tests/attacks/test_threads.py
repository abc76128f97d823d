"""Each thread of an agent ends, or stalls: that is said at once, wherever one looks."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.bpf.bpffs import mount_bpffs
from agent.threads import STALL_SECONDS
from tests.apiserver import ApiServer, api_server, write_kubeconfig
from tests.attacks.beside import is_well
from tests.attacks.killable import KILLER, names_file
from tests.conftest import Agent, run_cli, wait_until

#: Until it must be told. That a thread stands still is known when it has been silent for STALL_SECONDS.
TOLD_SECONDS = {"end": 5.0, "stall": STALL_SECONDS + 5.0}
#: Threads that come and go with calls, and the interpreter's own.
PASSING = re.compile(rf"MainThread|{KILLER}|rpc_\d+|requests-.*|Dummy-.*|ThreadPoolExecutor.*")
#: Those that there were when this was written, whatever others there are: a test that finds none tests none.
LEAST = {"tracker", "flows", "pods", "standing", "standing-execs", "run-execsnoop"}
#: Those that may be silent for longer: they wait for the API server.
SLOW = {"pods"}


class Victim(NamedTuple):
    """An agent whose threads obey."""

    agent: Agent
    fifo: Path

    def tell(self, how: str, name: str = "") -> None:
        """Tell its thread what to do with another one."""
        self.fifo.write_text(f"{how} {name}\n")

    def threads(self) -> set[str]:
        """Its threads that stay."""
        names_file(self.fifo).unlink(missing_ok=True)
        self.tell("list")
        wait_until(names_file(self.fifo).exists, "the names of threads")
        return {name for name in names_file(self.fifo).read_text().splitlines() if not PASSING.fullmatch(name)}


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server that knows no pods."""
    with api_server() as server:
        server.pods = []
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(server, tmp_path)))
        yield server


@pytest.fixture
def victim(bpffs: Path, kubeconfig: ApiServer, start_agent, tmp_path: Path, bare) -> Callable[[], Victim]:
    """Makes agents that do not know of each other, with all that they can do, beside a container."""
    mount_bpffs(bpffs)
    bare()
    made = iter(range(100))
    (tmp_path / "runs.d").mkdir()
    (tmp_path / "runs.d/execs.toml").write_text('gadget = "execsnoop"')

    def make() -> Victim:
        number = next(made)
        fifo = tmp_path / f"fifo-{number}"
        where = (
            "--bpffs",
            str(bpffs / f"agent{number}"),
            "--state",
            str(tmp_path / f"state-{number}"),
            "--runs",
            str(tmp_path / "runs.d"),
        )
        under = (sys.executable, "-m", "tests.attacks.killable", str(fifo))
        agent: Agent = start_agent(*where, "--kubernetes", under=under)
        wait_until(lambda: "execs: execsnoop began" in agent.log.read_text(), "the standing run", 60)
        return Victim(agent, fifo)

    return make


def what_is_wrong(victim: Victim, how: str, name: str) -> str:
    """What an agent does not tell of the end of one of its threads; empty if it tells all."""
    began = time.monotonic()
    victim.tell(how, name)
    while is_well(victim.agent):
        if time.monotonic() - began > TOLD_SECONDS[how]:
            return "its health service says that it serves"
        time.sleep(0.05)
    status = run_cli("status", "--agent", victim.agent.address)
    while name not in status.stdout + status.stderr and status.returncode == 0:
        if time.monotonic() - began > TOLD_SECONDS[how]:
            return f"status does not name it: {status.stdout}"
        status = run_cli("status", "--agent", victim.agent.address)  # another one was late, on a busy machine
    if how == "end" and victim.agent.process.poll() is None:
        victim.agent.process.send_signal(signal.SIGTERM)
        try:
            wait_until(lambda: victim.agent.process.poll() is not None, "its end")
        except AssertionError:
            return "it does not end when it is told to"
    return ""


@pytest.mark.parametrize("how", ["end", "stall"])
def test_threads(how: str, victim: Callable[[], Victim], figure) -> None:
    """Whichever thread of an agent ends, or stands still: within 5 s, or 15, it says that it does not serve, so that it is
    started anew, and `status` names the thread. One whose threads all live serves all the time.
    """
    first = victim()
    kinds = {name.rstrip("0123456789"): name for name in first.threads() & first.threads()}  # a pool's are alike
    names = sorted(kinds.values())
    assert set(names) >= LEAST, names
    if how == "stall":
        names = [name for name in names if name not in SLOW]
    victims, spared = [first, *(victim() for _ in names[1:])], victim()
    assert all(is_well(each.agent) for each in (*victims, spared))
    with ThreadPoolExecutor(len(names)) as pool:
        answers = {name: pool.submit(what_is_wrong, each, how, name) for name, each in zip(names, victims, strict=True)}
        well = set()
        while not all(answer.done() for answer in answers.values()):
            well.add(is_well(spared.agent))
            time.sleep(0.2)
    figure("threads", ", ".join(names))
    wrong = {name: answer.result() for name, answer in answers.items() if answer.result()}
    assert not wrong
    assert well == {True}
    for each in victims:
        if each.agent.process.poll() is None:
            each.agent.stop(signal.SIGKILL)
