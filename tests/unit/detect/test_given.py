"""The shell completes what rules are called."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from gadget.errors import UsageError
from kubectl_gadget.detect.commands import DetectCommand
from kubectl_gadget.detect.given import given_rules
from kubectl_gadget.detect.kept import AlertsCommand
from kubectl_gadget.options import DurationType
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


def test_default_mistyped(tmp_path: Path) -> None:
    """A file that is not there, and is called almost as the default rules, is told as such."""
    with pytest.raises(UsageError, match=r"defualt: No such file or directory: did you mean default\?"):
        given_rules([Path("defualt")])
    with pytest.raises(OSError, match="mine"):
        given_rules([tmp_path / "mine.yaml"])


def test_days() -> None:
    """What happened in some days is asked for as such."""
    assert DurationType().convert("1d12h", None, None) == 129_600


@pytest.mark.parametrize(
    ("typed", "wanted"), [("ru", ["rule"]), ("rule,po", ["rule,pod"]), ("pod,n", ["pod,node", "pod,namespace"])]
)
def test_complete_by(typed: str, wanted: list[str]) -> None:
    """What `alerts --by` counts by is completed, one name after the other."""
    command = AlertsCommand()
    param = next(each for each in command.params if "--by" in each.opts)
    assert [each.value for each in param.shell_complete(click.Context(command), typed)] == wanted
