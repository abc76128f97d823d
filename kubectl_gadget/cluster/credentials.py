"""What proves to an API server who asks: headers and a client certificate, also those that a plugin gives."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from gadget.errors import GadgetError
from kubectl_gadget.cluster.kubeconfig import Context

#: How long a token file counts, as with client-go: a kubelet renews those of pods long before they expire.
FILE_SECONDS = 60.0
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
    """The credentials of a context's user; runs its plugin if it has one. GadgetError if they cannot be had."""
    user = context.user
    status: dict[str, Any] = {}
    expires = None
    if "auth-provider" in user:
        raise GadgetError("this kubeconfig logs in by auth-provider, which kubectl has dropped: use an exec plugin")
    if plugin := user.get("exec"):
        status = _run_plugin(plugin, context)
        expires = status["expires"]
    headers = []
    token = status.get("token") or user.get("token")
    if not token and user.get("tokenFile"):
        token = _read(user["tokenFile"]).decode(errors="replace").strip()
        expires = now() + timedelta(seconds=FILE_SECONDS)
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    elif user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    if user.get("as"):
        headers.append(("Impersonate-User", user["as"]))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", user["as-uid"]))
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    for name, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(name.lower(), safe='')}", value) for value in values]
    for name, value in headers:
        if not _SENDABLE.fullmatch(value):
            raise GadgetError(f"kubeconfig: {name}: it has characters that no header may have")
    return Credentials(
        tuple(headers),
        status.get("clientCertificateData", "").encode() or read_pem(user, "client-certificate"),
        status.get("clientKeyData", "").encode() or read_pem(user, "client-key"),
        expires,
        renewable="exec" in user or "tokenFile" in user,
    )


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
        spec["cluster"] = {name: value for name, value in context.cluster.items() if name != "certificate-authority"}
        if pem := read_pem(context.cluster, "certificate-authority"):
            spec["cluster"]["certificate-authority-data"] = base64.b64encode(pem).decode()
    if not plugin["command"] or not plugin.get("apiVersion"):
        raise GadgetError("kubeconfig: a log-in plugin (exec) needs command and apiVersion")
    request = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    environment = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    environment["KUBERNETES_EXEC_INFO"] = orjson.dumps(request, default=str).decode()
    return [plugin["command"], *(plugin.get("args") or ())], environment


def _run_plugin(plugin: dict[str, Any], context: Context) -> dict[str, Any]:
    """The status of the ExecCredential that a plugin prints, as read_status has it; it may ask on the terminal."""
    # there may be no standard input at all
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
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
    except (ValueError, KeyError, TypeError):
        raise GadgetError(f"log-in plugin {command[0]} printed no ExecCredential") from None


def read_status(printed: bytes) -> dict[str, Any]:
    """The status of an ExecCredential, with expires as a time or None. ValueError, KeyError or TypeError if not."""
    status = orjson.loads(printed)["status"]
    names = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    if not isinstance(status, dict) or not all(isinstance(status.get(name, ""), str) for name in names):
        raise TypeError("status")
    expires = datetime.fromisoformat(text) if (text := status.get("expirationTimestamp")) else None
    if expires and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return {**status, "expires": expires}
