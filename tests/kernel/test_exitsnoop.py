"""exitsnoop on this kernel: every way a process can end, with exact counts."""

from __future__ import annotations

from collections import Counter

from tests.live import rows_of, run_workload, start_json

#: What tests/workloads/exits.c does: (name, result, code, signal, whether its parent or itself sent it): how often.
ENDS = {
    ("succeeds", "ok", 0, None, None): 101,
    ("fails", "failed", 3, None, None): 23,
    ("copies", "ok", 0, None, None): 2,
    ("threads", "ok", 0, None, None): 19,
    ("terminated", "killed", 143, "SIGTERM", "parent"): 13,
    ("killed", "killed", 137, "SIGKILL", "parent"): 11,
    ("real-time", "killed", 168, "SIGRT_8", "parent"): 5,
    ("faults", "killed", 139, "SIGSEGV", None): 7,
    ("itself", "killed", 138, "SIGUSR1", "itself"): 3,
    ("pipe", "killed", 141, "SIGPIPE", None): 17,
    ("too big", "killed", 153, "SIGXFSZ", None): 29,
    ("timer", "killed", 140, "SIGUSR2", None): 31,
    ("queued", "killed", 140, "SIGUSR2", "parent"): 37,
}


def sender(row: dict) -> str | None:
    return {0: None, row["ppid"]: "parent", row["pid"]: "itself"}[row["killer"]]


def way(row: dict) -> tuple[object, ...]:
    return row["comm"], row["result"], row["code"], row["signal"], sender(row)


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of each way to end I see exactly as many processes as ended so, with code, signal and who sent it."""
    cli = start_json(start_cli, agent, "exitsnoop")
    container = run_workload(make_pod("shop", "cart-0"), workload("exits"))
    rows = rows_of(cli)
    names = {name for name, *_ in ENDS}
    own = [row for row in rows if row["comm"] in names]
    # where the kernel has set that a pipe takes cores, it does even if they are limited to nothing
    cored = [row | {"result": row["result"].replace("core dumped", "killed")} for row in own]
    assert Counter(map(way, cored)) == ENDS
    assert {row["pcomm"] for row in own} == {"workload"}
    assert {row["killer_comm"] for row in own if sender(row) == "parent"} == {"workload"}
    assert all(row["age"] > 0 and row["rss"] > 0 for row in own)
    copies = [row for row in own if row["comm"] == "copies"]
    assert {(row["read"], row["written"]) for row in copies} == {(17_000, 17_000)}
    (dump,) = [row for row in rows if row["comm"] == "dumps"]
    assert dump["signal"] == "SIGABRT"
    assert f"cores {int(dump['result'] == 'core dumped')}\n" in container.log.read_text()


def test_only_failed(agent, start_cli, make_pod, workload) -> None:
    """With --failed I see no process that exited with 0."""
    cli = start_json(start_cli, agent, "exitsnoop", "--failed")
    run_workload(make_pod(), workload("exits"))
    rows = rows_of(cli)
    assert len([row for row in rows if row["comm"] == "fails"]) == 23
    assert "ok" not in {row["result"] for row in rows}
