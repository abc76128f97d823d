"""The flow log of an agent, beside another's."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from agent.services.observe import NAME, FlowLog
from agent.standing.service import only_ours


def test_end_beside_another(tmp_path: Path) -> None:
    """I remove one of two agents of a node: the other's flow log stays. What nobody keeps any more goes."""
    kept = tmp_path / NAME / "part"
    held = only_ours(tmp_path / NAME)
    kept.touch()
    removed = FlowLog(SimpleNamespace(node="node-a", state=tmp_path), None, "another agent has it")  # type: ignore[arg-type]
    removed.end()
    assert kept.exists()
    os.close(held)
    removed.end()
    assert not kept.parent.exists()
