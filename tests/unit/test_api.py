"""How the command line talks to an API server: which way, as whom, and what it makes of strange answers."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.kube import api, credentials
from gadget.kube.api import ApiError, ApiServer, api_server, not_allowed
from gadget.kube.kubeconfig import ClusterFlags, read_context
from gadget.kube.proxy import find_proxy
from tests import tunnels
from tests.conftest import run_cli
from tests.http_server import HttpServer


class Server(HttpServer):
    """Answers every request alike, or with 401 unless a token that it knows comes with it; keeps what it was sent."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.seen = body, []  # type: tuple[bytes, list[tuple[str, str, dict[str, str]]]]
        self.tokens: set[str] = set()
        self.answers: list[tuple[int, dict[str, str]]] = []  # what is said first, before the usual
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def use_tls(self, folder: Path) -> None:
        """Be one that credentials are sent to."""
        tunnels.make_certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "crt", folder / "key")
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = self.url.replace("http", "https")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        usual = 401 if self.server.tokens and token not in self.server.tokens else 200
        status, headers = self.server.answers.pop(0) if self.server.answers else (usual, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "CONNECT":
            self.wfile.write(self.server.body)

    do_GET = do_CONNECT = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(body: bytes = b"{}", tls: Path | None = None) -> Iterator[Server]:
    with Server(body) as running:
        if tls:
            running.use_tls(tls)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def to(server: str, **flags: Any) -> ApiServer:
    return ApiServer(read_context(ClusterFlags(server=server, kubeconfig="/dev/null", **flags)))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("server", "no_proxy", "goes_by_it"),
    [
        ("https://10.1.2.3:6443", "", True),
        ("https://localhost:6443", "", False),
        ("https://127.0.0.5:6443", "", False),
        ("https://[::1]:6443", "", False),
        ("https://10.1.2.3:6443", "10.0.0.0/8", False),
        ("https://11.1.2.3:6443", "10.0.0.0/8, 192.168.0.0/16", True),
        ("https://[fd00::7]", "fd00::/8", False),
        ("https://10.1.2.3:6443", "10.1.2.3", False),
        ("https://10.1.2.3:6443", "10.1.2.3:443", True),
        ("https://10.1.2.3", "10.1.2.3:443", False),
        ("https://api.example.com", "example.com", False),
        ("https://example.com", "example.com", False),
        ("https://notexample.com", "example.com", True),
        ("https://api.example.com", ".example.com", False),
        ("https://example.com", ".example.com", True),
        ("https://API.example.com", "*.Example.com", False),
        ("https://api.example.com:6443", "api.example.com:6443", False),
        ("https://api.example.com:6443", "api.example.com:443", True),
        ("https://api.example.com", "other,*", False),
        ("http://api.example.com", "", False),
    ],
)
def test_proxy_rules(monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, goes_by_it: bool) -> None:
    """Whether a server is reached by HTTPS_PROXY is decided as kubectl does."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert bool(find_proxy(server, "")) is goes_by_it


def test_proxy_of_the_kubeconfig() -> None:
    """proxy-url of the kubeconfig counts for every server; http:// may be left out; other kinds are refused."""
    proxy = find_proxy("https://localhost", "proxy:3128")
    assert proxy and (proxy.hostname, proxy.port) == ("proxy", 3128)
    for bad in ("socks5://proxy:1", "https://proxy", "http://", "http://proxy:port"):
        with pytest.raises(GadgetError, match="proxy"):
            find_proxy("https://x", bad)


def test_proxy_with_password(tmp_path: Path) -> None:
    """A proxy gets the user and password of its address."""
    with serve() as proxy:
        address = proxy.url.replace("://", "://me:p%40ss@")
        config = {"clusters": [{"name": "c", "cluster": {"server": "http://far.example", "proxy-url": address}}],
                  "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}  # fmt: skip
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        with pytest.raises(Unreachable):
            ApiServer(read_context(ClusterFlags(str(tmp_path / "config")))).get("/version")
        method, path, headers = proxy.seen[0]
    assert (method, path) == ("CONNECT", "far.example:80")
    assert headers["Proxy-Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"server": "localhost:8080"}, "http://localhost:8080"),
        ({"server": "host", "insecure_skip_tls_verify": True}, "https://host"),
        ({"server": "10.0.0.1:6443", "client_certificate": "x"}, "https://10.0.0.1:6443"),
        ({"server": "https://host/prefix/"}, "https://host/prefix"),
    ],
)
def test_server_address(given: dict[str, Any], url: str) -> None:
    """A server may be named without http(s)://, as with kubectl."""
    assert read_context(ClusterFlags(kubeconfig="/dev/null", **given)).cluster["server"] == url


