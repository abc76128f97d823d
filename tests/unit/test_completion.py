"""What the shell offers where a field, or its value, is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from kubectl_gadget.cli import PROGRAM, cli
from tests.unit.test_recording import record, sent


def offered(*arguments: str) -> list[str]:
    """What completes the last of the arguments."""
    *before, last = arguments
    return [item.value for item in ShellComplete(cli, {}, PROGRAM, "").get_completions(list(before), last)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("execsnoop", "--fields", "pp"), ["ppid"]),
        (("execsnoop", "--filter", "comm==sh && (erro"), ["comm==sh && (error"]),
        (("execsnoop", "--fields", "pid,pc"), ["pid,pcomm"]),
        (("execsnoop", "--fields", "+ex"), ["+exe"]),
        (("execsnoop", "--fields", "+exe,-no"), ["+exe,-node"]),
        (("execsnoop", "--fields", "nothing"), []),
        (
            ("tcpconnect", "--count-by", "dst"),
            ["dst", "dst.addr", "dst.port", "dst.kind", "dst.namespace", "dst.name"],
        ),
        (("tcpconnect", "--filter", "res"), ["result"]),
        (("tcpconnect", "--filter", "pid>1,result!=re"), ["pid>1,result!=refused", "pid>1,result!=reset"]),
        (("tcpconnect", "--filter", "error==ENETU"), ["error==ENETUNREACH"]),
        (("opensnoop", "--filter", "flags~O_CR"), ["flags~O_CREAT"]),
        (("execsnoop", "--filter", "args_truncated==t"), ["args_truncated==true"]),
        (("execsnoop", "--filter", "pid>"), []),
        (("execsnoop", "--filter", "nothing==x"), []),
    ],
)
def test_fields_and_values(arguments: tuple[str, ...], wanted: list[str]) -> None:
    """Tab completes the names of fields and of their parts, in lists too, and in a filter the words of a value."""
    assert offered(*arguments) == wanted


def test_replay(tmp_path: Path) -> None:
    """For a replay the fields are those of the recording; without one there is nothing to offer."""
    file = record(tmp_path / "file", sent())
    assert offered("replay", str(file), "--fields", "lat") == ["latency"]
    assert offered("replay", str(tmp_path / "none"), "--fields", "lat") == []
    assert offered("replay", "--fields", "lat") == []
