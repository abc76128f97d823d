"""Whether an agent and this command line understand each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from gadget import CONTRACT
from gadget.errors import Unsupported


def understands(contract: int) -> bool:
    """Whether an agent of that contract is understood. 0: from before agents told."""
    return contract in (0, CONTRACT)


def check(node: str, contract: int) -> None:
    """Unsupported unless an agent of that contract is understood."""
    if not understands(contract):
        raise Unsupported(f"{node}: agent and command line are too far apart: see `kubectl gadget version`")


class Checked(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Looks at what an agent says before its first answer.

    Not for Run, whose Started says it, and not for Describe, by which anybody can ask.
    """

    def intercept_unary_unary(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        """A call with one answer."""
        return self._look(details, go_on(details, request))

    def intercept_unary_stream(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        """A call with many."""
        return self._look(details, go_on(details, request))

    def _look(self, details: Any, call: Any) -> Any:
        if not details.method.endswith("/Describe"):
            said = {item.key: item.value for item in call.initial_metadata() or ()}
            contract = said.get("gadget-contract", "")
            check(said.get("gadget-node-bin", b"").decode(errors="replace"), int(contract) if contract.isdigit() else 0)
        return call
