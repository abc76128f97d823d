"""Which flows: the options of `observe` as conditions, in the words of --filter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.selector import WantedNames, parse_names
from gadget.text import meant
from kubectl_gadget.observe.opinion import Decides, Opinion
from kubectl_gadget.terms import SAID

#: Makes the condition on {end} of an option and one of its values.
Find = Callable[[str, str], str]
#: The two ends of a flow, with the end of the row that each is by the row's direction.
_FROM = ("(direction==egress,{src})", "(direction==ingress,{dst})")
_TO = ("(direction==egress,{dst})", "(direction==ingress,{src})")
_EITHER = ("{src}", "{dst}")
SIDES: Mapping[str, Sequence[str]] = {"": _EITHER, "from": _FROM, "to": _TO}
_NAME = re.compile(r"[\w.*-]+")


def quoted(text: str) -> str:
    """A text as a value of a condition, in which * stands for anything."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _of_kinds(kinds: Sequence[str], option: str, value: str) -> str:
    """The condition on an end that it is NAMESPACE/NAME, whose name may be the beginning of one; NAMESPACE/ is all."""
    namespace, slash, name = value.rpartition("/")
    if not all(_NAME.fullmatch(part) for part in (namespace, name) if part) or not (namespace or name):
        raise UsageError(f"{option} {value!r}: want NAME, its beginning, NAMESPACE/NAME or NAMESPACE/")
    parts = [f"({' or '.join(f'{{end}}.kind=={kind}' for kind in kinds)})"]
    parts += [f"{{end}}.namespace=={quoted(namespace)}"] if slash and namespace else []
    parts += [f"{{end}}.name=={quoted(name if '*' in name else f'{name}*')}"] if name else []
    return ",".join(parts)


def _pod(option: str, value: str) -> str:
    return _of_kinds(("pod", "container"), option, value)


def _service(option: str, value: str) -> str:
    return _of_kinds(("svc",), option, value)


