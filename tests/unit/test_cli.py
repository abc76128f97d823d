"""What a user meets before anything is traced: help, completion, mistakes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gadget import CONTRACT
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unreachable
from gadget.kube.credentials import get_credentials
from gadget.kube.kubeconfig import read_context
from kubectl_gadget import about
from kubectl_gadget.cli import cli
from kubectl_gadget.cluster.options import chosen_cluster
from tests.conftest import CLI, run_cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["execsnop"], "unknown command 'execsnop': did you mean execsnoop?"),
        (
            ["execsnoop", "--local", "--agent", "unix:///none"],
            "--local and --agent: this machine's agent or those that",
        ),
        (["deplyo"], "unknown command 'deplyo': did you mean deploy?"),
        (
            ["completion", "bash"],
            "unknown command 'completion': kubectl completes our words: source <(kubectl completion",
        ),
        (["-n", "shop", "execsnoop", "-A"], "-n goes after the command: kubectl gadget execsnoop -n shop -A"),
        (["--bogus", "execsnoop"], "no such option '--bogus'"),
        (["execsnoop", "--bogus"], "no such option '--bogus'"),
        (["advise", "seccomp-profile", "-p", "cart"], "'-p'. Pods are chosen by their workload: -w, --workload"),
        (["execsnoop", "--fields", "pids"], "unknown field 'pids': did you mean pid?"),
        (["execsnoop", "--filter", "pids==1"], "unknown field 'pids' in --filter: did you mean pid?"),
        (["execsnoop", "--filter", "pid=1"], "unknown operator '=' in --filter: there is == != <= >= < > ~"),
        (["execsnoop", "--filter", "pid==one"], "'one' is no value of pid"),
        (["execsnoop", "--filter", "pid"], "want FIELD OP VALUE"),
        (["execsnoop", "--filter", "comm~("], "--filter comm~("),
        (["execsnoop", "--filter", "pid~1"], "pid is a number"),
        (["execsnoop", "--comm", "a-name-that-is-too-long"], "at most 15 bytes"),
        (["execsnoop", "--pid", "x"], "--pid 'x': not a pid"),
        (["dnssnoop", "--slow", "soon"], "--slow 'soon': not a duration"),
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
    """Help fits a screen, what answers questions first; a command's shows an example first, and every option and field."""
    whole = run_cli("--help").stdout
    assert len(whole.splitlines()) <= 36 and max(map(len, whole.splitlines())) <= 80
    assert whole.splitlines()[5].split()[0] == "why"
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


#: What `kubectl options` lists, of kubectl 1.34, and --as-user-extra, which came later; each with a value.
KUBECTL_OPTIONS = [
    "--as=a",
    "--as-group=a",
    "--as-uid=1",
    "--as-user-extra=a=b",
    "--cache-dir=/x",
    "--certificate-authority=/x",
    "--client-certificate=/x",
    "--client-key=/x",
    "--cluster=a",
    "--context=a",
    "--disable-compression=false",
    "--insecure-skip-tls-verify=false",
    "--kubeconfig=/x",
    "--kuberc=/x",
    "--log-flush-frequency=5s",
    "--match-server-version=false",
    "-n=a",
    "--namespace=a",
    "--password=a",
    "--profile=none",
    "--profile-output=/x",
    "--request-timeout=0",
    "-s=a",
    "--server=a",
    "--tls-server-name=a",
    "--token=a",
    "--user=a",
    "--username=a",
    "-v=0",
    "--v=0",
    "--vmodule=a",
    "--warnings-as-errors=false",
]
KUBECTL = shutil.which("kubectl") or next(
    (str(path) for path in sorted(Path.home().glob(".cache/kubectl-gadget/kubernetes-*/kubectl"))), ""
)


def kubectl_options() -> list[str]:
    """Those that the kubectl of this machine has, if it has one."""
    if not KUBECTL:
        return []
    shown = subprocess.run([KUBECTL, "options"], capture_output=True, text=True, check=True).stdout
    lines = [line.strip().rstrip(":") for line in shown.splitlines() if line.startswith("    -")]
    found = []
    for line in lines:
        *short, long = line.split(", ")
        name, _, value = long.partition("=")
        value = {"": "a", "[]": "a"}.get(value.strip("'"), value.strip("'"))
        found += [f"{each}={value}" for each in (*short, name)]
    return found


