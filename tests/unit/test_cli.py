"""What a user meets before anything is traced: help, completion, mistakes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gadget import CONTRACT
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unreachable
from kubectl_gadget import about
from tests.conftest import CLI, run_cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["execsnop"], "unknown gadget 'execsnop': did you mean execsnoop?"),
        (["execsnoop", "--bogus"], "no such option '--bogus'"),
        (["execsnoop", "--fields", "pids"], "unknown field 'pids': execsnoop has timestamp, node"),
        (["execsnoop", "--filter", "pids==1"], "unknown field 'pids' in --filter"),
        (["execsnoop", "--filter", "pid=1"], "unknown operator '=' in --filter: there is == != <= >= < > ~"),
        (["execsnoop", "--filter", "pid==one"], "'one' is no value of pid"),
        (["execsnoop", "--filter", "pid"], "want FIELD OP VALUE"),
        (["execsnoop", "--filter", "comm~("], "--filter comm~("),
        (["execsnoop", "--filter", "pid~1"], "pid is a number"),
        (["execsnoop", "--comm", "a-name-that-is-too-long"], "at most 15 bytes"),
        (["execsnoop", "--pid", "x"], "--pid 'x': not a pid"),
        (["execsnoop", "--timeout", "soon"], "'soon' is no duration"),
        (["execsnoop", "--buffer", "lots"], "'lots' is no size"),
        (["replay", "no\x1b[31msuch"], r"no\x1b[31msuch: no such file"),
        (["execsnoop", "-o", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_command_line(arguments: list[str], message: str) -> None:
    """A mistake on the command line is one line that names it, and exit code 2."""
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message.lower() in done.stderr.lower()
    assert done.stderr.count("\n") == 1


def test_no_agent_named(tmp_path: Path) -> None:
    """Without an agent and a kubeconfig I am told the three ways to get one."""
    done = run_cli("execsnoop", env=os.environ | {"KUBECONFIG": str(tmp_path / "none")})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    for way in ("--local", "--agent ADDRESS", "kubectl gadget deploy"):
        assert way in done.stderr


def test_wrong_address() -> None:
    """An address where no agent listens is named in one line."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    done = run_cli("execsnoop", "--agent", address)
    assert done.stderr == f"error: {address}: no agent answers there\n"
    assert done.returncode == 1


def test_help_is_for_people() -> None:
    """Help fits a screen, shows an example first, and describes every option and field."""
    whole = run_cli("--help").stdout
    assert len(whole.splitlines()) < 25
    for word in ("execsnoop", "-n NAMESPACE", "--local"):
        assert word in whole
    one = run_cli("execsnoop", "--help").stdout
    assert "kubectl gadget execsnoop -n shop" in one.splitlines()[2]
    for word in ("--no-failed", "--cwd", "--pid", "--local", "--max-events", "args_truncated"):
        assert word in one


@pytest.mark.parametrize(
    ("gadget", "words"),
    [
        ("tcpconnect", ["namespace", "dst.addr", "dst.port", "dst.kind", "dst.namespace", "dst.name", "no answer"]),
        ("tcptracer", ["src.name", "connect, accept, close"]),
        ("opensnoop", ["O_CREAT", "O_DIRECTORY"]),
    ],
)
def test_what_a_filter_takes(gadget: str, words: list[str]) -> None:
    """Whatever a filter takes by name, parts of fields and words of values, is in the help and on the gadget's page."""
    told = run_cli(gadget, "--help").stdout
    fields = re.sub(r"\s+", " ", told[told.index("\nFields:") :])
    page = (Path(__file__).parents[2] / f"docs/gadgets/{gadget}.md").read_text()
    for word in words:
        assert word in fields
        assert word in page[page.index("## Fields") :]


def test_through_kubectl(tmp_path: Path) -> None:
    """`kubectl gadget` finds the plugin on PATH, and kubectl completes its commands and options."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine")
    environment = {**os.environ, "PATH": f"{CLI.parent}:{os.environ['PATH']}"}
    version = subprocess.run([kubectl, "gadget", "--version"], env=environment, capture_output=True, text=True)
    assert version.stdout.strip() == "0.1.0"
    done = subprocess.run(
        [kubectl, "__complete", "gadget", "execsnoop", "--no-f"], env=environment, capture_output=True, text=True
    )
    assert "--no-failed\t" in done.stdout
    done = subprocess.run([kubectl, "__complete", "gadget", "exec"], env=environment, capture_output=True, text=True)
    assert "execsnoop\t" in done.stdout


def test_runs_without_agent_side(tmp_path: Path) -> None:
    """On a laptop without libbpf the wheel's command line works, and says that only --local needs more."""
    wheels = tmp_path / "wheels"
    root = Path(__file__).parents[2]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, root], check=True)
    (wheel,) = wheels.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    site = tmp_path / "site"
    for machine in ("x86_64", "aarch64"):
        assert (site / "agent/_objects" / machine / "execsnoop.bpf.o").stat().st_size > 1000
    # no library can be loaded by ctypes here, and nothing comes from the checkout
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes\ndef no(*a, **k): raise OSError('none')\nctypes.CDLL = no\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{site}"}
    command = [sys.executable, "-P", "-m", "kubectl_gadget"]
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    assert "--no-failed" in subprocess.run([*command, "execsnoop", "--help"], **options).stdout
    said = subprocess.run([*command, "execsnoop", "--agent", "127.0.0.1:1"], **options).stderr
    assert said == "error: 127.0.0.1:1: no agent answers there\n"
    said = subprocess.run(
        [sys.executable, "-P", "-c", "import kubectl_gadget; print(kubectl_gadget.__file__)"], **options
    )
    assert said.stdout.startswith(str(site))


def test_versions_of_crafted_agents(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What an agent says of itself reaches my terminal as text, not as a command."""
    title = "\x1b]0;owned\x07"
    replies = {
        "a": pb.DescribeReply(node=f"a{title}", version=title, kernel=title, contract=CONTRACT + 1),
        "b": Unreachable(f"b: {title}"),
    }
    monkeypatch.setattr(about, "describe", lambda targets: replies)
    with pytest.raises(Unreachable):
        about.VersionCommand()._run(False, ("127.0.0.1:1",))
    for text in capsys.readouterr():
        assert text.count(r"\x1b]0;owned\x07") >= 1
        assert "\x1b" not in text
