"""The commands of `detect` that read files."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from tests.conftest import run_cli
from tests.unit.rules.test_rules import rule

SHELL = rule("evt.type in (execve, execveat) and shell and proc.tty != 0", name="Shell")
MACRO = "- list: shells\n  items: [sh, bash]\n- macro: shell\n  condition: proc.name in (shells)\n"
EVENT = {"evt.type": "execve", "proc.name": "sh", "proc.tty": 34816, "evt.num": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rule files, and an event."""
    (tmp_path / "a.yaml").write_text(MACRO + SHELL)
    (tmp_path / "b.yaml").write_text("- rule: Shell\n  priority: ERROR\n  override: {priority: replace}\n" + rule(
        "evt.type = execve and proc.args in ()", name="Nothing"))  # fmt: skip
    (tmp_path / "event.json").write_bytes(orjson.dumps(EVENT))
    return tmp_path


def test_check(folder: Path) -> None:
    """`check` counts what files define, and tells what changes what and what can never fire."""
    done = run_cli("detect", "check", str(folder))
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.splitlines()[:3] == [
        "2 rules (2 enabled), 1 macro, 1 list",
        f"{folder}/b.yaml:4:9: Nothing can never fire: proc.args in () compares with nothing",
        f"{folder}/b.yaml:1:9: changes the rule Shell of {folder}/a.yaml:5:9",
    ]


def test_check_needs(folder: Path) -> None:
    """`check` tells for each rule which calls the kernel sends for it, with what else, and what it costs."""
    (folder / "c.yaml").write_text(
        rule("evt.type in (sendto, kill) and evt.buffer contains abc and fd.sip.name = x", name="Word")
        + rule("evt.type = kill and proc.name = sh", name="Kill")
        + rule(
            "evt.type = openat and evt.is_open_write = true and fd.name startswith /etc/ and proc.name = vi", name="Vi"
        )
        + rule("ka.verb = get", "  source: k8s_audit\n", name="Get").replace("proc.name", "ka.verb")
    )
    done = run_cli("detect", "check", str(folder))
    said = done.stdout
    assert "Kill can never fire on a node: no agent sees kill\n" in said, done.stderr
    assert "Word is never asked of kill: no agent sees it\n" in said
    assert "kernel sends 4 of 46 system calls, with evt.buffer, fd.sip.name. What" in said
    _, *groups = said.partition("kernel sends")[2].split("\n\n")
    shown = {group.partition(":")[0]: re.findall(r"^ +\d\S* [nµ]s  (.*)$", group, re.MULTILINE) for group in groups}
    assert {what: sorted(names) for what, names in shown.items()} == {
        "sendto with evt.buffer, fd.sip.name": ["Word (asks of each event)"],
        "execve execveat": ["Shell"],
        "execve": ["Nothing"],
        "openat": ["Vi"],
        "nothing": ["Kill"],
        "audit events": ["Get"],
    }
    told = orjson.loads(run_cli("detect", "check", str(folder), "--rule", "Vi", "-o", "json").stdout)
    assert told["calls"] == ["openat"] and told["unseen"] == told["contents"] == [] and told["cost_ns"] > 0
    assert (told["asked_once"], told["asked_each"]) == ({"call": 1, "process": 1, "file": 1}, 0)
    told = orjson.loads(run_cli("detect", "check", str(folder), "--rule", "Word", "-o", "json").stdout)
    assert (told["unseen"], told["contents"], told["asked_each"]) == (["kill"], ["evt.buffer", "fd.sip.name"], 1)


def test_check_one_rule(folder: Path) -> None:
    """I can see a rule with its macros and lists written out, and who had a word in it."""
    done = run_cli("detect", "check", str(folder), "--rule", "shell")
    assert "changed by" in done.stdout and "priority:     Error" in done.stdout
    assert "kernel sends: execve execveat\n" in done.stdout and " ns; parts asked once: call 1" in done.stdout
    assert "  and proc.name in (sh, bash)\n" in done.stdout
    told = orjson.loads(run_cli("detect", "check", str(folder), "--rule", "Shell", "-o", "json").stdout)
    assert told["condition"] == "evt.type in (execve, execveat) and proc.name in (sh, bash) and proc.tty != 0"
    assert told["event_types"] == ["execve", "execveat"]


def test_check_error(folder: Path) -> None:
    """A wrong rule file is one line with its place, on stderr, and exit code 2."""
    (folder / "c.yaml").write_text(rule("evt.type = execve and proc.nme = sh", name="C"))
    done = run_cli("detect", "check", str(folder))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        f"error: {folder}/c.yaml:3:36: no event of source syscall has a field proc.nme: did you mean proc.name? "
        "(LOAD_ERR_COMPILE_CONDITION)\n"
    )


