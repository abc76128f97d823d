"""story on this kernel: what a container does, as lines."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubectl_gadget.story.kinds import choose
from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.loaded import bpf_programs, programs_of
from tests.pods import Container, Pod

#: A shell that waits to be told, and then has trouble of several kinds.
SCRIPT = """
read word < /tmp/go
/bin/cat /etc/missing
/bin/nothing
/bin/busybox nc 127.0.0.1 9
/bin/sh -c 'kill -9 $$'
exit 3
"""
STORY = r"""
exec     cat[N] /bin/cat /etc/missing
open     cat[N] /etc/missing: ENOENT
exit     cat[N] after T: failed with 1
exec     sh[N] /bin/nothing: ENOENT
exit     sh[N] after T: failed with 127
exec     busybox[N] /bin/busybox nc 127.0.0.1 9
connect  busybox[N] 127.0.0.1:9 in T: refused (ECONNREFUSED)
exit     busybox[N] after T: failed with 1
exec     sh[N] /bin/sh -c "kill -9 $$"
signal   sh[N] SIGKILL to sh[N]
exit     sh[N] after T: killed by SIGKILL of sh[N] with 137
exit     sh[N] after T: failed with 3
"""


@contextmanager
def waiting(pod: Pod, name: str = "app") -> Iterator[Callable[[], None]]:
    """A container that does what SCRIPT says once the function is called that this gives."""
    container = pod.prepare(name, "/bin/sh", "-c", SCRIPT)
    gate = container.bundle / "rootfs/tmp/go"
    os.mkfifo(gate)
    container.start()
    yield lambda: _open(gate, container)


def _open(gate: Path, container: Container) -> None:
    gate.write_text("go\n")  # waits for the container
    container.wait(60)


def start_story(start_cli: Callable[..., Cli], agent: Agent, *args: str, kinds: str = "") -> Cli:
    """A story of which every kind has begun."""
    cli = start_cli("story", "--agent", agent.address, *args, *(["--kinds", kinds] if kinds else []))
    gadgets = [each.gadget.name for each in choose(kinds)]
    wait_until(lambda: all(f"{name}: started" in agent.log.read_text() for name in gadgets), "the runs", 60)
    return cli


def plain(line: str) -> str:
    """A line without its time and the numbers that differ each time."""
    found = re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  (.*)", line)
    assert found, line
    return re.sub(r" (after|in) [\d.]+[mµn]?s", r" \1 T", re.sub(r"\[\d+\]", "[N]", found[1]))


def test_story(agent, start_cli, make_pod) -> None:
    """I read what a container did from its first trouble to its end, each event with its time and nothing else."""
    with waiting(make_pod("shop", "story-0")) as go:
        cli = start_story(start_cli, agent, "-p", "story-0")
        go()
        out, err = cli.finish()
    times = {plain(line): line[:12] for line in out.splitlines()}
    wanted = STORY.strip().splitlines()
    assert sorted(plain(line) for line in out.splitlines()) == sorted(wanted)
    # a busy machine may show one late: tests/unit/test_story.py has the order in which they are shown
    assert [times[line] for line in wanted] == sorted(times.values())
    assert err.startswith("12 events (5 exit, 4 exec, 1 open, 1 connect, 1 signal) from 1 node, 1 container, in ")
    assert err.endswith("nothing lost.\n")


def test_full_kinds_as_json(agent, start_cli, make_pod) -> None:
    """Of kinds that I name I see everything, each event with its kind, its gadget's fields and its names."""
    with waiting(make_pod("shop", "story-0")) as go:
        cli = start_story(start_cli, agent, "-p", "story-0", "-o", "json", kinds="open,exit")
        go()
        out, err = cli.finish()
    assert "nothing lost" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert {(row["node"], row["namespace"], row["pod"], row["container"]) for row in rows} == {
        ("node-a", "shop", "story-0", "app")
    }
    assert Counter(row["kind"] for row in rows)["exit"] == 5
    missing = [(row["comm"], row["error"]) for row in rows if row.get("path") == "/etc/missing"]
    assert missing == [("cat", "ENOENT")]


