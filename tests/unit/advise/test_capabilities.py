"""`advise capabilities` of what agents tell, and of recordings, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
import yaml

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.advise.capabilities import render
from kubectl_gadget.advise.capabilities.need import Need, Who
from kubectl_gadget.stream.recording import Writer
from tests.conftest import run_cli
from tests.fakes import FakeAgent

CAPABLE = catalog.find("capable")
NAMES: dict[str, int] = {name: int(number) for number, name in CAPABLE.schema["capability"].values.items()}
BIND, ACCEPT = 49, 43
#: By cgroup: the pods of a workload, and one of another.
WHO = {
    7: ("shop", "cart-6c9f7d8b9c-x2x4z", "app"),
    8: ("shop", "cart-6c9f7d8b9c-b5wzz", "app"),
    9: ("shop", "cart-6c9f7d8b9c-b5wzz", "proxy"),
    10: ("web", "web-0", "nginx"),
    11: ("shop", "quiet", "app"),
}


def container(cgroup: int) -> pb.Container:
    namespace, pod, name = WHO[cgroup]
    return pb.Container(cgroup_id=cgroup, namespace=namespace, pod=pod, container=name, id=f"{cgroup:064x}")


def asked(cgroup: int, capability: str, **more: Any) -> dict[str, Any]:
    """A check: of pid 9, cart, granted once in bind."""
    usual = {"pid": 9, "comm": b"cart", "count": 1, "syscall": BIND, "result": 0}
    number = NAMES.get(f"CAP_{capability}", 63)
    return {"cgroup_id": cgroup, "capability": number, **usual, **more}


def batch(*checks: dict[str, Any]) -> pb.Batch:
    size = CAPABLE.schema.text_offset
    rows = np.zeros(len(checks), CAPABLE.schema.dtype(size))
    for row, check in zip(rows, checks, strict=True):
        for name, value in check.items():
            row[name] = value
    sections = [pb.Section(record_size=size, count=len(checks), rows=rows.tobytes())] if checks else []
    return pb.Batch(
        sections=sections, containers=[container(each) for each in {check["cgroup_id"] for check in checks}]
    )


SECOND = 10**9


def record(file: Path, *checks: dict[str, Any], before: tuple[int, ...] = ()) -> Path:
    """A recording of 90 s."""
    schema = orjson.dumps(CAPABLE.schema.to_json()).decode()
    started = pb.Started(schema=schema, contract=1, containers=[container(each) for each in before], received_ns=SECOND)
    replies = (
        pb.RunReply(node="node-a", started=started),
        pb.RunReply(node="node-a", batch=batch(*checks), sent_ns=91 * SECOND),
        pb.RunReply(node="node-a", summary=pb.Summary(), sent_ns=91 * SECOND),
    )
    with Writer(file, "capable") as writer:
        assert list(writer.keep(("node-a", each) for each in replies))
    return file


def advise(*args: str) -> tuple[str, str]:
    done = run_cli("advise", "capabilities", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def added(patch: dict[str, Any]) -> dict[str, list[str]]:
    """What a patch gives to each container; all drop everything first."""
    spec = patch["spec"]["template"]["spec"] if "template" in patch["spec"] else patch["spec"]
    assert all(each["securityContext"]["capabilities"]["drop"] == ["ALL"] for each in spec["containers"])
    return {each["name"]: each["securityContext"]["capabilities"].get("add", []) for each in spec["containers"]}


def test_one_patch_of_a_workload(tmp_path: Path) -> None:
    """I get a patch for each workload: of all replicas together, each container drops ALL and adds what it was granted."""
    file = record(
        tmp_path / "file",
        asked(7, "NET_BIND_SERVICE"),
        asked(8, "NET_BIND_SERVICE", comm=b"cart2"),
        asked(8, "CHOWN", syscall=92),
        asked(8, "SYS_ADMIN", result=1),
        asked(9, "NET_ADMIN"),
        asked(10, "SETUID"),
        before=(11,),
    )
    out, err = advise("--input", str(file))
    cart, quiet, web = yaml.safe_load_all(out)
    assert added(cart) == {"app": ["CHOWN", "NET_BIND_SERVICE"], "proxy": ["NET_ADMIN"]}
    assert (added(quiet), added(web)) == ({"app": []}, {"nginx": ["SETUID"]})
    assert "# shop/cart, watched for 1m30s\n# kubectl patch deployment cart -n shop --patch-file FILE\n" in out
    assert (
        "# app: 2 containers\n" in out
        and "# denied, and not added: SYS_ADMIN, asked for by cart in bind, at least 1 time\n" in out.replace("  ", "")
    )
    assert "- NET_BIND_SERVICE  # asked for by cart in bind, cart2 in bind, at least 2 times\n" in out
    assert "it began before the watch" in out and "1 of 5 containers began before the watch" in err
    assert "nothing lost" in err


def test_how_often(tmp_path: Path) -> None:
    """How often a process was asked grows with its rows; a process with the same number counts anew."""
    counts = [1, 10, 100, 1, 10]
    file = record(tmp_path / "file", *(asked(7, "CHOWN", count=count) for count in counts), asked(7, "CHOWN", pid=10))
    (found,) = json.loads(advise("--input", str(file), "-o", "json")[0])
    (app,) = found["containers"]
    assert (found["kind"], found["name"], found["watchedSeconds"]) == ("Deployment", "cart", 90.0)
    assert app["granted"] == [
        {"capability": "CAP_CHOWN", "atLeast": 111, "by": [{"comm": "cart", "syscall": "bind", "atLeast": 111}]}
    ]


def test_what_a_workload_does_not_need(tmp_path: Path) -> None:
    """What the runtime did, what was denied, and what a process has in a user namespace of its own is not added."""
    file = record(
        tmp_path / "file",
        asked(7, "SYS_ADMIN", runtime=True),
        asked(7, "NET_RAW", result=1),
        asked(7, "SYS_CHROOT", level=1),
        asked(7, "KILL", syscall=0xFFFFFFFF),
    )
    out, _ = advise("--input", str(file))
    (cart,) = yaml.safe_load_all(out)
    assert added(cart) == {"app": ["KILL"]}
    assert "SYS_ADMIN" not in out and "KILL  # asked for by cart, at least 1 time" in out
    assert "only in its own user namespaces, and not added: SYS_CHROOT" in out
    (found,) = json.loads(advise("--input", str(file), "-o", "json")[0])
    names = {
        of: [each["capability"] for each in found["containers"][0][of]]
        for of in ("granted", "denied", "inOwnUserNamespaces")
    }
    assert names == {"granted": ["CAP_KILL"], "denied": ["CAP_NET_RAW"], "inOwnUserNamespaces": ["CAP_SYS_CHROOT"]}


def test_choice_and_files(tmp_path: Path) -> None:
    """-n, -p and -c choose of a recording, too; each workload has a file, whatever it is called."""
    file = record(tmp_path / "file", *(asked(each, "CHOWN") for each in WHO))
    assert list(added(yaml.safe_load(advise("--input", str(file), "-n", "shop", "-c", "proxy")[0]))) == ["proxy"]
    out, _ = advise("--input", str(file), "--output-dir", str(tmp_path / "made"))
    assert [Path(line).name for line in out.split()] == ["shop.cart.yaml", "shop.quiet.yaml", "web.web.yaml"]
    done = run_cli("advise", "capabilities", "--input", str(file), "-p", "deploy/cart")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a container chooses can neither move the cursor nor leave their comment or place in the patch."""
    monkeypatch.setitem(WHO, 7, ("shop", "x", "a: {b}\n- c"))
    comms = (b"\x1b[2J", b"a\nspec: 1", *(f"n{number}".encode() for number in range(200)))
    file = record(tmp_path / "file", *(asked(7, "CHOWN", comm=comm, pid=at) for at, comm in enumerate(comms)))
    out, _ = advise("--input", str(file))
    assert "\x1b" not in out and added(yaml.safe_load(out)) == {"a: {b}\n- c": ["CHOWN"]}
    assert len(out) < 2000 and "at least 202 times" in out


