"""What is written on the command line, as kubectl takes it, and what it must not mean."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kubectl_gadget.cli import cli
from tests.conftest import CLI, run_cli


def parsed(*arguments: str) -> dict[str, object]:
    """The values of a command line of execsnoop."""
    command = cli.get_command(click.Context(cli), "execsnoop")
    assert command
    return command.make_context("execsnoop", list(arguments)).params


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        (["-n=shop"], "namespace", ("shop",)),
        (["-p=a,b"], "pod", ("a,b",)),
        (["-l=app=cart"], "selector", "app=cart"),
        (["-o=json"], "form", "json"),
        (["-c=!istio-proxy"], "container", ("!istio-proxy",)),
        (["-A=true"], "all_namespaces", True),
        (["-Ao=json"], "form", "json"),
        (["--filter", "-n=x==y"], "filter_", ("-n=x==y",)),
        (["--filter", "--strict=true"], "filter_", ("--strict=true",)),
        (["-l="], "selector", ""),
        (["-nshop"], "namespace", ("shop",)),
    ],
)
def test_short_options_with_equals(written: list[str], name: str, value: object) -> None:
    """-n=shop is -n shop, as for kubectl; the value of another option is left as it is."""
    assert parsed(*written)[name] == value


@pytest.mark.parametrize(
    "arguments",
    [
        ["execsnoop", "-n", "", "--agent", "unix:///none"],
        ["execsnoop", "-n=", "--agent", "unix:///none"],
        ["execsnoop", "-p", ",", "--agent", "unix:///none"],
        ["execsnoop", "-c", "!", "--agent", "unix:///none"],
        ["execsnoop", "--agent", ""],
        ["execsnoop", "--record", ""],
        ["execsnoop", "--node", ""],
        ["containers", "-n", " ", "--agent", "unix:///none"],
        ["traceloop", "list", "-p", "", "--agent", "unix:///none"],
        ["traceloop", "show", "", "--agent", "unix:///none"],
        ["traceloop", "show", "x", "--syscalls", "", "--agent", "unix:///none"],
        ["traceloop", "delete", "", "--agent", "unix:///none"],
        ["traceloop", "delete", " ", "--agent", "unix:///none"],
        ["advise", "network-policy", "-n", "", "--agent", "unix:///none"],
        ["advise", "network-policy", "check", "--policy", "", "--agent", "unix:///none"],
        ["replay", ""],
    ],
)
def test_an_empty_name_is_refused(arguments: list[str]) -> None:
    """An empty name, as of a variable that is not set, never means everything: it is refused, in one line."""
    done = run_cli(*arguments)
    assert done.returncode == 2, done.stderr
    assert "empty" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-l", "--local"], ["-A", "-p", "--agent", "unix:///none"]])
def test_an_option_is_no_value(arguments: list[str]) -> None:
    """If I forget an option's value, I am told which one lacks it; the next option is not taken for it."""
    done = run_cli("execsnoop", *arguments)
    assert done.returncode == 2, done.stderr
    assert f"has no value before {arguments[-1] if len(arguments) == 2 else '--agent'}" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["traceloop"], ["advise"], ["help"], ["help", "execsnoop"]])
def test_help_without_asking(arguments: list[str]) -> None:
    """A command that lacks its command shows its help, and so does `help`; that is no error."""
    done = run_cli(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: kubectl gadget" in done.stdout


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """A command and all below it, each with its context on a terminal of 80 columns."""
    yield command, context
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        found = command.get_command(context, name)
        assert found
        yield from commands(found, click.Context(found, context, name, terminal_width=80))


def test_help_is_no_wider_than_a_terminal() -> None:
    """At 80 columns no line of any command's help is longer, but for examples, which stand as they are typed."""
    whole = [each.get_help(context) for each, context in commands(cli, click.Context(cli, terminal_width=80))]
    lines = [line for text in whole for line in text.splitlines() if not line.startswith("  kubectl gadget ")]
    assert len(whole) > 60
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    ("words", "several"),
    [("execsnoop", True), ("observe", True), ("why", False), ("deploy", False), ("advise network-policy", False)],
)
def test_how_many_clusters(words: str, several: bool) -> None:
    """Help says which commands take several clusters; the others refuse a second context."""
    assert ("or several" in run_cli(*words.split(), "--help").stdout) == several


