"""map: from the command to the page."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kubectl_gadget.map import opening
from tests.conftest import run_cli


def test_no_agent() -> None:
    """Without an agent the command says so in a line, and ends."""
    done = run_cli("map", "--agent", "unix:///none", "--no-open", "-A")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_choose_one() -> None:
    """-n and -A contradict each other."""
    done = run_cli("map", "--agent", "unix:///none", "-n", "shop", "-A")
    assert (done.returncode, done.stderr) == (2, "error: -n and -A: choose one\n")


def test_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is led to the page by a file of the user's own: arguments of programs can be read by everybody."""
    asked: list[str] = []
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(opening.webbrowser, "open", asked.append)
    with opening.opened("http://127.0.0.1:1/secret/", wanted=True):
        (url,) = asked
        file = Path(url.removeprefix("file://"))
        assert "secret" not in url and "url=http://127.0.0.1:1/secret/" in file.read_text()
        assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700
    assert not file.parent.exists()


@pytest.mark.parametrize(("wanted", "display"), [(False, ":0"), (True, "")])
def test_not_opened(wanted: bool, display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --no-open, or without a screen, no browser is opened."""
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(opening.sys, "platform", "linux")
    monkeypatch.setattr(opening.webbrowser, "open", lambda url: pytest.fail("opened"))
    with opening.opened("http://127.0.0.1:1/secret/", wanted=wanted):
        pass
