"""Kubernetes audit events: from files, standard input and an API server's webhook to alerts."""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from gadget.kinds.times import rfc3339
from gadget.rules.webhook import MOST_BYTES
from tests.conftest import CLI, run_cli, wait_until

RULES = """
- rule: Secret read
  desc: d
  condition: ka.target.resource = secrets and ka.verb in (get, list)
  output: A secret was read | user=%ka.user.name secret=%ka.target.name groups=%ka.user.groups
  priority: WARNING
  source: k8s_audit
  tags: [secrets, b]
- rule: Anything
  desc: d
  condition: ka.verb exists
  output: Something happened
  priority: DEBUG
  source: k8s_audit
"""


def event(name: str, verb: str = "get", resource: str = "secrets") -> dict[str, object]:
    return {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": f"id-{name}", "stage": "ResponseComplete",
        "verb": verb, "user": {"username": "eve\x1b[31m", "groups": ["a", "b"]},
        "objectRef": {"resource": resource, "namespace": "shop", "name": name},
        "stageTimestamp": "2025-11-28T20:00:00.123456Z",
    }  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Two rules."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def detect(rules: Path, where: str, *more: str, **options: object) -> subprocess.CompletedProcess[str]:
    return run_cli("detect", "--k8s-audit", where, "--rules", str(rules), *more, **options)


def test_falco_json(rules: Path, tmp_path: Path) -> None:
    """An alert in JSON is Falco's line to the byte, so that what reads Falco's reads ours."""
    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event("db")))
    done = detect(
        rules,
        str(path),
        "-o",
        "json",
        "--rule",
        "secret read",
        env={**os.environ, "TZ": "UTC", "FALCO_HOSTNAME": "node-a"},
    )
    assert done.stdout == (
        '{"hostname":"node-a","output":"20:00:00.123456000: Warning A secret was read | user=eve\\u001b[31m secret=db '
        'groups=(a,b)","output_fields":{"evt.time":1764360000123456000,"ka.target.name":"db",'
        '"ka.user.groups":["a","b"],"ka.user.name":"eve\\u001b[31m"},"priority":"Warning","rule":"Secret read",'
        '"source":"k8s_audit","tags":["b","secrets"],"time":"2025-11-28T20:00:00.123456000Z"}\n'
    )
    assert done.stderr == "1 alert (1 Secret read) from 1 audit event.\n"


def test_terminal_is_safe(rules: Path, tmp_path: Path) -> None:
    """What a user of the cluster called himself does not colour my terminal."""
    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event("db")))
    for form in ("columns", "text"):
        assert "eve\\x1b[31m secret=db" in detect(rules, str(path), "-o", form).stdout


def test_to_places(rules: Path, tmp_path: Path) -> None:
    """Alerts go to other places too, and the end tells how many each got."""
    path, there = tmp_path / "audit.log", tmp_path / "alerts.log"
    path.write_bytes(orjson.dumps(event("db")))
    done = detect(rules, str(path), "-o", "json", "--to", f"file:{there}")
    assert there.read_text() == done.stdout
    assert done.stderr.endswith(f"2 alerts sent to file:{there}\n")
    assert "is no place for alerts" in detect(rules, str(path), "--to", "nowhere").stderr


def test_choice(rules: Path, tmp_path: Path) -> None:
    """I choose rules by priority, tag and name, and whether the first alone counts."""
    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event("db")) + b"\n" + orjson.dumps(event("x", "create")))
    for more, told in ((("--priority", "notice"), "1 alert (1 Secret read)"), (("--tag", "secrets"), "1 alert"),
                       (("--rule", "Anything"), "2 alerts (2 Anything)"), (("--rule-matching", "first"), "2 alerts (1 "),
                       ((), "3 alerts (2 Anything, 1 Secret read)")):  # fmt: skip
        assert told in detect(rules, str(path), *more).stderr


