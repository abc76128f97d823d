"""The forms of -o: one in a file of its own, and lines by a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gadget import catalog
from gadget.errors import UsageError
from kubectl_gadget.cli import cli
from kubectl_gadget.output import all_forms, choose_fields, forms, make_output
from tests.unit.test_completion import offered
from tests.unit.test_output import CRAFTED, on_terminal
from tests.unit.test_recording import RECORDED, record, sent, show

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
    assert "shout," in capsys.readouterr().out
    assert offered("execsnoop", "-o", "sh") == ["shout"]
    run("replay", RECORDED, "-o", "shout", "--fields", "comm")
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line for line in lines if line.endswith("!")] == ["sh!", "ls!", "nope!"]
    assert (lines[0], lines[-1]) == ("0 events", "closed")
    assert err.startswith("shouted\n3 events from 1 node")


def test_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o format='{comm} {dst.addr}' shows an event a line as I write it, {{ and }} are braces."""
    show(record(tmp_path / "file", sent()), "", form="format=100% {comm}: {{{dst}}} {dst.addr}|{result} {comm}")
    assert capsys.readouterr().out.splitlines() == [
        "100% curl: {svc/shop/web:80} 10.244.1.9|ok curl",
        "100% curl: {[2001:db8::7]:443} 2001:db8::7|pending curl",
        "100% curl: {svc/shop/web:80} 10.244.1.9|unreachable curl",
    ]


def test_template_of_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A template also shows what --count-by has counted, and refuses at once what that has not."""
    file = record(tmp_path / "file", sent())
    show(file, "", form="format={comm} {count}×", count_by="comm")
    assert capsys.readouterr().out == "curl 3×\n"
    with pytest.raises(UsageError, match=r"unknown field 'pid' in -o format: there is count, comm$"):
        show(file, "", form="format={pid}", count_by="comm")


def test_template_of_other_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables that are no streams take a template too."""
    run("list", "-o", "format={name}: {group}")
    assert capsys.readouterr().out.splitlines() == [f"{each.command}: {each.group}" for each in catalog.load().values()]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{nothing}", "unknown field 'nothing': execsnoop has timestamp, node"),
        ("{comm.addr}", "unknown field 'comm.addr': did you mean comm?"),
        ("{comm", "a lone { in '{comm': want {FIELD}, and {{ for {"),
        ("comm}", "a lone } in 'comm}'"),
        ("{} {comm}", "a lone { in"),
        ("comm", "no field in 'comm'"),
        ("{comm}\n{pid}", "a template is one line"),
    ],
)
def test_wrong_template(template: str, why: str) -> None:
    """A template that says nothing is refused in one line that says what there is."""
    with pytest.raises(UsageError) as raised:
        show(RECORDED, "", form=f"format={template}")
    assert str(raised.value).startswith(why) and "\n" not in str(raised.value)


def test_template_or_fields() -> None:
    """A template and --fields contradict each other, and I am told so."""
    with pytest.raises(UsageError, match="--fields: -o format names its fields itself"):
        show(RECORDED, "pid", form="format={comm}")


def test_template_decodes_what_it_shows() -> None:
    """Nothing is decoded but the fields that a template names, each once; one that needs a switch turns it on."""
    fields = choose_fields(catalog.find("execsnoop"), "format={pid} {comm} {pid}", "", [])
    assert [field.name for field in fields] == ["pid", "comm"]
    from kubectl_gadget.stream.request import make_request

    request = make_request(catalog.find("execsnoop"), {}, "format={cwd}", "", (), "")
    assert request.parameters == {"cwd": "True"}


def crafted(form: str) -> None:
    schema = catalog.find("execsnoop").schema
    make_output(form, [schema["exe"], schema["args"]], {}).write([(text, [text]) for text in CRAFTED])


def test_template_on_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """No name that a process chose reaches my terminal as a command through a template."""
    shown = on_terminal(100, "format={exe} {args}", what=crafted)
    assert shown.replace("\n", "").isprintable() and shown.count("\n") == len(CRAFTED)
    assert "a\\x9b31mred a\\x9b31mred\n" in shown
