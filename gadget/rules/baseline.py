r"""Baselines: what workloads were seen to do, as YAML, and as rules that fire on all else.

In the file and in rules a text is printable: a backslash begins an escape, of a byte as \xff, or of a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gadget.errors import UsageError
from gadget.rules import documents
from gadget.rules.documents import Node, Scalar, Sequence
from gadget.rules.learner import CONDITIONS, OPENED
from gadget.rules.parser import unescape
from gadget.rules.problems import VALIDATE, Position, RulesError
from gadget.rules.seen import FILES, KINDS, PEERS, PORTS, PROGRAMS
from gadget.workload import SAFE

HEAD = (
    "# What these workloads were seen to do. `kubectl gadget detect --baseline FILE` alerts on all else.\n"
    "# A file with a / at its end is all below that folder. A backslash begins an escape: \\xff, or \\\\ for itself.\n"
)
VERSION = "1"
_KEYS = ("namespace", "workload", "container", "image", "containers", "seconds", *KINDS, "more")
#: Of what it puts 5 letters behind the API server takes so many letters (names.SimpleNameGenerator); with a name of at
#: most _LONGEST_WHOLE nothing is cut.
_LONGEST_BASE, _LONGEST_WHOLE = 58, 40
#: What follows the name of an owner in its pods' names.
_SUFFIXES = {
    "Deployment": f"-{SAFE}{{1,10}}-{SAFE}{{5}}",
    "ReplicaSet": f"-{SAFE}{{5}}",
    "DaemonSet": f"-{SAFE}{{5}}",
    "StatefulSet": "-[0-9]+",
    "Job": f"-([0-9]+-)?{SAFE}{{5}}",
    "CronJob": f"-[0-9]+-([0-9]+-)?{SAFE}{{5}}",
    "Pod": "",
}
#: What YAML takes for a text without quotes.
_PLAIN = re.compile(r"/[A-Za-z0-9_./+@=*~-]*|(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z][A-Za-z0-9_./-]*|"
                    r"[0-9]+(\.[0-9]+){3}", re.IGNORECASE)  # fmt: skip
_GLOB = re.compile(r"[?*\[\\]")


class BaselineSubject(NamedTuple):
    """A container of a workload, KIND/NAME; outside Kubernetes one of an image, without namespace and workload."""

    namespace: str
    workload: str
    container: str
    image: str

    def __str__(self) -> str:
        name = self.workload.partition("/")[2]
        return f"{self.namespace}/{name} ({self.container})" if name else f"{self.container} ({self.image})"


@dataclass
class Learnt:
    """What a container of a workload does, by kind; more is how often there was no room for something.

    image is its repository, containers how many there were, and seconds for how long they were watched.
    """

    values: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    more: dict[str, int] = field(default_factory=dict)
    image: str = ""
    containers: int = 0
    seconds: int = 0


Baseline = dict[BaselineSubject, Learnt]
Values = Mapping[str, list[str]]


# as YAML


def write(baseline: Baseline) -> str:
    """A baseline as YAML: sorted, the same text for the same."""
    lines = [f"{HEAD}baseline: {VERSION}\nworkloads:{'' if baseline else ' []'}\n"]
    for who, learnt in sorted(baseline.items()):
        names = (*who[:3], who.image or learnt.image)
        head = [f"{key}: {_yaml(value)}\n" for key, value in zip(_KEYS, names, strict=False) if value]
        lines += [f"- {head[0]}", *(f"  {each}" for each in head[1:])]
        lines += [f"  containers: {learnt.containers}\n", f"  seconds: {learnt.seconds}\n"]
        for kind in KINDS:
            values = _sorted(learnt.values[kind])
            lines.append(f"  {kind}:{'' if values else ' []'}\n")
            lines += [f"  - {_yaml(value)}\n" for value in values]
        if more := sorted(learnt.more.items()):
            lines.append(f"  more: {{{', '.join(f'{kind}: {count}' for kind, count in more)}}}\n")
    return "".join(lines)


def _sorted(values: Iterable[str]) -> list[str]:
    return sorted(values, key=lambda each: each.encode("utf-8", "surrogateescape"))


def escaped(text: str) -> str:
    """A text with escapes for what is not printable."""
    return "".join(
        "\\\\" if each == "\\" else each if each.isprintable() else _bytes(each) for each in text
    )  # fmt: skip


def _bytes(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))


def _yaml(text: str) -> str:
    text = escaped(text)
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"


def described(baseline: Baseline) -> dict[str, Any]:
    """A baseline as an object, with the texts of its YAML. Written as JSON it is a baseline, too."""
    found: list[dict[str, Any]] = []
    for who, learnt in sorted(baseline.items()):
        names = zip(_KEYS, (*who[:3], who.image or learnt.image), strict=False)
        told: dict[str, Any] = {key: escaped(value) for key, value in names if value}
        told |= {"containers": learnt.containers, "seconds": learnt.seconds}
        told |= {kind: [escaped(each) for each in _sorted(learnt.values[kind])] for kind in KINDS}
        found.append(told | ({"more": dict(sorted(learnt.more.items()))} if learnt.more else {}))
    return {"baseline": int(VERSION), "workloads": found}


def is_baseline(text: str) -> bool:
    """Whether a file is a baseline, and not one of rules."""
    return bool(re.search(r"""\A\ufeff?(#[^\n]*\n|[ \t\r]*\n|---[ \t]*\n)*(baseline:|\{\s*"baseline":)""", text))


def read(text: str, name: str) -> Baseline:
    """The baseline of a file.

    Raises:
        RulesError: It is none.

    """
    found = list(documents.read(text, name))
    if len(found) != 1 or not isinstance(found[0], documents.YamlMapping) or "baseline" not in found[0].pairs:
        raise RulesError(VALIDATE, "this is no baseline", found[0].at if found else Position(name, 1, 1))
    top = found[0].pairs
    if (version := _scalar(top["baseline"])) != VERSION:
        raise RulesError(VALIDATE, f"a baseline of version {version}, which this one does not know", top["baseline"].at)
    baseline: Baseline = {}
    for item in _items(top.get("workloads")):
        if not isinstance(item, documents.YamlMapping):
            raise RulesError(VALIDATE, "a workload is an object", item.at)
        who, learnt = _workload(item)
        if who in baseline:
            raise RulesError(VALIDATE, f"{escaped(str(who))} is there twice", item.at)
        baseline[who] = learnt
    return baseline


def _workload(item: documents.YamlMapping) -> tuple[BaselineSubject, Learnt]:
    if unknown := item.pairs.keys() - {*_KEYS}:
        key = sorted(unknown)[0]
        raise RulesError(VALIDATE, f"a workload has no {key}: there is {', '.join(_KEYS)}", item.keys[key])
    who = BaselineSubject(*(_text(item.pairs[key]) if key in item.pairs else "" for key in BaselineSubject._fields))
    if not (who.workload and who.namespace) and not who.container:
        raise RulesError(VALIDATE, "a workload has namespace and workload, or container", item.at)
    learnt = Learnt(image=who.image)
    if who.workload:
        who = who._replace(image="")
    for kind in KINDS:
        for each in _items(item.pairs.get(kind)):
            value = _text(each)
            if kind == PORTS and not is_port(value):
                raise RulesError(VALIDATE, "a port is PROTOCOL/NUMBER, as tcp/80", each.at)
            learnt.values[kind].append(value)
    more = item.pairs.get("more")
    for kind, count in more.pairs.items() if isinstance(more, documents.YamlMapping) else ():
        learnt.more[kind] = _number(count)
    learnt.containers, learnt.seconds = (_number(item.pairs.get(key)) for key in ("containers", "seconds"))
    return who, learnt


def is_port(text: str) -> bool:
    """Whether a text is PROTOCOL/NUMBER, as tcp/80."""
    found = re.fullmatch(r"(?:tcp|udp|other)/([0-9]{1,5})", text)
    return found is not None and int(found[1]) < 1 << 16


def _items(node: Node | None) -> list[Node]:
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return []
    if not isinstance(node, Sequence):
        raise RulesError(VALIDATE, "expected a list", node.at)
    return node.items


def _scalar(node: Node) -> str:
    if not isinstance(node, Scalar):
        raise RulesError(VALIDATE, "expected a text", node.at)
    return node.value


def _text(node: Node) -> str:
    try:
        return unescape("'" + _scalar(node).replace("'", "\\'") + "'")
    except ValueError:
        raise RulesError(VALIDATE, "a backslash begins an escape, as \\xff, or \\\\ for itself", node.at) from None


def _number(node: Node | None) -> int:
    if node is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,15}", text := _scalar(node)):
        raise RulesError(VALIDATE, "expected a number", node.at)
    return int(text)


