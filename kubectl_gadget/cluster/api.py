"""A small client of the API server: JSON requests and WebSockets, with the user's own credentials."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import orjson

from gadget.errors import GadgetError, Unreachable
from kubectl_gadget.cluster.credentials import Credentials, get_credentials, read_pem
from kubectl_gadget.cluster.kubeconfig import Context
from kubectl_gadget.cluster.proxy import find_proxy, proxy_headers

if TYPE_CHECKING:
    from kubectl_gadget.cluster.websocket import WebSocket

CONNECT_SECONDS = 10.0
#: How often a WebSocket is asked for: the API server hangs up without a word if a kubelet has done so to it (tryUpgrade
#: in apimachinery's pkg/util/proxy/upgradeaware.go).
WEBSOCKET_ATTEMPTS = 3
#: How long a user who is refused is not asked to log in once more.
LOGIN_SECONDS = 60.0
#: Objects in one answer of the API server.
PAGE = 500


class ApiError(GadgetError):
    """The API server refused: its HTTP status code, and the reason it gave."""

    def __init__(self, code: int, message: str) -> None:
        """A refusal."""
        super().__init__(f"the API server: {message}")
        self.code, self.message = code, message


class _Tls(ssl.SSLContext):
    """TLS that may expect another name than the one it connects to: tls-server-name of a kubeconfig."""

    name = ""

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap a socket."""
        if self.name:
            options["server_hostname"] = self.name
        return super().wrap_socket(sock, *args, **options)


class ApiServer:
    """One API server as one user sees it. Threads may share it."""

    def __init__(self, context: Context) -> None:
        """Talk to the server of context. Connects when it is first asked."""
        self._context = context
        self._server = context.cluster["server"].rstrip("/")
        self._timeout = context.flags.request_timeout or None
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._renewed = 0.0  # when they were the last time that they had been refused, by the monotonic clock
        self._tls: ssl.SSLContext | None = None

    def get(self, path: str, **query: str) -> Any:
        """The JSON at a path. ApiError if the server refuses, Unreachable if it does not answer."""
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    def list(self, path: str) -> Iterator[dict[str, Any]]:
        """All objects at a path, page by page. Errors as get."""
        query = {"limit": str(PAGE)}
        while True:
            page = self.get(path, **query)
            yield from page.get("items") or ()
            if not (more := (page.get("metadata") or {}).get("continue")):
                return
            query["continue"] = more

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send a request, with body as JSON that is called kind; gives the object that comes back."""
        answer = self.fetch(method, path, body, kind)
        try:
            found = orjson.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):  # a login page of a proxy, say
            raise Unreachable(f"what answers at {self._server} is no API server: {method} {path} gave no JSON object")
        return found

    def fetch(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
        """Send a request; gives the bytes that come back."""
        credentials, status, answer = self._send(method, path, body, kind)
        if status == 401 and self._renew(credentials):
            _, status, answer = self._send(method, path, body, kind)
        if status >= 300:
            raise refusal(status, answer)
        return answer

    def _send(self, method: str, path: str, body: Any, kind: str) -> tuple[Credentials, int, bytes]:
        credentials, connection = self._connect()
        try:
            connection.putrequest(method, f"{urlsplit(self._server).path}{path}")
            data = b"" if body is None else orjson.dumps(body)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *credentials.headers):
                connection.putheader(name, value)  # a name may come more than once: Impersonate-Group
            connection.endheaders(data)
            response = connection.getresponse()
            return credentials, response.status, response.read()
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a name that no host can have
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def open_websocket(self, path: str, protocol: str, attempts: int = WEBSOCKET_ATTEMPTS) -> WebSocket:
        """A WebSocket that speaks a subprotocol. ApiError if the server refuses, Unreachable if it does not answer."""
        from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

        from kubectl_gadget.cluster.websocket import WebSocket

        credentials, connection = self._connect()
        try:
            connection.connect()
            return WebSocket(connection.sock, f"ws{self._server[4:]}{path}", protocol, credentials.headers)
        except InvalidStatus as error:
            connection.close()
            if error.response.status_code == 401 and attempts > 1 and self._renew(credentials):
                return self.open_websocket(path, protocol, attempts - 1)
            raise refusal(error.response.status_code, bytes(error.response.body or b"")) from None
        except (InvalidHandshake, OSError, ValueError) as error:
            connection.close()
            if isinstance(error, InvalidMessage) and attempts > 1:
                return self.open_websocket(path, protocol, attempts - 1)
            raise self._unreachable(error) from None

    def _connect(self) -> tuple[Credentials, HTTPConnection]:
        credentials, tls = self._login()
        address = urlsplit(self._server)
        seconds = self._timeout or CONNECT_SECONDS
        proxy = find_proxy(self._server, self._context.cluster.get("proxy-url") or "")
        at = proxy or address
        host = at.hostname or ""
        connection = (
            HTTPSConnection(host, at.port, timeout=seconds, context=tls)
            if tls
            else HTTPConnection(host, at.port, timeout=seconds)
        )
        if proxy:
            port = address.port or (443 if tls else 80)  # else it would be the proxy's
            connection.set_tunnel(address.hostname or "", port, proxy_headers(proxy))
        return credentials, connection

    def _renew(self, refused: Credentials) -> bool:
        """Whether there may be others than those that the server refused, perhaps before their time."""
        with self._lock:
            if self._credentials is refused:
                recently = self._renewed and time.monotonic() - self._renewed < LOGIN_SECONDS
                if recently or not refused.renewable:
                    return False
                self._renewed, self._credentials = time.monotonic(), None
            return True

    def _login(self) -> tuple[Credentials, ssl.SSLContext | None]:
        with self._lock:
            if self._credentials is None or self._credentials.expired:
                self._credentials = get_credentials(self._context)
                https = self._server.startswith("https:")
                self._tls = make_tls(self._context, self._credentials) if https else None
            return self._credentials, self._tls

    def _unreachable(self, why: object) -> Unreachable:
        text = getattr(why, "strerror", None) or str(why) or type(why).__name__
        return Unreachable(f"the API server at {self._server} does not answer: {text}")


@cache
def api_server(context: Context) -> ApiServer:
    """The API server of a context: one for all parts of a command, so that the user logs in once."""
    return ApiServer(context)


def make_tls(context: Context, credentials: Credentials) -> ssl.SSLContext:
    """TLS as a context's cluster wants it, with the user's certificate."""
    cluster = context.cluster
    tls = _Tls(ssl.PROTOCOL_TLS_CLIENT)
    tls.name = cluster.get("tls-server-name") or ""
    authority = read_pem(cluster, "certificate-authority")
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    elif authority:
        try:
            tls.load_verify_locations(cadata=authority.decode())
        except (ssl.SSLError, ValueError) as error:
            raise GadgetError(f"kubeconfig: the certificate authority is no good: {_reason(error)}") from None
    else:
        tls.load_default_certs()
    if credentials.certificate:
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads certificates from files alone
            file.write(credentials.certificate + b"\n" + credentials.key)
            file.flush()
            try:
                tls.load_cert_chain(file.name)
            except (ssl.SSLError, ValueError) as error:
                raise GadgetError(f"kubeconfig: the client certificate or key is no good: {_reason(error)}") from None
    return tls


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def refusal(code: int, body: bytes) -> ApiError:
    """The error that a response stands for; its body is a Status object, or any text."""
    try:
        message = orjson.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip()[:200]
    if code == 401:
        message = "it does not know who you are (401): log in again, or look at the kubeconfig's user"
    return ApiError(code, message or f"HTTP status {code}")