def test_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name of a container with blanks stays in its line, so that the patch is one."""
    name = " ".join(["word"] * 40)
    monkeypatch.setitem(WHO, 7, ("shop", "x", name))
    out, _ = advise("--input", str(record(tmp_path / "file", asked(7, "CHOWN"))))
    assert added(yaml.safe_load(out)) == {name: ["CHOWN"]}


def test_workloads_of_one_name() -> None:
    """A Deployment and a StatefulSet of one name have a file each."""
    two = [Need(Who("shop", kind, "cart", "app")) for kind in ("Deployment", "StatefulSet")]
    assert len(set(render.file_names(render.together(two)))) == 2


def test_no_recording_of_it(tmp_path: Path) -> None:
    """A recording of another gadget is refused in one line."""
    with Writer(tmp_path / "file", "execsnoop") as writer:
        list(writer.keep([("node-a", pb.RunReply(node="node-a", started=pb.Started(schema="{}", contract=1)))]))
    done = run_cli("advise", "capabilities", "--input", str(tmp_path / "file"))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/file: a recording of execsnoop; wanted is one of capable\n",
    )


class Asks(FakeAgent):
    """An agent that sends checks, and knows whose pods are."""

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """With the owner of each."""
        states = [pb.ContainerState(container=container(each), owner="StatefulSet/web") for each in (10,)]
        yield pb.ContainersReply(node=self.node, containers=states)


def test_live(tmp_path: Path) -> None:
    """Live it watches as long as I say, and knows by the agents whose pods are."""
    agent = Asks(tmp_path, "node-a", CAPABLE.schema)
    agent.send(batch(asked(10, "SETUID")))
    out, err = advise("--agent", agent.address, "--duration", "300ms")
    agent.die()
    assert agent.asked.gadget == "capable" and added(yaml.safe_load(out)) == {"nginx": ["SETUID"]}
    assert "# kubectl patch statefulset web -n web --patch-file FILE" in out
    assert err.startswith("1 row from 1 node, 1 container, in ")