# as rules


class _Kind(NamedTuple):
    """What an alert on something new of a kind is called, and what it shows."""

    title: str
    shows: str


_TITLES = {
    PROGRAMS: _Kind("Program", "program=%proc.exepath command=%proc.cmdline parent=%proc.pname"),
    FILES: _Kind("File written", "file=%fd.name moved_to=%evt.arg.newpath process=%proc.name command=%proc.cmdline"),
    PORTS: _Kind("Port", "protocol=%fd.l4proto port=%fd.lport process=%proc.name command=%proc.cmdline"),
    PEERS: _Kind("Peer", "peer=%fd.sip domain=%fd.sip.name port=%fd.sport process=%proc.name command=%proc.cmdline"),
}
_PLACE = (
    "user=%user.name container=%container.id image=%container.image.repository namespace=%k8s.ns.name pod=%k8s.pod.name"
)


def rules(baseline: Baseline) -> str:
    """A baseline as a rule file: a rule for each kind and container of a workload. One is off if its kind has more."""
    lines, names = ["# Rules of a baseline: what was not seen when that was learnt.\n"], set[str]()
    for who, learnt in sorted(baseline.items()):
        for kind in KINDS:
            name = _name(f"{_TITLES[kind].title} that was not seen before in {escaped(str(who))}", names)
            condition = f"{_whose(who)} and {_ELSE[kind](learnt.values)}"
            lines.append(
                f"- rule: {_quoted(name)}\n"
                f"  desc: A workload does what it did not do when its baseline was learnt.\n"
                f"  condition: {_quoted(condition)}\n"
                f"  output: {_TITLES[kind].title} that was not seen before | {_TITLES[kind].shows} {_PLACE}\n"
                f"  priority: WARNING\n  tags: [baseline, {kind}]\n"
                + (
                    f"  enabled: false  # there were more than {len(learnt.values[kind])}\n"
                    if learnt.more.get(kind)
                    else ""
                )
            )
    return "".join(lines)


