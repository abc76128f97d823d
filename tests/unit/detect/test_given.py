"""The shell completes what rules are called."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from kubectl_gadget.detect.commands import DetectCommand
from tests.unit.rules.test_rules import rule


@pytest.mark.parametrize(("option", "typed", "wanted"), [("--rule", "she", ["Shell"]), ("--tag", "T1", ["T1059"])])
def test_complete(option: str, typed: str, wanted: list[str], tmp_path: Path) -> None:
    """Names and tags are those of the rules that I name, in any case."""
    path = tmp_path / "rules.yaml"
    path.write_text(
        rule("evt.type = execve", "  tags: [T1059, x]\n", name="Shell") + rule("evt.type = open", name="Open")
    )
    command = DetectCommand()
    ctx = click.Context(command)
    ctx.params["rules"] = (path,)
    param = next(each for each in command.params if option in each.opts)
    assert [each.value for each in param.shell_complete(ctx, typed)] == wanted