@pytest.mark.parametrize(
    "server", ["https://h:abc", "https://", "ftp://host", "https://[::1", "https://h:99999", "a b"]
)
def test_server_that_is_no_address(server: str) -> None:
    """A server that is no address is refused in one line."""
    with pytest.raises(UsageError, match="no address of an API server"):
        read_context(ClusterFlags(server=server, kubeconfig="/dev/null"))
    done = run_cli("status", f"--server={server}", "--kubeconfig=/dev/null")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("token", ["a\nb", "a\rb", "\N{SNOWMAN}"])
def test_token_that_cannot_be_sent(token: str) -> None:
    """A token that no header may have is refused in one line."""
    with pytest.raises(GadgetError, match="Authorization"):
        to("https://127.0.0.1:1", token=token).get("/version")


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[]", b"null", b"7"])
def test_not_an_api_server(body: bytes) -> None:
    """Something that answers, and is no API server, is named in one line."""
    with serve(body) as server, pytest.raises(GadgetError, match="is no API server"):
        to(server.url).get("/version")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the command line has paused, without the time that it takes."""
    taken: list[float] = []
    monkeypatch.setattr(api, "time", SimpleNamespace(sleep=taken.append, monotonic=time.monotonic))
    return taken


def test_server_that_is_busy(pauses: list[float]) -> None:
    """A server that says 429, or 503, and when to ask again is asked again then, as kubectl does."""
    with serve() as server:
        server.answers = [(429, {"Retry-After": "1"}), (503, {"Retry-After": "2"})]
        assert to(server.url).get("/version") == {}
        assert (len(server.seen), pauses) == (3, [1, 2])


@pytest.mark.parametrize(
    ("answer", "waited"),
    [
        ((429, {"Retry-After": "1"}), [1] * api.RETRIES),
        ((429, {"Retry-After": "25"}), [25, 25]),
        ((429, {"Retry-After": "3600"}), []),
        ((429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), []),
        ((429, {}), []),
        ((403, {"Retry-After": "1"}), []),
    ],
)
def test_server_that_stays_busy(pauses: list[float], answer: tuple[int, dict[str, str]], waited: list[float]) -> None:
    """A server that is busy for good is not waited for without an end: ten times, and a minute in all."""
    with serve(b'{"message": "too many requests"}') as server:
        server.answers = [answer] * 20
        with pytest.raises(ApiError, match="too many requests"):
            to(server.url).get("/version")
    assert pauses == waited


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (502, {}, b"<html>\n<title>502 Bad\nGateway</title>", "HTTP status 502 502 Bad Gateway"),
        (503, {}, b"upstream connect error\nor reset", "HTTP status 503 upstream connect error or reset"),
        (404, {}, b"{}", "HTTP status 404"),
        (302, {"Location": "https://sso.example"}, b"", "HTTP status 302: it points to https://sso.example, perhaps"),
    ],
)
def test_answer_of_something_else(status: int, headers: dict[str, str], body: bytes, said: str) -> None:
    """What is between me and the API server, and answers in its place, is told in one line."""
    with serve(body) as server:
        server.answers = [(status, headers)]
        with pytest.raises(ApiError) as raised:
            to(server.url).get("/version")
    assert str(raised.value).startswith(f"the API server: {said}") and "\n" not in str(raised.value)


def test_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a proxy refuses the way I am told which one; without a port it is asked at port 80."""
    with serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        proxy.answers = [(407, {})]
        with pytest.raises(Unreachable, match=rf"by the proxy {proxy.url[7:]}\).* 407"):
            to("http://far.example").get("/version")
    for server in ("http://far.example", "https://far.example"):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.9")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.9")
        assert to(server)._connect()[1].port == 80


def plugin(folder: Path, *lines: str, **entry: Any) -> dict[str, Any]:
    """A user with a log-in plugin that prints another of lines each time, and keeps on with the last."""
    script = folder / "login"
    script.write_text(
        f"""#!{sys.executable}
from pathlib import Path
runs = Path({str(folder / "runs")!r})
with runs.open("a") as file:
    file.write("x")
lines = {lines!r}
print(lines[min(len(runs.read_text()), len(lines)) - 1])
"""
    )
    script.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), **entry}}


def credential(token: str, **status: str) -> str:
    return json.dumps({"kind": "ExecCredential", "status": {"token": token, **status}})


def config_with(folder: Path, server: str, user: dict[str, Any]) -> ClusterFlags:
    cluster = {"server": server, "insecure-skip-tls-verify": True}
    config = {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "me", "user": user}],
              "contexts": [{"name": "c", "context": {"cluster": "c", "user": "me"}}], "current-context": "c"}  # fmt: skip
    (folder / "config").write_text(yaml.safe_dump(config))
    return ClusterFlags(str(folder / "config"))


