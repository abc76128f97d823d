"""The receiver of audit events that deploy --k8s-audit makes: who is believed, what is judged, and how I read it."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import service
from agent.answering import Answering, serve
from agent.audit.receiver import NAME, Receiver, ReceiverSettings
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported
from gadget.rules import webhook
from kubectl_gadget.cluster.audit import make_keys
from tests.conftest import CLI, run_cli, wait_until
from tests.unit.rules.test_audit import RULES, event
from tests.unit.rules.test_rules import rule


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pod has it, with the Secret that deploy makes."""
    folder = tmp_path_factory.mktemp("keys")
    for name, data in make_keys("gadget").items():
        (folder / name).write_bytes(base64.b64decode(data))
    return folder


class Running:
    """A receiver that serves the API server and me."""

    def __init__(self, keys: Path, folder: Path, **settings: Any) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir(exist_ok=True)
        (self.rules / "a.yaml").write_text(RULES)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(keys / "tls.crt", keys / "tls.key")
        self.token = (keys / "token").read_text()
        self._ca = keys / "tls.crt"
        where = ("127.0.0.1", 0)
        self.receiver = Receiver(
            ReceiverSettings(where, self.token, tls, [str(self.rules)], folder / "state", 1, ["hunter.*"], **settings)
        )
        self._service = Answering(NAME, {NAME: self.receiver})
        self.address = f"unix://{folder}/audit.sock"
        self._server = serve(self.address, self._service)

    def post(self, body: bytes, token: str | None = None) -> int:
        """Post as an API server does, which knows the certificate by the name that deploy gives it."""
        context = ssl.create_default_context(cafile=str(self._ca))
        plain = socket.create_connection(("127.0.0.1", self.receiver.port), 30)
        with context.wrap_socket(plain, server_hostname="gadget-k8s-audit.gadget.svc") as secure:
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = secure
            said = self.token if token is None else token
            headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {said}"} if said else {})}
            connection.request("POST", "/k8s-audit?timeout=30s", body, headers)
            return connection.getresponse().status

    def alerts(self, *more: str) -> str:
        done = run_cli("alerts", "--agent", self.address, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def wait(self, alerts: int) -> None:
        wait_until(lambda: f"{alerts} alerts kept" in self.receiver.describe(), f"{alerts} alerts", 60)

    def close(self) -> None:
        self._service.finish()
        self._server.stop(1).wait()
        self.receiver.close()


@pytest.fixture
def running(keys: Path, tmp_path: Path) -> Iterator[Running]:
    made = Running(keys, tmp_path)
    yield made
    made.close()


def batch(*names: str, resource: str = "secrets") -> bytes:
    return orjson.dumps({"kind": "EventList", "items": [event(name, resource=resource) for name in names]})


def test_from_event_to_alert(running: Running) -> None:
    """What an API server sends becomes alerts that `alerts` shows, by namespace and pod, and `alerts show` explains."""
    assert running.post(batch("db", "keys")) == 200
    assert running.post(batch("web-0", resource="pods")) == 200
    running.wait(5)
    found = [
        orjson.loads(line) for line in run_cli("alerts", "--agent", running.address, "-o", "json").stdout.splitlines()
    ]
    assert [each["output_fields"].get("ka.target.name") for each in found if each["rule"] == "Secret read"] == [
        "db",
        "keys",
    ]
    assert {each["hostname"] for each in found} == {NAME} and len({each["id"] for each in found}) == 5
    assert "Something happened" in running.alerts("-n", "shop", "-p", "web-0")
    assert "no kept alert is of namespace other" in running.alerts("-n", "other")
    shown = run_cli("alerts", "show", found[0]["id"], "--agent", running.address).stdout
    assert (
        "Secret read" in shown and "ka.target.resource = secrets" in shown and "shop, as its API server tells" in shown
    )
    status = run_cli("status", "--agent", running.address, "-o", "json")
    (row,) = map(orjson.loads, status.stdout.splitlines())
    assert row["state"] == "ready" and row[NAME].startswith("2 rules; 3 events; 5 alerts kept"), status.stdout


@pytest.mark.parametrize("token", ["", "x" * 43, "\xff" * 43])
def test_strangers(running: Running, token: str) -> None:
    """Who reaches the webhook without the token is not believed, and takes nothing from who has it."""
    assert running.post(batch("forged"), token) == 401
    assert running.post(batch("db")) == 200
    running.wait(2)
    assert "forged" not in running.alerts() and "1 request without the token refused" in running.receiver.describe()
    assert "nothing lost" in running.alerts()


def test_silent_clients(running: Running) -> None:
    """Clients that connect and say nothing, not even in TLS, keep nobody else out, and cannot be more than a share."""
    mute = []
    for _ in range(100):
        each = socket.socket()
        each.bind(("127.0.0.2", 0))
        each.connect(("127.0.0.1", running.receiver.port))
        mute.append(each)
    try:
        assert running.post(batch("db")) == 200
        running.wait(2)
        assert running.receiver._webhook._server.connections("127.0.0.2") <= webhook.MOST_OF_ONE
    finally:
        for each in mute:
            each.close()


class WithoutRules(service.Running):
    """What an agent has that was given no rules."""

    def __init__(self, node: str) -> None:
        self._node = node

    def beginnings(self) -> Mapping[str, Callable[[Any, service.Active], Iterator[pb.RunReply]]]:
        def refuse(request: Any, active: service.Active) -> Iterator[pb.RunReply]:
            raise Unsupported(f"no rules always judge on {self._node}: deploy --detect")

        return {"kept_alerts": refuse}


def test_nodes_without_rules(running: Running, tmp_path: Path) -> None:
    """Where nodes have no rules, as deploy --detect gives them, it is told once, and nothing of audit events is missing."""
    servers, addresses = [], [f"--agent=unix://{tmp_path}/{node}" for node in ("node-a", "node-b", "node-c")]
    for address in addresses:
        node = address.rpartition("/")[2]
        servers.append(serve(address.removeprefix("--agent="), Answering(node, {"detect": WithoutRules(node)})))
    try:
        assert running.post(batch("db")) == 200
        running.wait(2)
        said = running.alerts("--strict", *addresses)
        assert " of 1 event from 1 API server, " in said and "nothing lost.\n" in said
        assert said.count("no rules always judge on") == 1 and "; so on 2 other nodes." in said
        assert "warning" not in said and "incomplete" not in said
    finally:
        for server in servers:
            server.stop(0).wait()


def test_kept_by_the_next(running: Running, keys: Path, tmp_path: Path) -> None:
    """A receiver that is started again has the alerts of the one before, and that nobody judged in between is told."""
    assert running.post(batch("db")) == 200
    running.close()
    next_one = Running(keys, tmp_path)
    try:
        assert next_one.post(batch("two")) == 200
        wait_until(lambda: "4 alerts" in next_one.receiver.describe(), "the second event", 60)
        said = next_one.alerts("--rule", "Secret read")
        assert "secret=db" in said and "secret=two" in said and "not seen from" in said
    finally:
        next_one.close()


def test_changed_rules(keys: Path, tmp_path: Path) -> None:
    """New rules of the ConfigMap are taken; those that make no sense are refused in `status`, and the old ones go on."""
    running = Running(keys, tmp_path, look_seconds=0.02)
    wait_until(lambda: "2 rules" in running.receiver.describe(), "the rules", 60)
    (running.rules / "b.yaml").write_text(rule("ka.nme = a", "  source: k8s_audit\n", name="B"))
    wait_until(lambda: "new ones are refused" in running.receiver.problem(), "the refusal", 60)
    (running.rules / "b.yaml").write_text(
        rule("ka.verb = get", "  source: k8s_audit\n", name="B").replace("%proc.name", "")
    )
    wait_until(lambda: "3 rules" in running.receiver.describe(), "the new rules", 60)
    assert not running.receiver.problem()
    running.close()


def test_batch_of_many(keys: Path, tmp_path: Path) -> None:
    """The alerts of a batch that no message has room for are all kept, and masked by --redact."""
    running = Running(keys, tmp_path, most_alerts=7)
    names = [f"hunter{number}" for number in range(50)]
    assert running.post(batch(*names)) == 200
    running.wait(100)
    said = running.alerts("-o", "json")
    assert said.count("Secret read") == 51 and "hunter" not in said  # and in the last line
    running.close()


@pytest.mark.parametrize(("change", "why"), [
    ({"--token-file": b"short"}, "a token has 16 letters at least"), ({"--key": b"nothing"}, "--key"),
    ({"--address": "nowhere"}, "want HOST:PORT"), ({"--listen": "0.0.0.0:7070"}, "not a loopback address"),
])  # fmt: skip
def test_refused(keys: Path, tmp_path: Path, change: dict[str, bytes | str], why: str) -> None:
    """A receiver that could be reached by strangers, or has no keys, does not begin, and says why in one line."""
    given: dict[str, str] = {"--cert": f"{keys}/tls.crt", "--key": f"{keys}/tls.key", "--token-file": f"{keys}/token"}
    for name, value in change.items():
        given[name] = value if isinstance(value, str) else str(tmp_path / "file")
        if isinstance(value, bytes):
            (tmp_path / "file").write_bytes(value)
    command = [str(CLI.parent / "gadget-agent-audit"), *(part for pair in given.items() for part in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1