def _namespace(option: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise UsageError(f"{option} {value!r}: want a namespace")
    return f"{{end}}.namespace=={quoted(value)}"


def _ip(option: str, value: str) -> str:
    try:
        plain = str(ip_network(value, strict=False) if "/" in value else ip_address(value))
    except ValueError:
        raise UsageError(
            f"{option} {value!r}: want an address such as 10.0.0.1, or a network such as fd00::/8"
        ) from None
    return f"{{end}}.addr=={quoted(plain)}"


def is_port(text: str) -> bool:
    """Whether a text is the number of a port."""
    return text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536


def whole_port(option: str, value: str) -> str:
    """The condition on {end} that it has a port."""
    if not is_port(value):
        raise UsageError(f"{option} {value!r}: want a port, 1 to 65535")
    return f"{{end}}.port=={int(value)}"


@dataclass(frozen=True)
class EndOption:
    """What an end can be chosen by: the name of its options, what they take, and the condition on {end}.

    Without a condition the cluster has to be asked. is_whole: a value is no list, as it may have commas.
    """

    name: str
    metavar: str
    help: str
    condition: Find | None = None
    is_whole: bool = False
    either: str = ""  # what the option about either end is called, if that is not its name


KINDS = (
    EndOption("pod", "[NS/]A,B|!C", "pods, by the beginning of their names", _pod),
    EndOption("namespace", "A,B|!C", "namespaces", _namespace),
    EndOption("ip", "CIDR,…", "addresses and networks", _ip),
    EndOption("service", "[NS/]A,B|!C", "services, by the beginning of their names", _service),
    EndOption("port", "N,…", "ports", whole_port),
    EndOption("cluster", "A,B|!C", "clusters, by --context A,B; --from-cluster, --to-cluster", either="in-cluster"),
    EndOption("workload", "KIND/NAME,…", "pods of a deployment, service or the like"),
    EndOption("label", "SELECTOR", "pods with labels, as -l of kubectl has them", is_whole=True),
)


def option_of(kind: EndOption, side: str) -> str:
    """What the option about an end is called."""
    return f"--{side}-{kind.name}" if side else f"--{kind.either or kind.name}"


def on_side(side: str, condition: str) -> str:
    """A condition on {end}, of the ends of a side."""
    ends = {end: f"({condition.format(end=end)})" for end in ("src", "dst")}
    return f"({' or '.join(f'({each.format(**ends)})' for each in SIDES[side])})"


def of_ends(kind: EndOption, side: str, items: Sequence[str], find: Find | None = None) -> list[str]:
    """The conditions that an option about ends makes of its lists: one of those wanted, and none of those unwanted.

    find makes the condition on {end} if the kind does not.
    """
    if not items:
        return []
    option, condition_of = option_of(kind, side), kind.condition or find
    assert condition_of
    names = WantedNames(frozenset(items), frozenset()) if kind.is_whole else parse_names(items)

    def one(value: str) -> str:
        return on_side(side, condition_of(option, value))

    wanted = " or ".join(one(value) for value in sorted(names.wanted))
    return [*([f"({wanted})"] if wanted else []), *(f"!({one(value)})" for value in sorted(names.unwanted))]


def of_words(gadget: Gadget, field: str, items: Sequence[str]) -> list[str]:
    """The conditions that lists of a field's words make. UsageError for a word that it does not have."""
    if not items:
        return []
    column = gadget.schema[field]
    words = {word.lower().replace(" ", "-"): word for word in column.means.words(column)}

    def one(text: str) -> str:
        low = text.lower().replace(" ", "-")
        if words and low not in words:
            raise UsageError(f"--{field} {text!r}: {meant(low, words) or 'there is ' + ', '.join(words)}")
        return f"{field}=={quoted(words.get(low, text))}"

    names = parse_names(items)
    wanted = " or ".join(one(each) for each in sorted(names.wanted))
    return [*([f"({wanted})"] if wanted else []), *(f"!({one(each)})" for each in sorted(names.unwanted))]


def of_domains(gadget: Gadget, items: Sequence[str]) -> list[str]:
    """The conditions that lists of names make, in whatever case they are, with or without the root's dot."""
    plain = [name.removesuffix(".") for item in items for name in item.lower().split(",")]
    return of_words(gadget, "domain", plain)


def of_drops(gadget: Gadget, items: Sequence[str]) -> list[str]:
    """The conditions that lists of the kernel's reasons for drops make, in whatever case they are, with - for _."""
    return of_words(gadget, "drop", [each.upper().replace("-", "_") for each in items])


def of_contexts(contexts: Sequence[str]) -> Find:
    """Makes the condition that an end is in a cluster: one that has a name, as its row's node tells."""

    def find(option: str, value: str) -> str:
        if len(contexts) == 1:
            raise UsageError(f"{option}: one cluster alone is asked: name several by --context A,B")
        pattern = ".*".join(map(re.escape, value.split("*")))
        known = [context for context in contexts if re.fullmatch(pattern, context)]
        if not known:
            raise UsageError(f"{option} {value!r}: there is {', '.join(contexts)}")
        every = "|".join(re.escape(each).replace('"', r"\x22") for each in known)
        every = every.replace("{", "{{").replace("}", "}}")
        return f'{{end}}.kind!=raw,node~"^(?:{every})/[^/]*$"'

    return find


def of_versions(items: Sequence[str]) -> list[str]:
    """The conditions that lists of IP versions make, 4 or v4 or ipv4."""
    names = parse_names(items)

    def one(text: str) -> str:
        version = text.lower().removeprefix("ip").removeprefix("v")
        if version not in ("4", "6"):
            raise UsageError(f"--ip-version {text!r}: want 4 or 6")
        return f"version=={version}"

    wanted = " or ".join(one(each) for each in sorted(names.wanted))
    return [*([f"({wanted})"] if wanted else []), *(f"!({one(each)})" for each in sorted(names.unwanted))]


def decisions(items: Sequence[str], option: str = "") -> Decides:
    """Whether policies of these names decided a flow; without an option also whether it was allowed or denied."""
    names = parse_names(items)

    def one(text: str) -> Decides:
        if not option and (word := text.lower()) in SAID:
            return lambda opinion: opinion.word.replace(" ", "-") == word
        namespace, _, name = text.rpartition("/")
        if not all(_NAME.fullmatch(part) for part in (namespace, name) if part) or not (namespace or name):
            raise UsageError(f"{option} {text!r}: want NAME, NAMESPACE/NAME or NAMESPACE/")
        tests = [re.compile(".*".join(map(re.escape, part.split("*"))) if part else ".*") for part in (namespace, name)]
        return lambda opinion: any(
            all(test.fullmatch(part) for test, part in zip(tests, policy, strict=True))
            for policy in (*opinion.egress, *opinion.ingress)
        )

    wanted, unwanted = ([one(each) for each in sorted(some)] for some in (names.wanted, names.unwanted))

    def decides(opinion: Opinion) -> bool:
        return (not wanted or any(test(opinion) for test in wanted)) and not any(test(opinion) for test in unwanted)

    return decides


def other_than(decides: Decides) -> Decides:
    """Whether an opinion is none that is asked for."""
    return lambda opinion: not decides(opinion)
