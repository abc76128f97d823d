"""traceloop on this kernel: who sent signals, how children ended, and what the runtime did before the program."""

from __future__ import annotations

import os
import re
import signal

from tests.conftest import events, wait_until
from tests.kernel.recordings import calls, ended, states, traceloop


def test_without_the_runtime(record, make_pod) -> None:
    """Of a container that ends at once I see its program from its first moment, and how many lines are the runtime's."""
    agent, pod = record("--traceloop", "quick"), make_pod("quick", "quick-0")
    container = pod.container("app", "/bin/sh", "-c", "kill -0 1; exit 3")
    ended(container)
    wait_until(lambda: states(agent)["app"]["state"] == "exited 3", "its end")
    shown, every = (traceloop(agent, "show", "quick-0", *more) for more in ((), ("--all",)))
    assert calls(shown)[0].startswith('execve("/bin/sh", ["/bin/sh", "-c", "kill -0 1; exit 3"]')
    assert "runc" in every and "runc" not in shown
    left_out = len(calls(every)) - len(calls(shown))
    said = re.search(r"^# ([\d,]+) lines of the container's runtime are left out", shown, re.MULTILINE)
    assert said and int(said[1].replace(",", "")) == left_out > 20
    head = events(traceloop(agent, "show", "quick-0", "-o", "json"))[0]
    assert head["left_out"] == left_out
    item = states(agent)["app"]
    assert (item["exit_status"], item["state"]) == (3, "exited 3")
    assert re.search(r"exited 3 .*\d+s ago ", traceloop(agent, "list"), re.MULTILINE)


def test_who_sent_it(record, make_pod) -> None:
    """A signal's line says who sent it, also of SIGKILL, and that it came from outside; of a child's end, which and how."""
    agent, pod = record("--traceloop", "sent"), make_pod("sent", "sent-0")
    script = "trap 'echo term' TERM; sh -c 'kill -USR1 $$'; sh -c 'exit 7'; echo ready; while :; do sleep 0.1; done"
    container = pod.container("app", "/bin/sh", "-c", script)
    wait_until(lambda: '"ready' in traceloop(agent, "show", "sent-0"), "its loop")
    pid = container.pid
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: '"term' in traceloop(agent, "show", "sent-0"), "the trap")
    os.kill(pid, signal.SIGKILL)
    ended(container)
    shown = calls(traceloop(agent, "show", "sent-0"))
    found = [line for line in shown if line.startswith("---")]
    me = rf"from \S+ {os.getpid()}, outside the container"
    assert any(
        re.fullmatch(rf"--- SIGTERM {{si_signo=SIGTERM, si_code=SI_USER, si_pid=0, si_uid=0}} {me} ---", line)
        for line in found
    )
    assert any(re.fullmatch(rf"--- SIGKILL: {me} ---", line) for line in found)
    children = [line for line in found if "SIGCHLD" in line]
    assert any("si_code=CLD_KILLED" in line and "si_status=SIGUSR1" in line for line in children)
    assert any("si_code=CLD_EXITED" in line and "si_status=7" in line for line in children)
    rows = [row for row in events(traceloop(agent, "show", "sent-0", "-o", "json")) if row["event"] == "signal"]
    (killed,) = [row for row in rows if row["signal"] == "SIGKILL" and row["pid"] == pid]
    assert (killed["sender"]["pid"], killed["sender"]["inside"], killed["outside"]) == (os.getpid(), False, True)


def test_threads_of_a_program_that_exits(record, make_pod, workload) -> None:
    """No line says that a thread was killed when its program called exit."""
    agent = record("--traceloop", "threads")
    ended(
        make_pod("threads", "threads-0").container(
            "app", "/workload", "threads", "10", files={"/workload": workload("ends")}
        )
    )
    shown = traceloop(agent, "show", "threads-0")
    assert "+++ exited with 0 +++" in shown and "SIGKILL" not in shown
