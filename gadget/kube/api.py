"""A small client of the API server: JSON requests and WebSockets, with the user's own credentials."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit

import orjson

from gadget.deadline import bounded
from gadget.errors import GadgetError, Malformed, Unreachable
from gadget.kube.credentials import Credentials, get_credentials, read_pem
from gadget.kube.kubeconfig import Context
from gadget.kube.proxy import find_proxy, proxy_headers

if TYPE_CHECKING:
    from gadget.kube.websocket import WebSocket

CONNECT_SECONDS = 10.0
#: How many times a WebSocket is asked for. The API server hangs up without an answer if the kubelet has hung up on it
#: (tryUpgrade in apimachinery's pkg/util/proxy/upgradeaware.go).
WEBSOCKET_ATTEMPTS = 3
#: After a refusal, how long the user is not asked to log in again.
LOGIN_SECONDS = 60.0
#: How many times, and how long in all, one request waits for a server that says Retry-After. kubectl asks as many
#: times, and waits as long as the server says.
RETRIES, RETRY_SECONDS = 10, 60.0
#: The most bytes that are read of a refusal: a Status object, or a proxy's page.
REFUSAL_BYTES = 1 << 20
#: Objects in one answer of the API server.
PAGE = 500
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_TITLE = re.compile(rb"<title>([^<]*)</title>", re.IGNORECASE)


class ApiError(GadgetError):
    """The API server refused: its HTTP status code, and the reason it gave."""

    def __init__(self, code: int, message: str) -> None:
        """A refusal."""
        super().__init__(f"the API server: {message}")
        self.code, self.message = code, message


class _Tls(ssl.SSLContext):
    """TLS that checks the certificate against another name than the address: tls-server-name of a kubeconfig."""

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
        self._renewed = 0.0  # when they were last renewed after a refusal, by the monotonic clock
        self._tls: ssl.SSLContext | None = None

    def get(self, path: str, **query: str) -> Any:
        """The JSON at a path. ApiError if the server refuses, Unreachable if it does not answer."""
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    def list(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """All objects at a path, page by page. Errors as get."""
        query["limit"] = str(PAGE)
        while True:
            page = self.get(path, **query)
            yield from page.get("items") or ()
            if not (more := (page.get("metadata") or {}).get("continue")):
                return
            query["continue"] = more

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send a request, with body as JSON of content type kind. Returns the object that comes back."""
        answer = self.fetch(method, path, body, kind)
        try:
            found = orjson.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):  # a login page of a proxy, say
            raise Unreachable(f"what answers at {self._server} is no API server: {method} {path} gave no JSON object")
        return found

    def fetch(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
        """Send a request. Returns the bytes that come back."""
        with self.open(method, path, body, kind) as answer:
            return answer.read()

    def open(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        """Send a request. Returns the answer, to be read piece by piece. The same errors as get."""
        patience = _Patience()
        credentials, answer = self._send(method, path, body, kind)
        while (answer.status == 401 and self._renew(credentials)) or patience.waits(
            answer.status, answer.headers.get("Retry-After")
        ):
            answer.close()
            credentials, answer = self._send(method, path, body, kind)
        if answer.status >= 300:
            with answer:
                raise refusal(answer.status, answer.read(REFUSAL_BYTES), answer.headers.get("Location"))
        return answer

    def _send(self, method: str, path: str, body: Any, kind: str) -> tuple[Credentials, Answer]:
        credentials, connection = self._connect()
        try:
            connection.putrequest(method, f"{urlsplit(self._server).path}{path}")
            data = b"" if body is None else orjson.dumps(body)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *credentials.headers):
                connection.putheader(name, value)  # a name may come more than once: Impersonate-Group
            connection.endheaders(data)
            return credentials, Answer(connection, self._unreachable)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a name that no host can have
            connection.close()
            raise self._unreachable(error) from None

    def open_websocket(self, path: str, protocol: str) -> WebSocket:
        """A WebSocket that speaks a subprotocol. ApiError if the server refuses, Unreachable if it does not answer."""
        patience, attempts = _Patience(), WEBSOCKET_ATTEMPTS
        while True:
            attempts -= 1
            credentials, opened = self._upgrade(path, protocol, again=attempts > 0)
            if not isinstance(opened, tuple):
                if opened:
                    return opened
                continue  # it hung up
            status, headers, body = opened
            if not (status == 401 and attempts and self._renew(credentials)):
                if patience.waits(status, headers.get("Retry-After")):
                    attempts += 1
                elif status < 300:
                    raise self._no_websockets(f"it answered with HTTP status {status}")
                else:
                    raise refusal(status, body, headers.get("Location"))

    def _upgrade(
        self, path: str, protocol: str, *, again: bool
    ) -> tuple[Credentials, WebSocket | tuple[int, Mapping[str, str], bytes] | None]:
        """Ask for a WebSocket. Returns it, or the answer that came instead. None if the server hung up: ask again."""
        from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

        from gadget.kube.websocket import WebSocket

        credentials, connection = self._connect()
        try:
            connection.connect()
            return credentials, WebSocket(connection.sock, f"ws{self._server[4:]}{path}", protocol, credentials.headers)
        except InvalidStatus as error:
            connection.close()
            answer = error.response
            return credentials, (answer.status_code, answer.headers, bytes(answer.body or b""))
        except InvalidHandshake as error:
            connection.close()
            if not (isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError)):
                raise self._no_websockets(str(error.__cause__ or error)) from None
            if again:
                return credentials, None
            raise self._unreachable(error) from None
        except (OSError, ValueError) as error:
            connection.close()
            raise self._unreachable(error) from None

    def _no_websockets(self, why: str) -> Unreachable:
        return Unreachable(
            f"what answers at {self._server}{self._way()} does not speak WebSockets, by which agents are "
            f"reached ({why}): it may be a proxy that does not let them through"
        )

    def _connect(self) -> tuple[Credentials, HTTPConnection]:
        credentials, tls = self._login()
        address = urlsplit(self._server)
        seconds = bounded(self._timeout or CONNECT_SECONDS)
        proxy = self._proxy()
        at = proxy or address
        host, at_port = at.hostname or "", at.port or (80 if proxy else None)
        connection = (
            HTTPSConnection(host, at_port, timeout=seconds, context=tls)
            if tls
            else HTTPConnection(host, at_port, timeout=seconds)
        )
        if proxy:
            port = address.port or (443 if tls else 80)  # without this it would be the proxy's
            connection.set_tunnel(address.hostname or "", port, proxy_headers(proxy))
        return credentials, connection

    def _proxy(self) -> SplitResult | None:
        return find_proxy(self._server, self._context.cluster.get("proxy-url") or "")

    def _way(self) -> str:
        """Words that name the proxy, if there is one. They follow the server's name in an error."""
        proxy = self._proxy()
        return f" (by the proxy {proxy.hostname}:{proxy.port or 80})" if proxy else ""

    def _renew(self, refused: Credentials) -> bool:
        """Log in again after a refusal, although the credentials have not expired. Returns whether that may help."""
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
        return Unreachable(f"the API server at {self._server}{self._way()} does not answer: {text}")


