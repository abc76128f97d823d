"""capable on this kernel: checks of capabilities that are granted and denied, with exact counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.bpf.libbpf import kernel_has
from tests.conftest import run_cli, wait_until
from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/caps.c is asked for: (capability, result, syscall): how often.
CHECKS = {
    ("CAP_SYS_CHROOT", "granted", "chroot"): 101,
    ("CAP_SYS_ADMIN", "granted", "swapoff"): 7,
    ("CAP_SYS_CHROOT", "denied", "chroot"): 13,
    ("CAP_SYS_ADMIN", "denied", "swapoff"): 5,
}
#: The same, of checks without audit.
UNAUDITED = {("CAP_SYS_ADMIN", "granted", "mremap"): 17}
NAMES = {name for _, _, name in CHECKS}
has_tracepoint = pytest.mark.skipif(not kernel_has("trace_event_raw_cap_capable"), reason="needs Linux 6.14")


def way(row: dict) -> tuple[object, ...]:
    return row["capability"], row["result"], row["syscall"]


@has_tracepoint
def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --every I see each check, with its result and the call; else the first, the 10th and the 100th."""
    every = start_json(start_cli, agent, "capable", "--comm", "caps", "--every")
    few = start_json(start_cli, agent, "capable", "--comm", "caps")
    run_in(bare("shop", "cart-0").cgroup, workload("caps"), cwd=tmp_path)
    rows = [row for row in rows_of(every) if row["syscall"] in NAMES]
    assert Counter(map(way, rows)) == CHECKS
    assert {row["level"] for row in rows} == {0}
    counts = [(*way(row), row["count"]) for row in rows_of(few) if row["syscall"] in NAMES]
    assert counts == [
        *(("CAP_SYS_CHROOT", "granted", "chroot", count) for count in (1, 10, 100)),
        ("CAP_SYS_ADMIN", "granted", "swapoff", 1),
        *(("CAP_SYS_CHROOT", "denied", "chroot", count) for count in (1, 10)),
        ("CAP_SYS_ADMIN", "denied", "swapoff", 1),
    ]


@has_tracepoint
def test_checks_without_audit(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Checks that the kernel makes without audit, as for memory that is mapped, I see with --unaudited only, all of them."""
    usual = start_json(start_cli, agent, "capable", "--comm", "caps", "--every")
    every = start_json(start_cli, agent, "capable", "--comm", "caps", "--every", "--unaudited")
    run_in(bare("shop", "cart-0").cgroup, workload("caps"), cwd=tmp_path)
    rows = rows_of(usual)
    assert not [row for row in rows if row["syscall"] in ("mmap", "mremap", "brk", "mprotect")]
    names = {*NAMES, "mremap"}
    assert Counter(way(row) for row in rows_of(every) if row["syscall"] in names) == CHECKS | UNAUDITED


@has_tracepoint
def test_only_failed(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --failed I see only checks that were denied."""
    cli = start_json(start_cli, agent, "capable", "--comm", "caps", "--every", "--failed")
    run_in(bare().cgroup, workload("caps"), cwd=tmp_path)
    rows = [row for row in rows_of(cli) if row["syscall"] in NAMES]
    assert Counter(map(way, rows)) == {key: count for key, count in CHECKS.items() if key[1] == "denied"}


#: Needs CAP_CHOWN and CAP_SYS_CHROOT, and nothing else of what containers usually have.
NEEDY = "cd /tmp; : > made; busybox chown 7 made && busybox chroot / /bin/true && echo done"
USUAL = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
]


def having(names: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """Gives a container these capabilities."""

    def change(config: dict[str, Any]) -> None:
        own = config["process"]["capabilities"]
        for each in own:
            own[each] = [f"CAP_{name}" for name in names]

    return change


@has_tracepoint
def test_advice(agent, start_cli, make_pod) -> None:
    """With the capabilities that are advised runc runs the same workload, without one of them it fails; the runtime's own are not advised."""
    cli = start_cli("advise", "capabilities", "-n", "shop", "--duration", "0", "-o", "json", "--agent", agent.address)
    wait_until(lambda: "capable: started" in agent.log.read_text(), "the watch")
    pod = make_pod("shop", "cart-0")

    def run(names: Sequence[str]) -> str:
        container = pod.container(f"app{len(pod.containers)}", "/bin/sh", "-c", NEEDY, change=having(names))
        container.wait()
        return container.log.read_text()

    assert run(USUAL) == "done\n"
    (found,) = json.loads(cli.finish()[0])
    (app,) = found["containers"]
    advised = app["capabilities"]["add"]
    assert advised == ["CHOWN", "SYS_CHROOT"]
    assert {(use["comm"], use["syscall"]) for each in app["granted"] for use in each["by"]} == {
        ("busybox", "chown"), ("busybox", "chroot"),
    }  # fmt: skip
    assert run(advised) == "done\n"
    for each in advised:
        assert "not permitted" in run([name for name in advised if name != each])


@pytest.mark.skipif(kernel_has("trace_event_raw_cap_capable"), reason="this kernel has what it needs")
def test_older_kernel() -> None:
    """On a kernel that cannot tell of capabilities I am told so in one line."""
    done = run_cli("capable", "--local")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "lacks the hook cap_capable" in done.stderr
