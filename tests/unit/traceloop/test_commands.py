"""`traceloop list`, `show` and `delete` of recordings as people name them, with an agent that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported, UsageError
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.stream.request import make_selection
from kubectl_gadget.traceloop import asked, instances
from kubectl_gadget.traceloop.instances import Instance
from tests.conftest import run_cli
from tests.unit.traceloop.fake import FakeRecorder, item

NAMELESS = item("", "", "aaaa0001", namespace="", cgroup=1)
CART = item("cart-0", "app", "bbbb0002", cgroup=2)


class Refusing(FakeRecorder):
    """One that deletes nothing."""

    def TraceloopDelete(
        self, request: pb.TraceloopDeleteRequest, context: grpc.ServicerContext
    ) -> pb.TraceloopDeleteReply:
        """Refuse."""
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "traceloop is off")
        raise AssertionError


def test_what_has_no_name_is_not_deleted_by_an_empty_one(tmp_path: Path) -> None:
    """Neither an empty name nor a slash deletes the recordings of containers that nobody could name."""
    with FakeRecorder(tmp_path, [NAMELESS, CART]) as agent:
        for name in ("", " ", "/", "//"):
            assert run_cli("traceloop", "delete", name, "--agent", agent.address).returncode == 2
        assert agent.deleted == []
        assert run_cli("traceloop", "delete", "aaaa0001", "--agent", agent.address).returncode == 0
        assert agent.deleted == ["aaaa0001"]


def test_a_deletion_that_is_refused(tmp_path: Path) -> None:
    """What the agent says when it does not delete is the error, in one line."""
    with Refusing(tmp_path, [CART]) as agent:
        done = run_cli("traceloop", "delete", "cart-0", "--agent", agent.address)
    assert (done.returncode, done.stderr) == (1, "error: traceloop is off\n")


def recorded(pod: str, namespace: str = "shop", container: str = "app", **values: Any) -> Instance:
    """A recording."""
    about = item(pod, container, f"{namespace}-{pod}-{container}", namespace=namespace, **values)
    return Instance(Agent("node-a", ""), "node-a", about)


CRASHER = recorded("crasher", started_ns=1, ended_ns=9, status=11, known=True)
OLDER = recorded("db-0", started_ns=3, ended_ns=5, status=256, known=True)
WELL = recorded("cart-6c9f-x2x7l", started_ns=4, running=True)
OTHER = recorded("web-0", "web", started_ns=5, ended_ns=11, status=256, known=True)
EVERY = [CRASHER, OLDER, WELL, OTHER]


def choose(name: str | None, namespace: str = "shop", *, anywhere: bool = False) -> Instance:
    """What `show NAME` shows."""
    selection = make_selection((namespace,), False, (), (), "")
    return asked.choose_one(EVERY, selection, name, 0, False, anywhere=anywhere)


def test_show_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`show` without a name is the newest bad end of my namespace, or if it has none, of all, which I am told."""
    assert choose(None) is CRASHER
    assert choose(None, "default", anywhere=True) is OTHER
    assert capsys.readouterr().err == "web/web-0/app is in namespace web\n"
    with pytest.raises(UsageError, match=r"no recordings in namespace default; 4 elsewhere \(-A\)"):
        choose(None, "default")


def test_show_finds_it_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """`show crasher` finds shop/crasher and says so, unless I said in which namespace."""
    assert choose("crasher", "default", anywhere=True) is CRASHER
    assert capsys.readouterr().err == "shop/crasher/app is in namespace shop\n"
    with pytest.raises(UsageError, match="no recording of 'crasher'"):
        choose("crasher", "default")


def test_show_by_the_beginning_of_a_name() -> None:
    """`show cart` is cart-6c9f-x2x7l; what is called so wholly goes first."""
    assert choose("cart") is WELL
    assert choose("cart-6c9f") is WELL
    whole = recorded("cart", started_ns=9)
    assert instances.named([*EVERY, whole], "cart", begins=True) == [whole]


def test_delete_takes_whole_names_of_one_namespace(tmp_path: Path) -> None:
    """`delete` takes neither the beginning of a name nor what is in another namespace; it says where that is."""
    with FakeRecorder(tmp_path, [CART]) as agent:
        done = run_cli("traceloop", "delete", "cart", "--agent", agent.address)
        assert (done.returncode, "there is cart-0" in done.stderr) == (2, True)
        done = run_cli("traceloop", "delete", "cart-0", "-n", "web", "--agent", agent.address)
        assert done.stderr == "error: no recording of 'cart-0' in namespace web: it is in -n shop\n"
        assert agent.deleted == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-n", "default"], "no recordings in namespace default; 2 elsewhere (-A)"),
        (["-n", "shop", "-p", "card"], "no recordings: no pod matches -p card in namespace shop; there is cart-0"),
    ],
)
def test_list_of_nothing(options: list[str], said: str, tmp_path: Path) -> None:
    """`list` that lists nothing says why, and where there is something."""
    with FakeRecorder(tmp_path, [NAMELESS, CART]) as agent:
        done = run_cli("traceloop", "list", "--agent", agent.address, *options)
    assert (done.returncode, done.stderr) == (0, f"{said}\n")


def test_list_has_container_ids(tmp_path: Path) -> None:
    """The JSON of `list` has containerId, as every stream has."""
    with FakeRecorder(tmp_path, [CART]) as agent:
        assert '"containerId":"bbbb0002"' in run_cli("traceloop", "list", "--agent", agent.address, "-o", "json").stdout


@pytest.mark.usefixtures("agent_socket")
def test_this_machine_without_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --local and no agent I am told that none runs, how to start one, and which recordings wait for it."""
    monkeypatch.setattr(asked, "PINS", tmp_path)
    with pytest.raises(Unsupported, match="no agent runs on this machine, so nothing is recorded: start one, as root"):
        asked.need_recorder((), local=True)
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/ring-7").touch()
    with pytest.raises(Unsupported, match=r"; recordings of an earlier agent wait for it in .* \(1\)$"):
        asked.need_recorder((), local=True)
    asked.need_recorder(("unix:///x",), local=False)