def test_refused_token_is_renewed(tmp_path: Path) -> None:
    """When the server does not take my plugin's token any more the plugin is asked again, once for all threads."""
    with serve(tls=tmp_path) as server:
        server.tokens = {"old"}
        flags = config_with(tmp_path, server.url, plugin(tmp_path, credential("old"), credential("new")))
        served = api_server(read_context(flags))
        served.get("/version")
        server.tokens = {"new"}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(served.get, ["/version"] * 23))
        assert (tmp_path / "runs").read_text() == "xx"
        server.tokens = {"another"}
        for _ in range(2):
            with pytest.raises(ApiError, match="log in again"):
                served.get("/version")
        assert (tmp_path / "runs").read_text() == "xx", "it has just been asked"


def test_one_login_for_a_command(tmp_path: Path) -> None:
    """A plugin, which may open a browser, is run once, whatever parts of a command talk to the server."""
    flags = config_with(tmp_path, "https://x", plugin(tmp_path, credential("a")))
    assert api_server(read_context(flags)) is api_server(read_context(flags))


def test_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token file, as pods have it, is read again each minute: kubelets renew them."""
    (tmp_path / "token").write_text("first\n")
    with serve(tls=tmp_path) as server:
        served = ApiServer(read_context(config_with(tmp_path, server.url, {"tokenFile": "token"})))
        served.get("/a")
        (tmp_path / "token").write_text("second\n")
        served.get("/b")
        monkeypatch.setattr(credentials, "now", lambda: moment(61))
        served.get("/c")
    assert [headers["Authorization"] for _, _, headers in server.seen] == [
        f"Bearer {t}" for t in ("first", "first", "second")
    ]


def moment(seconds: float) -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "printed",
    [
        '{"status": null}',
        '{"status": []}',
        '{"status": {"token": 7}}',
        "[]",
        credential("a", expirationTimestamp="soon"),
        '{"status": {"token": "a", "expirationTimestamp": 7}}',
        '{"status": {"token": "a", "clientCertificateData": {}}}',
    ],
)
def test_strange_plugin(tmp_path: Path, printed: str) -> None:
    """A log-in plugin that prints something else is named in one line."""
    with pytest.raises(GadgetError, match="login printed no ExecCredential"):
        credentials.get_credentials(read_context(config_with(tmp_path, "https://x", plugin(tmp_path, printed))))


def test_time_without_zone(tmp_path: Path) -> None:
    """An expiry without a zone is taken for UTC."""
    printed = credential("a", expirationTimestamp="2020-01-01T00:00:00")
    found = credentials.get_credentials(read_context(config_with(tmp_path, "https://x", plugin(tmp_path, printed))))
    assert found.expired


def test_plugin_without_stdin(tmp_path: Path) -> None:
    """A plugin works without standard input, as under some schedulers."""
    flags = config_with(tmp_path, "http://127.0.0.1:1", plugin(tmp_path, credential("a")))
    command = f"{sys.executable} -m kubectl_gadget status --kubeconfig {flags.kubeconfig} <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("error: the API server at http://127.0.0.1:1 does not answer")
    assert done.stderr.count("\n") == 1


def test_extra_of_impersonation(tmp_path: Path) -> None:
    """as-user-extra of the kubeconfig reaches the server."""
    user = {"as": "alice", "as-user-extra": {"example.org/Reason": ["on call", "tired"], "scopes": ["view"]}}
    sent = credentials.get_credentials(read_context(config_with(tmp_path, "https://x", user))).headers
    assert sent == (
        ("Impersonate-User", "alice"),
        ("Impersonate-Extra-example.org%2Freason", "on call"),
        ("Impersonate-Extra-example.org%2Freason", "tired"),
        ("Impersonate-Extra-scopes", "view"),
    )


def test_refused_impersonation() -> None:
    """If I may not act as somebody else I am told that, and not that the other lacks a right."""
    why = 'users "alice" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope'
    told = str(not_allowed(ApiError(403, why), "list pods", "gadget"))
    assert told == 'you may not act as another (--as): users "alice" is forbidden: ask for impersonate on users'


@pytest.mark.parametrize(("flags", "said"), [({}, "certificate verify failed"), ({"name": "test"}, "")])
def test_unknown_certificate(flags: dict[str, str], said: str, tmp_path: Path) -> None:
    """A server whose certificate nobody vouches for is refused in one line; tls-server-name says whose it is."""
    with tunnels.server("echo") as (url, folder):
        if said:
            done = run_cli("status", f"--server={url}", "--kubeconfig=/dev/null")
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert said in done.stderr and url in done.stderr
            return
        authority = str(folder / "crt")
        known = to(url, certificate_authority=authority, tls_server_name="test")
        with pytest.raises(ApiError):
            known.get("/version")  # it serves port-forwards alone: TLS has been made
        with pytest.raises(Unreachable, match="certificate verify failed"):
            to(url, certificate_authority=authority).get("/version")
