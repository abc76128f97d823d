"""`snapshot mounts`, beside what a container's first process reads in /proc."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.conftest import events, run_cli, wait_until
from tests.pods import UNIFIED

ODD = "/odd \x1b[2J\n\\x"


def shown(agent, *args: str) -> list[dict[str, Any]]:
    done = run_cli("snapshot", "mounts", "--all", "-n", "shop", "-o", "json", "--agent", agent.address, *args)
    assert "nothing lost" in done.stderr, done.stderr
    return events(done.stdout)


def mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def test_mounts_are_those_of_the_container(agent, make_pod, tmp_path: Path) -> None:
    """Each mount that the container's first process sees is there, with source, type, options and propagation, whatever it is called."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [
            mount(ODD, "tmpfs", ["nosuid", "noexec", "size=64k"]),
            {"destination": "/data", "type": "bind", "source": str(volume), "options": ["rbind", "ro", "rslave"]},
            {"destination": "/shared", "type": "bind", "source": str(volume), "options": ["rbind", "rshared"]},
        ]

    cart = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600", change=change)
    make_pod("shop", "web-0").container("app", "/bin/sleep", "600")
    wait_until(lambda: len({row["pod"] for row in shown(agent)}) == 2, "both containers")
    rows = shown(agent, "-p", "cart-0")
    lines = Path(f"/proc/{cart.pid}/mountinfo").read_text().splitlines()
    escaped = re.compile(r"\\([0-7]{3})")
    said = []
    for line in lines:
        number, parent, _, root, target, options, *tags, kind, source, of_fs = line.replace(" - ", " ").split(" ")
        said.append((int(number), int(parent), *(escaped.sub(lambda at: chr(int(at[1], 8)), text) for text in
                     (root, target, options, kind, source, of_fs)), {tag.split(":")[0] for tag in tags}))  # fmt: skip
    tags = {"private": set(), "shared": {"shared"}, "slave": {"master"}, "shared slave": {"shared", "master"}}
    names = ("id", "parent", "root", "target", "options", "type", "source", "fs_options")
    assert sorted((*(row[name] for name in names), tags[row["propagation"]]) for row in rows) == sorted(said)
    assert [row["target"] for row in rows] == sorted(row["target"] for row in rows)
    assert {row["pid"] for row in rows} == {cart.pid}
    by_target = {row["target"]: row for row in rows}
    assert "noexec" in by_target[ODD]["options"] and by_target["/data"]["root"].endswith("/volume")
    assert by_target["/shared"]["propagation"] != "private"
    usual = run_cli("snapshot", "mounts", "-p", "cart-0", "-o", "json", "--agent", agent.address)
    left_out = [row for row in rows if row["runtime"]]
    assert [row["id"] for row in events(usual.stdout)] == [row["id"] for row in rows if not row["runtime"]]
    assert f"{len(left_out)} rows left out, what runtimes mount in every container: --all shows them." in usual.stderr
    assert {"/proc", "/dev"} <= {row["target"] for row in left_out}
    assert {"/", ODD, "/data"} <= {row["target"] for row in rows if not row["runtime"]}
    table = run_cli("snapshot", "mounts", "-n", "shop", "--fields", "target", "--agent", agent.address).stdout
    assert r"/odd \x1b[2J\n\x" in table and "\x1b" not in table


def test_cgroups_of_others(agent, make_pod) -> None:
    """A container that may write to cgroups of others where runtimes mount its own has that in its list."""

    def change(config: dict[str, Any]) -> None:
        config["mounts"] = [each for each in config["mounts"] if each["destination"] != "/sys/fs/cgroup"]
        of_others = {"source": str((UNIFIED / other.cgroup.lstrip("/")).parent), "type": "bind", "options": ["rbind"]}
        config["mounts"].append({"destination": "/sys/fs/cgroup", **of_others})

    other = make_pod("web", "web-0").container("app", "/bin/sleep", "600")
    make_pod("shop", "cart-0").container("app", "/bin/sleep", "600", change=change)
    wait_until(lambda: shown(agent), "the container")
    usual = run_cli("snapshot", "mounts", "-n", "shop", "-o", "json", "--agent", agent.address)
    assert [row["target"] for row in events(usual.stdout) if row["type"] == "cgroup2"] == ["/sys/fs/cgroup"]