def test_help_of_commands() -> None:
    """`help COMMAND` is what COMMAND --help is; list, version and help are among the commands."""
    assert run_cli("help", "traceloop", "show").stdout == run_cli("traceloop", "show", "--help").stdout
    assert run_cli("help", "version").stdout == run_cli("version", "--help").stdout
    whole = run_cli("help").stdout
    for name in ("list", "version", "help"):
        assert f"\n  {name} " in whole
    wrong = run_cli("help", "execsnop")
    assert (wrong.returncode, "did you mean execsnoop" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["traceloop", "show", "x", "--last", "3"], "--tail"),
        (["execsnoop", "--limit", "3"], "--max-events"),
        (["execsnoop", "--namespac", "3"], "--namespace"),
        (["observe", "--failed"], "--verdict"),
        (["observe", "--to-fqdn", "*.example.org"], "--to-dns"),
    ],
)
def test_what_is_suggested(arguments: list[str], meant: str) -> None:
    """A mistyped option leads to one that help shows."""
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert f"'{meant}'" in done.stderr
    assert "--as" not in done.stderr and "--cluster" not in done.stderr


@pytest.mark.parametrize("command", ["execsnoop", "story"])
def test_pods_without_an_option(command: str) -> None:
    """Pods that I name without -p are those that -p chooses, as `why POD` has it, and help says so."""
    found = cli.get_command(click.Context(cli), command)
    assert found
    assert found.make_context(command, ["cart", "-p", "db", "web", "-n", "shop"]).params["pod"] == ("db", "cart", "web")
    assert "[POD]..." in run_cli(command, "--help").stdout
    assert run_cli(command, "").stderr.startswith("error: [POD]... '': empty")


@pytest.mark.parametrize("command", ["profile", "offcpu"])
def test_no_histogram(command: str) -> None:
    """Where no row has a histogram, -o histogram is refused, and help does not name it."""
    assert "histogram" not in run_cli(command, "--help").stdout
    done = run_cli(command, "-o", "histogram")
    assert (done.returncode, "there is nothing here that it could draw" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["execsnoop", "profile", "advise capabilities", "detect learn"])
def test_how_long(command: str) -> None:
    """How long a command takes is --duration everywhere; --timeout is understood, too."""
    said = run_cli(*command.split(), "--help").stdout
    assert "--duration" in said and "--timeout" not in said
    for word in ("--duration=3x", "--timeout=3x"):
        assert "'3x' is no duration" in run_cli(*command.split(), word).stderr


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["list", "-o", "json"], ["--version"]])
def test_closed_output(arguments: list[str]) -> None:
    """With standard output closed I am told so in one line, if anything."""
    done = subprocess.run(["sh", "-c", '"$0" "$@" >&-', CLI, *arguments], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: standard output is closed\n"


@pytest.mark.parametrize("long", ["99999999999h", "1000000h", "9" * 400 + "s"])
def test_a_timeout_beyond_reason(long: str) -> None:
    """A time that is too long is refused in one line."""
    done = run_cli("execsnoop", "--timeout", long, "--agent", "unix:///none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "at most" in done.stderr


def test_standard_input_is_replayed() -> None:
    """`replay -` reads a recording from standard input."""
    with (Path(__file__).parent / "recorded/execsnoop-0.1.0.gadget").open("rb") as recording:
        done = subprocess.run([CLI, "replay", "-"], stdin=recording, capture_output=True, text=True)
    assert done.returncode == 0
    assert "event" in done.stderr


def test_a_long_folder_for_temporary_files(tmp_path: Path) -> None:
    """Sockets are made also where TMPDIR is longer than a socket's name may be."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    code = "from kubectl_gadget.cluster.place import own_folder\nwith own_folder() as folder: print(folder)"
    done = subprocess.run(
        [CLI.with_name("python"), "-c", code], env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )
    assert len(done.stdout.strip()) < 80, done.stderr


@pytest.mark.parametrize(("command", "own"), [("profile", "flamegraph"), ("observe", "jsonpb"), ("execsnoop", "yaml")])
def test_forms_that_there_are(command: str, own: str) -> None:
    """A form that a command lacks is refused with all that it has."""
    done = run_cli(command, "-o", "foo")
    assert done.returncode == 2 and f"'{own}'" in done.stderr
