"""Settings of an agent: where they are taken from, and what is told of those that make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent.main import AgentCommand
from agent.settings import given, make, options, read_file, setting, settings_of
from gadget.errors import UsageError
from gadget.runtimes import State


@dataclass(frozen=True)
class Settings:
    """Of each kind one."""

    on: bool = setting(True, "Whether.", option="--things")
    most: int = setting(17, "How many.", unit="things", least=3)
    full: float = setting(0.75, "How full.", option="", least=0)
    place: Path = setting(Path("/there"), "Where.", variable="PLACE")
    names: tuple[str, ...] = setting((), "Who.", read=str.upper)
    form: str = setting("round", "How.", choices=("round", "square"))


SECTIONS = {"things": Settings}


def made(
    *args: str,
    environment: dict[str, str] | None = None,
    file: dict[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Settings:
    """The settings with these arguments, and sets as the texts of --set."""
    found: list[Settings] = []

    @click.pass_context
    def command(context: click.Context, **_: Any) -> None:
        found.append(
            make(
                "things",
                Settings,
                given(context, "things", Settings, sets),
                environment or {},
                file or {},
                Path("x.toml"),
            )
        )

    click.Command("things", params=options("things", Settings), callback=command).main(args, standalone_mode=False)
    return found[0]


def test_defaults() -> None:
    """Where nobody says anything, all is as documented."""
    assert made() == Settings(True, 17, 0.75, Path("/there"), (), "round")


def test_precedence() -> None:
    """An option goes before a variable of the environment, that before the file, and the file before the default."""
    file = {"most": 5, "on": False, "full": 0.5, "names": ["a"], "place": "/file"}
    environment = {
        "GADGET_THINGS_MOST": "7",
        "GADGET_THINGS_ON": "yes",
        "GADGET_THINGS_NAMES": "b\nc d\n",
        "PLACE": "/other",
    }
    assert made(file=file) == Settings(False, 5, 0.5, Path("/file"), ("A",), "round")
    assert made(file=file, environment=environment) == Settings(True, 7, 0.5, Path("/other"), ("B", "C D"), "round")
    arguments = [
        "--no-things",
        "--things-most",
        "11",
        "--things-names",
        "e",
        "--things-names",
        "f",
        "--things-place",
        "/o",
    ]
    expected = Settings(False, 11, 0.5, Path("/o"), ("E", "F"), "round")
    assert made(*arguments, file=file, environment=environment) == expected
    sets = ["things.most=13", "things.full=0.25"]
    assert made(environment=environment, sets=sets).most == 13
    assert made(*arguments, file=file, environment=environment, sets=sets) == replace(expected, full=0.25)


def test_variables() -> None:
    """An empty variable says nothing; our own goes before one that others set."""
    assert made(environment={"GADGET_THINGS_MOST": "", "PLACE": ""}) == Settings()
    assert made(environment={"GADGET_THINGS_PLACE": "/a", "PLACE": "/b"}).place == Path("/a")


@pytest.mark.parametrize(
    ("environment", "file", "said"),
    [
        ({"GADGET_THINGS_MOST": "many"}, {}, "GADGET_THINGS_MOST: 'many' is no number"),
        ({"GADGET_THINGS_MOST": "2"}, {}, "GADGET_THINGS_MOST: 2 is too little: at least 3 things"),
        ({"GADGET_THINGS_ON": "perhaps"}, {}, "GADGET_THINGS_ON: 'perhaps' is neither true nor false"),
        ({"GADGET_THINGS_FULL": "nan"}, {}, "GADGET_THINGS_FULL: nan is not a number"),
        ({}, {"full": float("inf")}, "x.toml: [things] full: inf is not a number"),
        ({}, {"most": 2}, "x.toml: [things] most: 2 is too little: at least 3 things"),
        ({}, {"most": True}, "x.toml: [things] most: True is not a whole number"),
        ({}, {"on": 1}, "x.toml: [things] on: 1 is not true or false"),
        ({}, {"names": "a"}, "x.toml: [things] names: 'a' is not a list of texts"),
        ({}, {"names": [1]}, "x.toml: [things] names: [1] is not a list of texts"),
        ({}, {"form": "flat"}, "x.toml: [things] form: 'flat' is none of round, square"),
    ],
)
def test_nonsense(environment: dict[str, str], file: dict[str, Any], said: str) -> None:
    """A value that makes no sense is told in one line, with where it is from."""
    with pytest.raises(UsageError) as refused:
        made(environment=environment, file=file)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[thing]\n", "{path}: no section [thing]: there are things"),
        ("things = 3", "{path}: things is not a section"),
        ("[things]\nmots = 3", "{path}: [things] has no mots: there are on, most, full, place, names, form"),
        ("[things", "--config: {path}: "),
        ("\udcff", "--config: {path}: "),
    ],
)
def test_bad_files(text: str, said: str, tmp_path: Path) -> None:
    """A file that is none of settings, or names what there is not, is refused with what is wrong."""
    path = tmp_path / "agent.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError) as refused:
        read_file(path, SECTIONS)
    assert str(refused.value).startswith(said.format(path=path))
    assert "\n" not in str(refused.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, or is none, ends an agent that was told to read it, and does not keep it waiting."""
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"--config: {path}: (No such|not a)"):
            read_file(path, SECTIONS)