def test_options_of_kubectl() -> None:
    """Every option that kubectl says any command takes is taken, as a plugin is expected to."""
    command = cli.get_command(click.Context(cli), "containers")
    found = kubectl_options()
    assert not KUBECTL or len(found) > 25
    for option in (*KUBECTL_OPTIONS, *found):
        command.make_context("containers", [option])


@pytest.mark.parametrize(
    ("given", "skips"),
    [
        ("--insecure-skip-tls-verify", True),
        ("--insecure-skip-tls-verify=true", True),
        ("--insecure-skip-tls-verify=1", True),
        ("--insecure-skip-tls-verify=false", False),
    ],
)
def test_switches_with_a_value(given: str, skips: bool) -> None:
    """A switch may be written as kubectl's are, with =true or =false; any other value is refused."""
    command = cli.get_command(click.Context(cli), "containers")
    with command.make_context("containers", [given]):
        assert chosen_cluster().flags.insecure_skip_tls_verify is skips
    with command.make_context("containers", ["--all-namespaces=true"]) as context:
        assert context.params["all_namespaces"] is True
    assert "does not take a value" in run_cli("containers", "--insecure-skip-tls-verify=perhaps").stderr


def test_log_in_by_flags() -> None:
    """--username and --password log in, whatever the kubeconfig says; --as-user-extra goes with --as."""
    command = cli.get_command(click.Context(cli), "containers")
    given = ["--server=https://h", "--kubeconfig=/dev/null", "--username=me", "--password=p:s"]
    with command.make_context("containers", [*given, "--as=a", "--as-user-extra=b=c=d"]):
        headers = get_credentials(read_context(chosen_cluster().flags)).headers
    assert headers[0] == ("Authorization", "Basic bWU6cDpz")
    assert headers[1:] == (("Impersonate-User", "a"), ("Impersonate-Extra-b", "c=d"))
    assert run_cli("containers", *given, "--as-user-extra=b").stderr == "error: --as-user-extra b: want KEY=VALUE\n"


def test_completion_of_a_cluster(tmp_path: Path) -> None:
    """Nodes, contexts, namespaces and deployments are completed from the cluster that the options so far choose."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"""#!/bin/sh
echo "$@" >>{tmp_path}/asked
case "$*" in
*get-contexts*) printf 'home\naway\nabroad\n' ;;
*nodes*) printf 'node/node-a\nnode/node-b\nnode/other\n' ;;
*namespaces*) printf 'namespace/shop\n' ;;
*deployments*) printf 'deployment.apps/cart\ndeployment.apps/web\n' ;;
esac
""")
    kubectl.chmod(0o755)

    def complete(*words: str) -> list[str]:
        command = [CLI.with_name("kubectl_complete-gadget"), *words]
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[:-1]

    assert complete("status", "--kubeconfig=/k", "--context", "a") == ["away", "abroad"]
    assert complete("status", "--context=away", "--insecure-skip-tls-verify", "--node", "other,node") == [
        "other,node-a",
        "other,node-b",
    ]
    assert complete("containers", "--kubeconfig", "/k", "--as-group=g", "-n", "") == ["shop"]
    assert complete("execsnoop", "-n", "shop", "-p", "web,!deploy/c") == ["web,!deploy/cart"]
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert "--kubeconfig=/k" in asked[0]
    assert {"--context=away", "--insecure-skip-tls-verify=true"} <= set(asked[1])
    assert {"--kubeconfig=/k", "--as-group=g"} <= set(asked[2])


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
        about.VersionCommand()._run(False, ("127.0.0.1:1",), "columns")
    for text in capsys.readouterr():
        assert text.count(r"\x1b]0;owned\x07") >= 1
        assert "\x1b" not in text


@pytest.mark.parametrize("command", [[], ["opensnoop"]])
def test_help_comes_at_once(command: list[str]) -> None:
    """Help waits for neither numpy nor gRPC."""
    told = [sys.executable, "-X", "importtime", "-m", "kubectl_gadget", *command, "--help"]
    imported = {
        line.rpartition("|")[2].strip()
        for line in subprocess.run(told, capture_output=True, text=True).stderr.splitlines()
    }
    assert "gadget.kinds" in imported and not {"numpy", "grpc"} & imported