def test_of_what(rules: Path, tmp_path: Path) -> None:
    """I choose audit events by the namespace and the pod that they are about, and by when they were; the end tells of others."""
    path = tmp_path / "audit.log"
    old, new = event("db"), {**event("web-0", resource="pods"), "stageTimestamp": rfc3339(time.time_ns())}
    of_all = {**event("x"), "objectRef": {"resource": "nodes", "name": "x"}}
    path.write_bytes(b"\n".join(map(orjson.dumps, (old, new, of_all))))
    for more, fired in (((), 3), (("-n", "shop"), 2), (("-A",), 3), (("-n", "!shop"), 1), (("-p", "web-*"), 1), (("--since", "1h"), 1),
                        (("-n", "bank"), 0), (("-p", "db"), 0)):  # fmt: skip
        done = detect(rules, str(path), "--rule", "Anything", *more)
        left = f"; {3 - fired} of these were not of what was asked for" if fired < 3 else ""
        assert done.stderr == f"{told(fired)} from 3 audit events{left}.\n"
    path.write_bytes(orjson.dumps({name: value for name, value in old.items() if name != "stageTimestamp"}))
    assert "1 alert" in detect(rules, str(path), "--rule", "Anything", "--since", "1h").stderr  # no time, so not older
    assert "audit events have no owners of pods" in detect(rules, str(path), "-p", "deploy/web").stderr
    assert "--container: of what happens on nodes" in detect(rules, str(path), "-c", "web").stderr
    assert "--since: of audit events" in run_cli("detect", "--since", "1h").stderr


def told(fired: int) -> str:
    return f"{fired} alert{'s' * (fired != 1)}{f' ({fired} Anything)' if fired else ''}"


def test_folder_and_stdin(rules: Path, tmp_path: Path) -> None:
    """A folder of logs is read from the oldest file to the newest, and standard input like a file; what is no event is counted."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for at, name in enumerate(("b", "a")):
        (folder / name).write_bytes(orjson.dumps(event(name)) + b"\nnot JSON\n{}\n")
        os.utime(folder / name, (at, at))
    done = detect(rules, str(folder), "--rule", "Secret read")
    assert [line.split("secret=")[1][0] for line in done.stdout.splitlines()] == ["b", "a"]
    assert (
        done.stderr
        == "2 alerts (2 Secret read) from 2 audit events; 2 lines or requests were not JSON; 2 lines or requests had no audit event.\n"
    )
    assert "1 alert " in detect(rules, "-", "--rule", "Secret read", input=orjson.dumps(event("c")).decode()).stderr


@pytest.fixture
def webhook(rules: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A webhook of `detect` that runs, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(CLI), "detect", "--k8s-audit", f"http://127.0.0.1:{port}/k8s-audit", "--rules", str(rules),
               "--rule", "Secret read"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr and "judging" in process.stderr.readline()

    def serves() -> bool:
        with socket.socket() as there:
            return there.connect_ex(("127.0.0.1", port)) == 0

    wait_until(serves, "the receiver", 30)
    yield process, port
    process.kill()
    process.communicate()


def post(port: int, body: bytes, path: str = "/k8s-audit", kind: str = "application/json; charset=utf-8") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, {"Content-Type": kind})
    status = connection.getresponse().status
    connection.close()
    return status


def test_webhook(webhook: tuple[subprocess.Popen[str], int]) -> None:
    """As an API server's webhook it takes a list, an array and a single event, answers each, and refuses what is none."""
    process, port = webhook
    assert post(port, orjson.dumps({"kind": "EventList", "items": [event("a"), 5, event("b")]})) == 200
    assert post(port, orjson.dumps([event("c"), {}])) == 200
    assert post(port, orjson.dumps(event("d"))) == 200
    assert post(port, b"{broken") == 200
    assert post(port, b"{}", path="/other") == 404
    assert post(port, b"{}", kind="text/plain") == 400
    assert process.stdout
    seen = [process.stdout.readline().split("secret=")[1][0] for _ in range(4)]
    assert seen == ["a", "b", "c", "d"]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert "4 alerts (4 Secret read) from 4 audit events; " in told
    assert process.returncode == 0


def test_webhook_is_bounded(webhook: tuple[subprocess.Popen[str], int]) -> None:
    """A body that is longer than any batch is refused before it is read, and counted."""
    process, port = webhook
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        head = f"POST /k8s-audit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
        client.sendall(head.encode())
        assert b" 413 " in client.recv(100)
    assert post(port, orjson.dumps(event("d"))) == 200
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert "1 requests were too long" in told


