"""The user's credentials for an API server: headers and a client certificate, also from a log-in plugin."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from gadget.errors import GadgetError, UsageError
from gadget.kube.kubeconfig import Context

#: How long a token file counts, as with client-go: a kubelet renews those of pods long before they expire.
FILE_SECONDS = 60.0
#: What a plugin is told of a cluster, beside its authority, and the extension of a cluster that is meant for plugins.
CLUSTER_INFO = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
PLUGIN_SETTINGS = "client.authentication.k8s.io/exec"
_SENDABLE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True)
class Credentials:
    """Headers of every request; certificate and key as PEM if there is one; expires is none or when to ask again.

    renewable: asking again may give others.
    """

    headers: tuple[tuple[str, str], ...]
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None
    renewable: bool = False

    @property
    def expired(self) -> bool:
        """Whether they are no longer good."""
        return self.expires is not None and self.expires <= now()


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def get_credentials(context: Context) -> Credentials:
    """The credentials of a context's user; runs its plugin if it needs one. GadgetError if they cannot be had.

    What counts of several is what counts for kubectl: in client-go getUserIdentificationPartialConfig and
    validateAuthInfo in tools/clientcmd, HTTPWrappersForConfig in transport, UpdateTransportConfig of the exec plugin.
    """
    user = context.user
    identity = _impersonation(user)
    if not context.cluster["server"].startswith("https:"):
        return Credentials(identity)  # secrets do not go over plain HTTP: IsConfigTransportTLS in client-go
    certificate, key = read_pem(user, "client-certificate"), read_pem(user, "client-key")
    if certificate and not key:
        raise GadgetError("kubeconfig: the user has a client certificate, but no client-key")
    token, expires = _token(user)
    by_token, by_password, by_certificate = bool(token), bool(user.get("username")), bool(certificate)
    if by_token and by_password:
        raise GadgetError("kubeconfig: the user has a token and a username: want one of them")
    renewable = bool(user.get("tokenFile"))
    if not (by_token or by_password):
        if "auth-provider" in user:
            raise GadgetError("this kubeconfig logs in by auth-provider, which kubectl has dropped: use an exec plugin")
        if not by_certificate and (plugin := user.get("exec")):
            status = _run_plugin(plugin, context)
            token, expires, renewable = status.token, status.expiration_timestamp, True
            certificate, key = status.client_certificate_data.encode(), status.client_key_data.encode()
    headers = []
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    elif by_password:
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    _check(headers)
    return Credentials((*headers, *identity), certificate, key if certificate else b"", expires, renewable)


def _token(user: Mapping[str, Any]) -> tuple[str, datetime | None]:
    """A user's own token, and when to ask for it again. That of a file counts, as long as it can be read."""
    token: str = user.get("token") or ""
    if not (path := user.get("tokenFile")):
        return token, None
    try:
        found = _read(path).decode(errors="replace").strip()
        if not found and not token:
            raise GadgetError(f"kubeconfig: {path}: there is no token in it")
    except GadgetError:
        if not token:
            raise
        found = ""
    return found or token, now() + timedelta(seconds=FILE_SECONDS)


def _impersonation(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The headers of a user who acts as another."""
    headers = []
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", user["as-uid"]))
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    for name, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(name.lower(), safe='')}", value) for value in values]
    if user.get("as"):
        headers.insert(0, ("Impersonate-User", user["as"]))
    elif headers:
        raise UsageError("--as-uid, --as-group and --as-user-extra (as-… in a kubeconfig) need --as: as whom to act")
    _check(headers)
    return tuple(headers)


def _check(headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        if not _SENDABLE.fullmatch(value):
            raise GadgetError(f"kubeconfig: {name}: it has characters that no header may have")


def read_pem(entry: Mapping[str, Any], name: str) -> bytes:
    """A certificate or key of a kubeconfig's entry, inline or in a file; empty if it has none."""
    if data := entry.get(f"{name}-data"):
        try:
            return base64.b64decode(data)
        except ValueError:
            raise GadgetError(f"kubeconfig: {name}-data is not base64") from None
    return _read(entry[name]) if entry.get(name) else b""


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise GadgetError(f"kubeconfig: {path}: {getattr(error, 'strerror', error)}") from None


def plugin_call(plugin: dict[str, Any], context: Context, *, interactive: bool) -> tuple[list[str], dict[str, str]]:
    """The command of a plugin, and what it needs in its environment."""
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {name: context.cluster[name] for name in CLUSTER_INFO if name in context.cluster}
        for extension in context.cluster.get("extensions") or ():
            if extension["name"] == PLUGIN_SETTINGS:
                spec["cluster"]["config"] = extension["extension"]
        if pem := read_pem(context.cluster, "certificate-authority"):
            spec["cluster"]["certificate-authority-data"] = base64.b64encode(pem).decode()
    if not plugin["command"] or not plugin.get("apiVersion"):
        raise GadgetError("kubeconfig: a log-in plugin (exec) needs command and apiVersion")
    request = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    environment = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    environment["KUBERNETES_EXEC_INFO"] = orjson.dumps(request, default=str).decode()
    return [plugin["command"], *(plugin.get("args") or ())], environment


def _run_plugin(plugin: dict[str, Any], context: Context) -> Status:
    """The status of the ExecCredential that a plugin prints; it may ask on the terminal."""
    # there may be no standard input at all
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if plugin.get("interactiveMode") == "Always" and not interactive:
        raise GadgetError(f"log-in plugin {plugin.get('command')} asks on a terminal, and standard input is none")
    command, environment = plugin_call(plugin, context, interactive=interactive)
    try:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return read_status(done.stdout)
    except OSError as error:
        hint = f". {plugin['installHint'].strip()}" if plugin.get("installHint") else ""
        raise GadgetError(f"log-in plugin {command[0]}: {error.strerror}{hint}") from None
    except subprocess.CalledProcessError as error:
        raise GadgetError(f"log-in plugin {command[0]} failed with exit code {error.returncode}") from None
    except ValueError:
        raise GadgetError(f"log-in plugin {command[0]} printed no ExecCredential") from None


class Status(msgspec.Struct, rename="camel"):
    """The status of an ExecCredential."""

    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None

    def __post_init__(self) -> None:
        """A time without a zone is UTC."""
        if self.expiration_timestamp and self.expiration_timestamp.tzinfo is None:
            self.expiration_timestamp = self.expiration_timestamp.replace(tzinfo=UTC)


class _ExecCredential(msgspec.Struct):
    status: Status


def read_status(printed: bytes) -> Status:
    """The status of an ExecCredential. ValueError if it is none."""
    return msgspec.json.decode(printed, type=_ExecCredential).status
