"""The rules that come with it: each fires when it should, leaves usual work alone, and can be changed from outside."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gadget.rules.batch import BatchRules, Rows
from gadget.rules.default import files
from gadget.rules.explain import never
from gadget.rules.ruleset import Rule, Ruleset, load
from kubectl_gadget.detect.given import as_event
from tests.conftest import run_cli
from tests.unit.rules.test_batch import batch_of, judged

HERE = Path(__file__).parent
CASES, ON_CASES = HERE / "default_cases.yaml", HERE / "default_on_cases.yaml"
ON = HERE / "default_on.yaml"
#: Of the system calls that the kernel side reports.
CALLS = frozenset(
    re.findall(
        r"\w+",
        """execve execveat open openat openat2 creat connect accept accept4 listen ptrace symlink symlinkat link linkat socket
        dup dup2 dup3 init_module finit_module sendto sendmsg recvfrom recvmsg setns unshare setuid unlink unlinkat rename
        renameat renameat2 rmdir chmod fchmod fchmodat bpf mkdir mkdirat userfaultfd""",
    )
)
#: Rules about the node too: what they tell of takes it over, whoever does it.
OF_NODE = {"Program that is in no file", "Kernel module from an unusual place is loaded"}
#: The rule of the first case.
RULE = "Interactive shell in a container"


@cache
def rules(*more: str) -> Ruleset:
    """The default rules, and files of a user after them."""
    return load([*files(), *((f"mine-{number}.yaml", text) for number, text in enumerate(more))])


@cache
def cases() -> list[dict[str, Any]]:
    """All cases."""
    return [case for path in (CASES, ON_CASES) for case in yaml.safe_load(path.read_text())]


def fired(case: dict[str, Any], *more: str, **changed: Any) -> list[str]:
    """The rules that fire on the event of a case, with some fields changed."""
    names = {key.replace("__", "."): value for key, value in changed.items()}
    given = as_event({**case["event"], **names}, case["case"])
    event, source = given.event, given.source
    return [rule.name for rule in rules(*more).matching(event, source)]


def firing(source: str = "syscall") -> list[Any]:
    """Cases in which rules of the default state fire, of one source."""
    return [
        pytest.param(case, id=case["case"])
        for case in yaml.safe_load(CASES.read_text())
        if case.get("fires") and ("auditID" in case["event"]) == (source != "syscall")
    ]


def of_runtime(event: dict[str, Any]) -> bool:
    """Whether an event is of a kind that a container runtime causes, too."""
    never = ("execve", "dup2", "ptrace", "finit_module", "init_module")
    return event["evt.type"] not in never and "fd.sport" not in event


def all_rules() -> list[Any]:
    """The default rules by name."""
    return [pytest.param(rule, id=rule.name) for rule in rules().rules]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["case"]) for case in cases()])
def test_case(case: dict[str, Any]) -> None:
    """A default rule fires on what it is about, alone, and no default rule does on usual work."""
    more = (ON.read_text(),) if case in yaml.safe_load(ON_CASES.read_text()) else ()
    assert fired(case, *more) == case.get("fires", [])


def test_cases_at_once() -> None:
    """The default rules fire on the same events among others as alone."""
    some = [case for case in yaml.safe_load(CASES.read_text()) if "evt.type" in case["event"]]
    events = [as_event(case["event"], case["case"]).event for case in some]
    tables = (Rows(), Rows(), Rows())
    assert judged(BatchRules(rules(), tables), batch_of(events, tables)) == [case.get("fires", []) for case in some]  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", all_rules())
def test_has_cases(rule: Rule) -> None:
    """Each default rule has a case that fires it, and one of usual work that does not."""
    own = [case for case in cases() if case["case"].startswith(f"{rule.name}: ")]
    assert any(rule.name in case.get("fires", []) for case in own), "no case fires it"
    assert any(not case.get("fires") for case in own), "no case of usual work"


def test_cases_are_about_rules() -> None:
    """Each case begins with the name of a rule, so that it goes when the rule goes."""
    names = {rule.name for rule in rules().rules}
    assert not [case["case"] for case in cases() if case["case"].split(": ")[0] not in names]


def test_command() -> None:
    """The cases are in the format of `detect test`, which judges them the same way; `default` names the rules."""
    done = run_cli("detect", "test", "--rules", "default", str(CASES))
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_cli("detect", "test", "--rules", "default", "--rules", str(ON), str(ON_CASES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_is_clean() -> None:
    """`detect check` has nothing to say of the default rules but how many they are, and what they need and cost."""
    done = run_cli("detect", "check", "default")
    assert (done.returncode, done.stderr) == (0, "")
    said, _, needs = done.stdout.partition("\n\n")
    assert said.count("\n") == 0 and needs.startswith("For these rules the kernel sends ")
    assert rules().warnings == ()


def test_order() -> None:
    """The file of shared macros is loaded first, as a macro is known to what comes after it alone."""
    assert files()[0][0] == "default/common.yaml"


@pytest.mark.parametrize("rule", all_rules())
def test_rule(rule: Rule) -> None:
    """A default rule can fire, says who did it, asks for events that there are, and explains itself in a breath."""
    assert not never(rule.condition, rule.source)
    printed = rule.output.fields
    if rule.source == "syscall":
        assert {"proc.name", "proc.cmdline", "proc.pname", "user.name", "container.id", "container.image.repository",
                "k8s.ns.name", "k8s.pod.name"} <= printed.keys()  # fmt: skip
        assert rule.types and rule.types <= CALLS
    else:
        assert "ka.useragent" in printed and any(name.startswith("ka.target.") or name == "ka.uri" for name in printed)
        assert "ka.req.configmap.obj" not in printed  # an alert goes to more people than the secret in it
    assert 80 < len(rule.desc) < 400 and rule.desc.rstrip().endswith(".")
    assert any(re.fullmatch(r"T\d{4}(\.\d{3})?", tag) for tag in rule.tags)


def test_allowed_lists_are_empty() -> None:
    """What I allow is mine to say: nothing is in a list whose name begins with allowed_."""
    lists = {name: each.items for name, each in rules().files.lists.items() if name.startswith("allowed_")}
    assert len(lists) > 20 and not any(lists.values())


@pytest.mark.parametrize("case", firing())
def test_node(case: dict[str, Any]) -> None:
    """Rules for containers leave the node alone, whose work is not ours to know."""
    assert set(fired(case, container__id="host")) <= set(case["fires"]) & OF_NODE


@pytest.mark.parametrize("case", firing())
def test_failed(case: dict[str, Any]) -> None:
    """A call that failed is no alert: the fields of a failed exec are the caller's."""
    descriptor = {"fd.num": -1} if "fd.num" in case["event"] and case["event"]["evt.type"] != "connect" else {}
    failed = {"evt.rawres": -13, "evt.res": "EACCES", **descriptor}
    assert not fired({**case, "event": {**case["event"], **failed}})