def unjudged(baseline: Baseline) -> list[str]:
    """What the rules do not judge, because more was seen of it than a baseline keeps."""
    return [
        f"{kind} of {escaped(str(who))}" for who, learnt in sorted(baseline.items())
        for kind in KINDS if learnt.more.get(kind)
    ]  # fmt: skip


def texts(text: str, name: str) -> str:
    """The rules of a file with a baseline.

    Raises:
        UsageError: It is none, or has nothing in it.

    """
    if not (found := read(text, name)):
        raise UsageError(f"{name}: a baseline of no workload")
    return rules(found)


def _name(name: str, names: set[str]) -> str:
    """A name that no rule has yet."""
    number = 1
    while (found := name if number == 1 else f"{name} #{number}") in names:
        number += 1
    names.add(found)
    return found


def _quoted(text: str) -> str:
    """A text that is printable, as YAML."""
    return "'" + text.replace("'", "''") + "'"


def _literal(text: str) -> str:
    """A text as a condition has it: in ASCII, and quoted."""
    return '"' + "".join(
        each if each.isascii() and each.isprintable() and each not in "\"\\'" else _bytes(each) for each in text
    ) + '"'  # fmt: skip


def _any_of(texts: Iterable[str]) -> str:
    return f"({', '.join(map(_literal, texts))})"


