"""`traceloop list`, `show` and `delete` of recordings as people name them, with an agent that has them."""

from __future__ import annotations

from pathlib import Path

import grpc

from gadget._generated import gadget_pb2 as pb
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
