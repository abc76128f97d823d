"""oomkill on this kernel: processes that their container's limit ends."""

from __future__ import annotations

from collections import Counter

from tests.live import rows_of, start_json

LIMIT = 32 << 20


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of 5 containers, 3 of which use up their memory, I see exactly those 3, with limit, use and who asked for more."""
    pod = make_pod("shop", "cart-0")
    streams = [start_json(start_cli, agent, "oomkill", "-p", name) for name in ("cart-0", "web-0")]
    for number in range(5):
        way = "oom" if number < 3 else "exit3"
        container = pod.container(
            f"app-{number}", "/workload", way, files={"/workload": workload("ends")}, memory=LIMIT
        )
        container.wait()
    rows, others = map(rows_of, streams)
    assert not others
    assert Counter(
        (row["pod"], row["container"], row["comm"], row["scope"], row["limit"], row["trigger"]["container"])
        for row in rows
    ) == {("cart-0", f"app-{number}", "workload", "cgroup", LIMIT, f"app-{number}"): 1 for number in range(3)}
    assert all(row["pid"] == row["fpid"] and row["comm"] == row["fcomm"] for row in rows)
    assert all(LIMIT // 2 < row["rss"] < 2 * LIMIT and LIMIT // 2 < row["used"] <= LIMIT for row in rows)


def test_end_is_told_alike(agent, start_cli, make_pod, workload) -> None:
    """The end of the same process is told as one for want of memory, too."""
    pod = make_pod("shop", "cart-0")
    cli = start_json(start_cli, agent, "exitsnoop", "--failed")
    pod.container("app", "/workload", "oom", files={"/workload": workload("ends")}, memory=LIMIT).wait()
    ends = [row for row in rows_of(cli) if row["comm"] == "workload"]
    assert [(row["result"], row["signal"], row["killer"]) for row in ends] == [("oom killed", "SIGKILL", 0)]


def test_shared_memory(agent, start_cli, make_pod, workload) -> None:
    """Of processes that share their memory I see the one that was chosen, not those that are killed with it."""
    pod = make_pod("shop", "cart-0")
    cli = start_json(start_cli, agent, "oomkill", "-p", "cart-0")
    for number in range(3):
        container = pod.container(
            f"app-{number}", "/workload", "oom shared", files={"/workload": workload("ends")}, memory=LIMIT
        )
        container.wait()
    rows = rows_of(cli)
    assert [row["container"] for row in rows] == [f"app-{number}" for number in range(3)]
    assert all(row["comm"] == "workload" and row["scope"] == "cgroup" for row in rows)
