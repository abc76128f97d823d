"""What the terms of a filter mean as conditions on flows.

tests/unit/observe/terms.json has what they mean, for filter.js of the map's page as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gadget.catalog import Gadget
from gadget.errors import UsageError
from kubectl_gadget.observe.choosing import (
    KINDS,
    Find,
    decisions,
    is_port,
    of_domains,
    of_words,
    on_side,
    quoted,
    whole_port,
)
from kubectl_gadget.observe.opinion import Decides
from kubectl_gadget.terms import OF_FLOW, terms_of

#: What has no namespace stands in these on the page.
_GROUPS = {"nodes": "node", "outside the cluster": "raw"}
_BY_NAME = {kind.name: kind for kind in KINDS}
_BEHIND = r"(?:-[a-z0-9]+){{0,2}}"  # as a condition on {end} has it


@dataclass(frozen=True)
class Terms:
    """Conditions in the words of --filter, and what policies have to have decided: all have to hold."""

    conditions: list[str] = field(default_factory=list)
    decisions: list[Decides] = field(default_factory=list)


def read(text: str, gadget: Gadget, finds: Callable[[str], Find]) -> Terms:
    """What a filter means: those of one key, and one end, are alternatives. finds asks the cluster for pods.

    UsageError tells the term that makes no sense.
    """
    conditions: dict[str, list[str]] = {}
    decided: dict[str, list[Decides]] = {}
    for term in terms_of(text):
        try:
            term.check()
            if term.key == "policy":
                decided.setdefault(term.group, []).append(decisions([f"{'!' * term.is_not}{term.value}"]))
            else:
                found = _condition(gadget, finds, term.side, term.key, term.value)
                conditions.setdefault(term.group, []).append(found)
        except UsageError as error:
            raise UsageError(f"filter: at {term.text!r}: {_plain(str(error))}") from None
    return Terms(
        [f"{'!' * (group[0] == '!')}({' or '.join(tests)})" for group, tests in conditions.items()],
        [_any(tests) for tests in decided.values()],
    )


def _any(tests: Sequence[Decides]) -> Decides:
    return lambda opinion: any(test(opinion) for test in tests)


def _plain(error: str) -> str:
    """An error without the option that it is about, which a term has not."""
    return re.sub(r"^(?:--?[\w-]*)?(?: '.*?')?: (?:at '.*?': )?", "", error, count=1)


def _condition(gadget: Gadget, finds: Callable[[str], Find], side: str, key: str, value: str) -> str:
    if not key:
        return _word(side, value.lower())
    if key == "dns":
        return "".join(of_domains(gadget, [value]))
    if key == "port":
        return on_side("to", whole_port("--port", value))
    if key in OF_FLOW:
        return "".join(of_words(gadget, key, [value]))
    if key == "label":
        return on_side(side, finds("label")("--label", value))
    return on_side(side, _OWN[key](value) if key in _OWN else _usual(key, value))


def _usual(key: str, value: str) -> str:
    condition = _BY_NAME[key].condition
    assert condition
    return condition(f"--{key}", value)


def _ip(value: str) -> str:
    return (
        f"{{end}}.addr=={quoted(value)}" if re.fullmatch(r"[0-9a-f:.]*\*[0-9a-f:.*]*", value) else _usual("ip", value)
    )


def _namespace(value: str) -> str:
    condition = _usual("namespace", value)
    kinds = [kind for group, kind in _GROUPS.items() if re.fullmatch(_pattern(value), group)]
    return " or ".join([f"({condition})", *(f"{{end}}.kind=={kind}" for kind in kinds)])


def _workload(value: str) -> str:
    """Pods whose names are those of a workload, or its beginning; svc/NAME is what no workload is known of."""
    namespace, name = _split(value)
    if name.startswith("svc/"):
        return _usual("service", f"{namespace}/{name[4:]}" if namespace else name[4:])
    if "*" not in name:
        return _usual("pod", value)
    _usual("pod", value)  # an error, if it makes no sense
    where = f"{{end}}.namespace=={quoted(namespace)}," if namespace else ""
    return f'({{end}}.kind==pod or {{end}}.kind==container),{where}{{end}}.name~"^{_pattern(name)}{_BEHIND}$"'


def _split(value: str) -> tuple[str, str]:
    parts = value.split("/")
    at = len(parts) - 2 if len(parts) > 1 and parts[-2] == "svc" else len(parts) - 1
    return "/".join(parts[:at]), "/".join(parts[at:])


def _pattern(value: str) -> str:
    return ".*".join(re.escape(part).replace("{", "{{").replace("}", "}}") for part in value.split("*"))


#: What means more here than in an option.
_OWN: dict[str, Callable[[str], str]] = {"ip": _ip, "namespace": _namespace, "workload": _workload}


def _word(side: str, word: str) -> str:
    """What has a word in its name, namespace or address; or the port that was asked, if no end is named."""
    found = [f"{{end}}.{part}=={_with(word, '*', '*')}" for part in ("name", "namespace")]
    found.append(f"({{end}}.kind==raw,{{end}}.addr=={_with(word, '*', '*')})")
    found += [f"{{end}}.kind=={kind}" for group, kind in _GROUPS.items() if word in f"{group}/"]
    namespace, slash, name = word.partition("/")
    if slash:
        found.append(
            f"({{end}}.kind!=svc,{{end}}.namespace=={_with(namespace, '*')},{{end}}.name=={_with(name, '', '*')})"
        )
    if name.startswith("svc/") or namespace == "svc":
        at = (namespace, name[4:]) if name.startswith("svc/") else ("", name)
        found.append(
            f"({{end}}.kind==svc,{{end}}.namespace=={_with(at[0], '*')},{{end}}.name=={_with(at[1], '', '*')})"
        )
    either = on_side(side, " or ".join(found))
    port, _, protocol = word.partition("/")
    if side or not is_port(port) or protocol not in ("", "tcp", "udp"):
        return either
    asked = on_side("to", f"{{end}}.port=={int(port)}")
    return f"{either} or ({asked}{f',protocol=={protocol}' * bool(protocol)})"


def _with(word: str, before: str, after: str = "") -> str:
    """A text with a word in it, as a value of a condition of an end: a * in the word is one."""
    escaped = re.sub(r'[\\"*]', r"\\\g<0>", word).replace("{", "{{").replace("}", "}}")
    return f'"{before}{escaped}{after}"'
