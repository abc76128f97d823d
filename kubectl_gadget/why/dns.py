"""Causes that the questions to name servers show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gadget.rows import decode_text
from kubectl_gadget.strace import Call
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain
from kubectl_gadget.why.history import History, call_name, endpoint

_HEADER = 12  # bytes: RFC 1035, 4.1.1
_ANSWERS = {0: "", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_PORT = ":53"


class Message(NamedTuple):
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


def messages(history: History) -> Iterator[Message]:
    """What was asked and answered, as far as its calls are recorded."""
    for call in history.calls("sendto", "sendmmsg", "sendmsg", "write", "recvfrom", "recvmsg", "read"):
        if call.failed or not call.result:
            continue
        sends = call_name(call).startswith(("send", "write"))
        thing = history.thing(call.pid, call.args[0] & 0xFFFFFFFF)
        to = next((endpoint(found.data) for index, found in call.captured.items() if index == 4), "")
        named = (thing.name if thing else "") or to
        found = call.captured.get(1)
        parsed = parse(found.data) if found and (named.endswith(_PORT) or not named) else None
        if parsed and parsed[0] != sends:
            answer, code, records, name = parsed
            yield Message(call, answer, _ANSWERS.get(code, f"RCODE {code}"), name, records)


def find(facts: Facts) -> Iterator[Finding]:
    """Names that did not resolve. A resolver tries a name with each domain of its search list: one answer is enough."""
    asked: dict[str, list[Message]] = {}
    for message in messages(facts.history):
        asked.setdefault(message.name, []).append(message)
    resolved = {name for name, found in asked.items() if any(each.answer and not each.result and each.records
                                                             for each in found)}  # fmt: skip
    words = facts.history.last_words()
    seen: set[str] = set()
    for name, found in sorted(asked.items(), key=lambda item: len(item[0])):
        short = name.split(".")[0]
        if name in resolved or any(other.split(".")[0] == short for other in resolved) or short in seen:
            continue
        seen.add(short)
        answers = [each for each in found if each.answer]
        searched = sum(other.split(".")[0] == short for other in asked)
        more = f", with {searched} names of its search list" if searched > 1 else ""
        named = short in words or "resol" in words.lower()
        if not answers:
            yield Finding("dns", f"no name server answered for {plain(name)}{more}", 94 if named else 50,
                          certain=named and bool(facts.status), evidence=(found[-1].call,))  # fmt: skip
            continue
        result = answers[-1].result or "no address"
        yield Finding("dns", f"the name {plain(name)} did not resolve: {result}{more}", 94 if named else 50,
                      certain=named and bool(facts.status), evidence=(answers[-1].call,))  # fmt: skip
