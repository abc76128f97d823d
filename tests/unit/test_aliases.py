"""What other tools call our gadgets."""

from __future__ import annotations

import io
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

from gadget import catalog
from kubectl_gadget import aliases, cli
from tests.conftest import CLI, run_cli


def meant(*arguments: str) -> tuple[str | None, list[str]]:
    """The command that arguments lead to, and what is left for it."""
    context = click.Context(cli.cli, resilient_parsing=True)
    name, _, rest = cli.cli.resolve_command(context, list(arguments))
    return name, rest


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("trace exec", "execsnoop"),
        ("trace open", "opensnoop"),
        ("trace tcp", "tcptracer"),
        ("trace tcpconnect", "tcpconnect"),
        ("trace_exec", "execsnoop"),
        ("trace_open:latest", "opensnoop"),
        ("run trace_exec", "execsnoop"),
        ("run trace_exec:latest", "execsnoop"),
        ("run trace_tcp:v0.40.0", "tcptracer"),
        ("run ghcr.io/inspektor-gadget/gadget/trace_open:latest", "opensnoop"),
        ("run registry:5000/trace_open@sha256:0123", "opensnoop"),
        ("run execsnoop", "execsnoop"),
        ("trace execsnoop", "execsnoop"),
        ("run traceloop", "traceloop"),
        ("execsnoop-bpfcc", "execsnoop"),
        ("opensnoop-bpfcc", "opensnoop"),
        ("tcplife", "tcptracer"),
        ("tcpconnect-bpfcc", "tcpconnect"),
        ("execsnoop.bt", "execsnoop"),
        ("trace-all", "story"),
        ("snapshot process", "snapshot process"),
        ("snapshot_process", "snapshot process"),
        ("run snapshot_process:latest", "snapshot process"),
        ("pstree", "snapshot process"),
        ("run snapshot_file", "snapshot file"),
        ("lsof", "snapshot file"),
        ("run snapshot_socket", "snapshot socket"),
        ("ss", "snapshot socket"),
        ("run profile_cpu:latest", "profile"),
        ("profile-bpfcc", "profile"),
    ],
)
def test_what_other_tools_call_it(written: str, name: str) -> None:
    """Who knows Inspektor Gadget, bcc or bpftrace writes what they are used to, and gets ours with all options."""
    found, rest = meant(*written.split(), "-n", "shop", "-o", "json")
    group, _, command = name.partition(" ")
    assert (found, rest) == (group, [*([command] if command else []), "-n", "shop", "-o", "json"])


def test_it_runs() -> None:
    """It is the command itself: its help, its options, its errors."""
    assert run_cli("trace", "exec", "--help").stdout == run_cli("execsnoop", "--help").stdout
    done = run_cli("run", "trace_open:latest", "--nope")
    assert done.returncode == 2 and "gadget opensnoop --help" in done.stderr


def test_help_of_it() -> None:
    """`kubectl gadget help trace exec` is the help of execsnoop."""
    assert run_cli("help", "trace", "exec").stdout == run_cli("help", "execsnoop").stdout


@pytest.mark.parametrize(("terminal", "said"), [(True, "trace exec is execsnoop here\n"), (False, "")])
def test_ours_is_said_to_people(monkeypatch: pytest.MonkeyPatch, terminal: bool, said: str) -> None:
    """A person learns once what it is called here; a script gets nothing that it did not ask for."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    cli.cli.resolve_command(click.Context(cli.cli), ["trace", "exec", "-n", "shop"])
    assert screen.getvalue() == said


def test_ours_alone_is_shown() -> None:
    """Help and completion name each gadget once, by our name."""
    done = run_cli("--help")
    for gadget in catalog.load().values():
        assert gadget.aliases
        assert not [alias for alias in gadget.aliases if f" {alias}," in done.stdout or f"  {alias} " in done.stdout]
    complete = ShellComplete(cli.cli, {}, cli.PROGRAM, "")
    names = ["tcpconnect", "tcpdrop", "tcpretrans", "tcprtt", "tcptop", "tcptracer", "ttysnoop", "traceloop"]
    assert [item.value for item in complete.get_completions([], "t")] == names
    assert "--namespace" in [item.value for item in complete.get_completions(["trace", "exec"], "--name")]
    for words in (["trace"], ["run"], ["nope"]):
        assert [item.value for item in complete.get_completions(words, "e")] == ["execsnoop", "exitsnoop"]


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("trace opne", "unknown command 'trace opne': did you mean opensnoop?"),
        ("trace_exce", "unknown command 'trace_exce': did you mean execsnoop?"),
        ("run trace_exce:latest", "unknown command 'trace_exce': did you mean execsnoop?"),
        ("run execsnop", "unknown command 'execsnop': did you mean execsnoop?"),
        ("top qqq", "unknown command 'top qqq': the help lists what there is"),
        ("qqq file", "unknown command 'qqq': the help lists what there is"),
        ("run qqq", "unknown command 'qqq': the help lists what there is"),
        ("trace", "trace takes the name of a gadget; here trace bind is bindsnoop, "),
        ("trace -n shop", "trace takes the name of a gadget; here trace bind is bindsnoop, "),
        ("run", "run takes the name of a gadget, which stands alone here: there is bindsnoop, "),
    ],
)
def test_what_is_none_is_told_in_our_words(written: str, error: str) -> None:
    """A name that nobody has is an error of one line, with the nearest of our names or with all of them."""
    done = subprocess.run([CLI, *written.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {error}") and done.stderr.count("\n") == 1


def test_each_name_means_one_thing() -> None:
    """No name of another tool hides a command of ours, or means two of them."""
    every = [*(alias for gadget in catalog.load().values() for alias in gadget.aliases), *aliases.OF_OTHERS]
    ours = set(cli.cli.list_commands(click.Context(cli.cli)))
    assert len(every) == len(set(every))
    assert not ours & {*every, *(alias.partition(" ")[0] for alias in every), "run"}