@pytest.mark.parametrize("case", [case for case in firing() if of_runtime(case.values[0]["event"])])
def test_runtime(case: dict[str, Any]) -> None:
    """What runc does in a container, before the container's program is there, is no alert."""
    assert not fired(case, proc__name="runc:[2:INIT]", proc__pname="runc", proc__cmdline="runc init", proc__args="init")


@pytest.mark.parametrize("name", [name for name in rules().files.lists if re.fullmatch(r"allowed_.*_images", name)])
def test_allowed_image(name: str) -> None:
    """An image that I add to an allowed_ list no longer fires the rules of that list, and others go on."""
    own = {
        rule.name
        for rule in rules().rules
        if any(name in part.value for part in rules().files.rules[rule.name].condition)
    }
    own |= {rule.name for rule in rules().rules if name == "allowed_node_pod_images" and rule.name.startswith("Pod ")}
    mine = f"- list: {name}\n  items: [shop/cart]\n  override: {{items: append}}\n"
    found = [case.values[0] for source in ("syscall", "k8s_audit") for case in firing(source)]
    changed = {each for case in found for each in set(case["fires"]) - set(fired(case, mine))}
    assert own and changed == own


USERS = {
    "allowed_administrators": ("jane@example.com", "Admission webhook is changed"),
    "allowed_secret_readers": ("jane@example.com", "Secrets of all namespaces are read"),
    "allowed_pod_users": ("jane@example.com", "Program is started in a pod by hand"),
    "allowed_node_namespaces": ("shop", "Pod that can take over its node"),
    "allowed_configmaps": ("cart", "ConfigMap with a password or key in it"),
    "allowed_etc_paths": ("/etc/nginx", "File below /etc is written by hand"),
    "allowed_server_commands": ("sh -c id", "Web server starts a shell"),
    "allowed_networks": ("203.0.113.0/24", "Connection to a usual port of mining pools"),
    "allowed_domains": ("pool.example.com", "Connection to a usual port of mining pools"),
}


