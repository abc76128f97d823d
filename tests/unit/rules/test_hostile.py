"""What processes, users of the cluster and clients choose does not silence rules, and does not end them."""

from __future__ import annotations

import ast
import gc
import http.client
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import orjson
import pytest

from gadget.rules import values
from gadget.rules.alerts import Alert
from gadget.rules.audit import AuditEvent, events, rawtime
from gadget.rules.batch import BatchRules, EventBatch, Rows
from gadget.rules.channels import Channels, Tls, make
from gadget.rules.checks import event_types
from gadget.rules.fields import event_types as all_types
from gadget.rules.outputs import RuleOutput
from gadget.rules.parser import parse
from gadget.rules.problems import ConditionError
from tests.conftest import run_cli, wait_until
from tests.unit.rules.test_audit import RULES, detect, event, post, rules, webhook
from tests.unit.rules.test_channels import QUICK, RULE, alert, receiving, sent
from tests.unit.rules.test_rules import loaded, refused, rule
from tests.unit.rules.test_tune import tune

assert rules and webhook and RULES  # fixtures


def test_list_of_the_api_server() -> None:
    """The events of an API server's list say no kind of their own, and are judged."""
    item = {key: value for key, value in event("a").items() if key not in ("kind", "apiVersion")}
    body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [item, {"kind": "Pod"}]}
    assert [each["auditID"] for each in events(orjson.dumps(body))] == ["id-a"]


def test_timeout_in_the_path(webhook: tuple[subprocess.Popen[str], int]) -> None:
    """The API server asks for the path with ?timeout=30s behind it, and is answered; whoever asks elsewhere is told of."""
    process, port = webhook
    assert post(port, orjson.dumps(event("a")), path="/k8s-audit?timeout=30s") == 200
    assert post(port, b"{}", path="/audit") == 404
    assert process.stdout and "secret=a" in process.stdout.readline()
    assert process.stderr
    assert "requests were for other paths than /k8s-audit: one for /audit" in process.stderr.readline()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()


def test_nested(rules: Path) -> None:
    """What a user of the cluster nests as deep as the API server takes hides neither the events beside it nor its own."""
    deep = b'{"a]":[' * 4000 + b'"x"' + b"]}" * 4000
    bad = orjson.dumps(event("deep"))[:-1] + b',"requestObject":{"spec":' + deep + b',"kind":"Odd"}}'
    batch = (
        b'{"kind":"EventList","items":[' + b",".join([orjson.dumps(event("a")), bad, orjson.dumps(event("b"))]) + b"]}"
    )
    found = list(events(batch))
    assert [each["auditID"] for each in found] == ["id-a", "id-deep", "id-b"]
    odd = AuditEvent(found[1])
    assert odd.get("jevt.value[/requestObject/kind]") == "Odd" and "(nested too deep)" in odd.get("jevt.obj")
    assert len(list(events(b"[" * 500 + b"]" * 500))) == 0
    for broken in (b"[" * 5000, b'{"a":"' * 5000, b"]" * 5000, b"[" * 300 + b"]" * 299):
        with pytest.raises(ValueError, match=r"."):
            list(events(broken))


def test_asked_to_end(webhook: tuple[subprocess.Popen[str], int]) -> None:
    """A pod that is stopped judges what it has answered, and tells how much that was, as with Ctrl-C."""
    process, port = webhook
    for at in range(20):
        assert post(port, orjson.dumps([event(f"a{at}"), event(f"b{at}")])) == 200
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=30)
    assert out.count("secret=") == 40 and "40 alerts" in told and process.returncode == 0


def test_clients_that_go_away(webhook: tuple[subprocess.Popen[str], int]) -> None:
    """A client that goes away, or says nonsense, is no traceback, and the next is served."""
    process, port = webhook
    for text in (b"GET / HTTP/1.1\r\n", b"\x00\xff\r\n\r\n", b"POST /k8s-audit HTTP/1.1\r\nContent-Type: application/json\r\n"
                 b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(text)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert post(port, orjson.dumps(event("d"))) == 200
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=30)[1]


