"""`advise network-policy` from a file, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gadget.errors import GadgetError
from kubectl_gadget.cli import cli
from tests.conftest import run_cli
from tests.unit.advise.test_collect import flow, recorder

__all__ = ["recorder"]

GOLDEN = Path(__file__).parent / "golden"
FLOWS = str(GOLDEN / "service-80-to-8080/flows.jsonl")
NARROW = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress:
  - ports: [{port: 80}]
"""


def advise(*arguments: str) -> tuple[str, str, int]:
    done = run_cli("advise", "network-policy", *arguments)
    return done.stdout, done.stderr, done.returncode


def test_report() -> None:
    """`report` prints from a file what the cluster would have been told; -n and -l choose workloads."""
    out, err, code = advise("report", "--input", FLOWS, "-A")
    assert (out, code) == ((GOLDEN / "service-80-to-8080/policies.yaml").read_text(), 0), err
    names = lambda text: [each["metadata"]["name"] for each in yaml.safe_load_all(text) if each]  # noqa: E731
    assert names(out) == ["cart", "web"]
    assert names(advise("report", "--input", FLOWS, "-n", "shop", "-l", "app=web")[0]) == ["web"]
    assert names(advise("report", "--input", FLOWS, "-n", "!shop")[0]) == []
    assert [
        each["kind"] for each in json.loads(advise("report", "--input", FLOWS, "-A", "-o", "json")[0])["items"]
    ] == ["NetworkPolicy"] * 2
    cilium = advise("report", "--input", FLOWS, "-A", "--format", "cilium")[0]
    assert {each["kind"] for each in yaml.safe_load_all(cilium)} == {"CiliumNetworkPolicy"}


def test_output_dir(tmp_path: Path) -> None:
    """--output-dir writes one file per policy and names them."""
    out, _, code = advise("report", "--input", FLOWS, "-A", "--output-dir", str(tmp_path / "new"))
    assert code == 0
    assert out.split() == [
        str(tmp_path / "new" / name) for name in ("shop.cart.yaml", "shop.web.yaml", "kustomization.yaml")
    ]
    assert [yaml.safe_load(Path(path).read_text())["metadata"]["name"] for path in out.split()[:2]] == ["cart", "web"]


def test_output_dir_json(tmp_path: Path) -> None:
    """--output-dir with -o json writes JSON."""
    out = advise("report", "--input", FLOWS, "-A", "-o", "json", "--output-dir", str(tmp_path))[0]
    assert [json.loads(Path(path).read_text())["metadata"]["name"] for path in out.split()[:2]] == ["cart", "web"]


def test_check(tmp_path: Path) -> None:
    """`check` says what policies would deny of what was seen, and by its exit code; the advice itself denies nothing."""
    narrow, advice = tmp_path / "narrow.yaml", tmp_path / "advice.yaml"
    narrow.write_text(NARROW)
    out, _, code = advise("check", "--input", FLOWS, "-n", "shop", "--policy", str(narrow))
    assert code == 1
    first, second, last = out.splitlines()
    assert first.startswith("DENIED  web → cart 8080/TCP   12 connections, last ")
    assert first.endswith("no ingress rule of cart allows port 8080/TCP")
    assert second.startswith("unused  shop/cart ingress rule 1")
    assert last == "0 of 12 connections allowed, 12 denied, 1 rule unused."
    advice.write_text(advise("report", "--input", FLOWS, "-A")[0])
    out, _, code = advise("check", "--input", FLOWS, "-A", "--policy", str(advice))
    assert (out, code) == ("12 of 12 connections allowed, 0 denied, 0 rules unused.\n", 0)


def test_diff(tmp_path: Path) -> None:
    """`diff` shows what the advice would change of the policies that there are, and as diff does by exit code 1."""
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(NARROW)
    out, _, code = advise("diff", "--input", FLOWS, "-A", "--policy", str(narrow))
    assert code == 1
    assert "changed  shop/cart" in out and "created  shop/web" in out
    assert "\n-" in out and "\n+" in out


