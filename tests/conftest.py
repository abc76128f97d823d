"""Fixtures: real pods, an agent, streams of events, waiting for conditions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.leftovers import alone, own_mounts
from tests.loaded import bpf_programs, pinned_programs
from tests.pods import BareContainer, Container, Pod, link

hypothesis.settings.register_profile("any machine", deadline=None)  # how long one example takes is no promise
hypothesis.settings.load_profile("any machine")

# a fork waits for gRPC's threads, and for ever if it comes while they end (src/core/lib/surface/init.cc, prefork of
# fork_posix.cc); where nothing is done between fork and exec there is nothing to wait for
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# what a shell starts in the background ignores it, and so would every command that a test interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)

WORKLOADS = Path(__file__).parent / "workloads"
CLI = Path(sys.executable).with_name("kubectl-gadget")
AGENT = Path(sys.executable).with_name("gadget-agent")


def why_no_kernel() -> str:
    """Why programs cannot be loaded here; empty if they can."""
    if os.geteuid():
        return "needs root"
    return "" if Path("/sys/kernel/btf/vmlinux").exists() else "needs a kernel with BTF"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests/kernel, tests/why, tests/faults and tests/attacks; without a kernel skip them, or fail where GADGET_REQUIRE_KERNEL says that there is one."""
    reason = why_no_kernel()
    if reason and os.environ.get("GADGET_REQUIRE_KERNEL"):
        raise pytest.UsageError(f"GADGET_REQUIRE_KERNEL is set, and this machine {reason}")
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in {"kernel", "faults", "attacks", "why"}:
            item.add_marker("kernel")
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of the kernel count what is in it: no other run is there, and nothing that a killed one left."""
    if not why_no_kernel() and any(item.get_closest_marker("kernel") for item in session.items):
        stack = ExitStack()
        stack.enter_context(alone())
        session.config.add_cleanup(stack.close)
        own_mounts()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """The condition's first true value; an error saying what was waited for when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def compile_workload(name: str, folder: Path, compiler: str = "gcc") -> Path:
    """A static binary of tests/workloads/NAME.c."""
    target = folder / name
    source = WORKLOADS / f"{name}.c"
    subprocess.run([compiler, "-O1", "-static", "-pthread", "-o", str(target), str(source)], check=True)
    return target


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles workloads, each once."""
    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            built[name] = compile_workload(name, tmp_path_factory.mktemp("workload"))
        return built[name]

    return build


@pytest.fixture
def make_pod(tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """Makes pods that are gone after the test."""
    with ExitStack() as stack:
        yield lambda namespace="shop", name="cart-0": stack.enter_context(Pod(tmp_path, namespace, name))


@pytest.fixture
def pair(make_pod, workload) -> tuple[Container, Container]:
    """A client and a server whose networks are joined: 10.77.0.1 and .2, fd77::1 and ::2."""
    files = {"/talks": workload("talks")}
    cart = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600", files=files)
    web = make_pod("web", "web-0").container("nginx", "/bin/sleep", "600", files=files)
    link(cart, web)
    return cart, web


@pytest.fixture
def bare() -> Iterator[Callable[..., BareContainer]]:
    """Makes containers without a runtime, in which processes may do what they may outside; they are gone after the test."""
    with ExitStack() as stack:

        def make(namespace: str = "shop", pod: str = "cart-0", name: str = "app") -> BareContainer:
            made = BareContainer(namespace, pod, name)
            stack.callback(made.delete)
            return made

        yield make


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of our own; with it goes all that was pinned there."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    yield folder
    programs = pinned_programs(folder)
    shutil.rmtree(folder / "gadget", ignore_errors=True)  # somebody's mount namespace may have a copy of the mount
    subprocess.run(["umount", folder], check=False)
    wait_until(lambda: not programs & bpf_programs(), "the end of all programs")


class Cli:
    """A running kubectl-gadget."""

    def __init__(self, *args: str, **options: Any) -> None:
        """Start it with args; options are Popen's."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([str(CLI), *args], text=True, **(pipes | options))

    def finish(self, number: int = signal.SIGINT, seconds: float = 60.0) -> tuple[str, str]:
        """Send a signal unless it is 0, and give what it printed on stdout and stderr."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=seconds)


@pytest.fixture
def start_cli() -> Iterator[Callable[..., Cli]]:
    """Starts command lines that are ended after the test."""
    started: list[Cli] = []

    def start(*args: str, **options: Any) -> Cli:
        started.append(Cli(*args, **options))
        return started[-1]

    yield start
    for cli in started:
        if cli.process.poll() is None:
            cli.process.kill()
        cli.process.communicate()


def run_cli(*args: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run kubectl-gadget to its end."""
    return subprocess.run([str(CLI), *args], capture_output=True, text=True, timeout=timeout, check=False, **options)


class Agent:
    """A running gadget-agent."""

    def __init__(self, folder: Path, *args: str, under: Sequence[str] = ()) -> None:
        """Start it, and wait until it serves; under is a command that starts commands."""
        self.address = f"unix://{folder}/agent.sock"
        self.log = folder / "agent.log"
        if "--bpffs" not in args:
            # what it pins would outlive the test, and what is pinned there is not the test's to end
            args = (*args, "--traceloop", "off", "--no-flows", "--bpffs", str(folder / "none"))
        for option in ("observe", "syscalls"):
            if f"--{option}" not in args:
                args = (*args, f"--no-{option}")
        for option in ("--state", "--runs"):  # those of the machine are another agent's
            if option not in args:
                args = (*args, option, str(folder / option.strip("-")))
        self.process = subprocess.Popen(
            [*under, str(AGENT), "--listen", self.address, "--node", "node-a", *args],
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline().startswith("listening"), self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Starts agents that are ended after the test."""
    agents: list[Agent] = []
    numbers = count()

    def start(*args: str, under: Sequence[str] = ()) -> Agent:
        folder = tmp_path / f"agent-{next(numbers)}"
        folder.mkdir()
        agents.append(Agent(folder, *args, under=under))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.stop(signal.SIGKILL)


@pytest.fixture
def agent(start_agent: Callable[..., Agent]) -> Agent:
    """An agent that serves as node-a."""
    return start_agent()


def events(text: str) -> list[dict[str, Any]]:
    """JSON lines as objects."""
    return [json.loads(line) for line in text.splitlines()]