def test_check_warns(folder: Path) -> None:
    """A warning is told on stderr, and the rules work."""
    (folder / "c.yaml").write_text("- macro: nobody\n  condition: proc.name = a\n")
    done = run_cli("detect", "check", str(folder))
    assert done.returncode == 0
    assert done.stderr == f"warning: {folder}/c.yaml:1:10: nothing uses the macro nobody (LOAD_UNUSED_MACRO)\n"


def test_explain(folder: Path) -> None:
    """`explain` shows the parts of a condition that decided, with the values they saw, and which rule hides it."""
    more = rule("evt.type = execve", name="First")
    (folder / "a.yaml").write_text(more + MACRO + SHELL)
    told = ("detect", "explain", "--rules", str(folder), "--rule", "Shell", "--event", str(folder / "event.json"))
    assert run_cli(*told).stdout.splitlines() == [
        "✓ all of",
        "  ✓ evt.type in (execve, execveat)   execve",
        "  ✓ proc.name in (sh, bash)   sh",
        "  ✓ proc.tty != 0   34816",
        "Shell fires",
        "Where the first rule alone counts, 'First' hides it",
    ]
    (folder / "event.json").write_bytes(orjson.dumps({"output_fields": {**EVENT, "proc.name": "a\x1b[31m"}}))
    assert run_cli(*told).stdout.splitlines() == [
        "✗ all of",
        "  ✗ proc.name in (sh, bash)   a\\x1b[31m",
        "Shell does not fire",
    ]


def test_cases(folder: Path) -> None:
    """`test` tries rules with my cases: what did not fire, what should not have, and exit code 1."""
    cases = [
        {"case": "a shell", "event": EVENT, "fires": ["Shell"]},
        {"case": "no shell", "event": {**EVENT, "proc.name": "vi"}},
    ]
    path = folder.parent / f"{folder.name}-cases.yaml"
    path.write_bytes(orjson.dumps(cases))
    done = run_cli("detect", "test", "--rules", str(folder), str(path))
    assert (done.returncode, done.stdout) == (0, "2 of 2 cases are right\n")
    cases[1]["event"] = EVENT
    path.write_bytes(orjson.dumps(cases))
    done = run_cli("detect", "test", "--rules", str(folder), str(path))
    assert done.returncode == 1
    assert done.stdout == f"{path}: case 2: no shell: Shell fired\n1 of 2 cases are right\n"


def test_verify(folder: Path) -> None:
    """`verify` judges files of facts: how many are right, of each that is not what differs, and exit code 1."""
    lines = [{"id": "one", "event": EVENT, "first": ["Shell"], "all": ["Shell"]},
             {"id": "two", "event": EVENT, "first": ["Shell"], "all": []}]  # fmt: skip
    path = folder / "facts.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    done = run_cli("detect", "verify", "--rules", str(folder), str(path))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        'facts.jsonl:2 two: {"all":["Shell"]}, and should be {"all":[]}',
        f"{path}: 1 of 2 are right",
    ]


BAD = {
    "no file": (["check", "/nowhere/a.yaml"], "/nowhere/a.yaml: No such file or directory"),
    "bytes": (["check", "{folder}/binary.yaml"], "is no text: byte 0 is not UTF-8"),
    "an empty folder": (["check", "{folder}/empty"], "has no .yaml file in it"),
    "no such rule": (["check", "{folder}", "--rule", "Shel"], "there is no rule 'Shel': did you mean 'Shell'?"),
    "no such default rule": (["explain", "--rule", "a", "--event", "{folder}/event.json"], "there is no rule 'a'"),
    "no event": (
        ["explain", "--rules", "{folder}", "--rule", "Shell", "--event", "{folder}/a.yaml"],
        "no event in JSON",
    ),
    "no facts": (["verify", "{folder}/a.yaml"], "is no file of facts"),
    "no cases": (["test", "--rules", "{folder}", "{folder}/a.yaml"], "case 1 has a key list"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, folder: Path) -> None:
    """What makes no sense is one clear line, and exit code 1 or 2."""
    other = folder.parent / f"{folder.name}-other"
    (other / "empty").mkdir(parents=True)
    (other / "binary.yaml").write_bytes(b"\xff\xfe")
    arguments, told = BAD[name]
    places = [arg.replace("{folder}/binary", f"{other}/binary").replace("{folder}/empty", f"{other}/empty")
              .replace("{folder}", str(folder)) for arg in arguments]  # fmt: skip
    done = run_cli("detect", *places)
    assert done.returncode in (1, 2) and told in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_default_rules(folder: Path) -> None:
    """Where I name no rules, those that come with it judge."""
    event = {"kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "create", "user": {"username": "eve"},
             "objectRef": {"resource": "clusterrolebindings", "name": "x"}, "responseStatus": {"code": 201},
             "requestObject": {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [{"kind": "User", "name": "eve"}]},
             "stageTimestamp": "2025-11-28T20:00:00Z"}  # fmt: skip
    done = run_cli("detect", "--k8s-audit", "-", input=orjson.dumps(event).decode())
    assert "Rights of cluster-admin are given away" in done.stdout