def test_diff_of_nothing(tmp_path: Path) -> None:
    """A `diff` that changes nothing says so: where there is nothing at all, and where all is as advised."""
    narrow, advice = tmp_path / "narrow.yaml", tmp_path / "advice.yaml"
    narrow.write_text(NARROW)
    nothing = advise("diff", "--input", FLOWS, "-n", "!shop", "--policy", str(narrow))
    assert nothing == ("nothing to change: there are no policies there, and none is advised\n", "", 0)
    advice.write_text(advise("report", "--input", FLOWS, "-A")[0])
    same = advise("diff", "--input", FLOWS, "-A", "--policy", str(advice))
    assert same == ("unchanged  shop/cart\nunchanged  shop/web\n", "", 0)


@pytest.mark.parametrize(
    "command", [[], ["graph"], ["check", "--policy", "{narrow}"], ["diff", "--policy", "{narrow}"]]
)
def test_this_machine(command: list[str], recorder, tmp_path: Path, agent_socket: Path) -> None:
    """With --local I am advised by the agent that runs on this machine; if none does I am told so, and how to start one."""
    narrow, here = tmp_path / "narrow.yaml", agent_socket
    narrow.write_text(NARROW)
    words = ["advise", "network-policy", *(word.format(narrow=narrow) for word in command), "-A", "--local"]
    alone = CliRunner().invoke(cli, words)
    why = f"no agent runs on this machine, so no traffic is recorded: start one, as root: gadget-agent --listen unix://{here}"
    assert str(alone.exception) == why
    agent = recorder("node-a")
    agent.flows = (flow(),)
    here.symlink_to(agent.address.removeprefix("unix://"))
    asked = CliRunner().invoke(cli, words)
    assert not isinstance(asked.exception, GadgetError), asked.exception
    assert "cart" in asked.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "--input", FLOWS, "-A"], "error: say which policies to check: --policy FILE|DIR, or --cluster\n"),
        (["report", "--input", "/nowhere", "-A"], "error: /nowhere: No such file or directory\n"),
        (["report", "--input", __file__, "-A"], "error: {file}, line 1: not a flows file"),
        (["report", "-A"], "error: Missing option '--input'"),
        (["report", "--input", FLOWS, "-A", "-n", "x"], "error: -n and -A: choose one\n"),
        (
            [
                "diff",
                "--input",
                FLOWS,
                "-A",
                "--policy",
                FLOWS.replace("flows.jsonl", "policies.yaml"),
                "--duration",
                "5s",
            ],
            "error: --duration watches from now on, and --input is of another time: choose one\n",
        ),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """A mistake is told in one line, with exit code 2."""
    _, err, code = advise(*arguments)
    assert err.lower().startswith(said.format(file=__file__).lower())
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "command", [["report"], ["check", "--policy", "{narrow}"], ["diff", "--policy", "{narrow}"], ["graph"]]
)
@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["-n", "shpo"], "-n shpo: no such namespace: there are shop"),
        (["-n", "shop,shpo"], "-n shpo: no such namespace: there are shop"),
        (["-n", "shop", "-l", "app=crat"], "-l app=crat: no pod in shop has such labels"),
        (["-A", "-l", "app=crat"], "-l app=crat: no pod has such labels"),
    ],
)
def test_misspelt_choice(command: list[str], chosen: list[str], said: str, tmp_path: Path) -> None:
    """A namespace or label that I misspell is an error, so that no job in CI is green for having looked at nothing."""
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(NARROW)
    words = [word.format(narrow=narrow) for word in command]
    assert advise(*words, "--input", FLOWS, *chosen) == ("", f"error: {said}\n", 2)


@pytest.mark.parametrize("command", ["check", "diff"])
def test_no_policy_there(command: str, tmp_path: Path) -> None:
    """A --policy that is not there is a mistake of the command line, with exit code 2."""
    missing = str(tmp_path / "missing")
    done = advise(command, "--input", FLOWS, "-A", "--policy", missing)
    assert done == ("", f"error: {missing}: No such file or directory\n", 2)


def test_errors_of_diff_are_no_differences(tmp_path: Path) -> None:
    """`diff` that can't be made has an exit code above 1, as kubectl diff has."""
    agent = f"unix://{tmp_path}/none.sock"
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(NARROW)
    assert advise("diff", "--agent", agent, "-A", "--policy", str(narrow))[2] == 2
    assert advise("check", "--agent", agent, "-A", "--policy", str(narrow))[2] == 1


