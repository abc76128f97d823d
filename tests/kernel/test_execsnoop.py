"""execsnoop on this kernel, with real containers and known workloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agent.bpf.libbpf import kernel_has
from tests.conftest import Agent, Cli, events, wait_until
from tests.pods import Pod, run_in


def run_workload(pod: Pod, binary: Path, *args: int | str) -> None:
    container = pod.container("app", "/workload", *map(str, args), files={"/workload": binary})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end", 60)
    assert container.log.read_text() == "done 0\n" if args[2] == 0 else True


def run_literals(pod: Pod, workload: Callable[[str], Path], count: int) -> None:
    container = pod.container("app", "/workload", str(count), files={"/workload": workload("literals")})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end", 60)


def traced(cli: Cli) -> list[dict]:
    out, err = cli.finish()
    assert "nothing lost" in err, err
    return [event for event in events(out) if event["args"][:1] == ["started"]]


def start_json(start_cli: Callable[..., Cli], agent: Agent, *args: str) -> Cli:
    # with room for all: an agent that gets no processor for a second, as on a busy machine, loses nothing then
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--buffer", "16M", *args)
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


def test_arguments(agent, start_cli, make_pod, workload) -> None:
    """I see all arguments up to 4 KiB, am told when there were more, and see the path and directory of each program."""
    cli = start_json(start_cli, agent, "--cwd")
    container = make_pod().container("app", "/workload", files={"/workload": workload("argv")})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
    out, _ = cli.finish()
    seen = {event["args"][0]: event for event in events(out) if event["args"]}
    assert seen["many"]["args"] == ["many", *(f"a{i}" for i in range(1, 301))]
    assert (len(seen["long"]["args"][1]), seen["long"]["args_truncated"]) == (4096 - len("long\0"), True)
    assert (seen["bare"]["args"], seen["bare"]["args_truncated"]) == (["bare"], False)
    assert (seen["bare"]["exe"], seen["bare"]["cwd"]) == ("/workload", "/")
    assert (seen["gone"]["exe"], seen["gone"]["cwd"], seen["gone"]["error"]) == ("../tmp/not-there", "/etc", "ENOENT")
    assert (seen["gone"]["args_truncated"], seen["gone"]["comm"]) == (True, "workload")
    assert (seen["odd"]["args"], seen["odd"]["error_raw"]) == (["odd", "a\nb", "\x1b[31mred", "\\xff\\xfe"], 13)


def test_kernel_filters(agent, start_cli, make_pod, workload) -> None:
    """--comm, --uid and --pid choose processes in the kernel: nothing else reaches me."""
    by_comm = start_json(start_cli, agent, "--comm", "workload")
    by_uid = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--uid", "4242")
    by_pid = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--pid", "4194304")
    wait_until(lambda: agent.log.read_text().count("execsnoop: started") == 3, "three streams")
    run_workload(make_pod(), workload("execs"), 1, 17, 2)
    out = by_comm.finish()[0]
    assert {event["comm"] for event in events(out)} == {"workload"}
    assert len([event for event in events(out) if event["args"][0] == "started"]) == 17
    assert by_uid.finish()[0] == by_pid.finish()[0] == ""


def test_parents_names(agent, start_cli, make_pod, tmp_path) -> None:
    """A parent's name has nothing of a longer one that an event before it showed."""
    cli = start_json(start_cli, agent)
    names = ("a-long-name", "short")
    script = tmp_path / "script"
    script.write_text("#!/bin/busybox sh\n/bin/busybox true\n/bin/busybox true\n")
    script.chmod(0o755)
    files = {f"/{name}": script for name in names}
    on_one_cpu = "for name in a-long-name short; do busybox taskset 1 /$name; done; echo done"
    container = make_pod().container("app", "/bin/busybox", "sh", "-c", on_one_cpu, files=files)
    wait_until(lambda: "done" in container.log.read_text(), "the end")
    out, _ = cli.finish()
    seen = [event["pcomm"] for event in events(out) if event["args"] == ["/bin/busybox", "true"]]
    assert seen == [name for name in names for _ in range(2)]


def test_arguments_that_nobody_has_touched(agent, start_cli, make_pod, workload) -> None:
    """Of 200 failed execs whose arguments the kernel would have to fetch from a file, I see all arguments of each.

    Nothing watches the processes here, as to read an argument is to fetch it. The kernel may say that it cannot do that,
    and then each row says that arguments are missing.
    """
    cli = start_json(start_cli, agent)
    run_literals(make_pod(), workload, 200)
    seen = [event for event in events(cli.finish()[0]) if event["exe"] == "/not/there"]
    whole = ["untouched", "second argument", "crosses pages"]
    found = Counter((tuple(event["args"]), event["args_truncated"], event["error"]) for event in seen)
    waits = kernel_has("bpf_task_work")
    assert found[tuple(whole), False, "ENOENT"] + (0 if waits else found[(), True, "ENOENT"]) == 200


def test_arguments_that_are_nowhere(agent, start_cli, make_pod, workload) -> None:
    """A failed exec with an argument in no memory has those before it, and the mark that there are more."""
    cli = start_json(start_cli, agent)
    run_literals(make_pod(), workload, 1)
    seen = {event["args"][0]: event for event in events(cli.finish()[0]) if event["args"]}
    assert (seen["nowhere"]["args"], seen["nowhere"]["args_truncated"]) == (["nowhere"], True)
    assert (len(seen["5000 bytes"]["args"][1]), seen["5000 bytes"]["args_truncated"]) == (
        4095 - len("5000 bytes\0"),
        True,
    )


def test_exec_that_fails_between_programs(agent, start_cli, make_pod, workload) -> None:
    """An exec that fails when the old program is gone, so that the kernel kills the process, has the new one's name."""
    cli = start_json(start_cli, agent)
    run_literals(make_pod(), workload, 1)
    (seen,) = [event for event in events(cli.finish()[0]) if event["exe"] == "/tmp/broken"]
    assert (seen["args"], seen["args_truncated"], seen["error"], seen["comm"]) == (
        ["half-way"], True, "EINVAL", "broken",
    )  # fmt: skip


def test_execs_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """An exec that seccomp kept from happening by SIGSYS is shown as one that failed."""
    cli = start_json(start_cli, agent, "--comm", "trapped")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    failed = [row for row in events(cli.finish()[0]) if row["error"]]
    assert Counter((row["exe"], tuple(row["args"]), row["error"]) for row in failed) == {
        ("/trapped", ("trapped",), "EPERM"): 37
    }