ODD: dict[str, dict[str, Any]] = {
    "a deep object": {"requestObject": {"data": None}},
    "a URI that is none": {"requestURI": "//[x?command=id"},
    "a time far away": {"stageTimestamp": "9999-12-31T23:59:59.999999999Z"},
    "no time": {"stageTimestamp": "yesterday"},
    "a user agent that is base64 of no text": {"userAgent": "/w=="},
    "control characters": {"userAgent": "a\x7f\xa0\u2028\U000e0041"},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_events(name: str, tmp_path: Path) -> None:
    """An event that is made to hurt is judged or told of, the one behind it is judged, and each line stays JSON."""
    path, log = tmp_path / "rules.yaml", tmp_path / "audit.log"
    path.write_text(RULES.replace("groups=%ka.user.groups", "x=%ka.uri.param[command] %b64(ka.useragent) %ka.useragent "
                                  "%ka.req.configmap.obj %jevt.value[/requestObject]"))  # fmt: skip
    deep = b"[" * 300 + b"]" * 300
    odd = orjson.dumps({**event("a"), **ODD[name]}).replace(b'"data":null', b'"data":' + deep)
    log.write_bytes(odd + b"\n" + orjson.dumps(event("b")) + b"\n")
    done = detect(path, str(log), "-o", "json", "--rule", "Secret read", "--to", f"file:{tmp_path}/there")
    assert "Traceback" not in done.stderr
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [each["output_fields"]["ka.target.name"] for each in found] == ["a", "b"]
    assert done.stdout.isascii() or done.stdout.replace("\n", "").isprintable()
    there = [orjson.loads(line) for line in (tmp_path / "there").read_bytes().splitlines()]
    assert there == found
    assert found[0]["output_fields"]["ka.useragent"] == ODD[name].get("userAgent")


def test_bytes_that_are_no_text() -> None:
    """Bytes in one request that are no UTF-8 do not hide the other events of the batch."""
    body = orjson.dumps([event("a"), event("XX"), event("c")]).replace(b"XX", b"\xff")
    assert [each["auditID"][3] for each in events(body)] == ["a", "�", "c"]


@pytest.mark.parametrize("stamp", ["2025-11-28T20:00:00.5Z", "2025-11-28T22:00:00.500+02:00"])
def test_times(stamp: str) -> None:
    """The time of an event may have a zone."""
    assert rawtime(stamp) == "1764360000500000000"


def test_containers_that_are_not_there() -> None:
    """A field about containers is missing in what has none."""
    empty, some = (
        {"auditID": "a", "requestObject": {"spec": spec}} for spec in ({}, {"containers": [{}], "volumes": []})
    )
    for name in ("ka.req.container.privileged", "ka.req.volume.hostpath[/etc]"):
        assert AuditEvent(empty).get(name) is None
        assert AuditEvent(some).get(name) == "false"


NAMES = ["val(proc.name)", "shells", 'a"b', "a'b", "a\\", "\x7f\n", "tolower(proc.name)"]


@pytest.mark.parametrize("name", NAMES)
def test_name_is_no_wildcard(name: str, tmp_path: Path) -> None:
    """A process cannot call itself so that the exception proposed for it excepts others."""
    base = "- list: shells\n  items: [bash, vi]\n- list: other\n  items: [shells]\n" + rule(
        "evt.type = execve and not proc.name in (other)", name="Shell")  # fmt: skip
    (tmp_path / "rules.yaml").write_text(base)
    named = {"proc.name": name, "proc.pname": name, "container.image.repository": name}
    one = {"rule": "Shell", "priority": "Warning", "output_fields": named}
    done = tune(tmp_path, [one] * 9, "--rules", str(tmp_path / "rules.yaml"))
    assert "# 9 of 9 alerts" in done.stdout, done.stderr
    tuned = loaded(base, done.stdout)
    assert not tuned.matching({"evt.type": "execve", **named})
    assert tuned.matching(
        {"evt.type": "execve", "proc.name": "sh", "proc.pname": "sh", "container.image.repository": "x"}
    )
    assert tuned.matching(
        {"evt.type": "execve", "proc.name": "x", "proc.pname": "bash", "container.image.repository": "vi"}
    )


def test_urgent_is_left(tmp_path: Path) -> None:
    """No silence is proposed for what is nearly always an attack, unless I ask."""
    one = {"rule": "Shell", "priority": "Critical", "output_fields": {"proc.name": "a", "proc.pname": "b"}}
    assert tune(tmp_path, [one] * 9).stdout == ""
    assert "# 9 of 9 alerts" in tune(tmp_path, [one] * 9, "--urgent").stdout


def test_modifiers_and_event_types() -> None:
    """A comparison of evt.type with a modifier says nothing of types, and a batch fires as one event does."""
    condition = "evt.type != anyof (open, openat) or evt.num = anyof (0, 5)"
    assert event_types(parse(condition)) == all_types()
    known = loaded(rule(f"'{condition}'", "  warn_evttypes: false\n"))
    one = {"evt.type": "open", "evt.num": 5}
    tables = (Rows([one]), Rows([{}]), Rows([{}]))
    zeros = np.zeros(1, np.uint32)
    batch = EventBatch(["open"], np.zeros(1, int), (zeros, zeros, zeros), [one])
    assert len(known.matching(one)) == len(BatchRules(known, tables).matching(batch)) == 1


@pytest.mark.parametrize("condition", ["evt.num = anyof ()", "evt.num intersects ()", "evt.num != allof ()"])
def test_nothing_to_compare_with(condition: str) -> None:
    """A check of nothing is false, and no traceback."""
    assert not loaded(rule(f"evt.type = open and {condition}")).matching({"evt.type": "open", "evt.num": 1})


@pytest.mark.parametrize("condition", ["evt.type = val(proc.name)", "tolower(evt.type) = open"])
def test_computed_types(condition: str) -> None:
    """A rule whose types of events are not known beforehand is refused."""
    assert "evt.type is compared with names of types alone" in refused(rule(condition))


@pytest.mark.parametrize(("written", "shown"), [
    ("proc=%proc.name[%proc.pid]", "proc=sh[7]"), ("%evt.type[x", "open[x"), ("%toupper(proc.name)[0]", "SH[0]"),
    ("%proc.aname[1]%proc.aname[x]", "init<NA>[x]"),
])  # fmt: skip
def test_brackets_in_outputs(written: str, shown: str) -> None:
    """Brackets behind a field that takes none are text."""
    found = RuleOutput(written, "syscall").text(
        {"proc.name": "sh", "proc.pid": 7, "evt.type": "open", "proc.aname[1]": "init"}
    )
    assert found == shown


@pytest.mark.parametrize("written", ["%2000000000proc.name", "%" + "9" * 5000 + "proc.name", "100%% sure", "%"])
def test_outputs_that_are_none(written: str) -> None:
    """An output that would be gigabytes, or names no field, is one error."""
    with pytest.raises(ConditionError):
        RuleOutput(written, "syscall")


def test_skipped_for_its_output() -> None:
    """A rule that may be skipped is, also where only its output is unknown."""
    text = rule("evt.type=open", "  skip-if-unknown-filter: true\n").replace("o %proc.name", "100%% sure")
    assert [each.code for each in loaded(text).warnings] == ["LOAD_UNKNOWN_FILTER"]


HEAVY = {
    "lists of empty lists": "- list: l0\n  items: []\n" + "".join(
        f"- list: l{n}\n  items: [l{n - 1}, l{n - 1}]\n" for n in range(1, 60)
    ) + rule("proc.name in (l59)"),
    "many rules of many checks": "- macro: m0\n  condition: proc.name = a\n" + "".join(
        f"- macro: m{n}\n  condition: m{n - 1} or m{n - 1}\n" for n in range(1, 15)
    ) + "".join(rule("evt.type=open and m14", name=f"r{n}") for n in range(60)),
    "many rules of long lists": f"- list: l\n  items: [{', '.join(f'item-{n}' for n in range(20_000))}]\n" + "".join(
        rule("proc.name in (l, l, l, l)", name=f"r{n}") for n in range(60)
    ),
    "a version": f"- required_engine_version: {'9' * 5000}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_heavy(name: str) -> None:
    """A small rule file that would take hours or gigabytes gets an error within a moment."""
    began = time.monotonic()
    refused(HEAVY[name])
    assert time.monotonic() - began < 30


def big(check: str) -> str:
    """A condition of nearly 1 MB: as many of a check as fit, each with a number of its own."""
    return " or ".join(check.format(at) for at in range(950_000 // len(f"{check.format(99_999)} or ")))


BIG = {
    "numbers": big("proc.pid > {}"),
    "texts": big("proc.name = a{}"),
    "transformers": big("tolower(proc.name) = a{}"),
    "patterns of folders": f"fd.name pmatch ({big('/a{}*').replace(' or ', ', ')})",
}


@pytest.mark.parametrize("name", BIG)
def test_big_condition_refused(name: str) -> None:
    """A condition of nearly 1 MB that would take long to compile gets one error, and nothing of it is compiled."""
    with patch("gadget.rules.checks.compile", side_effect=AssertionError, create=True):
        assert re.search(
            r"more than (30,000 checks|1,000 different patterns)", refused(rule(f"evt.type = open and ({BIG[name]})"))
        )


@pytest.mark.parametrize(
    "check", ["fd.name startswith anyof", "fd.name contains anyof", "fd.name != allof", "fd.name in"]
)
def test_big_list(check: str) -> None:
    """A condition with a list of nearly 1 MB is loaded at once: it is not written out as so many comparisons."""
    items = big("/a{}").replace(" or ", ", ")
    with patch("gadget.rules.checks.ast.parse", Mock(side_effect=ast.parse)) as parsed:
        rules = loaded(rule(f"evt.type = open and {check} ({items})"))
    assert len(parsed.call_args.args[0]) < 500
    assert bool(rules.matching({"evt.type": "open", "fd.name": "/a77777"})) == ("!=" not in check)
    assert bool(rules.matching({"evt.type": "open", "fd.name": "/b"})) == ("!=" in check)


def test_many_checks() -> None:
    """A long condition is compiled as one: work for each of its checks apart, and looks for garbage, took most of the time."""
    parsed, collected = Mock(side_effect=ast.parse), []

    def count(phase: str, info: dict[str, int]) -> None:
        collected.append(info["generation"])

    text = rule(f"evt.type = open and ({' or '.join(f'proc.pid > {at}' for at in range(20_000))})")
    gc.callbacks.append(count)
    try:
        with patch("gadget.rules.checks.ast.parse", parsed):
            loaded(text)
    finally:
        gc.callbacks.remove(count)
    assert parsed.call_count == 1 and len(collected) < 10 and gc.isenabled()


#: Loads 1,000 patterns that remember much of texts, and shows them texts; prints how much memory that took, in MiB.
REMEMBERS = """
import random, sys
from gadget.rules.ruleset import load

def memory():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))

load([("none", "- list: a\\n  items: []\\n")])
rules, before = load([("rules", sys.stdin.read())]), memory()
for _ in range(3):
    rules.matching({"evt.type": "open", "fd.name": "".join(random.choices("abc", k=4000))})
print(memory() - before)
"""


@pytest.mark.parametrize("pattern", ["glob '*a??????????????{}'", "iglob '*a??????????????{}'", "pmatch (/*a??????????????{})",
                                     "regex '(.*a.{{12}}{})?'"])  # fmt: skip
def test_patterns_share_memory(pattern: str) -> None:
    """A rule file of 1,000 patterns takes 64 MiB at most, whatever texts the processes of the node choose."""
    text = rule(f"evt.type = open and ({' or '.join(f'fd.name {pattern.format(at)}' for at in range(1_000))})")
    done = subprocess.run([sys.executable, "-c", REMEMBERS], input=text, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64


def test_pattern_too_large() -> None:
    """Among many patterns one that takes more than its share is one error at its place; alone it is taken."""
    large, others = "fd.name regex '(ab?){1000}'", [f"fd.name glob *x{at}" for at in range(900)]
    loaded(rule(f"evt.type = open and {large}"))
    said = refused(rule(f"evt.type = open and ({' or '.join([*others, large])})"))
    assert re.match(
        r"1.yaml:3:\d+: fd.name regex: .* too large: 32 MiB are for the patterns of all rules, 32 KiB for each", said
    )


def test_equal_patterns_are_one() -> None:
    """A pattern in many rules, as of the pods of a workload in a baseline, counts as one."""
    loaded("".join(rule("evt.type = open and k8s.pod.name regex web-[a-z]{5}", name=f"r{at}") for at in range(1_100)))


def test_patterns_of_events() -> None:
    """A pattern that a process chooses is forgotten: it cannot fill the memory, nor end the judging."""
    known = loaded(rule("evt.type = open and proc.name glob val(proc.cmdline)"))
    for at in range(200):
        assert known.matching({"evt.type": "open", "proc.name": f"a{at}", "proc.cmdline": f"*{at}"})
    assert not known.matching({"evt.type": "open", "proc.name": "a", "proc.cmdline": "[^a]?" * 100_000})
    assert values.glob_of_event.cache_info().currsize <= 32


@pytest.mark.parametrize("condition", ["fd.num = ٣", "fd.snet = 10.0.0.0/٨", "fd.sip = fe80::1%eth0"])
def test_digits_of_other_scripts(condition: str) -> None:
    """A number is of the digits 0 to 9, an address of one interface is none."""
    refused(rule(f"evt.type=open and {condition}"))


def test_patterns_of_bytes() -> None:
    """A pattern and a name that are no UTF-8 are compared, and no traceback."""
    bad = b"\xffa".decode("utf-8", "surrogateescape")
    assert values.glob(bad + "*")(bad + "b") and values.regex(bad)(bad) and not values.glob("?a")("xxa")


def test_wrong_events(tmp_path: Path) -> None:
    """An event whose values are of other types than its fields is one clear line."""
    (tmp_path / "rules.yaml").write_text(rule("evt.type = open and proc.pid > 3 and proc.name startswith a"))
    for wrong in ({"evt.type": "open", "proc.pid": "x"}, {"evt.type": "open", "proc.name": ["a"]}, {"evt.is_io": 3}):
        (tmp_path / "event.json").write_bytes(orjson.dumps(wrong))
        done = run_cli("detect", "explain", "--rules", str(tmp_path / "rules.yaml"), "--rule", "a", "--event",
                       str(tmp_path / "event.json"))  # fmt: skip
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_alert_has_not_all(tmp_path: Path) -> None:
    """Of an alert, which has but the fields of its output, I am not told that a rule does not fire."""
    (tmp_path / "rules.yaml").write_text(rule("evt.type = open and proc.tty = 5"))
    (tmp_path / "event.json").write_bytes(orjson.dumps({"source": "syscall", "output_fields": {"evt.type": "open"}}))
    done = run_cli("detect", "explain", "--rules", str(tmp_path / "rules.yaml"), "--rule", "a", "--event",
                   str(tmp_path / "event.json"))  # fmt: skip
    assert done.stdout.endswith("a may have fired: an alert has but the fields of its output, and not proc.tty\n")


def test_misspelt_cases(tmp_path: Path) -> None:
    """A case with a misspelt field, key or rule is an error, and no case that is right."""
    (tmp_path / "rules.yaml").write_text(rule("evt.type = open"))
    for case, told in (({"event": {"evt.typ": "open"}}, "did you mean evt.type"), ({"evnt": {}}, "did you mean event"),
                       ({"event": {"evt.type": "open"}, "fires": ["b"]}, "there is no rule 'b'"),
                       ({"event": {"evt.type": "open"}, "fire": ["a"]}, "did you mean fires")):  # fmt: skip
        (tmp_path / "cases.yaml").write_bytes(orjson.dumps([case]))
        done = run_cli("detect", "test", "--rules", str(tmp_path / "rules.yaml"), str(tmp_path / "cases.yaml"))
        assert done.returncode == 2 and told in done.stderr, done.stderr


def test_packed_and_wrong_files(rules: Path, tmp_path: Path) -> None:
    """A log that was packed is read; a file without any event is an error, and no peace."""
    import gzip

    (tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(orjson.dumps(event("a")) + b"\n"))
    (tmp_path / "nothing").write_bytes(b"\x00\x01\nhello\n")
    two = ("--k8s-audit", str(tmp_path / "audit.log.1.gz"), "--rule", "Secret read")
    assert "2 alerts" in detect(rules, str(tmp_path / "audit.log.1.gz"), *two).stderr
    done = detect(rules, str(tmp_path / "nothing"))
    assert done.returncode == 1 and "nothing of what came was an audit event" in done.stderr


def test_alerts_that_were_not_sent(rules: Path, tmp_path: Path) -> None:
    """Where alerts were lost the exit code says so."""
    (tmp_path / "audit.log").write_bytes(orjson.dumps(event("a")))
    with receiving(lambda _: 400) as receiver:
        done = detect(rules, str(tmp_path / "audit.log"), "--to", receiver.url)
    assert done.returncode == 1 and "2 alerts were not sent" in done.stderr


def test_no_content(rules: Path, tmp_path: Path) -> None:
    """I am told where the audit policy keeps no content, so that rules that read it can say nothing."""
    (tmp_path / "audit.log").write_bytes(orjson.dumps({**event("a", "create"), "level": "Metadata"}))
    assert (
        "1 that change something had no content (level Metadata)" in detect(rules, str(tmp_path / "audit.log")).stderr
    )


def test_last_line_without_end(rules: Path, tmp_path: Path) -> None:
    """The last line of a log that is rotated away is judged, also if it has no end yet."""
    from tests.conftest import CLI

    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event("a")))
    command = [str(CLI), "detect", "--k8s-audit", str(path), "-f", "--rules", str(rules), "--rule", "Secret read"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr and "judging" in process.stderr.readline()
        path.rename(tmp_path / "audit.log.1")
        path.write_bytes(orjson.dumps(event("b")) + b"\n")
        seen = [re.findall("secret=(.)", process.stdout.readline())[0] for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert seen == ["a", "b"]


def test_long_answer() -> None:
    """A receiver that answers with more than anybody reads gets each alert once."""
    with receiving(lambda _: 200) as receiver:
        handler = receiver.server.RequestHandlerClass
        plain = handler.send_header  # type: ignore[attr-defined]

        def send_header(self: Any, name: str, value: str) -> None:
            plain(self, name, "100000" if name == "Content-Length" else value)

        def end_headers(self: Any) -> None:
            http.server.BaseHTTPRequestHandler.end_headers(self)
            self.wfile.write(b"x" * 100_000)

        handler.send_header, handler.end_headers = send_header, end_headers  # type: ignore[attr-defined]
        done = sent(receiver.url, 12)
    assert (done.sent, len(receiver.bodies)) == (12, 12)


def test_alert_that_cannot_be_sent() -> None:
    """One alert that cannot be written is lost and counted, and those behind it are sent."""

    class Broken(Alert):
        def json(self, hostname: str) -> bytes:
            raise RuntimeError("no such JSON")

    with receiving(lambda _: 200) as receiver:
        channels = Channels([make(receiver.url, "node-a", Tls(), QUICK, print)], QUICK.drain)
        channels.put(Broken(RULE, 1, "o", {}))
        channels.put(alert(2))
        (done,) = channels.end()
    assert (done.sent, done.lost, done.why) == (1, 1, "RuntimeError: no such JSON")


def test_both_files_are_opened_anew(tmp_path: Path) -> None:
    """SIGUSR1 is for all files."""
    before = signal.getsignal(signal.SIGUSR1)
    paths = [tmp_path / name for name in ("x.log", "y.log")]
    try:
        channels = Channels([make(f"file:{path}", "node-a", Tls(), QUICK, print) for path in paths], QUICK.drain)
        channels.put(alert(1))
        wait_until(lambda: all(path.read_bytes() for path in paths), "the first alert", 10)
        for path in paths:
            path.rename(f"{path}.1")
        os.kill(os.getpid(), signal.SIGUSR1)
        channels.put(alert(2))
        assert [each.sent for each in channels.end()] == [2, 2]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert all(orjson.loads(path.read_bytes())["output_fields"]["proc.pid"] == 2 for path in paths)


def test_failures_are_told_at_once() -> None:
    """That a receiver fails, and that it takes alerts again, is told when it happens, once."""
    told: list[str] = []
    with receiving(lambda number: 500 if number < 4 else 200) as receiver:
        channels = Channels([make(receiver.url, "node-a", Tls(), QUICK, told.append)], QUICK.drain)
        channels.put(alert(1))
        wait_until(lambda: len(told) == 2, "both lines", 10)
        channels.end()
    assert told == [
        f"warning: {receiver.url} fails: HTTP 500 Internal Server Error",
        f"{receiver.url} takes alerts again",
    ]
