"""Rule files: errors with their place, what differs from Falco on purpose, and files made to hurt."""

from __future__ import annotations

import resource
import time

import pytest

from gadget.rules import values
from gadget.rules.audit import AuditEvent, repository
from gadget.rules.checks import Compiler
from gadget.rules.explain import lines, never, text
from gadget.rules.outputs import RuleOutput
from gadget.rules.parser import parse
from gadget.rules.problems import ConditionError, RulesError
from gadget.rules.ruleset import Ruleset, load

EVENT = {"evt.type": "execve", "proc.name": "sh", "proc.pname": "nginx", "proc.tty": 34816, "evt.num": 1}


def rule(condition: str, more: str = "", name: str = "a") -> str:
    return (
        f"- rule: {name}\n  desc: d\n  condition: {condition}\n  output: o %proc.name\n  priority: WARNING\n{more}"
    )  # fmt: skip


def loaded(*texts: str) -> Ruleset:
    return load([(f"{number}.yaml", text) for number, text in enumerate(texts, 1)])


def refused(*texts: str) -> str:
    with pytest.raises(RulesError) as raised:
        loaded(*texts)
    return str(raised.value)


PLACES = {
    "a field in a folded text": (
        "- rule: a\n  desc: d\n  output: o\n  priority: WARNING\n  condition: >\n    evt.type = execve and\n"
        "      proc.nme = sh\n", "1.yaml:7:7: no event of source syscall has a field proc.nme: did you mean proc.name",
    ),
    "a field in a macro of another line": (
        "- macro: m\n  condition: evt.type = execve and proc.nme = sh\n" + rule("m"), "1.yaml:2:36: no event",
    ),
    "a value": (rule("evt.type = execve and proc.tty = many"), "1.yaml:3:47: proc.tty =: 'many' is no decimal number"),
    "a macro": (rule("evt.type = execve and spawnd"), "1.yaml:3:36: there is no macro spawnd"),
    "an output": (
        rule("evt.type=execve").replace("o %proc.name", "o %proc.nme"), "1.yaml:4:14: no event of source syscall",
    ),
    "YAML": ("- rule: a\n  desc: [\n", "1.yaml:3:1:"),
    "a quote": (rule("""'proc.name = "sh'"""), "1.yaml:3:27: expected a closing quote"),
    "an item that is twice": ("- list: a\n  items: [b]\n  items: [c]\n", "1.yaml:3:3: items stands here twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_place(name: str) -> None:
    """An error of my rules names the line and column in my file where it stands, however the text is folded."""
    file, wanted = PLACES[name]
    assert wanted in refused(file)


def test_place_in_second_file() -> None:
    """An error that an override brings in is told of the file that has the override."""
    second = "- rule: a\n  condition: and proc.nme = x\n  override: {condition: append}\n"
    assert refused(rule("evt.type = execve"), second).startswith("2.yaml:2:18:")


def test_nothing_is_loaded() -> None:
    """A file that is wrong at its end loads nothing: half a rule set would be silent."""
    assert "1.yaml:8:" in refused(rule("evt.type = execve") + rule("evt.type = nothing", name="b"))


DIFFERENT = {
    "a list in a list in a list": (
        "- list: a\n  items: [sh]\n- list: b\n  items: [a]\n- list: c\n  items: [b]\n"
        + rule("evt.type=execve and proc.name in (c)"), True,
    ),
    "the name of a list in a quoted text": (
        "- list: sh\n  items: [ash]\n" + rule("""evt.type=execve and proc.name = "sh" """), True,
    ),
    "an item with quotes and blanks": (
        """- list: l\n  items: ['say "hi" now', sh]\n""" + rule("evt.type=execve and proc.name in (l)"), True,
    ),
    "an item with an equals sign": (
        "- list: l\n  items: [a=b, sh]\n" + rule("evt.type=execve and proc.name in (l)"), True,
    ),
    "the second of several networks": (
        rule("evt.type=execve and fd.net in (192.168.0.0/16, 10.0.0.0/8)"), True,
    ),
    "a backslash before a closing quote": (rule(r"""'evt.type=execve and not proc.name = "a\\"'"""), True),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_better(name: str) -> None:
    """Where Falco has a fault, a rule means what it says."""
    file, fires = DIFFERENT[name]
    event = {**EVENT, "fd.net": (b"\x0a\x00\x00\x01",)}
    assert bool(loaded(file).matching(event)) == fires


def test_unsigned() -> None:
    """A negative number for a field that never is one is an error, not a number that wraps around."""
    assert "-1 is no number from 0 to" in refused(rule("evt.type=execve and proc.tty = -1"))


def test_registry_port() -> None:
    """The port of a registry is a part of the repository, not the beginning of a tag."""
    assert repository("registry:5000/team/app:1.2") == "registry:5000/team/app"
    assert repository("app@sha256:0123") == "app"


HOSTILE = {
    "parentheses": rule("(" * 100_000 + "evt.type=execve" + ")" * 100_000),
    "negations": rule("not(" * 100_000 + "evt.type=execve" + ")" * 100_000),
    "transformers": rule("tolower(" * 50_000 + "proc.name" + ")" * 50_000 + " = a"),
    "macros of macros": "".join(
        f"- macro: m{n}\n  condition: m{n - 1} or m{n - 1}\n" if n else "- macro: m0\n  condition: proc.name=x\n"
        for n in range(64)
    ) + rule("m63"),
    "lists of lists": "".join(
        f"- list: l{n}\n  items: [{', '.join([f'l{n - 1}'] * 10) if n else 'a'}]\n" for n in range(40)
    ) + rule("proc.name in (l39)"),
    "aliases": "- &a [x, x]\n" + "".join(
        f"- &{'abcdefghijklmnop'[n]} [{', '.join(['*' + 'abcdefghijklmnop'[n - 1]] * 9)}]\n" for n in range(1, 16)
    ),
    "lists in lists": "[" * 200_000,
    "mappings in mappings": "{a: " * 200_000,
    "a pattern": rule('proc.name regex "(((a{999}){999}){999})"'),
    "many patterns": rule(" or ".join(f'proc.name regex "((a|x{n}){{99}}){{9}}"' for n in range(20_000))),
    "a list of patterns": rule(f"proc.name glob anyof ({', '.join(f'*{n}' for n in range(20_000))})"),
    "a long pattern": rule(f'proc.name regex "{"a" * 1_000_000}"'),
    "a long pattern of a shell": rule(f'proc.name glob "{"*a" * 400_000}"'),
    "an anchor that there is not": "- *nowhere\n",
    "a name that is no text": "- ? [a]\n  : b\n",
    "a tag": "- !!python/object/apply:os.system [id]\n",
    "nothing but blanks": rule("' '"),
    "a macro of itself": "- macro: m\n  condition: m\n" + rule("m"),
    "a NUL": rule('proc.name = "a\\x00"'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """A rule file that is made to hurt gets one error within a moment, and little memory."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = refused(HOSTILE[name])
    assert "\n" not in told
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.parametrize("word", ["(", "not("])
def test_deep(word: str) -> None:
    """A condition may go as deep as Falco lets it: 190 parentheses in one another."""
    rules = loaded(rule(f"evt.type=execve and {word * 190}proc.name=sh{')' * 190}"))
    assert rules.matching(EVENT)


def test_large() -> None:
    """A condition of 1 MB works: a long list of what is allowed is no attack."""
    names = ", ".join(f"program-{number}" for number in range(60_000))
    rules = loaded(rule(f"evt.type=execve and not proc.name in ({names})"))
    assert rules.matching(EVENT)
    assert not rules.matching({**EVENT, "proc.name": "program-59999"})


OF_MANY = [
    f"proc.name {operator}" for operator in ("=", "!=", "contains", "icontains", "startswith", "endswith", "glob", "iglob", "regex")
] + ["proc.aname contains", "fd.sip =", "fd.sip !=", "evt.buffer contains", "evt.buffer bstartswith"]  # fmt: skip


@pytest.mark.parametrize("modifier", ["anyof", "allof", "oneof"])
@pytest.mark.parametrize("check", OF_MANY)
def test_many_values(check: str, modifier: str) -> None:
    """A comparison with hundreds of values means what one with a few of them means."""
    some = {"fd.sip": ("10.0.0.1", "10.0.0.2"), "evt.buffer": ("6a61", "6a61")}.get(check.split()[0], ("ja", "java"))
    others = {"fd.sip": "10.9.{}.{}", "evt.buffer": "ff{0:02x}{1:02x}"}.get(check.split()[0], "x{}-{}x")
    events = [
        {"proc.name": name, "proc.aname": (name, "x"), "evt.buffer": name.encode(), "fd.sip": bytes([10, 0, 0, at])}
        for at, name in enumerate(("ja", "java", "JAVA", "maja", "perl", ""))
    ]
    # more that are like some change nothing for `allof`, more that are like none nothing for the others
    more = some * 100 if modifier == "allof" else [others.format(at, at) for at in range(200)]
    short, long = (
        Compiler("syscall").test(parse(f"{check} {modifier} ({', '.join(given)})")) for given in (some, [*some, *more])
    )
    if check in ("proc.name !=", "fd.sip !=") and modifier == "oneof":
        assert not any(long(event) for event in events)  # each differs from most
    else:
        assert [bool(long(event)) for event in [*events, {}]] == [bool(short(event)) for event in [*events, {}]]


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|aa)+$", "(.*a){20}"])
def test_slow_patterns(pattern: str) -> None:
    """A pattern that other engines need years for is asked in a moment: a process chooses its name."""
    began = time.monotonic()
    values.regex(pattern)("a" * 100_000)
    values.glob("*a" * 40 + "b")("a" * 4096)
    assert time.monotonic() - began < 5


def test_missing_is_told() -> None:
    """I see which parts of a condition decided, with the value that each saw."""
    node = parse("evt.type = execve and (proc.name = vim or proc.tty = 0) and not container.id exists")
    found = [(line.depth, line.text, line.held, line.value) for line in lines(node, EVENT, "syscall")]
    assert found == [
        (0, "all of", False, ""),
        (1, "any of", False, ""),
        (2, "proc.name = vim", False, "sh"),
        (2, "proc.tty = 0", False, "34816"),
    ]


NEVER = {
    "proc.name in ()": "compares with nothing",
    "evt.type = open and evt.num = 0": "no type of event",
    "evt.type = open and evt.type = execve": "no type of event",
    "container.id != host and not container.id exists": "not container.id exists",
    "(proc.name in () or proc.args in ()) and evt.type=open": "compares with nothing",
    "proc.name in () or proc.name = sh": "",
    "evt.type = open": "",
}


@pytest.mark.parametrize("condition", NEVER)
def test_never(condition: str) -> None:
    """A rule that can never fire is told of, with the reason."""
    why = never(parse(condition))
    assert NEVER[condition] in why and bool(why) == bool(NEVER[condition])


@pytest.mark.parametrize("condition", [
    "evt.type in (a, b) and not (proc.name = sh or proc.args contains \"a b\")",
    "tolower(proc.name) = val(proc.pname) and proc.aname[2] exists",
    "fd.name startswith anyof (/etc, \"/my dir\") or not m",
])  # fmt: skip
def test_text(condition: str) -> None:
    """A condition that is shown can be pasted into a rule file again."""
    assert text(parse(condition)) == condition


def test_output_escapes_bytes() -> None:
    """Bytes that a program sent do not reach my terminal as they are."""
    output = RuleOutput("got %evt.buffer from %fd.sip", "syscall")
    event = {"evt.buffer": b"\x1b[31mred\n", "fd.sip": b"\x0a\x00\x00\x01"}
    assert output.text(event) == "got .[31mred. from 10.0.0.1"
    assert output.values(event) == {"evt.buffer": ".[31mred.", "fd.sip": "10.0.0.1"}


def test_getopt() -> None:
    """A rule can ask for the value of an option, wherever it stands in a command line."""
    condition = parse('getopt((proc.name, "-x", "-o", proc.args), "xo:")[o] = file')
    assert not Compiler("syscall").test(condition)({"proc.name": "sh", "proc.args": "file"})  # sh is no option: the end
    condition = parse('getopt(("-x", "-o", proc.args), "xo:")[o] = file')
    assert Compiler("syscall").test(condition)({"proc.args": "file"})


@pytest.mark.parametrize("event", [{}, {"auditID": 5}, {"auditID": "a", "requestObject": [1], "user": "x"},
                                   {"auditID": "a", "requestObject": {"spec": {"containers": [None, 5, {"image": 7}]}}}])  # fmt: skip
def test_odd_audit_events(event: dict[str, object]) -> None:
    """An audit event of an odd shape is judged as what it says, and never an error."""
    found = AuditEvent(event)
    for name in ("ka.user.name", "ka.req.pod.containers.image", "ka.req.pod.containers.image.repository[7]",
                 "ka.uri.param[x]", "ka.req.binding.subjects.user_names", "jevt.value[/a/0/b]", "jevt.rawtime"):  # fmt: skip
        found.get(name)


def test_grammar_error_is_short() -> None:
    """An error shows a few characters of what stands there, not all of it."""
    with pytest.raises(ConditionError) as raised:
        parse("proc.name = a " + "x" * 10_000)
    assert len(str(raised.value)) < 100


COMPUTED = {
    "a field in val()": ("[val(proc.pname)]", "not (proc.name = val(proc.pname))", False),
    "a transformer": ("[toupper(proc.pname)]", "not (proc.name = toupper(proc.pname))", False),
    "a field's name alone is a text": ("[proc.pname]", "not (proc.name = proc.pname)", True),
    "a transformer with a blank is a text": (
        '["toupper( proc.pname)"]', 'not (proc.name = "toupper( proc.pname)")', True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_exception_computed(name: str) -> None:
    """The value of an exception may be another field; what only looks like one is a text, and warned of."""
    value, wanted, warned = COMPUTED[name]
    more = (
        f"  exceptions:\n    - name: x\n      fields: [proc.name]\n      comps: [=]\n      values:\n        - {value}\n"
    )
    found = loaded(rule("evt.type = open", more))
    assert (
        text(found.rules[0].condition).replace("not proc.name", "not (proc.name") + ")"
        == f"evt.type = open and {wanted}"
    )
    assert [each.code for each in found.warnings] == ["LOAD_COMPILE_CONDITION"] * warned


def test_list_of_two_words() -> None:
    """A list whose name no condition should have is warned of, and works all the same."""
    found = loaded("- list: my shells\n  items: [sh, bash]\n" + rule("evt.type=execve and proc.name in (my shells)"))
    assert [each.code for each in found.warnings] == ["LOAD_INVALID_LIST_NAME"]
    assert found.matching(EVENT)


@pytest.mark.parametrize("condition", ["proc.name ==anyof (a, b)", "proc.name !=allof (a, b)"])
def test_modifier_needs_a_blank(condition: str) -> None:
    """A modifier that touches its operator is an error, as in Falco."""
    with pytest.raises(ConditionError):
        parse(condition)