def test_several_pods(agent, start_cli, make_pod) -> None:
    """Of several pods each line names its own."""
    with waiting(make_pod("tales", "cart-0")) as go, waiting(make_pod("tales", "web-0")) as go_too:
        cli = start_story(start_cli, agent, "-n", "tales", kinds="exit")
        go()
        go_too()
        out, _ = cli.finish()
    assert Counter(plain(line).split()[0] for line in out.splitlines()) == {"cart-0": 5, "web-0": 5}


def test_recorded(agent, start_cli, make_pod, tmp_path) -> None:
    """A story that I record is shown again with the same lines, without an agent, and may be narrowed by conditions."""
    file = tmp_path / "story.gadget"
    with waiting(make_pod("shop", "story-0")) as go:
        cli = start_story(start_cli, agent, "-p", "story-0", "--record", str(file))
        go()
        out, err = cli.finish()
    assert "nothing lost" in err and out.count("\n") == len(STORY.strip().splitlines())
    again = run_cli("replay", str(file))
    assert sorted(again.stdout.splitlines()) == sorted(out.splitlines())
    assert [line[:12] for line in again.stdout.splitlines()] == sorted(line[:12] for line in out.splitlines())
    assert again.stderr == re.sub(r", in [\d.]+ s;", ", as recorded;", err)
    chosen = run_cli("replay", str(file), "--filter", "exec:error!=0", "--filter", "exit:signal!=0").stdout
    assert [plain(line).split()[:3] for line in chosen.splitlines()] == [
        ["open", "cat[N]", "/etc/missing:"],
        ["exec", "sh[N]", "/bin/nothing:"],
        ["connect", "busybox[N]", "127.0.0.1:9"],
        ["signal", "sh[N]", "SIGKILL"],
        ["exit", "sh[N]", "after"],
    ]


def test_stands(agent, make_pod) -> None:
    """A story that stands tells me later what a container did while no client was there, each event once, in order."""
    on = ("--agent", agent.address)
    gadgets = {each.story.kind: each.gadget.name for each in choose("")}
    before = programs_of(agent.process.pid)
    with waiting(make_pod("shop", "night-0")) as go:
        said = run_cli("story", "-p", "night-0", "--detach", "--name", "night", *on)
        assert said.stdout.startswith(f"night runs on 1 node, {len(gadgets)} kinds.\n") and not said.stderr
        wait_until(
            lambda: all(f"night.{kind}: {name} began" in agent.log.read_text() for kind, name in gadgets.items()),
            "the runs",
            60,
        )
        own = programs_of(agent.process.pid) - before
        go()
    wanted = STORY.strip().splitlines()

    def row() -> dict[str, Any]:
        (found,) = [each for each in events(run_cli("runs", "-o", "json", *on).stdout) if each["name"] == "night"]
        return found

    wait_until(lambda: row()["events"] == len(wanted), "what they see")
    assert (row()["gadget"], row()["problem"]) == ("story", "")
    read = run_cli("attach", "night", *on)
    assert [plain(line) for line in read.stdout.splitlines()] == wanted
    assert read.stderr.endswith("from 1 node, 1 container, as kept; nothing lost.\n")
    assert run_cli("delete", "night", *on).stdout == "night ended on 1 node; what it kept is gone\n"
    wait_until(lambda: not own & bpf_programs(), "the end of their programs")


def test_conditions(agent, start_cli, make_pod) -> None:
    """A condition on one kind leaves the others as they are, and one without a kind is for all."""
    with waiting(make_pod("shop", "story-0")) as go:
        cli = start_story(start_cli, agent, "-p", "story-0", "--filter", "comm==busybox", "--filter", "exit:code==0")
        go()
        out, _ = cli.finish()
    assert sorted(plain(line) for line in out.splitlines()) == [
        "connect  busybox[N] 127.0.0.1:9 in T: refused (ECONNREFUSED)",
        "exec     busybox[N] /bin/busybox nc 127.0.0.1 9",
    ]
