"""Whether an agent and this command line understand each other."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gadget import CONTRACT
from gadget.errors import Unsupported


def understands(contract: int) -> bool:
    """Whether an agent of that contract is understood. 0: an agent from before there were contracts."""
    return contract in (0, CONTRACT)


def check(node: str, contract: int) -> None:
    """Unsupported unless an agent of that contract is understood."""
    if not understands(contract):
        raise Unsupported(f"{node}: agent and command line are too far apart: see `kubectl gadget version`")


def check_metadata(node: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Check the contract in the metadata before an agent's first answer. node is empty if only the agent knows it."""
    said = dict(metadata)
    contract, own = said.get("gadget-contract", ""), said.get("gadget-node-bin", b"")
    number = int(contract) if isinstance(contract, str) and re.fullmatch(r"[0-9]{1,9}", contract) else 0
    check(node or (own.decode(errors="replace") if isinstance(own, bytes) else own), number)
