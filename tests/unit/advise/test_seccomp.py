"""`advise seccomp-profile` of what agents tell, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import yaml

from agent.containers.identity import Container
from agent.syscalls.recorder import SyscallRecorder
from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.selector import parse_labels
from kubectl_gadget.advise.seccomp import profile
from tests.conftest import run_cli
from tests.fakes import FakeAgent
from tests.unit.test_completion import offered

HOUR = 3600 * 10**9
RUN = ("brk", "clone", "execve", "openat")


def bits(machine: str, *names: str, compat: bool = False, more: int = 0) -> bytes:
    table = syscalls.compat_table(machine) if compat else syscalls.table(machine)
    numbers = {call.name: number for number, call in table.items()}
    return (more | sum(1 << numbers[name] for name in names)).to_bytes(64, "little")


def called(*names: str, machine: str = "x86_64", who: str = "Deployment/cart", **more: Any) -> pb.WorkloadCalls:
    usual = {"namespace": "shop", "container": "app", "containers": 3, "first_ns": HOUR, "last_ns": 7 * HOUR}
    return pb.WorkloadCalls(workload=who, **{"calls": bits(machine, *names), **usual, **more})


class Recorder(FakeAgent):
    """An agent that has seen these calls."""

    machine = "x86_64"
    workloads: tuple[pb.WorkloadCalls, ...] = ()
    losses: tuple[pb.Loss, ...] = ()
    knows_labels = True

    def Syscalls(self, request: pb.SyscallsRequest, context: grpc.ServicerContext) -> Iterator[pb.SyscallsReply]:
        """Head, then workloads; by labels those of cart, whose label it is."""
        by_labels = self.knows_labels and bool(request.labels)
        head = pb.SyscallsHead(machine=self.machine, losses=self.losses, by_labels=by_labels)
        yield pb.SyscallsReply(node=self.node, head=head)
        chosen = [each for each in self.workloads if not by_labels or request.labels == f"app={each.workload[11:]}"]
        yield pb.SyscallsReply(node=self.node, workloads=chosen)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(*workloads: pb.WorkloadCalls, machine: str = "x86_64") -> Recorder:
        made.append(Recorder(tmp_path, f"node-{len(made)}"))
        made[-1].workloads, made[-1].machine = workloads, machine
        return made[-1]

    yield make
    for each in made:
        each.die()


def advise(*args: str, of: tuple[FakeAgent, ...]) -> tuple[str, str, int]:
    where = [word for each in of for word in ("--agent", each.address)]
    done = run_cli("advise", "seccomp-profile", *args, *where)
    return done.stdout, done.stderr, done.returncode


def allowed(text: str) -> set[str]:
    return {name for rule in json.loads(text)["syscalls"] if rule["action"] == profile.ALLOW for name in rule["names"]}


def test_profile(agents) -> None:
    """I get a profile of what the workload called on all nodes, what the runtime needs is marked, and I am told from how much."""
    nodes = agents(called(*RUN)), agents(called("mkdir", "brk", first_ns=2 * HOUR, last_ns=9 * HOUR))
    out, err, code = advise(of=nodes)
    assert (code, err) == (0, "from 6 containers of shop/cart (app), watched for 8h\n")
    made = json.loads(out)
    assert (made["defaultAction"], made["architectures"]) == ("SCMP_ACT_ERRNO", ["SCMP_ARCH_X86_64"])
    seen, needed, clone3 = made["syscalls"]
    assert seen["names"] == sorted([*RUN, "mkdir"]) and seen["comment"].startswith("seen: 6 containers")
    assert {"futex", "capset", "exit_group", "rt_sigreturn"} <= {*needed["names"]} and "not seen" in needed["comment"]
    assert not {*needed["names"]} & {*seen["names"], "mount", "ptrace", "sigreturn"}
    assert (clone3["names"], clone3["action"], clone3["errnoRet"]) == (["clone3"], "SCMP_ACT_ERRNO", 38)


def test_workloads_are_completed(agents) -> None:
    """Tab completes -w with the workloads that were seen, of the namespaces given so far, also by KIND/."""
    web = called("brk", who="Deployment/web", namespace="web")
    agent = agents(called("brk"), called("brk", who="StatefulSet/cache"), web)

    def completed(*words: str) -> list[str]:
        return offered("advise", "seccomp-profile", "--agent", agent.address, *words)

    assert completed("-w", "") == ["cache", "cart", "web"]
    assert completed("-n", "shop", "-w", "cart,ca") == ["cart,cache", "cart,cart"]
    assert completed("-n", "shop", "-w", "statefulset/") == ["statefulset/cache"]
    assert offered("advise", "seccomp-profile", "--agent", "unix:///nowhere", "-w", "") == []


@pytest.mark.parametrize(("word", "action"), profile.ACTIONS.items())
def test_default_action(agents, word: str, action: str) -> None:
    """I choose what becomes of all other calls."""
    made = json.loads(advise("--default-action", word, of=(agents(called("brk")),))[0])
    assert made["defaultAction"] == action


def test_architectures(agents) -> None:
    """The profile names the architectures of all nodes, and those of 32-bit programs where there were any, of which I am told."""
    wide = called("brk", compat_calls=bits("x86_64", "socketcall", "mmap2", compat=True))
    nodes = agents(wide), agents(called("brk", "renameat2", machine="aarch64"), machine="aarch64")
    out, err, _ = advise(of=nodes)
    made = json.loads(out)
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"]
    assert {"socketcall", "mmap2", "renameat2", "sigreturn"} <= allowed(out)
    assert "shop/cart (app): 32-bit programs called, too" in err


def test_what_was_not_watched_is_said(agents, tmp_path: Path) -> None:
    """Of containers from before the recorder, of losses, of nodes without one and of odd numbers I am told."""
    odd = called("brk", older=1, calls=bits("x86_64", "brk", more=1 << 511))
    agent, older = agents(odd), FakeAgent(tmp_path, "node-z")
    agent.losses = (pb.Loss(reason="calls of containers beyond the limit", count=7),)
    _, err, code = advise(of=(agent, older))
    older.die()
    assert code == 0
    assert "node-0: 7 calls of containers beyond the limit" in err and "its agent is older and cannot do this" in err
    assert "warning: shop/cart (app): 1 of 3 began before calls were recorded" in err
    assert "called numbers that no table here has" in err


def test_choice(agents, tmp_path: Path) -> None:
    """-n, -c and names of workloads choose, a wrong name is refused with what I may have meant, and each profile has a file."""
    agent = agents(
        called("brk"),
        called("brk", container="proxy"),
        called("brk", who="StatefulSet/db"),
        called("brk", who="Deployment/web", namespace="web"),
    )

    def files(*args: str) -> list[str]:
        out, err, code = advise("--output-dir", str(tmp_path), *args, of=(agent,))
        assert code == 0, err
        assert all(json.loads(Path(line).read_text())["syscalls"] for line in out.split())
        return [Path(line).name for line in out.split()]

    every = ["shop.cart.app.json", "shop.cart.proxy.json", "shop.db.app.json", "web.web.app.json"]
    assert files() == files("-A") == every
    assert files("-n", "shop", "-c", "app") == ["shop.cart.app.json", "shop.db.app.json"]
    assert files("-w", "deploy/cart,sts/db", "-c", "!proxy") == ["shop.cart.app.json", "shop.db.app.json"]
    assert files("-w", "statefulsets/db") == files("-w", "db") == ["shop.db.app.json"]
    assert advise("-w", "deploy/db", of=(agent,))[2] == 2
    assert advise("-w", "crat", of=(agent,))[1:] == (
        "error: no workload 'crat' was seen there: did you mean cart?\n", 2,
    )  # fmt: skip
    assert advise("-n", "none", of=(agent,))[1:] == (
        "error: no container was seen to call anything there: try -A\n", 2,
    )  # fmt: skip


def test_chosen_by_labels(agents) -> None:
    """-l chooses workloads by the labels of their pods; where an agent is too old for that it is named, not ignored."""
    agent = agents(called("brk"), called("openat", who="Deployment/web"))
    assert "brk" in allowed(advise("-l", "app=cart", of=(agent,))[0])
    assert advise("-l", "app=none", of=(agent,))[1:] == (
        "error: no container was seen to call anything there: -l finds workloads that have a pod by now\n", 2,
    )  # fmt: skip
    assert advise("-l", "app in", of=(agent,))[2] == 2
    agent.knows_labels = False
    assert "its agent is too old for -l" in advise("-l", "app=cart", of=(agent,))[1]


def test_pods_with_labels() -> None:
    """An agent chooses a workload by any pod that it knows of, also one that is gone a moment ago, and no unknown one."""
    containers = [
        Container("c" * 64, namespace="shop", pod=name, name="app", pod_uid=f"uid-{name}")
        for name in ("cart-0", "web-0", "job-0")
    ]
    labels = {"cart-0": {"app": "cart"}, "web-0": {"app": "web"}}
    tracker = SimpleNamespace(
        containers=lambda: [*(SimpleNamespace(container=each) for each in containers), SimpleNamespace(container=None)],
        labels=lambda container: labels.get(container.pod),
    )
    recorder = SimpleNamespace(_tracker=tracker, _who=lambda container: container.pod)
    for selector, wanted in (("app=cart", {"cart-0"}), ("app", {"cart-0", "web-0"}), ("app!=cart", {"web-0"})):
        assert SyscallRecorder.having(recorder, parse_labels(selector)) == wanted  # type: ignore[arg-type]


def test_other_forms(agents) -> None:
    """I get it as an object of the Security Profiles Operator, and what goes into pods."""
    agent = agents(called(*RUN))
    (made,) = yaml.safe_load_all(advise("--format", "spo", of=(agent,))[0])
    assert (made["kind"], made["metadata"]) == ("SeccompProfile", {"name": "shop.cart.app", "namespace": "shop"})
    plain = json.loads(advise(of=(agent,))[0])
    rules = [{key: value for key, value in rule.items() if key != "comment"} for rule in plain.pop("syscalls")]
    assert made["spec"] == {**plain, "syscalls": rules}
    (pod,) = yaml.safe_load_all(advise("--format", "pod", of=(agent,))[0])
    assert pod["containers"] == [
        {
            "name": "app",
            "securityContext": {
                "seccompProfile": {"type": "Localhost", "localhostProfile": "shop.cart.app.json"},
            },
        }
    ]


def test_check_and_diff(agents, tmp_path: Path) -> None:
    """`check` says what a profile would have refused, `diff` what the advice changes in it, with the exit codes of diff."""
    agent = agents(called(*RUN))
    file = tmp_path / "profile.json"
    file.write_text(advise(of=(agent,))[0])
    assert advise("check", "-f", str(file), of=(agent,))[::2] == (
        "4 of 4 calls allowed, 0 denied; 0 allowed that 1 container never made.\n", 0,
    )  # fmt: skip
    assert advise("diff", "-f", str(file), of=(agent,))[::2] == ("", 0)

    made = json.loads(file.read_text())
    made["syscalls"][0]["names"] = ["acct", "brk", "execve", "openat"]
    file.write_text(json.dumps(made))
    out, _, code = advise("check", "-f", str(file), "--all", of=(agent,))
    assert code == 1
    assert out.splitlines()[:2] == ["DENIED  shop/cart (app): clone (SCMP_ACT_ERRNO)", "unused  acct"]
    found = json.loads(advise("check", "-f", str(file), "-o", "json", of=(agent,))[0])
    assert found["workloads"][0]["refused"] == {"SCMP_ACT_ERRNO": ["clone"]} and found["unused"] == ["acct"]
    out, _, code = advise("diff", "-f", str(file), of=(agent,))
    assert code == 1
    assert [line for line in out.splitlines()[2:] if line[0] in "+-"] == [
        "-acct SCMP_ACT_ALLOW", "+clone SCMP_ACT_ALLOW",
    ]  # fmt: skip
    assert advise("diff", "-f", str(tmp_path / "none"), of=(agent,))[2] == 2
    several = agents(called("brk"), called("brk", container="proxy"))
    assert advise("diff", "-f", str(file), of=(several,))[2] == 2


def test_profiles_in_dockers_form(agents, tmp_path: Path) -> None:
    """A profile with architectures by machine, single names and conditions is understood; what depends on arguments is told."""
    agent = agents(called("brk", "clone", "openat", "personality"))
    file = tmp_path / "docker.json"
    rules = [
        {"name": "brk", "action": "SCMP_ACT_ALLOW"},
        {"names": ["openat"], "action": "SCMP_ACT_LOG"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
    ]
    architectures = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL", "archMap": architectures, "syscalls": rules}))
    out, _, code = advise("check", "-f", str(file), of=(agent,))
    assert code == 0
    assert out.splitlines()[0] == "depends shop/cart (app): clone, personality (on arguments or capabilities)"
    arm = agents(called("brk", machine="aarch64"), machine="aarch64")
    out, _, code = advise("check", "-f", str(file), of=(arm,))
    assert (code, out.splitlines()[0]) == (
        1, "DENIED  shop/cart (app): all calls of SCMP_ARCH_AARCH64, which the profile does not name",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 3}', '{"defaultAction": "x", "syscalls": [{}]}'])
def test_no_profile(agents, tmp_path: Path, text: str) -> None:
    """What is no profile is refused in one line."""
    file = tmp_path / "profile.json"
    file.write_text(text)
    out, err, code = advise("check", "-f", str(file), of=(agents(called("brk")),))
    assert (out, code) == ("", 2) and err.startswith(f"error: {file}: not a seccomp profile: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "wrong",
    [{"calls": b"\xff" * 65}, {"older": 4}, {"first_ns": 0}, {"last_ns": 1 << 62}, {"container": ""}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_nonsense(agents, wrong: dict[str, Any]) -> None:
    """An agent that tells nonsense is named, and nothing is made of it."""
    out, err, code = advise(of=(agents(called("brk", **wrong)),))
    assert (out, code) == ("", 1) and "its agent's answer cannot be used" in err


def test_names_make_safe_files(agents, tmp_path: Path) -> None:
    """Whatever a container is called, its file is in the folder that I named."""
    agent = agents(called("brk", who="Pod/../../x", container="../a\nb", namespace=".."))
    out, _, code = advise("--output-dir", str(tmp_path), of=(agent,))
    assert code == 0
    assert [path.parent for path in map(Path, out.split())] == [tmp_path]
