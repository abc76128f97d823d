"""Causes that the questions to name servers show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from gadget.kinds.texts import decode_text
from kubectl_gadget.strace import Call
from kubectl_gadget.why.arguments import call_name
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.meant import mentions

_HEADER = 12  # bytes: RFC 1035, 4.1.1
_ANSWERS = {0: "", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
#: Names of addresses: few have one, and servers that look do without.
_REVERSE = (".in-addr.arpa", ".ip6.arpa")
#: Names that are looked at, of one that asks for thousands.
_MOST = 16
#: Lines from the end that may tell of a name for certain.
_LINES = 10
#: What resolvers and those who call them say of a name that did not resolve.
_UNRESOLVED = re.compile(
    r"(?i)name resolution|(?:could not|couldn't|cannot|failed to|unable to) resolve|not (?:known|resolve)\b|nxdomain|"
    r"no such host|unknown ?host|bad address|no address associated|gaierror|getaddrinfo|enotfound|eai_|"
    r"server misbehaving"
)


class DnsMessage(NamedTuple):
    """A question for a name, or its answer: result is empty if there is a name."""

    call: Call
    answer: bool
    result: str
    name: str
    records: int


def parse(data: bytes) -> tuple[bool, int, int, str] | None:
    """Whether a message is an answer, its RCODE, its number of answers, and the name; None if it is no such message."""
    if len(data) < _HEADER + 2 or data[4:6] != b"\0\1":
        return None
    labels, at = [], _HEADER
    while at < len(data) and data[at]:
        length = data[at]
        if length > 63:
            return None
        labels.append(data[at + 1 : at + 1 + length])
        at += length + 1
    return bool(data[2] & 0x80), data[3] & 15, int.from_bytes(data[6:8], "big"), decode_text(b".".join(labels))


def messages(history: CallHistory) -> Iterator[DnsMessage]:
    """What was asked and answered, as far as its calls are recorded."""
    for call in history.about_names:
        found, sends = call.captured.get(1), call_name(call).startswith(("send", "write"))
        parsed = parse(found.data) if found and call.result else None
        if parsed and parsed[0] != sends:
            answer, code, records, name = parsed
            yield DnsMessage(call, answer, _ANSWERS.get(code, f"RCODE {code}"), name, records)


def find(facts: Facts) -> Iterator[Finding]:
    """Names that did not resolve. A resolver tries a name with each domain of its search list: one answer is enough."""
    asked: dict[str, list[DnsMessage]] = {}
    for message in messages(facts.history):
        asked.setdefault(message.name, []).append(message)
    resolved = {name for name, found in asked.items() if any(each.answer and not each.result and each.records
                                                             for each in found)}  # fmt: skip
    unresolved: list[str] = []
    for name in sorted(asked, key=len)[:_MOST]:
        if not any(_searched(name, other) for other in (*resolved, *unresolved)):
            unresolved.append(name)
    lines = facts.history.last_words().splitlines()[-_LINES:]
    for name in unresolved:
        searched = [other for other in asked if _searched(name, other)]
        more = f", with {len(searched)} names of its search list" if len(searched) > 1 else ""
        told = any(_tells(line, searched, only=len(unresolved) == 1) for line in lines)
        if name.endswith(_REVERSE) and not told:
            continue
        counts = told and not facts.history.interrupted
        answers = [each for each in asked[name] if each.answer]
        result = (answers[-1].result or "no address") if answers else ""
        # who waits for clients does without
        idle = 60 if facts.running and not told and facts.history.listens() else 0
        what = f"the name {plain(name)} did not resolve: {result}" if answers else (
            f"no name server answered for {plain(name)}")  # fmt: skip
        yield Finding("dns", f"{what}{more}", 94 if counts else 50 - idle, certain=counts and bool(facts.status),
                      evidence=((answers or asked[name])[-1].call,))  # fmt: skip


def _searched(name: str, other: str) -> bool:
    """Whether two names are one with domains of a search list: redis.svc.local and redis.shop.svc.local."""
    short, long = sorted((name.split("."), other.split(".")), key=len)
    alike = len([*takewhile(lambda pair: pair[0] == pair[1], zip(short, long, strict=False))])
    return alike > 0 and short[alike:] == long[len(long) - len(short) + alike :]


def _tells(line: str, names: Sequence[str], *, only: bool) -> bool:
    """Whether a line tells that a name did not resolve, as it is or with a domain of its search list."""
    if any("." in name and mentions(line, name) for name in names):
        return True
    first = names[0].split(".")[0]
    return bool(_UNRESOLVED.search(line)) and (only or mentions(line, first))