class Answer:
    """The answer of an API server. A context manager. Only cut may be called from another thread."""

    def __init__(self, connection: HTTPConnection, unreachable: Callable[[object], Unreachable]) -> None:
        """Wait for the beginning of the answer on connection, where a request was sent.

        OSError or HTTPException if it fails.
        """
        self._connection, self._unreachable = connection, unreachable
        self._socket = connection.sock  # the connection forgets its socket if the answer is the last one
        self._response = connection.getresponse()
        self.status, self.headers = self._response.status, self._response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()

    def cut(self) -> None:
        """End the answer from another thread. The reading thread learns that at once."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # SSLSocket's own takes TLS from the reading thread

    def read(self, most: int | None = None) -> bytes:
        """The whole answer. Unreachable if the connection breaks, Malformed if it has more than that many bytes."""
        with self._told():
            data = self._response.read() if most is None else self._response.read(most + 1)
        if most is not None and len(data) > most:
            raise Malformed(f"the API server: its answer is longer than {most} bytes")
        return data

    def lines(self, most: int, seconds: float) -> Iterator[bytes]:
        """Each line as it comes, of that many bytes at most.

        TimeoutError if no line comes for so long; other errors as read.
        """
        self._socket.settimeout(seconds)
        while True:
            with self._told(TimeoutError):
                line = self._response.readline(most + 1)
            if len(line) > most:
                raise Malformed(f"the API server: a line of its answer is longer than {most} bytes")
            if line and not line.endswith(b"\n"):
                raise self._unreachable("it hung up inside a line")
            if not line:
                return
            yield line

    @contextmanager
    def _told(self, *but: type[Exception]) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from None


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
        _trust(tls, authority)
    else:
        tls.load_default_certs()
    if credentials.certificate:
        import tempfile

        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads certificates only from files
            file.write(credentials.certificate + b"\n" + credentials.key)
            file.flush()
            try:
                tls.load_cert_chain(file.name, password=b"")  # without a password OpenSSL asks for one on the terminal
            except (ssl.SSLError, ValueError) as error:
                raise GadgetError(f"kubeconfig: the client certificate or key is no good: {_reason(error)}") from None
    return tls


def _trust(tls: ssl.SSLContext, bundle: bytes) -> None:
    """Trust a bundle of certificates. It may have comments in any encoding.

    One good certificate is enough, as for Go.
    """
    why, good = "there is no certificate in it", False
    for block in _CERTIFICATE.findall(bundle):
        try:
            tls.load_verify_locations(cadata=block.decode())
            good = True
        except (ssl.SSLError, ValueError) as error:
            why = _reason(error)
    if not good:
        raise GadgetError(f"kubeconfig: the certificate authority is no good: {why}")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def refusal(code: int, body: bytes, location: str | None = None) -> ApiError:
    """The error that a response stands for. Its body is a Status object, or any text, such as a proxy's."""
    try:
        message = str(orjson.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        title = _TITLE.search(body)
        text = title[1] if title else b"" if body.lstrip()[:1] in (b"<", b"{", b"") else body
        message = f"HTTP status {code} {' '.join(text[:200].decode(errors='replace').split())}".rstrip()
        if location:
            message += f": it points to {location}, perhaps a proxy's page to log in"
    if code == 401:
        message = "it does not know who you are (401): log in again, or look at the kubeconfig's user"
    return ApiError(code, message or f"HTTP status {code}")


def not_allowed(error: ApiError, what: str, namespace: str) -> GadgetError:
    """An error that names the missing right, if a right is missing."""
    missing = re.search(r'cannot (\w+) resource "([^"]+)"', error.message)
    if error.code != 403 or not missing:
        return error
    if missing[1] == "impersonate":
        who = error.message.partition(": ")[0]
        return GadgetError(f"you may not act as another (--as): {who}: ask for impersonate on {missing[2]}")
    place, there = (f" in namespace {namespace}", " there") if namespace else ("", "")
    return GadgetError(f"you may not {what}{place}: ask for {missing[1]} on {missing[2]}{there}")


class _Patience:
    """How long one request waits for a server that says Retry-After."""

    def __init__(self) -> None:
        self._left, self._seconds = RETRIES, RETRY_SECONDS

    def waits(self, status: int, after: str | None) -> bool:
        """Whether to ask again. If so, the time that the server named has passed: client-go's rest/with_retry.go."""
        if not (status == 429 or status >= 500) or not after or not after.isdecimal():
            return False
        seconds = int(after)
        if not self._left or seconds > self._seconds:
            return False
        self._left -= 1
        self._seconds -= seconds
        time.sleep(seconds)
        return True
