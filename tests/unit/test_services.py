"""Services of an agent, without a kernel: how they are found, what is said where they are off, and what clients get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import pytest

from agent.answering import MAX_READERS, _status
from agent.containers.identity import Container
from agent.server import AgentService
from agent.service import Active, Running, ServedCall, ServiceContext
from agent.services import find_services
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported, UsageError

TRACKER: Any = SimpleNamespace(labels=lambda container: None)
CART = Container("c" * 64, "containerd", "shop", "cart-0", "app")


class Aborted(Exception):
    """A call has been ended with a status."""


class Asking:
    """The call of a client that waits."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code, details)

    def is_active(self) -> bool:
        return True

    def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.metadata |= dict(metadata)


class Answers(Running):
    """A service that answers so."""

    def __init__(self, answer: Callable[[Any, Active], Any], stream: bool = False) -> None:
        self._call = ServedCall("Flows" if stream else "Inspect", answer, stream, reads=True)

    def calls(self) -> tuple[ServedCall, ...]:
        return (self._call,)


def served(*services: Running) -> Any:
    return AgentService("node-a", TRACKER, {f"service-{at}": each for at, each in enumerate(services)})


def test_found() -> None:
    """All services are found by being there, and what nobody could see later begins first."""
    found = find_services()
    assert {"flows", "traceloop", "standing", "inspect"} <= found.keys()
    kept = [each.kept for each in found.values()]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize("name", find_services())
def test_off(name: str) -> None:
    """Where a service is off, I am told why by whatever I ask it, and in `status` if it is told of there."""
    off = find_services()[name].off(ServiceContext("node-a", TRACKER, Path("/none"), Path("/none")), "no room here")
    status = _status(name, off)
    assert (status.text, status.problem, list(status.losses)) in (("off: no room here", "", []), ("", "", []))
    assert (list(off.programs()), list(off.workers)) == ([], [])
    request = SimpleNamespace(run=pb.Standing(), name="opens", cgroup_id=7, cgroup_ids=[7], labels="", follow=False)

    def ask(call: ServedCall) -> None:
        answered = call.answer(request, bool)
        list(answered if call.stream else ())

    for call in off.calls() if name != "inspect" else ():
        with pytest.raises(Unsupported, match="node-a: no room here"):
            ask(call)
    off.end()
    off.close()


def test_error_of_a_service() -> None:
    """What a service refuses reaches me as a status with its words, after the contract."""

    def refuse(request: Any, active: Active) -> NoReturn:
        raise UsageError("it makes no sense")

    def refuse_later(request: Any, active: Active) -> Iterator[int]:
        yield 1
        refuse(request, active)

    agent, asking = served(Answers(refuse), Answers(refuse_later, stream=True)), Asking()
    with pytest.raises(Aborted) as ended:
        agent.Inspect(None, asking)
    assert ended.value.args == (grpc.StatusCode.INVALID_ARGUMENT, "it makes no sense")
    assert {"gadget-contract", "gadget-node-bin"} <= asking.metadata.keys()
    replies = agent.Flows(None, Asking())
    assert next(replies) == 1
    with pytest.raises(Aborted):
        next(replies)


def test_many_readers() -> None:
    """So many calls that take long are answered at once, those of all services together; each gives its place back."""
    agent = served(Answers(lambda request, active: iter((1, 2)), stream=True))
    open_ones = [agent.Flows(None, Asking()) for _ in range(MAX_READERS)]
    assert [next(each) for each in open_ones] == [1] * MAX_READERS
    with pytest.raises(Aborted) as ended:
        next(agent.Flows(None, Asking()))
    assert ended.value.args[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    open_ones.pop().close()
    assert list(agent.Flows(None, Asking())) == [1, 2]


def test_unknown_method() -> None:
    """A service with a method that the contract has not is refused when the agent begins, not when somebody asks."""

    class Wrong(Running):
        def calls(self) -> tuple[ServedCall, ...]:
            return (ServedCall("Flow", lambda request, active: None),)

    with pytest.raises(TypeError, match="Flow"):
        served(Wrong())


def test_broken_service() -> None:
    """A service that cannot say how it is does not keep the agent from telling of the others."""

    class Broken(Running):
        def describe(self) -> str:
            raise OSError("its pins are gone")

    status = _status("broken", Broken())
    assert (status.name, status.text, status.problem) == ("broken", "", "its pins are gone")


def test_labels_of_pods_that_are_gone() -> None:
    """The labels of a pod that has gone are those that some service remembers."""

    class Remembers(Running):
        def labels(self, container: Container) -> Mapping[str, str] | None:
            return {"app": "cart"} if container is CART else None

    context = ServiceContext("node-a", TRACKER, Path("/none"), Path("/none"))
    context.running.update(first=Running(), second=Remembers())
    assert context.labels(CART) == {"app": "cart"}
    assert context.labels(Container("d" * 64, "containerd", "shop", "cart-1", "app")) is None