@pytest.mark.parametrize("piped", [True, False])
def test_input_from_a_pipe(piped: bool) -> None:
    """--input - reads the recording from a pipe or a file on standard input; what is wrong there is told so."""
    for path, start in ((FLOWS, "apiVersion: "), (__file__, "error: standard input, line 1: not a flows file")):
        words = ("advise", "network-policy", "report", "--input", "-", "-A")
        with open(path) as file:
            done = run_cli(*words, **({"input": file.read()} if piped else {"stdin": file}))
        assert (done.stdout + done.stderr).startswith(start)


def test_graph(tmp_path: Path) -> None:
    """`graph` draws who talks to whom, in each of its forms."""
    for form, begin in (("mermaid", "graph"), ("dot", "digraph"), ("html", "<!doctype html>")):
        out, err, code = advise("graph", "--input", FLOWS, "-A", "-o", form)
        assert code == 0, err
        assert "cart" in out and begin in out.lower()[:200]


ACROSS = str(GOLDEN / "cross-namespace/flows.jsonl")
CLOSED_ELSEWHERE = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: identity}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 1}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}
"""


def test_check_knows_all_policies(tmp_path: Path) -> None:
    """`check -n` tells what another namespace's policy denies to mine, and is silent about that one's unused rules."""
    closed = tmp_path / "closed.yaml"
    closed.write_text(CLOSED_ELSEWHERE)
    out, err, code = advise("check", "--input", ACROSS, "-n", "shop", "--policy", str(closed))
    assert code == 1, out + err
    denied, last = out.splitlines()
    assert denied.startswith("DENIED  shop/web → identity/auth 8080/TCP   1 connection, last ")
    assert denied.endswith("no ingress rule of closed allows port 8080/TCP")
    assert last == "1 of 2 connections allowed, 1 denied, 0 rules unused."


def test_only_what_was_looked_at_is_superfluous(tmp_path: Path) -> None:
    """With -l no rule and no policy of other workloads is told as unused or as not advised."""
    advice = tmp_path / "advice.yaml"
    advice.write_text(advise("report", "--input", ACROSS, "-A")[0])
    where = ["--input", ACROSS, "-n", "shop", "-l", "app=web", "--policy", str(advice)]
    out, _, code = advise("check", *where)
    assert (out, code) == ("2 of 2 connections allowed, 0 denied, 0 rules unused.\n", 0)
    assert advise("diff", *where)[0] == "unchanged  shop/web\n"
    assert advise("diff", *where[:4], "--policy", str(advice))[0] == "unchanged  shop/cart\nunchanged  shop/web\n"


def test_since_counts_from_the_end_of_the_recording(tmp_path: Path) -> None:
    """--since of an old file is the last part of it, as the first line says."""
    all_of_it = advise("report", "--input", FLOWS, "-A")[0]
    assert advise("report", "--input", FLOWS, "-A", "--since", "1h")[0] == all_of_it
    out, err, _ = advise("report", "--input", FLOWS, "-A", "--since", "58m")
    assert out == all_of_it and "\nfrom 58m00s of traffic" in err
    done = advise("report", "--input", FLOWS, "-A", "--since", "57m")
    assert done == ("", "from 57m00s of traffic on 2 nodes: 0 connections between 0 workloads\n", 0)
    advice = tmp_path / "advice.yaml"
    advice.write_text(all_of_it)
    out, _, code = advise("check", "--input", FLOWS, "-A", "--policy", str(advice), "--since", "30m")
    assert (out.count("no flow in 30m00s"), out.count("unused  "), code) == (2, 2, 0)


def test_check_everything(tmp_path: Path) -> None:
    """`check --all` shows allowed flows with their rules, `-o json` all of it for programs, with the same exit code."""
    advice, narrow = tmp_path / "advice.yaml", tmp_path / "narrow.yaml"
    advice.write_text(advise("report", "--input", FLOWS, "-A")[0])
    out, _, code = advise("check", "--input", FLOWS, "-A", "--policy", str(advice), "--all")
    assert (out.splitlines()[0].split("   ")[0], code) == ("allowed shop/web → shop/cart 8080/TCP", 0)
    narrow.write_text(NARROW)
    out, _, code = advise("check", "--input", FLOWS, "-A", "--policy", str(narrow), "-o", "json")
    assert ([each["verdict"] for each in json.loads(out)["flows"]], code) == (["denied"], 1)
