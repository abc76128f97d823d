"""The forms of -o: one in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cli import cli
from kubectl_gadget.output import all_forms, forms
from tests.unit.test_completion import offered
from tests.unit.test_recording import RECORDED

SHOUT = """
from kubectl_gadget.output import Extent, Form, Output

class Shout(Output):
    def __init__(self, fields, headers, look):
        self.fields = fields

    def write(self, rows):
        for row in rows:
            print(f"{row[0]}!")

    def refresh(self, sum_up):
        print(sum_up().partition(" in ")[0])

    def finish(self):
        return "shouted"

    def close(self):
        print("closed")

FORMS = (Form("shout", "loud", Extent.COLUMNS, one_line=True, make=Shout),)
"""


@pytest.fixture
def shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A form in a folder of its own."""
    (tmp_path / "shout.py").write_text(SHOUT)
    monkeypatch.setattr(forms, "__path__", [*forms.__path__, str(tmp_path)])
    all_forms.cache_clear()
    yield
    all_forms.cache_clear()


def run(*args: str) -> None:
    cli.main([*map(str, args)], standalone_mode=False)


@pytest.mark.usefixtures("shout")
def test_a_form_is_one_module(capsys: pytest.CaptureFixture[str]) -> None:
    """A form that is added as one file is in --help, is completed, and shows what happens, as it happens."""
    run("execsnoop", "--help")
    assert "|shout|" in capsys.readouterr().out
    assert offered("execsnoop", "-o", "sh") == ["shout"]
    run("replay", RECORDED, "-o", "shout", "--fields", "comm")
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line for line in lines if line.endswith("!")] == ["sh!", "ls!", "nope!"]
    assert (lines[0], lines[-1]) == ("0 events", "closed")
    assert err.startswith("shouted\n3 events from 1 node")