def test_follow(rules: Path, tmp_path: Path) -> None:
    """A log that is followed goes on in the file that takes its place."""
    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event("a")) + b"\n")
    command = [str(CLI), "detect", "--k8s-audit", str(path), "-f", "--rules", str(rules), "--rule", "Secret read"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "secret=a" in process.stdout.readline()
        with path.open("ab") as file:
            file.write(orjson.dumps(event("b"))[:40])
            file.flush()
            time.sleep(0.3)
            file.write(orjson.dumps(event("b"))[40:] + b"\n")
        assert "secret=b" in process.stdout.readline()
        path.rename(tmp_path / "audit.log.1")
        path.write_bytes(orjson.dumps(event("c")) + b"\n")
        assert "secret=c" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "3 alerts" in process.communicate(timeout=30)[1]


def test_stdout_that_nobody_reads(rules: Path, tmp_path: Path) -> None:
    """With a pager that stands still other places have all alerts at once; Ctrl-C ends it, and what is lost is told."""
    path, sent = tmp_path / "audit.log", tmp_path / "sent"
    path.touch()
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    command = [str(CLI), "detect", "--k8s-audit", str(path), "-f", "--rules", str(rules), "--rule", "Secret read",
               "--to", f"file:{sent}"]  # fmt: skip
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        with path.open("ab") as file:
            file.writelines(orjson.dumps(event(f"{at:03}")) + b"\n" for at in range(500))
        wait_until(lambda: sent.exists() and sent.read_bytes().count(b"\n") == 500, "the alerts in the file", 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
        assert process.stderr
        told = process.stderr.read()
    with open(ours, "rb") as pipe:
        written = pipe.read().splitlines()
    assert [line.split(b"secret=")[1][:3] for line in written] == [b"%03d" % at for at in range(len(written))]
    assert 0 < len(written) < 500
    assert f"{500 - len(written)} lost: nobody reads it" in told and "500 alerts sent to file:" in told


def test_reader_that_is_late(rules: Path, tmp_path: Path) -> None:
    """Whoever reads the alerts of a log later than others has all of them, in order."""
    path, sent = tmp_path / "audit.log", tmp_path / "sent"
    path.write_bytes(b"".join(orjson.dumps(event(f"{at:04}")) + b"\n" for at in range(2_000)))
    command = [str(CLI), "detect", "--k8s-audit", str(path), "--rules", str(rules), "--rule", "Secret read",
               "--to", f"file:{sent}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: sent.exists() and sent.read_bytes().count(b"\n") == 2_000, "the alerts in the file", 60)
        out, told = process.communicate(timeout=60)
    assert [line.split("secret=")[1][:4] for line in out.splitlines()] == [f"{at:04}" for at in range(2_000)]
    assert process.returncode == 0 and "lost" not in told


def test_reader_that_has_seen_enough(rules: Path, tmp_path: Path) -> None:
    """Behind `| head` it ends without a word as soon as there is one alert more."""
    path, sent = tmp_path / "audit.log", tmp_path / "sent"
    path.write_bytes(orjson.dumps(event("a")) + b"\n")
    command = [str(CLI), "detect", "--k8s-audit", str(path), "-f", "--rules", str(rules), "--rule", "Secret read",
               "--to", f"file:{sent}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and "secret=a" in process.stdout.readline()
        process.stdout.close()
        with path.open("ab") as file:
            file.write(orjson.dumps(event("b")) + b"\n")
        assert process.stderr
        told = process.stderr.read().splitlines()
    assert told[1:] == [f"2 alerts sent to file:{sent}"]


@pytest.mark.parametrize(("where", "told"), [
    ("/nowhere/audit.log", "No such file or directory"),
    ("http://127.0.0.1/k8s-audit", "has no port"),
    ("https://127.0.0.1:1/k8s-audit", "only http:// is served"),
])  # fmt: skip
def test_bad_places(rules: Path, where: str, told: str) -> None:
    """A place that there is not is one clear line."""
    done = detect(rules, where)
    assert done.returncode in (1, 2) and told in done.stderr and done.stderr.count("error") == 1


def test_no_rules_for_audit(tmp_path: Path) -> None:
    """Rules for system calls alone are an error here, and no silence."""
    path = tmp_path / "rules.yaml"
    path.write_text("- rule: a\n  desc: d\n  condition: evt.type = open\n  output: o\n  priority: DEBUG\n")
    assert (
        "is for audit events (source: k8s_audit): those on system calls judge live"
        in detect(path, "-", input="").stderr
    )
