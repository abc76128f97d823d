"""Alerts at the OpenTelemetry collector's own receiver."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gadget.rules.alerts import Alert
from gadget.rules.channels import Channels, SendPatience, Tls, make
from gadget.rules.files import PRIORITIES
from gadget.rules.messages import SentRule
from tests.conftest import wait_until
from tests.receivers.binaries import otlp_receiver

NOW = 1_764_360_000_123_456_789
PATIENCE = SendPatience(first_pause=0.05, last_pause=0.2, drain=20.0)
#: The severity of a syslog message with each priority, as the collector's own parser of syslog has them.
SEVERITIES = [21, 19, 18, 17, 13, 10, 9, 5]
FIELDS = {
    "proc.name": "a\"b\\\n\x1b[2J\x00<!channel>```\u202e\U0001f600", "proc.pid": 12, "proc.duration": (1 << 64) - 1, "evt.rawres": -2,
    "evt.is_open_write": True, "k8s.pod.name": None, "proc.aname": ["sh", None, "runc"], "broken": "a\udcff", "long": "x" * 4096,
}  # fmt: skip
ATTRIBUTES = {
    "proc.name": {"stringValue": FIELDS["proc.name"]}, "proc.pid": {"intValue": "12"},
    "proc.duration": {"stringValue": "18446744073709551615"}, "evt.rawres": {"intValue": "-2"},
    "evt.is_open_write": {"boolValue": True}, "proc.aname": {"arrayValue": {"values": [{"stringValue": "sh"}, {"stringValue": "runc"}]}},
    "broken": {"stringValue": "a\ufffd\ufffd\ufffd"}, "long": {"stringValue": FIELDS["long"]}, "source": {"stringValue": "syscall"},
}  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Path:
    return otlp_receiver()


@contextmanager
def receiver(program: Path, address: str, told: Path) -> Iterator[None]:
    """The collector's receiver at an address, as long as the block."""
    with told.open("wb") as out, subprocess.Popen([str(program), address], stdout=out) as running:
        try:
            yield
        finally:
            running.kill()


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port))):
        return True
    return False


def alert(number: int) -> Alert:
    rule = SentRule(f"Rule {number}", PRIORITIES[number % 8], "syscall", frozenset())
    return Alert(rule, NOW + number, f"it is {FIELDS['broken']} {number}", dict(FIELDS), node="node-b")


def records(told: Path) -> list[dict[str, Any]]:
    """The log records that came, with their resources."""
    found = []
    for line in told.read_text().splitlines():
        for resource in json.loads(line)["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                found += [
                    {**record, "resource": named(resource["resource"]["attributes"])} for record in scope["logRecords"]
                ]
    return found


def named(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    assert len({each["key"] for each in attributes}) == len(attributes)
    return {each["key"]: each["value"] for each in attributes}


def test_whole(program: Path, tmp_path: Path) -> None:
    """An OTLP collector gets each alert once, in order and whole: severity, time, text and all fields, whatever processes write into them."""
    address, told = free_address(), tmp_path / "told"
    with receiver(program, address, told):
        wait_until(lambda: answers(address), "the receiver", 60)
        channels = Channels([make(f"otlp:http://{address}", "node-a", Tls(), PATIENCE, print)], PATIENCE.drain)
        for number in range(97):
            channels.put(alert(number))
        (sent,) = channels.end()
    assert (sent.sent, sent.lost) == (97, 0), sent.why
    found = records(told)
    assert [each["body"] for each in found] == [
        {"stringValue": f"it is a\ufffd\ufffd\ufffd {number}"} for number in range(97)
    ]
    for number, each in enumerate(found):
        assert int(each["timeUnixNano"]) == NOW + number
        assert each["severityText"] == PRIORITIES[number % 8] and each["severityNumber"] == SEVERITIES[number % 8]
        assert named(each["attributes"]) == {**ATTRIBUTES, "rule": {"stringValue": f"Rule {number}"}}
        assert each["resource"]["host.name"] == {"stringValue": "node-b"}


def test_collector_starts_late(program: Path, tmp_path: Path) -> None:
    """Alerts that come before the collector are sent to it once it is there: each once, in order."""
    address, told = free_address(), tmp_path / "told"
    said: list[str] = []
    channels = Channels([make(f"otlp:http://{address}", "node-a", Tls(), PATIENCE, said.append)], PATIENCE.drain)
    for number in range(7):
        channels.put(alert(number))
    wait_until(lambda: said, "the warning")
    with receiver(program, address, told):
        wait_until(lambda: len(said) == 2, "the end of the failure", 60)
        (sent,) = channels.end()
    assert (sent.sent, sent.lost) == (7, 0), sent.why
    assert [int(each["timeUnixNano"]) - NOW for each in records(told)] == list(range(7))
    assert said[0].endswith("fails: Connection refused") and said[1].endswith("takes alerts again")
