"""Where alerts go, and what becomes of them where a receiver does not do its part."""

from __future__ import annotations

import base64
import http.server
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import orjson
import pytest

from gadget.errors import UsageError
from gadget.rules import channels
from gadget.rules.alerts import Alert
from gadget.rules.channels import Channels, SendPatience, SentCounts, Tls, make
from kubectl_gadget.cluster.certificates import of_both_sides
from tests.conftest import wait_until
from tests.unit.rules.test_rules import loaded, rule

QUICK = SendPatience(answer=0.5, first_pause=0.05, last_pause=0.2, drain=3.0, alerts=50)
RULE = loaded(rule("evt.type = execve", "  tags: [b, a]\n", "Shell")).rules[0]


def alert(number: int, text: str = "o") -> Alert:
    return Alert(
        RULE, 1_764_360_000_123_456_789, f"{text} {number}", {"proc.name": text, "proc.pid": number, "fd.name": None}
    )


class Receiver:
    """A webhook that answers as told: each answer is a status, or a function that gives one."""

    def __init__(self, answers: Callable[[int], int]) -> None:
        self.bodies: list[Any] = []
        self.taken: list[Any] = []
        self.paths: list[str] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.bodies.append(body)
                receiver.paths.append(self.path)
                status = answers(len(receiver.bodies))
                if status < 300:
                    receiver.taken.append(body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def receiving(answers: Callable[[int], int], keys: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(answers)
    if keys:
        receiver.server.socket = keys.wrap_socket(receiver.server.socket, server_side=True)
        receiver.url = receiver.url.replace("http://127.0.0.1", "https://localhost")
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def sent(where: str, number: int = 5, text: str = "o", keys: Tls = Tls()) -> SentCounts:  # noqa: B008
    """Send alerts to one place, to its end."""
    channels = Channels([make(where, "node-a", keys, QUICK, print)], QUICK.drain)
    for at in range(number):
        channels.put(alert(at, text))
    return channels.end()[0]


def test_webhook() -> None:
    """A webhook gets each alert as Falco's JSON, in order, so that falcosidekick takes it."""
    with receiving(lambda _: 200) as receiver:
        done = sent(f"{receiver.url}/falco?x=1")
    assert (done.sent, done.lost) == (5, 0)
    assert [body["output_fields"]["proc.pid"] for body in receiver.taken] == [0, 1, 2, 3, 4]
    assert set(receiver.paths) == {"/falco?x=1"}
    assert receiver.taken[0].keys() == {
        "hostname",
        "output",
        "output_fields",
        "priority",
        "rule",
        "source",
        "tags",
        "time",
    }


def test_retries_in_order() -> None:
    """A receiver that answers 500 for a while gets the same alert again until it takes it, and all in order."""
    with receiving(lambda number: 200 if number % 3 == 0 else 500) as receiver:
        done = sent(receiver.url)
    assert (done.sent, done.lost) == (5, 0)
    assert [body["output_fields"]["proc.pid"] for body in receiver.taken] == [0, 1, 2, 3, 4]


def test_refused_alert() -> None:
    """An alert that a receiver refuses is lost and told of, and the next is sent."""
    with receiving(lambda number: 400 if number == 2 else 200) as receiver:
        done = sent(receiver.url)
    assert (done.sent, done.lost, done.why) == (4, 1, "HTTP 400 Bad Request")


def test_nobody_listens() -> None:
    """Where nobody listens each alert is counted as lost, with the reason."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = sent(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert (done.sent, done.lost, done.why) == (0, 5, "Connection refused")


def test_stuck_receiver_stops_nobody(tmp_path: Path) -> None:
    """A receiver that takes connections and never answers does not delay another; what it misses is counted."""
    with socket.create_server(("127.0.0.1", 0)) as mute, receiving(lambda _: 200) as receiver:
        stuck = f"http://127.0.0.1:{mute.getsockname()[1]}"
        places = (stuck, receiver.url, f"file:{tmp_path}/alerts.log")
        channels = Channels([make(place, "node-a", Tls(), QUICK, print) for place in places], QUICK.drain)
        began = time.monotonic()
        for at in range(200):
            channels.put(alert(at))
            time.sleep(0.001)
        wait_until(lambda: len(receiver.taken) == 200, "the other's alerts", 20)
        assert time.monotonic() - began < 15
        told = {each.name: each for each in channels.end()}
    assert (told[stuck].sent, told[stuck].lost) == (0, 200)
    assert told[receiver.url].sent == 200 and told[f"file:{tmp_path}/alerts.log"].sent == 200
    assert time.monotonic() - began < 25


def test_slow_receiver() -> None:
    """Of a receiver that is too slow for all, sent and lost together are what there was."""
    with receiving(lambda _: time.sleep(0.1) or 200) as receiver:
        done = sent(receiver.url, 300)
    assert done.sent + done.lost == 300
    assert done.sent >= 5 and done.lost >= 200


def test_file_is_opened_anew(tmp_path: Path) -> None:
    """Whoever rotates the file sends SIGUSR1, and alerts go on in the new one."""
    path = tmp_path / "alerts.log"
    before = signal.getsignal(signal.SIGUSR1)
    try:
        channels = Channels([make(f"file:{path}", "node-a", Tls(), QUICK, print)], QUICK.drain)
        channels.put(alert(1))
        wait_until(lambda: path.read_bytes().count(b"\n") == 1, "the first alert", 10)
        path.rename(tmp_path / "alerts.log.1")
        os.kill(os.getpid(), signal.SIGUSR1)
        channels.put(alert(2))
        assert channels.end()[0].sent == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert orjson.loads(path.read_bytes())["output_fields"]["proc.pid"] == 2


def test_program(tmp_path: Path) -> None:
    """A program gets a line for each alert; one that ends is started again."""
    out = tmp_path / "seen"
    script = f"import os, sys; open({str(out)!r}, 'a').write(f'{{os.getpid()}} {{sys.stdin.readline()}}')"
    channels = Channels([make(f'program:{sys.executable} -c "{script}"', "node-a", Tls(), QUICK, print)], QUICK.drain)
    for at in range(2):
        channels.put(alert(at))
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") == at + 1, "the line", 20)  # noqa: B023
        pid = int(out.read_text().splitlines()[-1].split()[0])
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert channels.end()[0].sent == 2


def test_program_gets_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets each line whole, also where a signal cuts writes short."""
    popen = channels.subprocess.Popen

    class Short(FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(bytes(data)[:10])

    def start(*args: Any, **options: Any) -> Any:
        process = popen(*args, **options)
        process.stdin = Short(os.dup(process.stdin.fileno()), "wb")
        return process

    monkeypatch.setattr(channels.subprocess, "Popen", start)
    assert sent(f'program:sh -c "cat > {tmp_path}/seen"').sent == 5
    seen = (tmp_path / "seen").read_bytes().splitlines()
    assert [orjson.loads(line)["output_fields"]["proc.pid"] for line in seen] == list(range(5))


def test_syslog() -> None:
    """The log daemon gets one line for each alert with its priority; a name with a line break stays one line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        assert sent(f"syslog:127.0.0.1:{daemon.getsockname()[1]}", 1, "a\nb").sent == 1
        line = daemon.recv(4096).decode()
    assert line.startswith("<12>kubectl-gadget[") and line.endswith("Warning a\\nb 0")


def test_slack() -> None:
    """In Slack a process cannot mention anybody, link anywhere, or leave its block of text."""
    with receiving(lambda _: 200) as receiver:
        sent(f"slack:{receiver.url}/services/secret", 1, "<!channel> ```& *x*")
    assert receiver.taken == [{"text": "*Warning* Shell\n```&lt;!channel&gt; '''&amp; *x* 0```"}]


@pytest.mark.parametrize(
    "begin", ["<!channel> \udcff\x1b[2J\u202e\n", "`" * 20_000, "&" * 20_000, "x" * 2_999 + "\n", "\U0001f600" * 9_000]
)
def test_hostile_text_in_slack(begin: str) -> None:
    """Whatever a process says, in Slack it is one message with one block of text, short enough for Mattermost not to be split."""
    with receiving(lambda _: 200) as receiver:
        assert sent(f"slack:{receiver.url}", 1, f"{begin}@channel").sent == 1
    said = receiver.taken[0]["text"]
    assert len(said) < 16_383
    head, block, rest = said.split("```")
    assert (head, rest) == ("*Warning* Shell\n", "") and block and block.isprintable()
    assert not re.search("[<>`]|&(?!amp;|lt;|gt;)", block)


def test_hostile_text_in_syslog() -> None:
    """Whatever a process says, the log daemon gets one line of it, of 8 KiB at most, that is UTF-8."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        assert (
            sent(f"syslog:127.0.0.1:{daemon.getsockname()[1]}", 1, "\n<0>evil\x00\udcff\r" + "\U0001f600" * 9_000).sent
            == 1
        )
        line = daemon.recv(1 << 16)
    assert len(line) <= 8192 and line.startswith(b"<12>kubectl-gadget[") and line.decode().isprintable()


def test_mutual_tls(tmp_path: Path) -> None:
    """A receiver that asks for a certificate gets alerts with ours, also where it fails at first, and none without it."""
    for side, data in zip(("server", "client"), of_both_sides("--to", ["localhost"]), strict=True):
        (tmp_path / side).mkdir()
        for name, text in data.items():
            (tmp_path / side / name).write_bytes(base64.b64decode(text))
    server, client = tmp_path / "server", tmp_path / "client"
    keys = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server / "ca.crt")
    keys.load_cert_chain(server / "tls.crt", server / "tls.key")
    keys.verify_mode = ssl.CERT_REQUIRED
    with receiving(lambda number: 200 if number % 3 == 0 else 500, keys) as receiver:
        done = sent(receiver.url, keys=Tls(client / "ca.crt", client / "tls.crt", client / "tls.key"))
        assert (done.sent, done.lost) == (5, 0), done.why
        assert [body["output_fields"]["proc.pid"] for body in receiver.taken] == [0, 1, 2, 3, 4]
        for wrong in (Tls(client / "ca.crt"), Tls(None, client / "tls.crt", client / "tls.key")):
            done = sent(receiver.url, 1, keys=wrong)
            assert (done.sent, done.lost) == (0, 1) and done.why
    assert len(receiver.taken) == 5


def test_fifo_that_nobody_reads(tmp_path: Path) -> None:
    """A FIFO as a file, without a reader, is an error at once and no wait."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        make(f"file:{tmp_path}/fifo", "node-a", Tls(), QUICK, print)


def test_otlp() -> None:
    """An OTLP collector gets a log record with severity, text and fields."""
    with receiving(lambda _: 200) as receiver:
        done = sent(f"otlp:{receiver.url}", 1)
    assert receiver.paths == ["/v1/logs"] and done.name == f"otlp:{receiver.url}"
    (record,) = receiver.taken[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["severityText"] == "Warning" and record["severityNumber"] == 13
    assert record["body"] == {"stringValue": "o 0"} and record["timeUnixNano"] == "1764360000123456789"
    assert {"key": "proc.pid", "value": {"intValue": "0"}} in record["attributes"]


def test_secret_is_not_shown() -> None:
    """The path of a webhook is a secret, and in no summary."""
    with receiving(lambda _: 200) as receiver:
        assert "secret" not in sent(f"slack:{receiver.url}/services/secret", 1).name


@pytest.mark.parametrize(
    "where", ["ftp://x", "file:", "slack:x", "syslog:host", "http://", "http://h:port/", "program:'"]
)
def test_no_place(where: str) -> None:
    """A place that makes no sense is refused before any alert."""
    with pytest.raises(UsageError):
        make(where, "node-a", Tls(), QUICK, print)


def test_https_needs_trust(tmp_path: Path) -> None:
    """A file that is no certificate is one clear error."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("nothing")
    with pytest.raises(UsageError):
        make("https://127.0.0.1:1/", "node-a", Tls(ca=wrong), QUICK, print)