def agent_settings(*args: str) -> dict[str, Any]:
    """Those that an agent with these arguments has."""
    command = AgentCommand()
    return command.settings(command.make_context("gadget-agent", list(args)))


def test_options_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options that deploy passes on, and those that people have in units and scripts, mean what they always did."""
    for name in ("NODE_NAME", "POD_UID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    found = agent_settings(
        *("--traceloop=shop,web", "--traceloop-memory=256", "--redact=a+", "--redact=b", "--no-flows"),
        *("--log-level=error", "--runtime-state=cri-o=/run/other", "--expect-bpffs", "--runs-keep", "7"),
        *("--flows-limit", "64", "--node", "node-a", "--kubernetes", "--listen", "127.0.0.1:7070"),
    )
    own, traceloop, flows, standing = (found[name] for name in ("agent", "traceloop", "flows", "standing"))
    assert (own.redact, own.log_level, own.runtime_state) == (("a+", "b"), "error", (State("cri-o", "/run/other"),))
    assert (own.expect_bpffs, own.node, own.kubernetes, own.listen) == (True, "node-a", True, "127.0.0.1:7070")
    assert (traceloop.record, traceloop.memory) == (frozenset({"shop", "web"}), 256)
    assert (flows.on, flows.limit, standing.keep) == (False, 64, 7)
    usual = agent_settings()
    assert (usual["traceloop"].record, usual["flows"].on, usual["agent"].kubernetes) == (frozenset(), True, False)
    assert usual["agent"].listen == "unix:///run/gadget/agent.sock"
    assert agent_settings("--traceloop", "off")["traceloop"].record is None
    monkeypatch.setenv("NODE_NAME", "node-b")
    monkeypatch.setenv("POD_UID", "uid")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    in_pod = agent_settings()["agent"]
    assert (in_pod.node, in_pod.pod_uid, in_pod.kubernetes) == ("node-b", "uid", True)
    assert not agent_settings("--no-kubernetes")["agent"].kubernetes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--traceloop", "Shop"], "--traceloop 'Shop': 'Shop' is no namespace"),
        (["--redact", "("], "--redact: missing )"),
        (["--set", "traceloop.memroy=3"], "--set: [traceloop] has no memroy: there are record, memory, "),
        (["--set", "loop.memory=3"], "--set: no section [loop]: there are agent, "),
        (["--set", "memory=3"], "--set memory=3: want SECTION.KEY=VALUE"),
        (["--set", "traceloop.memory"], "--set traceloop.memory: want SECTION.KEY=VALUE"),
        (["--set", "traceloop.memory=0"], "--set traceloop.memory: 0 is too little: at least 1 MiB"),
        (["--set", "standing.look-seconds=1e12"], "--set standing.look-seconds: 1000000000000.0 is too much"),
        (["--set", "inspect.on=0"], "--set: [inspect] has no on: there are none"),
        (["--runtime-state", "x"], "--runtime-state 'x': want the whole path"),
    ],
)
def test_nonsense_of_options(arguments: list[str], said: str) -> None:
    """A text that makes no sense as an option's is refused before the agent does anything."""
    with pytest.raises(UsageError) as refused:
        agent_settings(*arguments)
    assert str(refused.value).startswith(said)


def test_limits_of_options() -> None:
    """Too little is refused with the option's name."""
    done = CliRunner().invoke(AgentCommand(), ["--flows-limit", "3"])
    assert done.exit_code == 2
    assert "Invalid value for '--flows-limit': 3 is not in the range x>=64." in done.output


def test_every_setting_is_told_of() -> None:
    """Of each setting I can read what it is for; no two are the same option."""
    command = AgentCommand()
    every = [each for name, kind in command.sections.items() for each in settings_of(name, kind)]
    assert all(each.about.doc.endswith(".") for each in every)
    names = [each.option for each in every if each.option]
    assert len(names) == len(set(names))


def test_lists_add_up() -> None:
    """Each pattern of secrets that I give is one, whichever way I give it: none takes the place of another."""
    sets = ["--set", "agent.redact=password=.*", "--set", "agent.redact=token=.*"]
    assert agent_settings(*sets, "--redact", "key=.*")["agent"].redact == ("password=.*", "token=.*", "key=.*")


def test_bytes_of_options() -> None:
    """A pattern may have bytes that are no text, as what it is to mask may have."""
    assert agent_settings("--redact", "\udcff+")["agent"].redact == ("\udcff+",)