@pytest.mark.parametrize("name", USERS)
def test_allowed(name: str) -> None:
    """What I add to an allowed_ list of users, namespaces, paths or commands is left alone."""
    item, rule = USERS[name]
    case = next(case for case in cases() if case.get("fires") == [rule])
    case = (
        {**case, "event": {**case["event"], "fd.sip.name": "pool.example.com"}} if name == "allowed_domains" else case
    )
    assert not fired(case, f"- list: {name}\n  items: ['{item}']\n  override: {{items: append}}\n")
    assert not fired(case, f"- list: {name}\n  items: ['{item}']\n")  # replaces it


def test_no_list_is_untested() -> None:
    """Each allowed_ list has a test that it works."""
    lists = {name for name in rules().files.lists if name.startswith("allowed_") and not name.endswith("_images")}
    assert lists == USERS.keys()


def narrowed() -> str:
    """What a user writes to narrow each rule."""
    found = ""
    for rule in rules().rules:
        field = "proc.name" if rule.source == "syscall" else "ka.verb"
        found += f"- rule: {rule.name}\n  condition: and {field} = nobody\n  override: {{condition: append}}\n"
    return found


@pytest.mark.parametrize("case", [*firing(), *firing("k8s_audit")])
def test_condition_appended(case: dict[str, Any]) -> None:
    """I can narrow any default rule by appending to its condition: an `or` in it is in parentheses."""
    assert not fired(case, narrowed())


OVERRIDES = {
    "an exception": (
        f"- rule: {RULE}\n  exceptions:\n    - name: mine\n      fields: [proc.name, k8s.ns.name]\n      values: [[bash, shop]]\n"
        "  override: {exceptions: append}\n"
    ),
    "a switch": f"- rule: {RULE}\n  enabled: false\n  override: {{enabled: replace}}\n",
    "the switch of before": f"- rule: {RULE}\n  enabled: false\n",
    "a macro": "- macro: in_container\n  condition: and not k8s.ns.name = shop\n  override: {condition: append}\n",
    "a macro of one's own": "- macro: in_container\n  condition: container.id != host and k8s.ns.name = kitchen\n",
    "a list that is replaced": "- list: shells\n  items: [fish]\n  override: {items: replace}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", OVERRIDES)
def test_override(name: str) -> None:
    """The ways of Falco's files to change a rule work on the default rules."""
    case = cases()[0]
    assert fired(case) == [RULE]
    assert not fired(case, OVERRIDES[name])


def test_page() -> None:
    """What the page of the default rules says to write in a file of one's own works, and it lists each list to fill."""
    page = (HERE.parents[2] / "docs/rules.md").read_text()
    mine = "\n".join(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    changed = rules(mine)
    assert not changed.warnings
    assert fired(cases()[0]) == fired(cases()[0], mine) == [RULE]
    assert not fired(cases()[0], mine, container__image__repository="registry.example.com/tools/debug")
    assert set(re.findall(r"^\| `(allowed_\w+)`", page, re.MULTILINE)) == {
        name for name in rules().files.lists if name.startswith("allowed_")
    }


def test_priority() -> None:
    """I can give a default rule another priority."""
    changed = rules(f"- rule: {RULE}\n  priority: ERROR\n  override: {{priority: replace}}\n")
    assert next(rule for rule in changed.rules if rule.name == RULE).priority == "Error"


def test_missing_names_do_not_silence() -> None:
    """A container whose image and pod are not known yet is watched like any other."""
    for case in (each.values[0] for each in firing()):
        bare = {key: value for key, value in case["event"].items() if not key.startswith(("container.image", "k8s."))}
        assert fired({**case, "event": bare}) == case["fires"], case["case"]
