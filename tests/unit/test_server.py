"""The agent's service, without a kernel."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent import server
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from tests.conftest import wait_until


class Context:
    """A call, whose client may go away."""

    def __init__(self) -> None:
        self.is_there = True

    def is_active(self) -> bool:
        return self.is_there

    def abort(self, code: Any, details: str) -> None:
        raise AssertionError(details)


def test_nothing_is_loaded_for_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C an agent loads nothing more of what was asked for: it is free for the next command."""
    go_on, begun = threading.Event(), list[str]()

    def begin(gadget: catalog.Gadget, *_: Any) -> Any:
        begun.append(gadget.name)
        go_on.wait()
        raise GadgetError("not here")

    monkeypatch.setattr(server, "begin", begin)
    service = server.AgentService("node-a", tracker=None, services={})  # type: ignore[arg-type]
    few = list(catalog.load())[: 2 * server.BEGINNINGS]
    ended = dict[str, Any]()

    def run(name: str, context: Context) -> None:
        try:
            ended[name] = list(service.Run(iter([pb.RunRequest(start=pb.Start(gadget=name))]), context))  # type: ignore[arg-type]
        except AssertionError as error:
            ended[name] = str(error)

    contexts = {name: Context() for name in few}
    threads = [threading.Thread(target=run, args=item) for item in contexts.items()]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(begun) == server.BEGINNINGS, "as many as begin at once")
        for name in few:
            contexts[name].is_there = name in begun
    finally:
        go_on.set()
    for thread in threads:
        thread.join()
    assert len(begun) == server.BEGINNINGS
    assert {name: ended[name] for name in few} == {name: "not here" if name in begun else [] for name in few}
