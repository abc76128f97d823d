"""-l: labels come from the API server, and names do not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, api_server, pod, write_kubeconfig
from tests.conftest import Agent, events, run_cli, wait_until

RULE = """\
- rule: Program of others
  desc: A test.
  condition: evt.type = execve and evt.rawres = 0 and proc.name = true and not k8s.pod.label[app] = cart
  output: A program of others is started | pod=%k8s.pod.name
  priority: WARNING
"""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.pods = []
        yield running


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(server, tmp_path)))


@pytest.fixture
def agent(kubeconfig: None, server: ApiServer, start_agent) -> Agent:
    started = start_agent("--kubernetes")
    wait_until(lambda: any("watch" in query for query in server.queries), "the agent's watch")
    return started


def start(start_cli, agent: Agent, *args: str):
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--filter", "args~^/bin/true", *args)
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream")
    return cli


def added(uid: str, version: int, **labels: str) -> dict:
    item = pod("any", version, **labels)
    item["metadata"]["uid"] = uid
    return {"type": "ADDED", "object": item}


def test_selected_by_label(server: ApiServer, agent: Agent, start_cli, make_pod) -> None:
    """-l chooses pods by their labels, also pods that start while I watch and whose labels come after their first exec."""
    cli = start(start_cli, agent, "-l", "app=cart,tier!=db")
    began = time.monotonic()
    pods = {name: make_pod("shop", name) for name in ("cart-0", "cart-1", "web-0")}
    for name, each in pods.items():
        each.container("app", "/bin/true", name)
    events_now = [
        added(pods["cart-0"].uid, 101, app="cart"),
        added(pods["cart-1"].uid, 102, app="cart", tier="db"),
        added(pods["web-0"].uid, 103, app="web"),
    ]
    server.events["100"] = events_now
    server.finish.set()  # ends the idle watch; the next one brings the labels
    out = cli.process.stdout.readline()
    in_time = time.monotonic() - began < 2
    rest, err = cli.finish()
    assert [event["pod"] for event in events(out + rest)] == ["cart-0"]
    assert not (in_time and "labels were not known" in err)


def test_unknown_labels_are_not_left_out(agent: Agent, start_cli, make_pod) -> None:
    """A pod whose labels do not come within 2 s is shown all the same, and I am told how many events that were."""
    cli = start(start_cli, agent, "-l", "app=cart")
    make_pod("shop", "mystery-0").container("app", "/bin/true", "x")
    shown = events(cli.process.stdout.readline())
    assert [event["pod"] for event in shown] == ["mystery-0"]
    _, err = cli.finish()
    assert "of pods whose labels were not known within 2 s were shown all the same" in err


def test_rules_on_labels(kubeconfig: None, server: ApiServer, start_agent, make_pod, tmp_path: Path) -> None:
    """A rule on labels waits for those of a pod that has just begun, so it raises no false alarm; if they do not come within
    2 s, the alert says that they are not known.
    """
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/rules.yaml").write_text(RULE)
    agent = start_agent("--kubernetes", "--detect", str(tmp_path / "rules"))
    wait_until(lambda: any("watch" in query for query in server.queries), "the agent's watch")
    wait_until(lambda: "1 rule; " in run_cli("status", "--agent", agent.address).stdout, "the rules")
    pods = {name: make_pod("shop", name) for name in ("cart-0", "web-0", "late-0")}
    for each in pods.values():
        each.container("app", "/bin/true")
    known = ("cart-0", "web-0")
    server.events["100"] = [added(pods[name].uid, 101 + at, app=name[:-2]) for at, name in enumerate(known)]
    server.finish.set()

    def alerts() -> dict[str, list[str]]:
        done = run_cli("alerts", "--agent", agent.address, "-o", "json")
        return {each["output_fields"]["k8s.pod.name"]: each["incomplete"] for each in events(done.stdout)}

    wait_until(lambda: len(alerts()) > 1, "alerts")
    assert alerts() == {"web-0": [], "late-0": ["k8s.pod.label"]}


def test_api_server_away(server: ApiServer, agent: Agent, start_cli, make_pod) -> None:
    """With the API server away everything but the labels of new pods goes on working."""
    server.down = True
    server.finish.set()
    cli = start(start_cli, agent, "-n", "shop")
    make_pod("shop", "cart-0").container("app", "/bin/true", "x")
    out = cli.process.stdout.readline()
    assert [(event["pod"], event["container"]) for event in events(out)] == [("cart-0", "app")]
    wait_until(lambda: "trying again" in agent.log.read_text(), "a log line about the API server")


def test_no_api_server(start_agent) -> None:
    """An agent without an API server refuses -l in one line, rather than showing nothing."""
    done = run_cli("execsnoop", "-l", "app=cart", "--agent", start_agent().address)
    assert done.stderr.startswith("error: -l needs labels, which come from the Kubernetes API server")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_details_of_containers(server: ApiServer, agent: Agent, make_pod) -> None:
    """`containers -o json` adds owner and restart count once the API server has told them."""
    each = make_pod("shop", "cart-0")
    each.container("app", "/bin/sleep", "60")
    server.events["100"] = [added(each.uid, 101, app="cart")]
    server.finish.set()

    def row() -> dict:
        (found,) = events(
            run_cli("containers", "--agent", agent.address, "-n", "shop", "-l", "app=cart", "-o", "json").stdout
        )
        return found

    wait_until(lambda: row()["owner"] == "ReplicaSet/cart-6c9f", "the owner")
    assert row()["restarts"] == 3


def test_recordings_by_label(kubeconfig: None, server: ApiServer, start_agent, make_pod, tmp_path: Path) -> None:
    """`traceloop list -l` shows the recordings of my pods, gone or not, and those of whose labels nobody knows."""
    bpffs = tmp_path / "bpf"
    bpffs.mkdir()
    agent = start_agent("--kubernetes", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"))
    try:
        pods = {name: make_pod("shop", name) for name in ("cart-0", "cart-1", "web-0", "late-0")}
        for each in pods.values():
            each.container("app", "/bin/sleep", "60")
        known = [(pods[name].uid, name.partition("-")[0]) for name in ("cart-0", "cart-1", "web-0")]
        server.events["100"] = [added(uid, 101 + at, app=app) for at, (uid, app) in enumerate(known)]
        server.finish.set()

        def listed() -> tuple[set[str], str]:
            done = run_cli("traceloop", "list", "--agent", agent.address, "-n", "shop", "-l", "app=cart", "-o", "json")
            return {row["pod"] for row in events(done.stdout)}, done.stderr

        unknown = "1 of pods whose labels are not known are listed all the same.\n"
        wait_until(lambda: listed() == ({"cart-0", "cart-1", "late-0"}, unknown), "labels")
        pods["cart-1"].__exit__(None, None, None)
        agent.stop()
        server.pods = [added(uid, 101, app=app)["object"] for uid, app in known if uid != pods["cart-1"].uid]
        agent = start_agent("--kubernetes", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"))
        wait_until(lambda: listed() == ({"cart-0", "cart-1", "late-0"}, unknown), "labels, of gone pods too")
    finally:
        agent.stop()
        subprocess.run(["umount", bpffs], check=True)


def test_not_recorded(kubeconfig: None, server: ApiServer, start_agent, make_pod, tmp_path: Path) -> None:
    """A pod whose annotation says so is not recorded by traceloop, nor are its containers that start later."""
    bpffs = tmp_path / "bpf"
    bpffs.mkdir()
    agent = start_agent(
        "--kubernetes", "--traceloop", "shop", "--bpffs", str(bpffs), "--state", str(tmp_path / "state")
    )
    try:
        wait_until(lambda: any("watch" in query for query in server.queries), "the agent's watch")
        pods = {name: make_pod("shop", name) for name in ("quiet-0", "cart-0")}
        for each in pods.values():
            each.container("app", "/bin/sleep", "60")
        recorded = lambda: {  # noqa: E731
            (row["pod"], row["container"])
            for row in events(run_cli("traceloop", "list", "--agent", agent.address, "-o", "json").stdout)
        }
        wait_until(lambda: len(recorded()) == 2, "both recordings")
        item = added(pods["quiet-0"].uid, 101)
        item["object"]["metadata"]["annotations"] = {"kubectl-gadget/traceloop": "off"}
        server.events["100"] = [item]
        server.finish.set()
        wait_until(lambda: recorded() == {("cart-0", "app")}, "the end of the one recording")
        pods["quiet-0"].container("late", "/bin/true")
        pods["cart-0"].container("late", "/bin/true")
        wait_until(lambda: recorded() == {("cart-0", "app"), ("cart-0", "late")}, "the other's next")
    finally:
        agent.stop()
        subprocess.run(["umount", bpffs], check=True)