def _whose(who: BaselineSubject) -> str:
    container = f" and container.name = {_literal(who.container)}" if who.container else ""
    if not who.workload:
        image = f" and container.image.repository = {_literal(who.image)}" if who.image else ""
        return f"not k8s.ns.name exists{container}{image}"
    return f"k8s.ns.name = {_literal(who.namespace)} and {pods(who.workload)}{container}"


def pods(workload: str) -> str:
    """The condition that a pod belongs to a workload, KIND/NAME, by the pod's name."""
    kind, _, name = workload.partition("/")
    suffix = _SUFFIXES.get(kind)
    if suffix == "":
        return f"k8s.pod.name = {_literal(name)}"
    if suffix is None:
        return f"k8s.pod.name startswith {_literal(f'{name}-')}"
    if len(name) > _LONGEST_WHOLE and kind != "StatefulSet":
        return f"k8s.pod.name startswith {_literal(f'{name}-'[:_LONGEST_BASE])}"
    literal = re.sub(r"[!-,./:-@[-^`{-~]", r"\\\g<0>", name)
    return f"k8s.pod.name regex {_literal(literal + suffix)}"


def _programs(values: Values) -> str:
    return f"{CONDITIONS[PROGRAMS]} and not proc.exepath in {_any_of(values[PROGRAMS])}"


def _files(values: Values) -> str:
    paths = values[FILES]

    def known(name: str) -> str:
        folders = [each for each in paths if each.endswith("/")]
        numbered = [
            each for each in paths if each.startswith("/proc/*/") and not _GLOB.search(each.replace("/*/", "/"))
        ]
        below = [each for each in folders if not _GLOB.search(each)] + numbered
        odd = [each for each in folders if _GLOB.search(each)]
        parts = [f"{name} in {_any_of(each for each in paths if not (each.endswith('/') or each in numbered))}"]
        parts += [f"{name} pmatch {_any_of(below)}"] if below else []
        parts += [f"{name} startswith {_literal(each)}" for each in odd]
        return " or ".join(parts)

    opened, moved = (f"({CONDITIONS[what]} and not ({known(name)}))" for what, name in
                     ((OPENED, "fd.name"), (FILES, "evt.arg.newpath")))  # fmt: skip
    return f"({opened} or {moved})"


def _ports(values: Values) -> str:
    return f"{CONDITIONS[PORTS]} and not ({' or '.join(_by_protocol(values, 'fd.lport')) or 'fd.lport in ()'})"


def _by_protocol(values: Values, port: str) -> Iterator[str]:
    numbers: dict[str, list[str]] = {}
    for each in values[PORTS]:
        protocol, _, number = each.partition("/")
        numbers.setdefault(protocol, []).append(number)
    for protocol, own in sorted(numbers.items()):
        known = "not fd.l4proto in (tcp, udp)" if protocol == "other" else f"fd.l4proto = {protocol}"
        yield f"({known} and {port} in ({', '.join(sorted(own, key=int))}))"


def _peers(values: Values) -> str:
    addresses = [each for each in values[PEERS] if _is_address(each)]
    domains = [each for each in values[PEERS] if not _is_address(each)]
    ports = [each.removeprefix("udp/") for each in values[PORTS] if each.startswith("udp/")]
    answers = f"(evt.type in (sendto, sendmsg) and fd.lport in ({', '.join(ports)}))"
    return (f"{CONDITIONS[PEERS]} and not (fd.sip in {_any_of(addresses)} or {answers} "
            f"or fd.sip.name in {_any_of(domains)})")  # fmt: skip


def _is_address(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]+(\.[0-9]+){3}|[0-9a-f.]*:[0-9a-f:.]*", text))


_ELSE: Mapping[str, Callable[[Values], str]] = {PROGRAMS: _programs, FILES: _files, PORTS: _ports, PEERS: _peers}
