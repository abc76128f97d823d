"""execsnoop on this kernel, with real containers and known workloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Agent, Cli, events, wait_until
from tests.pods import Pod


def run_workload(pod: Pod, binary: Path, *args: int | str) -> None:
    container = pod.container("app", "/workload", *map(str, args), files={"/workload": binary})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end", 60)
    assert container.log.read_text() == "done 0\n" if args[2] == 0 else True


def traced(cli: Cli) -> list[dict]:
    out, err = cli.finish()
    assert "nothing lost" in err, err
    return [event for event in events(out) if event["args"][:1] == ["started"]]


def start_json(start_cli: Callable[..., Cli], agent: Agent, *args: str) -> Cli:
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", *args)
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream's start")
    return cli


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of 1,009 execs in a container, 7 of which fail, I see exactly 1,002 that ran and 7 that did not."""
    cli = start_json(start_cli, agent)
    run_workload(make_pod("shop", "cart-0"), workload("execs"), 1, 1009, 7)
    seen = traced(cli)
    assert Counter(event["error"] for event in seen) == {None: 1002, "ENOENT": 7}
    assert {(e["node"], e["namespace"], e["pod"], e["container"]) for e in seen} == {
        ("node-a", "shop", "cart-0", "app")
    }
    assert Counter(len(event["args"][1]) for event in seen) == Counter(n * 37 % 3000 for n in range(1009))
    assert {e["exe"] for e in seen if e["error"]} == {"/does/not/exist"}
    assert {e["exe"] for e in seen if not e["error"]} == {"/workload"}
    assert not any(event["args_truncated"] for event in seen)


def test_exact_count_of_eight_at_once(agent, start_cli, make_pod, workload) -> None:
    """Of 8 processes that start 127 programs each at once, I see every one, and as whose child."""
    cli = start_json(start_cli, agent)
    run_workload(make_pod(), workload("execs"), 8, 127, 3)
    seen = traced(cli)
    assert Counter(event["error"] for event in seen) == {None: 8 * 124, "ENOENT": 8 * 3}
    assert set(Counter(event["ppid"] for event in seen).values()) == {127}


def test_no_failed(agent, start_cli, make_pod, workload) -> None:
    """With --no-failed I see only the programs that ran."""
    cli = start_json(start_cli, agent, "--no-failed")
    run_workload(make_pod(), workload("execs"), 1, 31, 7)
    assert Counter(event["error"] for event in traced(cli)) == {None: 24}


def test_exec_from_a_thread(agent, start_cli, make_pod, workload) -> None:
    """An exec that a second thread calls has its process's pid, that thread's tid, and its own arguments."""
    cli = start_json(start_cli, agent)
    run_workload(make_pod(), workload("execs"), 1, 13, 5, "thread")
    seen = traced(cli)
    assert Counter(event["error"] for event in seen) == {None: 8, "ENOENT": 5}
    assert all(event["tid"] > event["pid"] for event in seen)
    assert len({event["pid"] for event in seen}) == 13
